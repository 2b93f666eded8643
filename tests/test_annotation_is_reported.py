"""A job's report: the funnel, agreement, annotators, worst items, cost and what cannot be told, from one mapping."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pyarrow as pa
import pytest

from curation.annotation.records import ITEMS, RESOLVED, VOTES
from curation.annotation.report_counts import Plan, cost, funnel, round_counts, speed
from curation.annotation.report_items import MOST_CHARS, OPEN_CHARS, agreed_share, ranked, turns, worst
from curation.annotation.report_study import Evidence, study
from curation.annotation.resolution_files import Resolution
from curation.annotation.resolving import resolve
from curation.annotation.store import current
from curation.reports.annotation import number, page, write
from tests.reported_job import FIRST_SLOT, JOB, PEOPLE, RANDOM, item, job, message, vote

QUESTIONS = ({"name": "better", "kind": "preference", "title": "Which answer is better?"},
             {"name": "reason", "kind": "text", "title": "Why?"})  # fmt: skip
PLANS = (Plan(JOB, "calibration-1", "0123456789ab", QUESTIONS, "Help.", 5, 0.5),
         Plan(JOB, "main-1", "0123456789ab", QUESTIONS, "<b>Help</b> more.", 3, 0.75, "EUR", 200, 600))  # fmt: skip
SLOTS = ("chosen", "rejected")


def tables(items: list[dict[str, Any]], votes: list[dict[str, Any]]) -> tuple[pa.Table, pa.Table]:
    return pa.Table.from_pylist(items, schema=ITEMS), pa.Table.from_pylist(votes, schema=VOTES)


def outcomes(*rows: tuple[dict[str, Any], str]) -> pa.Table:
    """RESOLVED of items with their outcomes."""
    return pa.Table.from_pylist([{name: of.get(name) for name in RESOLVED.names} | {"outcome": outcome}
                                 for of, outcome in rows], schema=RESOLVED)  # fmt: skip


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    items, votes = job()
    resolved = resolve(items, current(votes), Resolution(job=JOB)).table
    return Evidence(JOB, items, votes, resolved, PLANS, JOB, "Resolved as helpful: majority.", "helpful_pairs", True)


@pytest.fixture(scope="module")
def made(evidence) -> dict[str, Any]:
    return study(evidence)


def test_the_funnel_loses_every_item_once_and_says_where():
    first, tied, gold, silent, thin = (item(number, "main-1", number, SLOTS) for number in range(5))
    gold |= {"role": "gold", "gold": "chosen"}
    again = first | {"item_id": "again", "role": "retest", "of_item": first["item_id"]}
    items, votes = tables([first, tied, gold, silent, thin, again],
                          [vote(of, "ann", "chosen") for of in (first, tied, gold, thin, again)])  # fmt: skip
    resolved = outcomes((first, "pair"), (tied, "tie"), (silent, "too_few"), (thin, "too_few"))
    assert funnel(items, votes, resolved) == [
        {"step": "items", "left": 5, "lost": {}},
        {"step": "to decide", "left": 4, "lost": {"gold": 1}},
        {"step": "answered", "left": 3, "lost": {"no vote yet": 1}},
        {"step": "enough votes", "left": 2, "lost": {"too few votes": 1}},
        {"step": "agreed", "left": 2, "lost": {}},
        {"step": "pairs", "left": 1, "lost": {"tie": 1}},
    ]


def test_rounds_are_counted_with_what_is_left_and_costs_are_each_round_s_own():
    calibrated, one, two = item(0, "calibration-1", 0, SLOTS), item(1, "main-1", 0, SLOTS), item(2, "main-1", 1, SLOTS)
    decided = item(3, "adjudication-1", 0, SLOTS, job="lead", of_item=one["item_id"])
    items, votes = tables([calibrated, one, two, decided],
                          [vote(calibrated, "ann", "chosen"), vote(calibrated, "bea", "chosen"),
                           vote(one, "ann", "chosen"), vote(one, "bea", None, status="discarded"),
                           vote(one, "judge-x", "chosen", kind="judge")])  # fmt: skip
    plans = [Plan(JOB, "calibration-1", annotators_per_item=2, price_per_vote=1.0),
             Plan(JOB, "main-1", annotators_per_item=2, price_per_vote=2.0),
             Plan("lead", "adjudication-1", annotators_per_item=1, price_per_vote=10.0)]  # fmt: skip
    rounds = round_counts(items, votes, plans)
    main = rounds[1]
    assert (main["items"], main["answered"], main["complete"], main["votes_left"]) == (2, 1, 0, 3)
    assert (main["submitted"], main["discarded"], main["judge_votes"]) == (1, 1, 1)
    steps = funnel(items, votes, outcomes((one, "pair"), (two, "too_few")))
    paid = cost(rounds, plans, steps, JOB)
    assert (paid["spent"], paid["to_finish"], paid["projected"]) == (4.0, 16.0, 20.0)
    assert (paid["round_left"], paid["votes_left"]) == (3, 4)
    unpriced = cost(rounds, [plans[0]._replace(price_per_vote=None), *plans[1:]], steps, JOB)
    assert unpriced["spent"] is None and unpriced["projected"] is None and unpriced["to_finish"] == 16.0
    assert cost(rounds, [plans[0]._replace(currency="USD"), *plans[1:]], steps, JOB)["spent"] is None


def test_pairs_still_to_come_are_projected_from_items_with_enough_votes():
    of = [item(number, "main-1", number, SLOTS) for number in range(6)]
    items, votes = tables(of, [vote(one, name, "chosen") for one in of[:4] for name in ("ann", "bea", "cid")])
    steps = funnel(items, votes, outcomes(*zip(of, ("pair", "pair", "pair", "disputed", "too_few", "too_few"),
                                               strict=True)))  # fmt: skip
    plans = [Plan(JOB, "main-1", annotators_per_item=3, price_per_vote=0.5)]
    paid = cost(round_counts(items, votes, plans), plans, steps, JOB)
    assert (paid["pairs"], paid["spent"], paid["projected"], paid["per_pair"]) == (3, 6.0, 9.0, 2.0)
    assert paid["projected_pairs"] == round(6 * 3 / 4) and paid["votes_per_pair"] == 4.0


def test_speed_tells_nothing_it_does_not_know():
    of = item(0, "main-1", 0, SLOTS)
    _, votes = tables([of], [vote(of, "ann", "chosen", seconds=30.0, answered_at="2026-03-01T10:00:00+00:00"),
                             vote(of, "bea", "chosen")])  # fmt: skip
    found = speed(votes, 10)
    assert found["known_seconds"] == 1 and found["median_seconds"] is None and found["hours_left"] is None
    assert found["days"] == 1 and found["days_left"] is None


def test_agreement_of_an_item_is_that_of_pairs_of_different_people():
    of = item(0, "main-1", 0, SLOTS)
    assert agreed_share([vote(of, "ann", "chosen")]) == (None, 1)
    assert agreed_share([vote(of, "ann", "chosen"), vote(of, "ann", "rejected")]) == (None, 2)
    three = [vote(of, name, verdict) for name, verdict in (("ann", "chosen"), ("bea", "chosen"), ("cid", "tie"))]
    assert agreed_share(three) == (1 / 3, 3)
    assert agreed_share([*three, vote(of, "judge-x", "tie", kind="judge")]) == (1 / 3, 3)


def test_worst_items_stand_in_the_order_of_keys_whatever_their_slots():
    calm, torn = item(0, "main-1", 0, SLOTS), item(1, "main-1", 1, ("rejected", "chosen"))
    again = torn | {"item_id": "again", "role": "retest", "of_item": torn["item_id"],
                    "candidates": torn["candidates"][::-1]}  # fmt: skip
    items, votes = tables([calm, torn, again], [
        vote(calm, "ann", "chosen"), vote(calm, "bea", "chosen"), vote(torn, "ann", "chosen"),
        vote(torn, "bea", "rejected"), vote(again, "bea", "chosen"),
        vote(torn, "judge-x", "chosen", kind="judge")])  # fmt: skip
    (found,) = worst(items, votes, outcomes((torn, "disputed")))
    assert found["item_id"] == torn["item_id"] and found["outcome"] == "disputed" and found["agreement"] == 0.5
    assert [one["key"] for one in found["candidates"]] == ["chosen", "rejected"]
    assert found["said"] == {"chosen": 2, "rejected": 1}
    told = [(one["annotator"], one["verdict"], one["slot"], one["again"]) for one in found["votes"]]
    assert sorted(told) == [
        ("ann", "chosen", "B", False), ("bea", "chosen", "A", True), ("bea", "rejected", "A", False),
        ("judge-x", "chosen", "B", False)]  # fmt: skip


def test_long_texts_are_folded_and_very_long_ones_counted():
    key = "AKIA" + "Q7ZT4XWJ2M9KPL3V"
    (short, tool, long, after) = turns([message("user", "Why?"), message("tool", f"the key is {key}"),
                                        message("assistant", "word " * 10_000), message("user", "More")])  # fmt: skip
    assert short == {"place": "user", "text": "Why?", "more": ""}
    assert len(long["text"]) <= OPEN_CHARS and len(long["text"] + long["more"]) < MOST_CHARS + 100
    assert "characters more ...]" in long["more"] and after["text"] == "[... 4 characters more ...]"
    assert key not in tool["text"]
    assert ranked([{"key": "b", "rank": 2}, {"key": "c", "rank": 1}, {"key": "a", "rank": 2}]) == "c > a = b"


def test_the_two_bad_annotators_are_named_and_nobody_else(made):
    assert {item["annotator"] for item in made["annotators"] if item["flags"]} == {RANDOM, FIRST_SLOT}
    flags = {item["annotator"]: [flag["flag"] for flag in item["flags"]] for item in made["annotators"]}
    assert flags[RANDOM] == ["random"] and "position biased" in flags[FIRST_SLOT]
    assert all(flag["next"] and flag["why"] for item in made["annotators"] for flag in item["flags"])
    assert any(RANDOM in step["why"] and step["command"] == f"kedge annotate resolve {JOB}_without"
               for step in made["next"])  # fmt: skip


def test_the_figures_have_this_shape(made):
    assert set(made) == {
        "agreement", "annotators", "answers", "calibration", "contradictions", "cost", "cost_lines", "cycles",
        "edition", "findings", "funnel", "guidelines", "job", "judges", "next", "over_time", "questions", "resolution",
        "resolved", "resolved_by", "round", "rounds", "source", "speed", "stale", "untold", "verdict",
        "worst"}  # fmt: skip
    assert {(item["question"], item["by"]) for item in made["agreement"]} == {
        ("better", "all"), ("better", "round"), ("better", "source"), ("better", "topic"),
        ("flags", "all")}  # fmt: skip
    assert [item["label"] for item in made["over_time"]][:2] == ["1–20", "21–40"] and len(made["over_time"]) == 10
    (judge,) = made["judges"]
    assert judge["asked"] == 170 and judge["unread"] == 0 and judge["consistent"]["n"] == 170
    assert judge["agreement"]["value"] > judge["people"]
    assert {item["annotator"] for item in made["calibration"]} == {"all", *PEOPLE}


def test_page_and_json_have_the_same_figures(made, tmp_path):
    write(made, tmp_path)
    told = json.loads((tmp_path / "annotation.json").read_text())
    html = (tmp_path / "report.html").read_text()
    assert told["verdict"]["text"] in html
    for step in told["funnel"]:
        assert f">{step['left']:,}" in html
    for entry in told["agreement"]:
        assert number(entry["alpha"]) in html
    for person in told["annotators"]:
        assert f"{100 * person['agreement']['value']:.1f} %" in html
    assert f"EUR {told['cost']['spent']:,.2f}" in html and told["cost"]["spent"] == 145 * 0.5 + 571 * 0.75
    first = [(tmp_path / name).read_bytes() for name in ("annotation.json", "report.html")]
    write(made, tmp_path)
    assert first == [(tmp_path / name).read_bytes() for name in ("annotation.json", "report.html")]


def test_the_order_of_rows_changes_no_figure(evidence, made):
    turned = Evidence(**{**vars(evidence), "items": evidence.items.take(list(range(evidence.items.num_rows))[::-1]),
                         "votes": evidence.votes.take(list(range(evidence.votes.num_rows))[::-1])})  # fmt: skip
    assert json.dumps(study(turned), default=str) == json.dumps(made, default=str)


def test_texts_are_escaped_and_the_page_fetches_and_runs_nothing(made):
    hostile = copy.deepcopy(made)
    bad = "<script>alert(1)</script>"
    shown = hostile["worst"][0]
    shown["prompt"][0]["text"], shown["source"], shown["topic"] = bad, bad, bad
    shown["candidates"][0]["turns"][0]["more"], shown["candidates"][0]["model"] = bad, bad
    shown["votes"][0] |= {"texts": [[bad, bad, bad, bad]], "flags": [bad], "ratings": [[bad, bad, 1]]}
    hostile |= {"guidelines": bad, "job": bad}
    hostile["annotators"][0]["annotator"] = hostile["over_time"][0]["label"] = bad
    html = page(hostile)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert 'src="' not in html and "http-equiv" not in html and "@import" not in html
    plain = re.sub(r"xmlns(:\w+)?=\"[^\"]*\"|rdf:\w+=\"[^\"]*\"", "", html)  # names of vocabularies, not fetched
    assert not re.search(r'(href|url)\s*[=(]\s*"?https?:', plain)


def test_a_job_without_votes_has_a_report_that_says_so():
    items, votes = tables([item(0, "main-1", 0, SLOTS)], [])
    found = study(Evidence(JOB, items, votes, RESOLVED.empty_table(), PLANS[1:], JOB, "Nothing is resolved."))
    assert found["verdict"] == {"text": "1 item, and no answer yet", "style": "info"}
    assert found["untold"] == ["Agreement, annotators and cost: nobody has submitted a vote."]
    assert [step["command"] for step in found["next"]] == [f"kedge annotate push {JOB}", f"kedge annotate pull {JOB}"]
    html = page(found)
    assert "Nobody has submitted a vote yet." in html and "nothing can be said of agreement" in html


def test_one_voter_s_report_says_what_cannot_be_told():
    of = [item(number, "main-1", number, SLOTS) for number in range(3)]
    items, votes = tables(of, [vote(one, "annotator-aa01", "chosen", slots=None) for one in of])
    found = study(Evidence(JOB, items, votes, RESOLVED.empty_table(), [PLANS[1]._replace(price_per_vote=None)]))
    told = " ".join(found["untold"])
    for word in ("Agreement: ", "Accuracy", "Consistency", "Position bias", "Speed", "no judge answered",
                 "no calibration round"):  # fmt: skip
        assert word in told
    assert found["cost"]["spent"] is None and "No price is known" in found["cost_lines"][0]
    assert "<svg" in page(found)


def test_a_wide_interval_is_said_with_the_items_that_would_narrow_it():
    of = [item(number, "main-1", number, SLOTS) for number in range(12)]
    said = [("chosen", "chosen"), ("rejected", "rejected"), ("chosen", "rejected")]
    votes = [vote(one, name, verdict) for number, one in enumerate(of)
             for name, verdict in zip(("annotator-aa01", "annotator-bb02"), said[number % 3], strict=True)]  # fmt: skip
    found = study(Evidence(JOB, *tables(of, votes), RESOLVED.empty_table(), PLANS[1:]))
    (line,) = [line for line in found["untold"] if line.startswith("Alpha is known")]
    need = int(re.search(r"some ([\d,]+) items", line)[1].replace(",", ""))
    assert need > 12 * 4 and "±0.05" in line
    assert any("fewer than 20 items" in line for line in found["untold"])


def three(number: int) -> dict[str, Any]:
    """An item of three candidates."""
    said = [{"key": key, "messages": [message("assistant", f"{key} {number}")], "model": None, "generation_id": key}
            for key in ("g1", "g2", "g3")]  # fmt: skip
    return item(number, "main-1", number, SLOTS, candidates=said)


def test_rankings_and_ratings_are_reported_on_their_scale():
    of, votes = [three(number) for number in range(8)], []
    for one in of:
        for place, name in enumerate(("annotator-aa01", "annotator-bb02")):
            order = ("g1", "g2", "g3") if place == 0 or one["position"] % 2 else ("g2", "g1", "g3")
            ranking = [{"key": key, "rank": rank} for rank, key in enumerate(order, 1)]
            ratings = [{"question": "helpful", "key": key, "value": 5 - rank} for rank, key in enumerate(order)]
            votes.append(vote(one, name, order[0], ranking=ranking, ratings=ratings))
    items, voted = tables(of, votes)
    resolved = resolve(items, voted, Resolution(job=JOB)).table
    found = study(Evidence(JOB, items, voted, resolved, PLANS[1:]))
    scales = {entry["question"]: entry["scale"] for entry in found["agreement"] if entry["by"] == "all"}
    assert scales == {"better": "nominal", "ranking": "ordinal", "helpful": "ordinal"}
    shown = found["worst"][0]
    assert len(found["worst"]) == 4 and [one["key"] for one in shown["candidates"]] == ["g1", "g2", "g3"]
    assert {one["ranking"] for one in shown["votes"]} == {"g1 > g2 > g3", "g2 > g1 > g3"}
    html = page(found)
    assert "g2 &gt; g1 &gt; g3" in html and "helpful of g1 5" in html


def test_written_and_edited_answers_are_reported_without_verdicts():
    edited, wrote = (item(number, "main-1", number, ()) for number in (0, 1))
    edited["candidates"] = [{"key": "original", "messages": [message("assistant", "Hm.")], "model": None,
                             "generation_id": None}]  # fmt: skip
    texts = [{"question": "answer", "key": None, "text": "Better."}]
    items, voted = tables([edited, wrote], [vote(one, "annotator-aa01", None, texts=texts) for one in (edited, wrote)])
    found = study(Evidence(JOB, items, voted, RESOLVED.empty_table(), PLANS[1:], answers="1 answer written, 1 edited"))
    assert found["funnel"][-1] == {"step": "answered", "left": 2, "lost": {}}
    assert found["agreement"] == [] and found["worst"] == []
    assert "1 answer written, 1 edited" in page(found)


def test_adjudications_are_folded_into_the_items_that_they_decide():
    torn = item(0, "main-1", 0, SLOTS)
    decided = item(9, "adjudication-1", 0, SLOTS, job="lead", of_item=torn["item_id"], row_id=torn["row_id"])
    votes = [vote(torn, "annotator-aa01", "chosen"), vote(torn, "annotator-bb02", "rejected"),
             vote(decided, "annotator-cc03", "rejected")]  # fmt: skip
    items, voted = tables([torn, decided], votes)
    resolved = resolve(items, voted, Resolution(job=JOB)).table
    found = study(Evidence(JOB, items, voted, resolved, [PLANS[1], Plan("lead", "adjudication-1", price_per_vote=5.0)]))
    assert [step["left"] for step in found["funnel"]] == [1, 1, 1, 1, 1, 1]
    assert [item["name"] for item in found["rounds"]] == ["main-1", "lead adjudication-1"]
    (shown,) = found["worst"]
    assert [one["round"] for one in shown["votes"]] == ["main-1", "main-1", "adjudication-1"]
    assert found["cost"]["spent"] == 2 * 0.75 + 5.0
