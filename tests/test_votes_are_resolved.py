"""From votes to outcomes: methods, thresholds, retests, gold, adjudication, rankings, rounds, conflicts."""

from __future__ import annotations

import random
from typing import Any

import pytest

from curation.annotation.resolution_files import Resolution
from curation.annotation.resolving import Resolved, min_votes_of, resolve
from curation.voting.contradictions import Result, conflicts
from tests.voted_job import JOB, PEOPLE, ballots, item, tables, vote
from tests.voters import simulate

SIDES = {"chosen": "It is so.", "rejected": "No!"}
METHODS = ("majority", "dawid_skene", "bradley_terry")


def outcome(items: list[dict[str, Any]], votes: list[dict[str, Any]], min_votes: int = 2, **how: Any) -> Resolved:
    return resolve(*tables(items, votes), Resolution(job=JOB, **how), min_votes)


def first(found: Resolved) -> dict[str, Any]:
    return found.table.to_pylist()[0]


def of_verdicts(*verdicts: str, **how: Any) -> dict[str, Any]:
    of = item(0, SIDES)
    return first(outcome([of], ballots(of, *verdicts), **how))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("chosen", "chosen", "rejected"), "pair"), (("tie", "tie", "chosen"), "tie"),
        (("both_bad", "both_bad", "tie"), "both_bad"), (("chosen", "rejected"), "disputed"),
        (("chosen", "rejected", "tie"), "disputed"), (("chosen",), "too_few"),
    ],
)  # fmt: skip
def test_most_votes_decide(verdicts: tuple[str, ...], expected: str):
    assert of_verdicts(*verdicts)["outcome"] == expected


def test_figures_of_an_item_are_those_of_its_votes():
    row = of_verdicts("rejected", "chosen", "rejected")
    assert (row["chosen"], row["rejected"], row["for_chosen"], row["num_votes"]) == ("rejected", "chosen", 2, 3)
    assert (row["agreement"], row["margin"]) == (pytest.approx(1 / 3, abs=1e-6), pytest.approx(1 / 3, abs=1e-6))
    assert (row["confidence"], row["adjudicated"], row["method"]) == (0.6875, False, "majority")
    row = of_verdicts("tie", "tie")
    assert (row["chosen"], row["for_chosen"], row["margin"], row["agreement"]) == (None, None, None, 1.0)
    assert of_verdicts("chosen")["confidence"] is None, "too few votes are no probability"


def test_a_lead_below_the_margin_or_the_confidence_is_disputed():
    assert of_verdicts("chosen", "chosen", "rejected", min_margin=0.34)["outcome"] == "disputed"
    assert of_verdicts("chosen", "chosen", "rejected", min_confidence=0.7)["outcome"] == "disputed"
    assert of_verdicts("chosen", "chosen", "chosen", min_margin=0.34, min_confidence=0.7)["outcome"] == "pair"


def test_ties_and_both_bad_may_count_as_no_vote():
    said = ("chosen", "tie", "tie")
    assert of_verdicts(*said)["outcome"] == "tie"
    row = of_verdicts(*said, ties="ignore", min_votes=1)
    assert (row["outcome"], row["num_votes"], row["margin"]) == ("pair", 1, 1.0)
    assert of_verdicts(*said, ties="ignore")["outcome"] == "too_few"
    assert of_verdicts("chosen", "both_bad", "both_bad", both_bad="ignore", min_votes=1)["outcome"] == "pair"


def test_left_out_weighed_and_judging_voters():
    of = item(0, SIDES)
    cast = [*ballots(of, "chosen", "chosen", "rejected"), vote(of, "judge-m", "rejected", kind="judge")]
    assert first(outcome([of], cast))["chosen"] == "chosen"
    assert first(outcome([of], cast, judges=True))["outcome"] == "disputed"
    assert first(outcome([of], cast, judges=True, without=[PEOPLE[0]]))["chosen"] == "rejected"
    assert first(outcome([of], cast, weights={PEOPLE[2]: 3.0}))["chosen"] == "rejected"


def test_discards_drafts_and_unanswered_votes_do_not_count():
    of = item(0, SIDES)
    cast = [vote(of, PEOPLE[0], "chosen"), vote(of, PEOPLE[1], "rejected", status="draft"),
            vote(of, PEOPLE[2], None), vote(of, "annotator-d", "rejected", status="discarded")]  # fmt: skip
    assert first(outcome([of], cast, min_votes=1))["num_votes"] == 1


def test_a_retest_is_no_second_vote_and_stands_in_for_a_missing_one():
    of = item(0, SIDES)
    again = item(5, dict(reversed(SIDES.items())), role="retest", of_item=of["item_id"])
    cast = [*ballots(of, "chosen", "rejected"), vote(again, PEOPLE[1], "chosen"), vote(again, PEOPLE[2], "chosen")]
    row = first(outcome([of, again], cast))
    assert (row["item_id"], row["num_votes"], row["for_chosen"], row["chosen"]) == (of["item_id"], 3, 2, "chosen")


def test_gold_items_are_no_result():
    gold, of = item(0, SIDES, role="gold", gold="chosen"), item(1, SIDES, prompt=[{"role": "user", "content": "?"}])
    found = outcome([gold, of], [*ballots(gold, *["chosen"] * 3), *ballots(of, *["chosen"] * 3)])
    assert found.table["item_id"].to_pylist() == [of["item_id"]]
    assert (found.counts["gold"], found.counts["items"], found.counts["votes"]) == (1, 2, 6)


def lead(of: dict[str, Any], number: int = 0, **more: Any) -> dict[str, Any]:
    return item(number, SIDES, job="lead", round_name="adjudication-1", of_item=of["item_id"], **more)


def test_an_adjudicator_decides_and_the_disagreement_stays():
    of = item(0, SIDES)
    judged = lead(of)
    cast = [*ballots(of, "rejected", "rejected", "chosen"), vote(judged, "annotator-lead", "chosen")]
    row = first(outcome([of, judged], cast))
    assert (row["outcome"], row["chosen"], row["adjudicated"], row["confidence"]) == ("pair", "chosen", True, 1.0)
    assert (row["num_votes"], row["for_chosen"]) == (3, 1)
    assert row["agreement"] == row["margin"] * -1 == pytest.approx(1 / 3, abs=1e-6)
    cast.append(vote(judged, "annotator-boss", "rejected"))
    row = first(outcome([of, judged], cast))
    assert (row["outcome"], row["adjudicated"]) == ("disputed", False), "two adjudicators who differ decide nothing"
    row = first(outcome([of, judged], [*ballots(of, "chosen", "rejected"), vote(judged, "annotator-lead", "tie")]))
    assert (row["outcome"], row["adjudicated"]) == ("tie", True)


def ranked(of: dict[str, Any], name: str, *order: str) -> dict[str, Any]:
    ranks = [{"key": key, "rank": rank} for rank, keys in enumerate(order, 1) for key in keys.split("=")]
    best = order[0] if "=" not in order[0] else "tie"
    return vote(of, name, best, ranking=ranks)


@pytest.mark.parametrize("method", METHODS)
def test_the_best_and_the_worst_of_several_make_the_pair(method: str):
    of = item(0, {key: f"answer {key}" for key in "abcd"})
    orders = (("c", "a", "b", "d"), ("c", "b", "a", "d"), ("a", "c", "d", "b"))
    found = outcome([of], [ranked(of, name, *order) for name, order in zip(PEOPLE, orders, strict=True)],
                    method=method)  # fmt: skip
    row = first(found)
    assert (row["outcome"], row["chosen"], row["rejected"]) == ("pair", "c", "d")
    assert (row["for_chosen"], row["num_votes"], row["margin"]) == (3, 3, 1.0)
    decided = {(one.chosen, one.rejected) for one in found.pairs[of["item_id"]]}
    assert {("c", "d"), ("a", "d"), ("c", "b")} <= decided
    assert found.pairs[of["item_id"]][0].chosen == "c", "the best with the worst comes first"


def test_rankings_with_ties_and_verdicts_without_a_ranking():
    of = item(0, {key: f"answer {key}" for key in "abc"})
    assert first(outcome([of], [ranked(of, name, "a=b=c") for name in PEOPLE]))["outcome"] == "tie"
    assert first(outcome([of], ballots(of, "both_bad", "both_bad")))["outcome"] == "both_bad"
    row = first(outcome([of], ballots(of, "b", "b", "b")))
    assert (row["outcome"], row["chosen"]) == ("pair", "b")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_agrees_where_all_agree_and_no_order_matters(method: str):
    items = [item(number, SIDES) for number in range(8)]
    cast = [one for number, of in enumerate(items)
            for one in ballots(of, *(["chosen"] * 3 if number % 2 else ["rejected"] * 3))]  # fmt: skip
    found = outcome(items, cast, method=method)
    assert found.table["chosen"].to_pylist() == ["rejected", "chosen"] * 4
    assert min(found.table["confidence"].to_pylist()) > 0.85
    random.Random(3).shuffle(cast)
    assert outcome(items[::-1], cast, method=method).table.sort_by("item_id") == found.table.sort_by("item_id")


def test_dawid_skene_learns_from_gold_and_beats_the_majority_over_items():
    shares = []
    for seed in range(3):
        made = simulate(("good",) * 4 + ("random", "position", "adversarial"), 200, 3, seed=seed, gold_share=0.1)
        right = {}
        for method in ("majority", "dawid_skene"):
            found = resolve(made.items, made.votes, Resolution(job="job", method=method))
            rows = found.table.select(["item_id", "chosen"]).to_pylist()
            right[method] = sum(row["chosen"] == made.truth[row["item_id"]] for row in rows) / len(rows)
        shares.append(right)
    assert all(one["dawid_skene"] > one["majority"] + 0.05 for one in shares), shares


def test_little_data_for_dawid_skene_is_told():
    of = item(0, SIDES)
    assert "no better than a majority" in outcome([of], ballots(of, "chosen", "chosen"), method="dawid_skene").notes[0]


def test_bradley_terry_learns_from_all_items_of_a_prompt():
    """a beats b and b beats c clearly, so that one vote of each sort on a and c leaves a ahead."""
    prompt = [{"role": "user", "content": "Which?"}]
    pairs = [("a", "b"), ("b", "c"), ("a", "c")]
    items = [item(number, {key: f"answer {key}" for key in pair}, prompt=prompt) for number, pair in enumerate(pairs)]
    cast = [*ballots(items[0], *"aaa"), *ballots(items[1], *"bbb"), *ballots(items[2], "a", "c")]
    assert outcome(items, cast).table["outcome"].to_pylist() == ["pair", "pair", "disputed"]
    row = outcome(items, cast, method="bradley_terry").table.to_pylist()[2]
    assert (row["outcome"], row["chosen"]) == ("pair", "a") and row["confidence"] > 0.8
    row = first(outcome(items[:1], ballots(items[0], "tie", "tie", "a"), method="bradley_terry"))
    assert row["outcome"] == "tie"


def test_a_later_round_of_the_same_items_counts_once_it_has_votes():
    old, new = item(0, SIDES), item(0, SIDES, round_name="main-2")
    cast = [*ballots(old, *["chosen"] * 3), vote(new, PEOPLE[0], "rejected")]
    found = outcome([old, new], cast)
    assert [(row["round"], row["chosen"]) for row in found.table.to_pylist()] == [("main-1", "chosen")]
    found = outcome([old, new], [*cast, vote(new, PEOPLE[1], "rejected")])
    assert [(row["round"], row["chosen"]) for row in found.table.to_pylist()] == [("main-2", "rejected")]
    assert found.counts["superseded"] == 1


def test_calibration_rounds_count_where_a_resolution_says_so():
    practice, of = item(0, SIDES, round_name="calibration-1"), item(1, SIDES)
    cast = [*ballots(practice, "chosen", "chosen"), *ballots(of, "chosen", "chosen")]
    assert outcome([practice, of], cast).counts["items"] == 1
    assert outcome([practice, of], cast, rounds=["calibration-1", "main"]).counts["items"] == 2


def test_items_of_other_jobs_do_not_mix_in():
    mine, other = item(0, SIDES), item(0, SIDES, job="other")
    found = outcome([mine, other], [*ballots(mine, "chosen", "chosen"), *ballots(other, "rejected", "rejected")])
    assert found.table["job"].to_pylist() == [JOB]


def test_as_many_votes_are_asked_as_an_item_can_have():
    plain = Resolution(job=JOB)
    assert [min_votes_of(plain, overlaps, most) for overlaps, most in (([3], 3), ([1], 1), ([3], 1), ([None], 1),
            ([None], 4), ([3, 1], 3), ([], 5))] == [2, 1, 2, 1, 2, 1, 2]  # fmt: skip
    assert min_votes_of(Resolution(job=JOB, min_votes=5), [1], 1) == 5


def test_the_same_answers_judged_both_ways_and_circles_are_reported():
    prompt = [{"role": "user", "content": "Which?"}]
    pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "a")]
    items = [item(number, {key: f"answer {key}" for key in pair}, prompt=prompt) for number, pair in enumerate(pairs)]
    cast = [one for of, (best, _) in zip(items, pairs, strict=True) for one in ballots(of, best, best)]
    resolved = outcome(items, cast)
    assert resolved.table["outcome"].to_pylist() == ["disputed", "pair", "pair", "disputed"], "a circle is only told"
    found = resolved.conflicts
    ids = [one["item_id"] for one in items]
    assert found.contradictions == [tuple(sorted((ids[0], ids[3])))]
    assert [set(circle) for circle in found.cycles] == [{ids[0], ids[1], ids[2]}]
    elsewhere = item(9, {"b": "answer b", "a": "answer a"})
    found = outcome([items[0], elsewhere], [*ballots(items[0], "a", "a"), *ballots(elsewhere, "b", "b")]).conflicts
    assert found.contradictions == [], "another prompt is another question"


def test_an_adjudicator_settles_what_two_items_judge_both_ways():
    items = [item(0, SIDES), item(1, SIDES, prompt=item(0, SIDES)["prompt"])]
    cast = [*ballots(items[0], "chosen", "chosen"), *ballots(items[1], "rejected", "rejected")]
    assert outcome(items, cast).table["outcome"].to_pylist() == ["disputed", "disputed"]
    judged = lead(items[0])
    found = outcome([*items, judged], [*cast, vote(judged, "annotator-lead", "chosen")])
    assert found.table["outcome"].to_pylist() == ["pair", "disputed"]
    assert [len(pairs) for pairs in found.pairs.values()] == [1, 0]


def test_conflicts_do_not_depend_on_the_order_of_results():
    names = {name: bytes([number]) * 16 for number, name in enumerate("pxyzw")}
    results = [Result(names["p"], names[a], names[b], f"item {a}{b}") for a, b in ("xy", "yz", "zx", "zw", "wx")]
    expected = conflicts(results)
    assert expected.cycles == [("item xy", "item yz", "item zx"), ("item wx", "item xy", "item yz", "item zw")] or \
        {frozenset(circle) for circle in expected.cycles} == {
            frozenset({"item xy", "item yz", "item zx"}),
            frozenset({"item xy", "item yz", "item zw", "item wx"})}  # fmt: skip
    for seed in range(5):
        random.Random(seed).shuffle(results)
        assert conflicts(results) == expected
    assert conflicts([]) == ([], []) and conflicts([Result(*[names["x"]] * 3, "same")]).contradictions == []
