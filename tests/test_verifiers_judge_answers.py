"""Verifiers: right, wrong or unparsed."""

from __future__ import annotations

import gzip
import json

import pytest

from curation.verifiers import Finder, choice, exact, numeric
from tests import REAL_DATA


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 1,234.50.", "2469/2"), ("$12", "12"), ("so x = -3.", "-3"), ("5-3", "3"), ("3/4 of it", "3/4"),
        ("\\frac{3}{4}", "3/4"), ("-\\frac{1}{2}", "-1/2"), ("\\boxed{7}", "7"), ("50%", "50"), ("1e3", "1000"),
        ("2.5e-2", "1/40"), ("12.", "12"), ("first 4, then 18", "18"), ("−8", "-8"), ("１２", "12"), (".5", "1/2"),
        ("10/4/2024", "2024"), ("1,2,3", "3"), ("A4", "4"), ("\\$1{,}000", "1000"),
    ],
)  # fmt: skip
def test_the_last_number_of_a_text_is_read_exactly(text: str, number: str):
    assert str(numeric.read_number(text)) == number


@pytest.mark.parametrize("text", ["", "no number here", "x/y", "1/0"])
def test_a_text_without_a_number_is_unparsed_and_not_wrong(text: str):
    assert numeric.judge(text, "3") == ("unparsed", None)


def test_equal_numbers_in_different_spellings_are_right_and_others_wrong():
    assert numeric.judge("it is 0.50", "1/2").state == "right"
    assert numeric.judge("it is 18 dollars", "#### 18").state == "right"
    assert numeric.judge("it is 19", "18") == ("wrong", "19")


def test_a_gold_without_a_number_is_a_defect_of_the_benchmark():
    with pytest.raises(ValueError, match="holds no number"):
        numeric.judge("3", "three")


def test_exact_folds_whitespace_and_unicode_form_and_keeps_case_unless_told():
    assert exact.judge("  he\u0301llo \n world ", "h\u00e9llo world").state == "right"
    assert exact.judge("Hello", "hello").state == "wrong"
    assert exact.judge("Hello", "hello", ignore_case=True).state == "right"
    assert exact.judge(" \n", "x") == ("unparsed", None)


def test_a_finder_takes_the_last_marker_and_the_last_match():
    assert Finder(after="####").find("#### 1 then #### 2") == " 2"
    assert Finder(pattern=r"answer: (\w+)").find("answer: a\nanswer: b") == "b"
    assert Finder(after="####").find("no marker") is None
    assert exact.judge("no marker", "x", Finder(after="####")) == ("unparsed", None)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B).", "B"), ("Answer: C", "C"), ("\\boxed{D}", "D"), ("B", "B"), ("B) because", "B"),
        ("A dog barks, so the answer is C", "C"), ("I think A.\nAnswer: **B**", "B"), ("\\boxed{\\text{A}}", "A"),
    ],
)  # fmt: skip
def test_the_letter_that_an_answer_settles_on_is_read(text: str, letter: str):
    assert choice.read_letter(text) == letter


@pytest.mark.parametrize("text", ["A dog barks.", "", "To be fair, the answer is unclear"])
def test_an_article_or_a_word_is_no_letter(text: str):
    assert choice.judge(text, "A") == ("unparsed", None)


@pytest.mark.real_data
def test_5276_published_judgements_of_gsm8k_answers_are_reproduced_without_exception():
    finder, differing, judged = Finder(after="A:"), [], 0
    with gzip.open(REAL_DATA / "eval_outputs" / "gsm8k_example_model_solutions.jsonl.gz", "rt") as stream:
        for line in stream:
            record = json.loads(line)
            gold = finder.find(record["ground_truth"]) or ""
            for published in (value for value in record.values() if isinstance(value, dict)):
                judged += 1
                ours = numeric.judge(published["solution"], gold, finder)
                if (ours.state == "right") != published["is_correct"]:
                    differing.append((gold, ours))
    assert judged == 5276
    assert differing == []
