"""`kedge annotate resolve`: votes become an ordinary preference source, with lineage, whatever came in between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.annotation.resolve_command import rows_of as table_of
from curation.annotation.resolve_command import run
from curation.catalog import Catalog
from tests.lakes import lake_bytes
from tests.voted_job import (
    JOB,
    PEOPLE,
    add_source,
    ballots,
    freeze,
    item,
    item_of,
    pair,
    resolution_file,
    rows_of,
    turn,
    vote,
)

TOOLS = json.dumps([{"type": "function", "function": {"name": "add"}}])


def voted(catalog: Catalog, *verdicts: tuple[str | None, ...], **parameters: Any) -> list[dict[str, Any]]:
    """A round of one item for each tuple of verdicts, slots swapped on every other; returns the items."""
    rows = add_source(catalog, "pairs", [pair(number, topic="sums") for number in range(len(verdicts))],
                      licence="mit", origin="human")  # fmt: skip
    items = [item_of(number, row, swapped=number % 2 == 1, topic="sums") for number, row in enumerate(rows)]
    cast = [one for of, said in zip(items, verdicts, strict=True) for one in ballots(of, *said)]
    freeze(catalog, items, cast, **parameters)
    return items


def made(catalog: Catalog, source: str = f"{JOB}_pairs") -> list[dict[str, Any]]:
    return [row | {"meta": json.loads(row["meta"])} for row in rows_of(catalog, source)]


AGREED, REVERSED = ("chosen",) * 3, ("rejected", "rejected", "chosen")
TIED, BAD, SPLIT, ONE = ("tie",) * 3, ("both_bad",) * 3, ("chosen", "rejected", "tie"), ("chosen",)


def test_every_outcome_is_counted_and_only_pairs_become_rows(catalog: Catalog, kedge):
    items = voted(catalog, AGREED, REVERSED, TIED, BAD, SPLIT, ONE)
    code, out, err = kedge("annotate", "resolve", JOB, "--json")
    assert code == 0, err
    told = json.loads(out)
    counted = {key: told[key] for key in ("items", "votes", "pairs", "ties", "both_bad", "disputed", "too_few")}
    assert counted == {"items": 6, "votes": 16, "pairs": 2, "ties": 1, "both_bad": 1, "disputed": 1, "too_few": 1}
    assert told["sources"] == {f"{JOB}_pairs": 2}
    rows = made(catalog)
    assert [row["chosen"][0]["content"] for row in rows] == ["It is 0, I think.", "2!"], "the second was turned round"
    assert [row["margin"] for row in rows] == [1.0, pytest.approx(1 / 3, abs=1e-6)]
    code, out, _ = kedge("sql", "SELECT item_id, outcome FROM resolved WHERE outcome = 'disputed'", "--json")
    assert json.loads(out) == [{"item_id": items[4]["item_id"], "outcome": "disputed"}]


def test_a_row_says_where_it_came_from_and_how_sure_its_votes_are(catalog: Catalog):
    items = voted(catalog, REVERSED)
    run(catalog, JOB)
    (row,) = made(catalog)
    original = rows_of(catalog, "pairs")[0]
    assert row["meta"] == {
        "adjudicated": False, "agreement": pytest.approx(1 / 3, abs=1e-6), "chosen_key": "rejected",
        "confidence": 0.6875, "edition": "e" * 12, "item_id": items[0]["item_id"], "job": JOB, "method": "majority",
        "rejected_key": "chosen", "round": "main-1", "row_id": original["row_id"].hex, "source": "pairs",
        "topic": "sums", "vote_margin": pytest.approx(1 / 3, abs=1e-6), "votes": 3, "votes_for_chosen": 2,
        "votes_for_rejected": 1,
    }  # fmt: skip
    text = (catalog.project.catalogs / "sources" / f"{JOB}_pairs.yaml").read_text()
    assert "licence: mit" in text and "origin: human" in text, "all its sources agree on these"


def test_messages_and_tools_come_back_byte_for_byte(catalog: Catalog):
    call = [{"id": "1", "function": {"name": "add", "arguments": '{"b": 2, "a": 1}'}}]
    odd = [turn("assistant", "  ünï\u200b\n\n<think>\r\n\tx</think> $x$ "), turn("user", "and?"),
           {"role": "assistant", "content": "", "reasoning_content": "hm\n", "tool_calls": call},
           {"role": "tool", "content": "3", "tool_call_id": "1"}, turn("assistant", "3")]  # fmt: skip
    prompt = [turn("system", "Be brief.\n"), turn("user", " Why? ")]
    rows = add_source(catalog, "odd", [{"prompt": prompt, "chosen": [turn("assistant", "x")], "rejected": odd,
                                        "tools": json.loads(TOOLS)}])  # fmt: skip
    of = item_of(0, rows[0] | {"tools": TOOLS})
    freeze(catalog, [of], ballots(of, *AGREED))
    run(catalog, JOB)
    row = rows_of(catalog, f"{JOB}_pairs")[0]
    assert {key: row[key] for key in ("prompt", "chosen", "rejected")} == \
        {key: rows[0][key] for key in ("prompt", "chosen", "rejected")}  # fmt: skip
    told = row["tools"] if row["tools"] is not None else json.loads(row["meta"])["tools"]
    assert told == TOOLS


def test_resolving_twice_changes_no_byte(catalog: Catalog):
    voted(catalog, AGREED, REVERSED, SPLIT)
    run(catalog, JOB)
    root = catalog.project.root
    before, file = lake_bytes(root), (root / "annotated" / f"{JOB}_pairs.jsonl").stat().st_mtime_ns
    run(catalog, JOB)
    assert lake_bytes(root) == before
    assert (root / "annotated" / f"{JOB}_pairs.jsonl").stat().st_mtime_ns == file


def test_more_votes_add_rows_and_take_those_back_that_no_longer_hold(catalog: Catalog):
    items = voted(catalog, AGREED, ("chosen", "chosen"), ("chosen",))
    run(catalog, JOB)
    assert [row["meta"]["item_id"] for row in made(catalog)] == [one["item_id"] for one in items[:2]]
    later = {"answered_at": "2026-03-03T09:00:00+00:00"}
    late = [vote(items[2], PEOPLE[1], "chosen"), vote(items[1], PEOPLE[1], "rejected", **later)]
    freeze(catalog, items, late)
    run(catalog, JOB)
    assert [row["meta"]["item_id"] for row in made(catalog)] == [items[0]["item_id"], items[2]["item_id"]]


def test_a_source_is_never_left_empty_without_a_word(catalog: Catalog, kedge):
    items = voted(catalog, ("chosen", "chosen"))
    run(catalog, JOB)
    freeze(catalog, items, [vote(items[0], PEOPLE[2], "rejected"), vote(items[0], PEOPLE[0], "tie",
                                                                        answered_at="2026-03-03")])  # fmt: skip
    code, _, err = kedge("annotate", "resolve", JOB)
    assert code == 1 and "no row is left" in err and f"lake/rows/{JOB}_pairs" in err
    assert len(made(catalog)) == 1


DYING = """
import os, signal, sys
from curation import catalog, cli, ingest, outputs
from curation.annotation import resolve_command
def die(*arguments, **more):
    os.kill(os.getpid(), signal.SIGKILL)
owner = {{"catalog": catalog.Catalog, "ingest": ingest, "command": resolve_command}}["{owner}"]
setattr(owner, "{name}", die)
cli.run(["annotate", "resolve", "{job}"])
"""


@pytest.mark.parametrize(("owner", "name"), [("catalog", "replace_manifest"), ("command", "write_atomically"),
                                             ("command", "ingest"), ("ingest", "_publish")])  # fmt: skip
def test_a_killed_resolve_is_finished_by_the_next(catalog: Catalog, owner: str, name: str):
    voted(catalog, AGREED, REVERSED)
    code = DYING.format(owner=owner, name=name, job=JOB)
    done = subprocess.run([sys.executable, "-c", code], cwd=catalog.project.root, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run(catalog, JOB)
    finished = lake_bytes(catalog.project.root)
    assert len(made(catalog)) == 2
    run(catalog, JOB)
    assert lake_bytes(catalog.project.root) == finished
    assert not [path for path in (catalog.project.root / "annotated").iterdir() if path.name.startswith(".")]


def test_edited_settings_of_a_source_stay_and_a_foreign_source_is_refused(catalog: Catalog, kedge):
    voted(catalog, AGREED)
    run(catalog, JOB)
    file = catalog.project.catalogs / "sources" / f"{JOB}_pairs.yaml"
    file.write_text(file.read_text().replace("licence: mit", "licence: cc-by-4.0"))
    run(catalog, JOB)
    assert "cc-by-4.0" in file.read_text()
    assert catalog.source(f"{JOB}_pairs")[1].parameters["licence"] == "cc-by-4.0"
    file.write_text(file.read_text().replace(f"annotated/{JOB}_pairs.jsonl", "pairs.jsonl"))
    code, _, err = kedge("annotate", "resolve", JOB)
    assert code == 2 and "has another path" in err


def test_a_resolution_file_says_how_and_keeps_its_own_source(catalog: Catalog, kedge):
    voted(catalog, AGREED, ("chosen", "chosen", "rejected"), ("chosen", "tie", "tie"))
    resolution_file(catalog, "strict", f"job: {JOB}\nmin_margin: 0.5\n")
    resolution_file(catalog, "lenient", f"job: {JOB}\nties: ignore\nmin_votes: 1\nsource: soft\n")
    assert run(catalog, "strict")[1] == {"strict_pairs": 1}
    assert run(catalog, "lenient")[1] == {"soft_pairs": 3}
    assert kedge("annotate", "resolve", "catalogs/resolutions/strict.yaml")[0] == 0
    assert {path.name for path in (catalog.lake / "evidence" / "resolved").iterdir()} == {"strict", "lenient"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job: helpfull\n", "did you mean 'helpful'?"),
        ("job: helpful\nmethod: median\n", "method"),
        ("job: helpful\nmethod: dawid_skene\nmin_margin: 0.2\n", "belongs to method majority"),
        ("job: helpful\nwithout: [annotator-aaaaaaab]\n", "did you mean 'annotator-aaaaaaaa'?"),
        ("job: helpful\nrounds: [adjudication]\n", "is no round"),
        ("job: helpful\nrounds: [calibration]\n", "no round of calibration"),
        ("job: helpful\nsource: 'Ä b'\n", "no name for a source"),
        ("job: helpful\nmin_vote: 2\n", "min_votes"),
    ],
)
def test_wrong_resolutions_are_user_errors(catalog: Catalog, kedge, text: str, expected: str):
    voted(catalog, AGREED)
    resolution_file(catalog, "mine", text)
    code, _, err = kedge("annotate", "resolve", "mine")
    assert code == 2 and expected in err and "Traceback" not in err


def test_jobs_that_cannot_be_resolved_say_why(catalog: Catalog, kedge):
    assert "no job with items" in kedge("annotate", "resolve", "nothing")[2]
    items = voted(catalog, ())
    code, _, err = kedge("annotate", "resolve", JOB)
    assert code == 2 and f"kedge annotate pull {JOB}" in err
    lead = item(0, {"chosen": "a", "rejected": "b"}, job="lead", round_name="adjudication-1",
                of_item=items[0]["item_id"])  # fmt: skip
    freeze(catalog, [lead], [vote(lead, "annotator-lead", "chosen")], of=JOB)
    code, _, err = kedge("annotate", "resolve", "lead")
    assert code == 2 and f"kedge annotate resolve {JOB}" in err


def test_a_judge_counts_only_where_a_resolution_lets_it(catalog: Catalog, kedge):
    items = voted(catalog, ())
    freeze(catalog, items, [vote(items[0], "judge-m", "chosen", kind="judge")], annotators_per_item=1)
    code, _, err = kedge("annotate", "resolve", JOB)
    assert code == 2 and "judges: true" in err
    resolution_file(catalog, "with_judge", f"job: {JOB}\njudges: true\nmin_votes: 1\n")
    assert run(catalog, "with_judge")[1] == {"with_judge_pairs": 1}


def test_written_and_edited_answers_become_rows(catalog: Catalog):
    talks = [{"messages": [turn("user", f"Say {number}."), turn("assistant", f"{number}?")]} for number in range(3)]
    rows = add_source(catalog, "talks", talks, stage="sft", shape="messages")
    asked = [{"prompt": row["messages"][:1], "row_id": row["row_id"].bytes, "source": "talks"} for row in rows]
    blank = item(0, {}, **asked[0])
    drafts = [item(number, {"original": rows[number]["messages"][1:]}, round_name="main-2", **asked[number])
              for number in (1, 2)]  # fmt: skip

    def wrote(of: dict[str, Any], question: str, text: str, name: str = PEOPLE[0]) -> dict[str, Any]:
        texts = [{"question": "why", "key": None, "text": "because"}, {"question": question, "key": None, "text": text}]
        return vote(of, name, None, texts=texts)

    freeze(catalog, [blank], [wrote(blank, "answer", "Zero."), wrote(blank, "answer", "Nought.", PEOPLE[1]),
                              wrote(blank, "answer", " ", PEOPLE[2])],
           questions=[{"name": "answer", "kind": "write"}, {"name": "why", "kind": "text"}])  # fmt: skip
    freeze(catalog, drafts, [wrote(drafts[0], "better", "One."), wrote(drafts[1], "better", "2?")],
           questions=[{"name": "better", "kind": "edit"}, {"name": "why", "kind": "text"}])  # fmt: skip
    work, num_rows = run(catalog, JOB)
    assert num_rows == {f"{JOB}_pairs": 1, f"{JOB}_sft": 4}
    assert (work.written.num_written, work.written.num_edited, work.written.num_unchanged) == (2, 1, 1)
    answers = [(row["messages"][0]["content"], row["messages"][-1]["content"], row["meta"]["answer_is"])
               for row in made(catalog, f"{JOB}_sft")]  # fmt: skip
    assert answers == [("Say 0.", "Zero.", "written"), ("Say 0.", "Nought.", "written"), ("Say 1.", "One.", "edited"),
                       ("Say 2.", "2?", "unchanged")]  # fmt: skip
    (edited,) = made(catalog)
    assert (edited["chosen"][0]["content"], edited["rejected"][0]["content"]) == ("One.", "1?")
    assert edited["meta"]["annotator"] == PEOPLE[0] and edited["meta"]["rejected_key"] == "original"


def test_generated_answers_keep_their_ids_and_models(catalog: Catalog):
    said = {key: [turn("assistant", text)] for key, text in (("g1", "short"), ("g2", "long"), ("g3", "longest"))}
    of = item(0, said)
    for one in of["candidates"]:
        one |= {"generation_id": one["key"], "model": f"run@{one['key']}"}
    ranks = [{"key": key, "rank": rank} for key, rank in (("g3", 1), ("g1", 2), ("g2", 3))]
    freeze(catalog, [of], [vote(of, name, "g3", ranking=ranks) for name in PEOPLE])
    assert run(catalog, JOB)[1] == {f"{JOB}_pairs": 1}
    (row,) = made(catalog)
    assert (row["meta"]["chosen_model"], row["meta"]["rejected_generation"]) == ("run@g3", "g2")
    for pairs, expected in (("best_rest", [("g3", "g2"), ("g3", "g1")]),
                            ("all", [("g3", "g2"), ("g3", "g1"), ("g1", "g2")])):  # fmt: skip
        resolution_file(catalog, pairs, f"job: {JOB}\npairs: {pairs}\n")
        run(catalog, pairs)
        found = [(row["meta"]["chosen_key"], row["meta"]["rejected_key"]) for row in made(catalog, f"{pairs}_pairs")]
        assert sorted(found) == sorted(expected)
    assert "origin: generated" in (catalog.project.catalogs / "sources" / f"{JOB}_pairs.yaml").read_text()


def test_ratings_and_flags_of_the_annotators_stand_in_meta(catalog: Catalog):
    items = voted(catalog, ())
    rated = [[{"question": "clear", "key": "chosen", "value": 4 + number}, {"question": "clear", "key": "rejected",
               "value": 2}] for number in range(2)]  # fmt: skip
    freeze(catalog, items, [vote(items[0], PEOPLE[number], "chosen", ratings=rated[number], flags=["unsafe"][:number])
                            for number in range(2)])  # fmt: skip
    run(catalog, JOB)
    assert made(catalog)[0]["meta"]["ratings"] == {"clear": {"chosen": 4.5, "rejected": 2.0}}
    assert made(catalog)[0]["meta"]["flags"] == {"unsafe": 1}


def test_votes_on_answers_that_were_not_imported_give_outcomes_and_no_rows(catalog: Catalog, kedge):
    of = item(0, {"a": [], "b": []}, prompt=[])
    freeze(catalog, [of], ballots(of, "a", "a"))
    code, out, err = kedge("annotate", "resolve", JOB, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["pairs"], told["pairs_without_texts"], told["sources"]) == (1, 1, {})
    assert not Path("annotated").exists()


def test_the_terminal_names_what_to_do_next(catalog: Catalog, kedge):
    voted(catalog, AGREED, SPLIT)
    code, out, _ = kedge("annotate", "resolve", JOB)
    assert code == 0
    assert "1 disputed items can be adjudicated" in out and f"{JOB}_pairs: 1 rows" in out


def test_the_rows_are_an_ordinary_source(catalog: Catalog, kedge):
    voted(catalog, AGREED, REVERSED)
    run(catalog, JOB)
    table = table_of(catalog, f"{JOB}_pairs")
    parts = [catalog.source(f"{JOB}_pairs")[0] / part.name for part in catalog.source(f"{JOB}_pairs")[1].parts]
    assert table.num_rows == sum(pq.read_metadata(part).num_rows for part in parts) == 2
    code, _, err = kedge("measure", "--only", "annotation", f"{JOB}_pairs")
    assert code == 0, err


def test_pairs_are_exported_beside(catalog: Catalog, kedge):
    voted(catalog, AGREED, REVERSED)
    code, out, err = kedge("annotate", "resolve", JOB, "--export", "shapes", "--json")
    assert code == 0, err
    exported = json.loads(out)["exported"]
    assert exported and all(len(Path(path).read_text().splitlines()) == 2 for path in exported.values())


def test_nothing_is_exported_where_there_is_no_pair(catalog: Catalog, kedge):
    voted(catalog, TIED)
    code, _, err = kedge("annotate", "resolve", JOB, "--export", "shapes")
    assert code == 2 and "no pair to export" in err and not Path("shapes").exists()


def test_a_row_that_people_decided_stays_where_it_repeats_or_contradicts_the_row_they_saw(catalog):
    from tests.verdicts_of import verdicts_of

    voted(catalog, AGREED, REVERSED, AGREED)
    run(catalog, JOB)
    assert set(verdicts_of(catalog, "contradictory_pair")) == {("pairs", 2)}
    assert set(verdicts_of(catalog, "exact_duplicate")) == {("pairs", 1), ("pairs", 3)}


def test_two_resolutions_of_a_job_are_told_apart_in_the_view(catalog, kedge):
    voted(catalog, AGREED, SPLIT)
    run(catalog, JOB)
    resolution_file(catalog, "careful", f"job: {JOB}\nmin_votes: 4\n")
    run(catalog, "careful")
    _, out, _ = kedge("sql", "SELECT resolution, outcome, count(*) AS n FROM resolved GROUP BY ALL ORDER BY ALL",
                      "--json")  # fmt: skip
    told = {(one["resolution"], one["outcome"]): one["n"] for one in json.loads(out)}
    assert told == {(JOB, "pair"): 1, (JOB, "disputed"): 1, ("careful", "too_few"): 2}
