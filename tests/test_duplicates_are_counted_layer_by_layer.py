"""Exact duplicates: whole rows, prompts, answers, both, single turns; and which row of a group stays."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import schema
from curation.catalog import Catalog
from curation.config import find_project
from curation.kernels.canonical import text_keys
from curation.measures import PartMeasure
from curation.measuring import ensure, named
from curation.rules import judge, load_rules
from tests import REAL_DATA
from tests.duplicated import add, values
from tests.lakes import conversation

NO_TURN = {"reasoning": None, "tool_calls": None, "tool_call_id": None, "name": None}


def column(catalog: Catalog, measure: str, source: str, name: str) -> list[Any]:
    return [row[name] for row in values(catalog, measure, source)]


def talk(*turns: str, system: str = "", reasoning: str | None = None) -> list[dict[str, Any]]:
    """Messages of user and assistant in turn."""
    said = [{"role": ("user", "assistant")[index % 2], "content": text} | NO_TURN for index, text in enumerate(turns)]
    said[-1]["reasoning"] = reasoning
    return [{"role": "system", "content": system} | NO_TURN, *said] if system else said


def layers(stage: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    measure = named("duplicate_layers")
    assert isinstance(measure, PartMeasure)
    fields = [field for field in schema.rows(stage) if field.name in measure.reads(stage)]
    return measure.measure(pa.Table.from_pylist(list(rows), schema=pa.schema(fields)), stage).to_pylist()


def test_a_held_out_row_represents_its_twins_then_the_source_with_priority_and_never_the_first(catalog: Catalog):
    rows = [json.loads(conversation("Is it the same?", "It is.")), json.loads(conversation("Alone?", "Yes, alone."))]
    for name in ("zebra", "aardvark"):
        add(name, rows, stage="sft")
    ranks = {name: column(catalog, "exact_duplicates", name, "duplicate_rank") for name in ("zebra", "aardvark")}
    assert ranks == {"zebra": [1, 1], "aardvark": [0, 0]}
    Path("kedge.yaml").write_text("source_priority: [zebra]\n")
    catalog = Catalog(find_project())
    assert column(catalog, "exact_duplicates", "zebra", "duplicate_rank") == [0, 0]
    add("quiz", [rows[0], rows[0]], stage="sft", held_out=1 - 1e-12)
    ranks = {
        name: column(catalog, "exact_duplicates", name, "duplicate_rank") for name in ("zebra", "aardvark", "quiz")
    }
    assert ranks == {"zebra": [2, 0], "aardvark": [3, 1], "quiz": [0, 0]}, "held-out rows are reported and all stay"
    assert column(catalog, "exact_duplicates", "quiz", "duplicate_count") == [4, 4]
    found = catalog.latest("evidence", "duplicates")
    assert found is not None and found[1].counts == {"distinct": {"sft": 2}}
    pairs = pq.read_table(found[0] / "part-00000.parquet").to_pylist()
    assert sorted((pair["source"], pair["representative_source"]) for pair in pairs) == [
        ("aardvark", "quiz"), ("aardvark", "zebra"), ("quiz", "quiz"), ("zebra", "quiz")]  # fmt: skip


def test_rows_of_two_stages_are_no_duplicates(catalog: Catalog):
    turns = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]
    add("talks", [{"messages": turns}], stage="sft")
    add("pages", [{"messages": turns}], stage="midtrain")
    for name in ("talks", "pages"):
        assert column(catalog, "exact_duplicates", name, "duplicate_count") == [1]
        assert column(catalog, "copies", name, "answer_copies") == [1]


def test_white_space_and_unicode_form_do_not_count_and_case_and_digits_do():
    same = ["Café au\tlait, 2 cups", "  Cafe\u0301 au \u00a0 lait,\u30002\n\ncups\u2003"]
    other = ["café au lait, 2 cups", "Café au lait, 3 cups", "Café aulait, 2 cups", "Café au lait 2 cups"]
    keys = [row["answer_key"] for row in layers("sft", *({"messages": talk("?", text)} for text in same + other))]
    assert keys[0] == keys[1] and len(set(keys)) == 5


def test_every_kind_of_white_space_is_one_space():
    spaces = [chr(code) for code in range(0x3001) if chr(code).isspace() and not 0x1C <= code <= 0x1F]
    assert len(spaces) == 25
    texts = [f"a{space}{space}b{space}" for space in spaces] + ["a b", "ab", "a\u200bb", "a\u1681b"]
    data = [text.encode() for text in texts]
    end = np.cumsum([len(item) for item in data])
    out = np.zeros(len(data), np.uint64)
    text_keys(np.frombuffer(b"".join(data), np.uint8), end - [len(item) for item in data], end, out)
    assert len(set(out[:26])) == 1 and len(set(out)) == 4


def test_a_turn_is_its_thought_its_content_and_its_calls_and_an_empty_one_is_none():
    call = talk("?", "") + talk("?", "")
    call[1]["tool_calls"] = '[{"name": "f"}]'
    rows = layers("sft", {"messages": talk("?", "Yes.")}, {"messages": talk("?", "Yes.", reasoning="Why not.")},
                  {"messages": call}, {"messages": talk("?", "", "", "")}, {"messages": talk("Why?")})  # fmt: skip
    assert len({row["answer_key"] for row in rows[:3]}) == 3
    assert [len(row["answer_turn_keys"]) for row in rows] == [1, 1, 1, 0, 0]
    assert [len(row["user_turn_keys"]) for row in rows] == [1, 1, 2, 1, 1]
    assert [row["prompt_answer_key"] is None for row in rows] == [False, False, False, True, True]
    assert rows[3]["answer_key"] is None and rows[0]["user_turn_keys"] == rows[1]["user_turn_keys"]


def test_prompt_and_answer_are_the_turns_up_to_the_last_answer_with_their_roles():
    one, *others = layers(
        "sft", {"messages": talk("a", "b", "c", "d")}, {"messages": talk("a", "b", "c", "d", "e")},
        {"messages": talk("c", "d")}, {"messages": talk("a", "b", "c", "d", system="s")},
        {"messages": [*talk("a", "b", "c")[:2], {"role": "tool", "content": "c"} | NO_TURN, talk("", "d")[1]]},
    )  # fmt: skip
    assert [row["prompt_answer_key"] == one["prompt_answer_key"] for row in others] == [True, False, False, False]
    assert [row["answer_key"] == one["answer_key"] for row in others] == [True] * 4


def test_of_a_pair_the_prompt_and_both_sides_count_whatever_their_order():
    def pair(prompt: str, chosen: str | None, rejected: str | None) -> dict[str, Any]:
        return {"prompt": talk(prompt), **{side: text and talk("", text)[1:] for side, text in
                                           (("chosen", chosen), ("rejected", rejected))}}  # fmt: skip

    rows = layers("preference", pair("a", "b", "c"), pair("a", "c", "b"), pair("a", "b", "d"), pair("b", "a", "c"),
                  pair("a", None, "b"))  # fmt: skip
    keys = [row["prompt_answer_key"] for row in rows]
    assert keys[0] == keys[1] and len(set(keys)) == 4
    assert rows[0]["answer_key"] == rows[2]["answer_key"] == rows[4]["answer_key"] != rows[1]["answer_key"]
    assert sorted(rows[0]["answer_turn_keys"]) == sorted(rows[1]["answer_turn_keys"])


def test_of_an_rlvr_row_the_prompt_and_the_ground_truth_count_and_it_has_no_answer():
    prompt = talk("2 + 2?")
    rows = layers("rlvr", *({"prompt": prompt, "ground_truth": truth} for truth in ("4", " 4 ", "5", None)))
    assert rows[0]["prompt_answer_key"] == rows[1]["prompt_answer_key"] != rows[2]["prompt_answer_key"]
    assert rows[3]["prompt_answer_key"] is None and {row["answer_key"] for row in rows} == {None}


def test_text_without_turns_has_no_layers_but_its_prompt(catalog: Catalog):
    assert layers("midtrain", {"text": "A page.", "messages": None}) == [
        {"prompt_answer_key": None, "answer_key": None, "answer_turn_keys": [], "user_turn_keys": []}]  # fmt: skip
    add("pages", [{"text": "A page."}, {"text": "a  PAGE."}, {"text": "Another."}], stage="midtrain")
    rows = values(catalog, "copies", "pages")
    assert sorted((row["prompt_copies"], row["prompt_rank"]) for row in rows) == [(1, 0), (2, 0), (2, 1)]
    assert {row["answer_copies"] for row in rows} == {None}


@pytest.fixture
def counted(catalog: Catalog) -> Catalog:
    """Two sources that share a prompt, an answer and turns."""
    answer = "I am a model, and this long answer is given to whatever is asked."
    add("a", [{"messages": talk("Who are you?", answer)}, {"messages": talk("WHO are  you?", "Nobody at all.")},
              {"messages": talk("Hi", "Hello.", "Who are you?", answer)}], stage="sft")  # fmt: skip
    add(
        "b",
        [{"messages": talk("What is this?", answer)}, {"messages": talk("Hi", "Hello.", "Bye", "Bye.")}],
        stage="sft",
    )
    ensure(catalog, named("copies"), workers=1)
    return catalog


def test_copies_count_rows_over_all_sources_and_rank_them(counted: Catalog):
    a, b = values(counted, "copies", "a"), values(counted, "copies", "b")
    assert [row["prompt_copies"] for row in a + b] == [2, 2, 2, 1, 2]
    assert [row["answer_copies"] for row in a + b] == [3, 1, 3, 3, 1]
    assert [row["answer_rank"] for row in a + b] == [1, 0, 0, 2, 0], "the first source, then the longer row"
    assert [row["prompt_answer_copies"] for row in a + b] == [1] * 5
    assert [row["answer_turn_copies"] for row in a + b] == [3, 1, 3, 3, 2]
    assert [row["user_turn_copies"] for row in a + b] == [2, 1, 2, 1, 2]
    found = counted.latest("evidence", "copied_layers")
    assert found is not None
    pairs = pq.read_table(found[0] / "part-00000.parquet").to_pylist()
    told = {(pair["row_id"], pair["layer"]): (pair["representative"], pair["copies"]) for pair in pairs}
    assert told[b[0]["row_id"], "answer"] == told[a[0]["row_id"], "answer"] == (a[2]["row_id"], 3)
    assert told[b[1]["row_id"], "prompt"] == (a[2]["row_id"], 2) and (a[1]["row_id"], "answer") not in told
    assert found[1].counts["answer_turn"][0] == {"stage": "sft", "source": None, "texts": 7, "distinct": 4}
    assert [item["distinct"] for item in found[1].counts["user_turn"]] == [5, 3, 3]


def test_rules_leave_out_copied_answers_and_prompts(catalog: Catalog):
    answer = "This answer of more than forty characters is given to every question."
    add("talks", [{"messages": talk(f"Question {number}?", answer)} for number in range(13)]
        + [{"messages": talk(f"Sum {number}?", "4")} for number in range(13)], stage="sft")  # fmt: skip
    gold = [
        ("What is two plus two?", "4"),
        ("what is  two plus TWO?", "4"),
        ("What is one?", "1"),
        ("What is one?", "2"),
    ]
    add("sums", [{"data_source": "m", "prompt": [{"role": "user", "content": text}],
                  "reward_model": {"ground_truth": truth}} for text, truth in gold], stage="rlvr")  # fmt: skip
    found = {}
    for rule in load_rules(catalog, adopted_only=False):
        if rule.name in ("duplicate_answer", "duplicate_prompt"):
            assert not rule.header.adopted
            found[rule.name] = pq.read_table(judge(catalog, rule))["reason"].to_pylist()
    assert found["duplicate_answer"] == [f"its answer of {len(answer)} characters stands in 13 rows"] * 3
    assert sorted(found["duplicate_prompt"]) == ["its prompt stands in 2 rows, with several answers"] * 2


@pytest.mark.real_data
def test_fastchat_has_500_conversations_28_answers_and_clusters_by_threshold(catalog: Catalog):
    with gzip.open(REAL_DATA / "sft" / "fastchat_dummy_conversation.json.gz", "rt") as stream:
        add("fastchat", json.load(stream), stage="sft")
    for name in ("exact_duplicates", "copies"):
        ensure(catalog, named(name), workers=1)
    whole, layered = catalog.latest("evidence", "duplicates"), catalog.latest("evidence", "copied_layers")
    assert whole is not None and whole[1].counts == {"distinct": {"sft": 500}} and whole[1].num_rows == 0
    assert layered is not None
    assert layered[1].counts["answer_turn"][0] == {"stage": "sft", "source": None, "texts": 1000, "distinct": 28}
    clusters = {}
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        ensure(catalog, named("near_duplicates", {"threshold": threshold}), workers=1)
    for _, manifest in catalog.manifests("evidence", "near_duplicate_pairs"):
        counts = manifest.counts
        told = counts["clusters"], counts["rows_in_clusters"], counts["rows_of_rank_above_0"]
        clusters[manifest.parameters["config"]["threshold"]] = told
    assert clusters == {0.5: (27, 435, 408), 0.6: (42, 411, 369), 0.7: (53, 305, 252), 0.8: (22, 59, 37),
                        0.9: (2, 4, 2)}  # fmt: skip
