"""Items and votes become arrays, and agreement is told by question, source, round, week and batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from curation.annotation.records import ITEMS, VOTES
from curation.errors import UserError
from curation.voting.agreement import agreement
from curation.voting.vote_arrays import arrays
from tests.voters import item, simulate, tables, vote

FEW = 50


def test_labels_are_places_among_the_sorted_keys_then_tie_and_both_bad():
    items = [item("i1", ("b", "a"), lengths=(7, 5)), item("i2", ("a", "b"))]
    cast = [vote("i1", "x", "b", slots=["b", "a"]), vote("i1", "y", "a", slots=["b", "a"]),
            vote("i2", "x", "tie"), vote("i2", "y", "both_bad", slots=["a", "b"])]  # fmt: skip
    found = arrays(*tables(items, cast))
    assert found.label_names == ("a", "b", "tie", "both_bad") and found.annotators == ("x", "y")
    assert found.labels_V.tolist() == [1, 0, 2, 3]
    assert found.slots_V.tolist() == [0, 1, -1, -1] and found.first_V.tolist() == [1, 1, -1, 0]
    assert found.lengths_IK[0].tolist() == [5, 7] and found.shown_chars_I[0] == 12 + len("Which one?")


def test_labels_of_items_with_several_candidates_come_before_tie_and_both_bad():
    items = [item("i1", ("g3", "g1", "g2")), item("i2", ("g9", "g7"))]
    found = arrays(*tables(items, [vote("i1", "x", "g3"), vote("i1", "y", "tie"), vote("i2", "x", "g9")]))
    assert found.label_names == ("candidate 1", "candidate 2", "candidate 3", "tie", "both_bad")
    assert found.labels_V.tolist() == [2, 3, 1] and found.candidates_I.tolist() == [3, 2]
    assert np.isnan(found.lengths_IK[1, 2])


def test_only_the_last_submitted_vote_counts_and_discards_are_counted():
    cast = [vote("i1", "x", "a", answered_at="2026-11-02T09:00:00Z"),
            vote("i1", "x", "b", answered_at="2026-11-02T10:00:00Z"),
            vote("i1", "y", None, status="discarded"), vote("i1", "z", "a", status="draft"),
            vote("elsewhere", "x", "a")]  # fmt: skip
    found = arrays(*tables([item("i1")], cast))
    assert found.labels_V.tolist() == [1] and found.annotators == ("x", "y", "z")
    assert found.discarded_A.tolist() == [0, 1, 0] and found.drafts_A.tolist() == [0, 0, 1]


def test_the_arrays_do_not_depend_on_the_order_of_the_tables():
    made = simulate(num_items=40, ties=0.2, retest_share=0.2)
    found = arrays(made.items, made.votes)
    mixed = arrays(made.items.take(pa.array(np.random.default_rng(1).permutation(made.items.num_rows))),
                   made.votes.take(pa.array(np.random.default_rng(2).permutation(made.votes.num_rows))))  # fmt: skip
    for field in dataclasses.fields(found):
        if field.name != "answers":
            np.testing.assert_array_equal(getattr(found, field.name), getattr(mixed, field.name))
    assert agreement(found, resamples=FEW) == agreement(mixed, resamples=FEW)


def test_a_verdict_that_names_no_candidate_of_its_item_is_refused():
    with pytest.raises(UserError, match="1 verdicts name a candidate that their item does not have, for example 'c'"):
        arrays(*tables([item("i1")], [vote("i1", "x", "c")]))


def test_no_items_and_no_votes_give_no_agreement():
    found = arrays(ITEMS.empty_table(), VOTES.empty_table())
    assert agreement(found) == {} and agreement(found, "question") == {} and agreement(found, "week") == {}


def ratings(**values: int) -> list[dict]:
    return [{"question": "helpful", "key": key, "value": value} for key, value in values.items()]


def test_every_question_is_measured_at_its_level():
    cast = [
        vote("i1", "x", "a", ratings=ratings(a=5, b=2), flags=["unsafe"],
             ranking=[{"key": "a", "rank": 1}, {"key": "b", "rank": 2}]),
        vote("i1", "y", "a", ratings=ratings(a=4, b=2), flags=[],
             ranking=[{"key": "a", "rank": 1}, {"key": "b", "rank": 2}]),
        vote("i2", "x", "b", ratings=ratings(a=1, b=4), flags=["unsafe"],
             ranking=[{"key": "a", "rank": 2}, {"key": "b", "rank": 1}]),
        vote("i2", "y", "a", ratings=ratings(a=1, b=5), flags=["unsafe"],
             ranking=[{"key": "a", "rank": 1}, {"key": "b", "rank": 2}]),
    ]  # fmt: skip
    found = agreement(arrays(*tables([item("i1"), item("i2")], cast)), "question", resamples=FEW)
    assert list(found) == ["verdict", "ranking", "helpful", "flags"]
    assert found["verdict"].level == "nominal" and found["verdict"].alpha_ordinal is None
    assert found["verdict"].pairwise.value == 0.5 and found["flags"].pairwise.value == 0.5
    helpful = found["helpful"]
    assert helpful.level == "ordinal" and helpful.num_units == 4 and helpful.num_items == 2
    assert helpful.alpha_ordinal.value > helpful.alpha.value and helpful.alpha_interval.value > 0.8
    assert found["ranking"].kendall_w.value == pytest.approx(0.5) and found["verdict"].kendall_w is None


def test_a_rating_of_the_item_as_a_whole_has_one_unit_an_item():
    whole = [{"question": "safe", "key": None, "value": 3}]
    cast = [vote(name, who, None, ratings=whole) for name in ("i1", "i2") for who in "xy"]
    found = agreement(arrays(*tables([item("i1"), item("i2")], cast)), "question", resamples=FEW)
    assert list(found) == ["safe"] and found["safe"].num_units == 2
    assert found["safe"].alpha_ordinal.value is None and "every answer is the same" in found["safe"].alpha.reason


def test_a_vote_that_was_not_asked_for_flags_says_nothing_about_them():
    cast = [vote("i1", "x", "a", flags=["unsafe"]), vote("i1", "y", "a", flags=None), vote("i1", "z", "a", flags=[])]
    found = agreement(arrays(*tables([item("i1")], cast)), "question", resamples=FEW)["flags"]
    assert found.num_answers == 2 and found.pairwise.value == 0.0


def test_agreement_is_told_by_source_topic_round_role_and_edition():
    items = [item(f"i{number}", source="st"[number % 2], topic="uv"[number % 2], edition="de"[number % 2],
                  round=f"main-{1 + number % 2}") for number in range(20)]  # fmt: skip
    cast = [vote(f"i{number}", who, "a" if (number % 2 and who == "x") or number % 4 < 2 else "b")
            for number in range(20) for who in "xy"]  # fmt: skip
    found = arrays(*tables(items, cast))
    for by, (same, other) in {"source": "st", "topic": "uv", "edition": "de", "round": ("main-1", "main-2")}.items():
        groups = agreement(found, by, resamples=FEW)
        assert list(groups) == [same, other]
        assert groups[same].alpha.value == 1.0 and groups[other].pairwise.value == 0.5
    assert list(agreement(found, "role", resamples=FEW)) == ["item"]


def test_retests_and_adjudications_do_not_count_as_agreement():
    items = [item("i1"), item("i2", role="retest", of_item="i1"), item("i3", round="adjudication-1", of_item="i1")]
    cast = [vote(name, who, "a" if name == "i1" else "ab"[who == "y"]) for name in ("i1", "i2", "i3") for who in "xy"]
    found = arrays(*tables(items, cast))
    assert agreement(found, resamples=FEW)["all"].pairwise.value == 1.0
    by_round = agreement(found, "round", resamples=FEW)
    assert by_round["adjudication-1"].pairwise.value == 0.0 and by_round["main-1"].num_items == 1


def test_judges_count_only_where_they_are_asked_for():
    cast = [vote("i1", "x", "a"), vote("i1", "y", "a"), vote("i1", "judge-m", "b", kind="judge")]
    found = arrays(*tables([item("i1")], cast))
    assert agreement(found, resamples=FEW)["all"].pairwise.value == 1.0
    assert agreement(found, judges=True, resamples=FEW)["all"].pairwise.value == pytest.approx(1 / 3)


def test_the_week_of_an_item_is_that_of_its_last_vote():
    days = {"i1": ("2026-11-02", "2026-11-03"), "i2": ("2026-11-08", "2026-11-09"), "i3": (None, None)}
    cast = [vote(name, who, "a", answered_at=day and f"{day}T09:00:00.250000Z")
            for name, both in days.items() for who, day in zip("xy", both, strict=True)]  # fmt: skip
    found = agreement(arrays(*tables([item(name) for name in days], cast)), "week", resamples=FEW)
    assert {week: group.num_items for week, group in found.items()} == {"2026-W45": 1, "2026-W46": 1, "unknown": 1}


def test_batches_follow_the_order_in_which_items_were_finished():
    """Annotators who begin badly and get better: the batches show it, whatever the items' ids."""
    rng = np.random.default_rng(4)
    items = [item(f"i{rng.integers(1 << 40):012x}", position=number) for number in range(100)]
    cast = [vote(row["item_id"], who, "ab"[int(rng.integers(2))] if number < 50 else "ab"[number % 2],
                 answered_at=f"2026-11-{2 + number // 10:02}T09:{number % 10:02}:00Z")
            for number, row in enumerate(items) for who in "xyz"]  # fmt: skip
    found = agreement(arrays(*tables(items, cast)), "batch", batch=25, resamples=FEW)
    assert list(found) == ["000001-000025", "000026-000050", "000051-000075", "000076-000100"]
    values = [group.alpha.value for group in found.values()]
    assert values[2] == values[3] == 1.0 and max(values[:2]) < 0.5


def test_an_unknown_grouping_is_refused():
    with pytest.raises(ValueError, match="'colour' is no grouping; known: question"):
        agreement(arrays(ITEMS.empty_table(), VOTES.empty_table()), "colour")


def test_a_better_team_agrees_more_and_its_interval_says_so():
    good, poor = (agreement(arrays(made.items, made.votes))["all"] for made in
                  (simulate(("good",) * 5, num_items=400, skill=skill, seed=1) for skill in (0.95, 0.7)))  # fmt: skip
    expected = {0.95: 0.9**2, 0.7: 0.4**2}  # two labels, equally frequent: kappa = (2 skill - 1)^2
    for found, kappa in zip((good, poor), expected.values(), strict=True):
        for coefficient in (found.alpha, found.fleiss, found.cohen):
            assert coefficient.interval.low <= kappa <= coefficient.interval.high
    assert good.alpha.interval.low > poor.alpha.interval.high
