"""`kedge add`: the written source file makes the same rows again, mistakes in it are told, prompts are held out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.ingested import RECORDS, A, U, rows_of
from tests.lakes import lake_bytes


def test_three_rows_are_shown_as_parsed_and_json_is_clean(catalog, kedge):
    Path("a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    _, out, _ = kedge("add", "a.jsonl")
    assert [f"a.jsonl:{n}" in out for n in (1, 2, 3, 4)] == [True, True, True, False]
    _, out, _ = kedge("add", "a", "--json")
    value = json.loads(out)
    assert (value["num_rows"], value["ignored"], len(value["rows"])) == (5, ["topic"], 3)


def test_the_written_source_file_alone_makes_the_same_rows_again(catalog, kedge):
    Path("a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    assert kedge("add", "a.jsonl", "--held-out", "0.9")[0] == 0
    before = lake_bytes(Path(), "rows")
    assert any(row["held_out"] for row in rows_of("a"))
    shutil.rmtree("lake")
    assert kedge("add", "a")[0] == 0
    assert lake_bytes(Path(), "rows") == before


def test_the_same_path_added_twice_is_the_same_source(catalog, kedge):
    Path("a.jsonl").write_text(json.dumps(RECORDS[0]) + "\n")
    assert [kedge("add", "a.jsonl")[0] for _ in range(2)] == [0, 0]
    code, _, err = kedge("add", "a.jsonl", "--stage", "midtrain")
    assert code == 2 and "catalogs/sources/a.yaml is there already" in err


def test_a_source_file_is_edited_and_read_again(catalog, kedge):
    Path("a.jsonl").write_text(json.dumps({"q": "2+2?", "completion": "4"}) + "\n")
    code, _, err = kedge("add", "a.jsonl")
    assert code == 2 and "shape" in err
    Path("catalogs/sources").mkdir(parents=True, exist_ok=True)
    text = "reader: jsonl\npath: a.jsonl\nstage: sft\nshape: prompt_completion\nfields: {prompt: q}\n"
    Path("catalogs/sources/a.yaml").write_text(text)
    code, _, err = kedge("add", "a")
    assert code == 0, err
    assert rows_of("a")[0]["messages"] == [U, A]


@pytest.mark.parametrize(("text", "expected"), [
    ("reader: jsonl\npath: a.jsonl\nstage: sft\nshape: mesages\n", "did you mean 'messages'"),
    ("reader: jsonl\npath: a.jsonl\nstage: rlvr\nshape: messages\n", "cannot fill a rlvr row"),
    ("reader: jsnl\npath: a.jsonl\nstage: sft\nshape: messages\n", "did you mean 'jsonl'"),
    ("reader: jsonl\npath: b.jsonl\nstage: sft\nshape: messages\n", "no file matches 'b.jsonl'"),
    ("reader: jsonl\npath: a.jsonl\nstage: sft\nshape: messages\nhold_out: 0.1\n", "did you mean 'held_out'"),
])  # fmt: skip
def test_a_source_file_with_a_mistake_is_one_clear_error(catalog, kedge, text: str, expected: str):
    Path("a.jsonl").write_text(json.dumps(RECORDS[0]) + "\n")
    Path("catalogs/sources").mkdir()
    Path("catalogs/sources/a.yaml").write_text(text)
    code, _, err = kedge("add", "a")
    assert code == 2
    assert "catalogs/sources/a.yaml" in err and expected in err and "Traceback" not in err


def test_a_misspelt_source_is_met_with_a_proposal(catalog, kedge):
    Path("alpha.jsonl").write_text(json.dumps(RECORDS[0]) + "\n")
    assert kedge("add", "alpha.jsonl")[0] == 0
    code, _, err = kedge("add", "alfa")
    assert code == 2 and "did you mean 'alpha'" in err


def test_held_out_prompts_are_a_stable_share_keyed_by_the_normalised_prompt(catalog, kedge):
    lines = [{"messages": [U | {"content": f"Question {n}?"}, A]} for n in range(400)]
    lines += [{"messages": [U | {"content": f"  question   {n}? "}, A | {"content": "five"}]} for n in range(400)]
    Path("a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert kedge("add", "a.jsonl", "--held-out", "0.1")[0] == 0
    held = [row["held_out"] for row in rows_of("a")]
    assert held[:400] == held[400:], "the same prompt, written otherwise, falls on the same side"
    assert 20 <= sum(held[:400]) <= 60
