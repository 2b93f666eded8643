"""Planted items are found by every mechanism but paraphrase; look-alikes are not; boilerplate does not flag and does
not hide what is long."""

from __future__ import annotations

import json

import pytest

from curation.measures.contamination import Contamination
from tests.benchmarks.decontamination import checkable_items, judged, work_over
from tests.contamination_corpus import POSITIVES, generated_items, judge, made_words, make_corpus, twin_of
from tests.test_contamination_evidence import FILLER, STORY, compare, inside


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A small corpus of generated items, searched."""
    items = generated_items(800, 5)
    hard = [f"{item['question']}\n{item['answer']}" for item in generated_items(150, 6)]
    corpus = make_corpus(2_500, 3, items, hard)
    work = work_over(corpus, tmp_path_factory.mktemp("planted") / "work")
    Contamination().join(work)
    return corpus, work


def test_every_mechanism_has_its_recall_and_negatives_are_left_alone(planted, capsys):
    corpus, work = planted
    judgement = judged(corpus, work)
    print("\n".join(judgement.lines()))
    assert set(judgement.recall_by_mechanism) == set(POSITIVES) and judgement.not_checkable == 0
    assert all(recall >= 0.9 for recall in judgement.recall_by_mechanism.values()), judgement
    assert all(precision >= 0.98 for precision in judgement.precision_by_mechanism.values()), judgement
    assert judgement.f1 >= 0.98 and sum(flagged for flagged, _ in judgement.flagged.values()) <= 1
    assert judgement.twins_reported[0] == judgement.twins_reported[1] > 10
    assert "edit15       recall" in capsys.readouterr().out


def test_planted_twins_are_reported_as_twins(planted):
    corpus, work = planted
    rows = {row for row, mechanism in enumerate(corpus.mechanism_N) if mechanism == "twin"}
    found = work.connection.execute("SELECT row_id, item, class FROM found").fetchall()
    classes = {(row.int, item.int): kind for row, item, kind in found}
    assert all(classes[row, corpus.item_N[row]] == "twin" for row in rows)


def test_a_row_that_is_flagged_without_cause_costs_precision_and_a_missed_one_recall(planted):
    corpus, work = planted
    checkable = checkable_items(corpus, work)
    nothing = judge(corpus, {}, checkable)
    assert nothing.f1 == 0 and set(nothing.recall_by_mechanism.values()) == {0.0}
    everything = judge(corpus, {row: set() for row in range(len(corpus.rows))}, checkable)
    assert everything.recall == 1 and everything.precision < 0.2
    wrong = judge(corpus, {row: {number + 1} for row, number in enumerate(corpus.item_N)}, checkable)
    assert wrong.precision_by_mechanism["verbatim"] == 0


def test_the_generator_gives_the_same_rows_and_says_what_it_planted():
    items, hard = generated_items(60, 1), ["no item"]
    one, two = (make_corpus(300, 4, items, hard) for _ in range(2))
    assert json.dumps(one.rows) == json.dumps(two.rows) and one.mechanism_N == two.mechanism_N
    assert json.dumps(make_corpus(300, 5, items, hard).rows) != json.dumps(one.rows)
    for row, mechanism, number in zip(one.rows, one.mechanism_N, one.item_N, strict=True):
        assert (number >= 0) == (mechanism in POSITIVES or mechanism == "twin")
        if mechanism == "verbatim":
            assert one.items[number]["question"] in row["text"]
        if mechanism == "answer":
            assert one.items[number]["answer"] in row["text"] and one.items[number]["question"] not in row["text"]
        if mechanism == "twin":
            assert one.items[number]["question"] not in row["text"]


WORDS = made_words(3000)
PHRASE = "where m and n are relatively prime positive integers find m plus n"


def own(number: int, count: int) -> str:
    return " ".join(WORDS[number * count : (number + 1) * count])


def test_boilerplate_that_items_and_many_rows_share_does_not_flag(tmp_path):
    items = [{"question": f"{own(number, 20)} {PHRASE}"} for number in range(10)]
    rows = [{"text": f"{own(40 + number, 12)} {PHRASE}"} for number in range(60)]
    found, _, counts = compare(tmp_path, [*rows, {"text": inside(items[3]["question"])}], items)
    assert [(hit["row_id"].int, hit["item"].int, hit["class"]) for hit in found] == [(60, 1003, "copy")]
    assert counts["not_checkable"] == []


def test_a_template_of_many_items_does_not_flag_another_row_of_the_template(tmp_path):
    template = "Read the sentence below and say whether the person in it tells the truth or lies to the others:"
    items = [{"question": f"{template} {own(number, 8)}"} for number in range(12)]
    rows = [{"text": f"{template} {own(40 + number, 8)}"} for number in range(5)]
    found, _, _ = compare(tmp_path, [*rows, {"text": inside(items[7]["question"])}], items)
    assert [(hit["row_id"].int, hit["item"].int) for hit in found] == [(5, 1007)]


def test_an_item_copied_into_every_row_is_found_however_frequent_it_is(tmp_path):
    rows = [{"text": f"{own(number, 10)}. {STORY} {' '.join(FILLER)}"} for number in range(120)]
    found, measured, _ = compare(
        tmp_path, rows, [{"question": STORY}, {"question": "Who was it that ran past the mill"}]
    )
    assert len(found) == 120 and {hit["class"] for hit in found} == {"copy"}
    assert all(hit["seeds"] == 0 for hit in found), "every n-gram is in all rows, so nothing but its length finds it"
    assert all(row["contamination_score"] == 1.0 for row in measured)


def test_a_short_item_whose_every_n_gram_is_common_in_rows_is_listed_as_not_checkable(tmp_path):
    rows = [
        {"text": f"{own(number, 10)} which of the following is true {own(200 + number, 3)}"} for number in range(120)
    ]
    found, _, counts = compare(tmp_path, rows, [{"question": "Which of the following is true?"}, {"question": STORY}])
    assert found == [] and counts["not_checkable_by_reason"] == {"every n-gram common in rows": 1}


def test_a_long_row_that_holds_many_items_is_evidence_for_all_of_them(tmp_path):
    items = [{"question": f"{own(number, 30)}?"} for number in range(40)]
    found, measured, _ = compare(tmp_path, [{"text": "\n".join(item["question"] for item in items)}], items)
    assert {hit["item"].int for hit in found} == set(range(1000, 1040)) and measured[0]["contamination_items"] == 40


def test_twins_of_the_generator_differ_in_numbers_and_names_alone():
    import random

    text = "Ada had 12 pens and gave Boris 5 of them."
    other = twin_of(text, random.Random(1))
    assert other != text and len(other.split()) == len(text.split())
    differing = [one for one, two in zip(text.split(), other.split(), strict=True) if one != two]
    assert set(differing) <= {"Ada", "12", "Boris", "5"} and {"12", "5"} <= set(differing)
