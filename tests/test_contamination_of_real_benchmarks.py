"""Real benchmarks against real rows: what is flagged is few, and all of it can be read."""

from __future__ import annotations

import gzip
import json

import pytest

from tests import REAL_DATA
from tests.test_contamination_evidence import compare

pytestmark = pytest.mark.real_data


def lines(name: str) -> list[dict]:
    with gzip.open(REAL_DATA / "benchmarks" / name, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def test_of_gsm8k_train_at_most_25_rows_are_flagged_against_gsm8k_test(tmp_path):
    items = [{key: item[key] for key in ("question", "answer")} for item in lines("gsm8k_test.jsonl.gz")]
    rows = [{"text": f"{row['question']}\n{row['answer']}"} for row in lines("gsm8k_train.jsonl.gz")]
    found, measured, counts = compare(tmp_path, rows, items)
    assert len(measured) == 7473 and counts["items"] == {"exam": 1319} and counts["items_not_checkable"] == {"exam": 0}
    flagged = {hit["row_id"] for hit in found}
    assert 5 <= len(flagged) <= 25, "twins included"
    assert sum(row["contamination_items"] > 0 for row in measured) <= 5
    for hit in found:
        text, item = rows[hit["row_id"].int]["text"], items[hit["item"].int - 1000][hit["component"]]
        assert text[hit["start_char"] : hit["end_char"]][:300] == hit["snippet"]
        assert item[hit["item_start"] : hit["item_end"]][:300] == hit["item_snippet"]
        assert 0.65 <= hit["score"] <= 1 and hit["answer_nearby"] is not True
    classes = [hit["class"] for hit in found]
    assert classes.count("copy") == 0 and classes.count("twin") >= 5, "templates with other numbers, no copies"


def test_the_test_split_itself_is_found_whole(tmp_path):
    items = [{key: item[key] for key in ("question", "answer")} for item in lines("gsm8k_test.jsonl.gz")]
    rows = [{"text": f"{item['question']}\n{item['answer']}"} for item in items]
    found, measured, _ = compare(tmp_path, rows, items)
    assert all(row["contamination_score"] == 1.0 for row in measured)
    own = {(hit["row_id"].int, hit["component"]): hit for hit in found if hit["item"].int - 1000 == hit["row_id"].int}
    assert all((number, "question") in own for number in range(len(items)))
    assert sum(own[number, "question"]["answer_nearby"] for number in range(len(items))) > 0.99 * len(items)


def test_mbpp_holds_no_question_of_humaneval(tmp_path):
    items = [{"question": item["prompt"], "answer": item["canonical_solution"]} for item in lines("humaneval.jsonl.gz")]
    rows = [{"text": f"{row['text']}\n{row['code']}"} for row in lines("mbpp.jsonl.gz")]
    found, _, counts = compare(tmp_path, rows, items)
    assert counts["items"] == {"exam": 164} and counts["items_not_checkable"] == {"exam": 0}
    assert [hit for hit in found if hit["component"] == "question"] == []
    assert len({hit["row_id"] for hit in found}) <= 5, "short solutions made of the same idioms"
