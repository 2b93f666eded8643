"""Benchmark items are ingested like any source, and never become training rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.benchmark_items import benchmark_item
from curation.conversations import Rejected
from tests import REAL_DATA

ITEMS = [
    ({"question": "2+2?", "answer": "4"}, {"question": "2+2?", "answer": "4"}),
    ({"problem": "p", "solution": "s", "answer": "a", "level": 3}, {"question": "p", "answer": "s"}),
    ({"prompt": "def f():", "canonical_solution": "  return 1", "test": "t"},
     {"question": "def f():", "answer": "  return 1"}),
    ({"text": "Write f.", "code": "def f(): pass"}, {"question": "Write f.", "answer": "def f(): pass"}),
    ({"input": "a or b?", "target": "a"}, {"question": "a or b?", "answer": "a"}),
    ({"turns": ["one", "two"]}, {"question": "one\ntwo"}),
    ({"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answer": 1},
     {"question": "q", "choices": ["x", "y"], "answer": "1"}),
    ({"question": "q", "A": "x", "B": "y", "answer": "B"}, {"question": "q", "choices": ["x", "y"], "answer": "B"}),
    ({"context": "Once.", "question": "q", "answers": {"text": ["Once"], "answer_start": [0]}},
     {"passage": "Once.", "question": "q", "answer": "Once"}),
    ({"ctx": "He runs", "endings": ["away", "home"], "label": 0},
     {"question": "He runs", "choices": ["away", "home"], "answer": "0"}),
]  # fmt: skip


@pytest.mark.parametrize(("record", "wanted"), ITEMS)
def test_an_item_has_its_components_whatever_the_benchmark_calls_them(record, wanted):
    assert benchmark_item(record, "benchmark")[0] == wanted


def test_a_record_without_a_question_is_rejected_with_its_fields():
    with pytest.raises(Rejected, match=r"has no question; its fields are id, question"):
        benchmark_item({"id": 3, "question": "  "}, "benchmark")


def test_a_benchmark_is_added_shown_and_no_part_of_rows_rules_or_mixtures(catalog, kedge):
    Path("quiz.jsonl").write_text("".join(json.dumps({"id": n, "question": f"{n}+1?", "answer": str(n + 1)}) + "\n"
                                          for n in range(3)))  # fmt: skip
    code, out, err = kedge("add", "quiz.jsonl", "--stage", "benchmark")
    assert code == 0, err
    assert "3 benchmark rows" in out and "question: 0+1?" in out
    query = ("SELECT (SELECT count(*) FROM rows) AS rows, count(*) AS items, count(DISTINCT prompt_hash) AS prompts, "
             "min(meta) AS meta FROM rows_benchmark")  # fmt: skip
    code, out, _ = kedge("sql", query, "--json")
    assert json.loads(out) == [{"rows": 0, "items": 3, "prompts": 3, "meta": '{"id":0}'}]
    assert kedge("measure")[0] == 0 and kedge("rules")[0] == 0
    (catalog.project.catalogs / "mixtures").mkdir()
    (catalog.project.catalogs / "mixtures" / "m.sql").write_text("/* ---\nstage: sft\n--- */\n"
                                                                 "SELECT * FROM take_rows('quiz', 1)\n")  # fmt: skip
    Path("chat.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "q"},
                                                           {"role": "assistant", "content": "a"}]}) + "\n")  # fmt: skip
    assert kedge("add", "chat.jsonl")[0] == 0
    code, _, err = kedge("mix", "show", "m")
    assert code == 2 and "the source 'quiz' holds benchmark rows" in err


def test_a_benchmark_is_never_recognised_by_itself(catalog, kedge):
    Path("quiz.jsonl").write_text(json.dumps({"question": "1+1?", "target": "2"}) + "\n")
    code, _, err = kedge("add", "quiz.jsonl")
    assert code == 2 and "shape of its records is not known" in err


@pytest.mark.real_data
@pytest.mark.parametrize(("file", "items", "answers"), [
    ("gsm8k_test.jsonl.gz", 1319, 1319), ("math500.jsonl.gz", 500, 500), ("humaneval.jsonl.gz", 164, 164),
    ("mbpp.jsonl.gz", 974, 974), ("ifeval.jsonl.gz", 541, 0), ("bbh.jsonl.gz", 6511, 6511),
    ("mt_bench_questions.jsonl", 80, 0)])  # fmt: skip
def test_real_benchmarks_are_read_whole(catalog, kedge, file, items, answers):
    code, out, err = kedge("add", REAL_DATA / "benchmarks" / file, "--stage", "benchmark", "--json")
    assert code == 0, err
    assert json.loads(out)["num_rejects"] == 0
    code, out, _ = kedge("sql", "SELECT count(*) AS items, count(answer) AS answers FROM rows_benchmark", "--json")
    assert json.loads(out) == [{"items": items, "answers": answers}]
