"""Loops, templated rounds, periodic tails and stale windows are found; tables, songs and code are not loops."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import schema
from curation.catalog import Catalog
from curation.kernels.repetition import periodic_tail
from tests import REAL_DATA
from tests.lakes import conversation
from tests.traces import conversations, reasons, turn, values

NAMES = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("ako", "eri", "ilu", "oma", "uti", "ane", "olo")]


def prose(words: int, seed: int = 0) -> str:
    """Text that never repeats eight words."""
    draw = random.Random(seed)
    return " ".join(draw.choice(NAMES) + draw.choice(NAMES) for _ in range(words)) + "."


def measured(*texts: str, **options: object) -> list[dict]:
    return values("repetition", conversations(*texts), **options)


def fires(row: dict) -> bool:
    """The conditions of the rule looping_answer."""
    return bool(row["loop_rounds"] and row["loop_rounds"] >= 4 and row["loop_words"] >= 200
                and row["words_after_loop"] <= 20 and row["stale_share"] >= 0.1)  # fmt: skip


ROUND = "So the answer is five apples, but let me check that once more. "
CHINESE = "让我再检查一遍这个答案是不是正确的。"
LOOPS = {
    "exact": (prose(200) + " " + ROUND * 40, 13, 40),
    "broken off": ((prose(200) + " " + ROUND * 40)[:-14], 13, 39.8),
    "long rounds": (prose(100) + " " + (prose(300, 1) + " ") * 5, 300, 5),
    "from the first word": (ROUND * 30, 13, 30),
    "Chinese": ("首先我们需要求出函数的导数，然后令其等于零。" + CHINESE * 40, 17, 40),
    "a phrase twice in each round": (prose(50) + " " + "I go on and on and on and so I go on and so on. " * 30, 15, 30),
}


@pytest.mark.parametrize("name", LOOPS)
def test_an_exact_loop_at_the_end_has_its_period_and_rounds_and_both_tests_fire(name: str):
    text, period, rounds = LOOPS[name]
    (row,) = measured(text)
    assert row["loop_period"] == period and row["words_after_loop"] == (name == "broken off"), "half a word is no word"
    assert row["loop_rounds"] == pytest.approx(rounds, abs=0.6)
    assert row["novelty_last"] < 0.02 and fires(row)


def test_a_loop_that_the_text_leaves_is_told_and_does_not_fire():
    (row,) = measured(prose(200) + " " + ROUND * 40 + prose(300, 1))
    assert (row["loop_period"], row["words_after_loop"]) == (13, 300)
    assert row["novelty_min"] == 0 and row["novelty_last"] == 1 and row["stale_share"] == 0 and not fires(row)


def test_a_loop_with_a_counter_is_found_where_numbers_do_not_count():
    rounds = "".join(f"Step {n}: I check {7 * n} and find no divisor, so on to {7 * n + 1}. " for n in range(60))
    (row,) = measured(prose(100) + " " + rounds)
    assert row["loop_share"] == 0 and row["template_loop_period"] == 13 and row["template_loop_share"] > 0.8
    (chinese,) = measured("".join(f"第{n}步，{CHINESE}" for n in range(60)))
    assert chinese["loop_share"] == 0 and chinese["template_loop_period"] == 20


def test_interleaved_loops_have_no_period_and_say_nothing_new():
    draw = random.Random(1)
    pieces = [prose(40, seed) for seed in (1, 2, 3)]
    mixed = " ".join(draw.choice(pieces) for _ in range(60))
    between = " ".join(f"{pieces[0]} {prose(40, seed)}" for seed in range(10, 40))
    first, second = measured(prose(150) + " " + mixed, prose(150) + " " + between)
    assert not fires(first) and first["stale_share"] > 0.3 and first["recycled_share"] > 0.8
    assert second["stale_share"] == 0 and 0.4 < second["recycled_share"] < 0.6, "half of it stood before"


HEALTHY = {
    "prose": prose(2000),
    "song": "\n\n".join(f"{prose(40, n)}\nWe sing, we sing\nWe sing, we sing\nAll day long" for n in range(5)),
    "times table": "\n".join(f"{a} x {b} = {a * b}" for a in range(1, 13) for b in range(1, 13)),
    "numbers": ", ".join(map(str, range(600))),
    "Markdown table": "| name | kg |\n|---|---|\n" + "\n".join(f"| row {n} | {n * n} |" for n in range(80)),
    "code": "\n".join(f"    def {n}(self):\n        return self._{n}\n" for n in NAMES),
    "JSON": json.dumps([{"id": n, "name": NAMES[n], "active": True} for n in range(80)], indent=1),
    "matrix of zeros": "\n".join("[" + "0, " * 11 + "0]," for _ in range(12)),
    "said again at the end": prose(200) + "\n\n**Answer**\n\n" + prose(200),
    "a ruled line": prose(100) + "\n" + "-" * 120,
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_text_does_not_fire(name: str):
    (row,) = measured(HEALTHY[name])
    assert not fires(row)


def test_signs_without_words_are_seen_by_bytes_alone():
    first, second, third = measured(prose(20) + "!" * 300, prose(20) + "\n" + "ab" * 200 + "  \n", prose(20))
    assert (first["tail_period_bytes"], first["tail_rounds"], first["loop_share"]) == (1, 300, 0)
    assert (second["tail_period_bytes"], second["tail_rounds"]) == (2, 200), "white space at the end does not hide it"
    assert third["tail_share"] == 0 and third["tail_period_bytes"] is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=8), st.binary(min_size=1, max_size=4), st.integers(1, 6))
def test_the_periodic_tail_is_the_longest_one_there_is(head: bytes, unit: bytes, rounds: int):
    text = head + unit * rounds
    found = periodic_tail(np.frombuffer(text, np.uint8), 0, len(text), 3, np.zeros(len(text) + 1, np.int32))
    best = (0, 0)
    for period in range(1, len(text)):
        length = period
        while length < len(text) and text[-1 - length] == text[-1 - length + period]:
            length += 1
        if length >= 3 * period and length > best[1]:
            best = (period, length)
    assert found == best


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abcd"), min_size=1, max_size=5),
       st.integers(1, 9), st.lists(st.sampled_from("abc"), max_size=6))  # fmt: skip
def test_a_loop_is_periodic_and_none_of_many_rounds_is_overlooked(head, unit, rounds, tail):
    words = head + unit * rounds + tail
    (row,) = measured(" ".join(words), gram_words=4)
    if row["loop_period"]:
        end = len(words) - row["words_after_loop"]
        loop = words[end - row["loop_words"] : end]
        assert loop[row["loop_period"] :] == loop[: -row["loop_period"]]
        assert len(loop) >= 3 * row["loop_period"]
    else:
        assert rounds < 5 or len(unit) * rounds < 12


def test_duplicate_lines_and_paragraphs_are_counted_without_their_indentation():
    (row,) = measured("one\n  two\n\ntwo\none\n\none\ntwo\nthree")
    assert row["duplicate_line_share"] == pytest.approx(4 / 7)
    assert row["duplicate_line_byte_share"] == pytest.approx(12 / 23)
    assert row["duplicate_paragraph_share"] == 0
    (row,) = measured("a b\nc\n\n\n a b \n c\n\nc")
    assert row["duplicate_paragraph_share"] == pytest.approx(1 / 3)
    assert row["duplicate_paragraph_byte_share"] == pytest.approx(4 / 9)


def test_distinct_n_grams_are_counted_and_short_texts_have_no_novelty():
    (row, empty) = measured("a b a b", "")
    assert [row[f"distinct_{n}"] for n in (1, 2, 3)] == [0.5, pytest.approx(2 / 3), 1]
    assert row["novelty_min"] is None and row["loop_share"] == 0
    assert set(empty.values()) == {None}


def test_a_row_has_the_value_of_its_worst_text_and_questions_do_not_count():
    rows = conversations(
        [turn("user", ROUND * 30), turn("assistant", prose(50)), turn("user", "?"), turn("assistant", ROUND * 30)],
        [turn("user", ROUND * 30), turn("assistant", prose(50))],
        [turn("user", "?"), turn("assistant", "5", reasoning=ROUND * 30)],
    )
    assert [row["loop_share"] for row in values("repetition", rows)] == [1, 0, 1]


def test_pages_are_texts_and_a_pair_is_judged_by_its_chosen_side():
    pages = pa.table({"text": [ROUND * 30, prose(20)], "messages": pa.nulls(2, schema.MESSAGES)})
    assert [row["loop_share"] for row in values("repetition", pages, stage="midtrain")] == [1, 0]
    good, bad = [turn("assistant", prose(50))], [turn("assistant", ROUND * 30)]
    pairs = pa.table({"chosen": pa.array([good, bad, None], schema.MESSAGES),
                      "rejected": pa.array([bad, good, bad], schema.MESSAGES)})  # fmt: skip
    assert [row["loop_share"] for row in values("repetition", pairs, stage="preference")] == [0, 1, 1]


def test_what_is_a_loop_can_be_set():
    text = prose(100) + " " + ROUND * 4
    assert measured(text)[0]["loop_period"] == 13
    assert measured(text, rounds=5)[0]["loop_period"] is None
    assert measured("a b c d " * 3, gram_words=4)[0]["loop_period"] == 4


def test_a_looping_answer_is_left_out_and_a_song_is_not(catalog: Catalog, kedge):
    Path("a.jsonl").write_text(conversation("a?", LOOPS["exact"][0]) + conversation("b?", HEALTHY["song"])
                               + conversation("c?", HEALTHY["times table"]))  # fmt: skip
    assert kedge("add", "a.jsonl")[0] == 0
    assert kedge("measure", "--only", "repetition")[0] == 0
    found = reasons(catalog, "looping_answer", "repetitive_text")
    assert found["looping_answer"] == ["40.0 rounds of the same 13 words (72 % of the text) and nothing new after them"]
    assert found["repetitive_text"] == ["a loop covers much of the text", "rounds that differ by numbers alone"]


@pytest.mark.real_data
def test_no_finished_trace_fires_and_most_endless_ones_do():
    fired = {True: 0, False: 0}
    total = dict(fired)
    for path in sorted((REAL_DATA / "reasoning").glob("*.jsonl.gz")):
        texts = [json.loads(line)["code"][0] for line in gzip.decompress(path.read_bytes()).splitlines()]
        for text, row in zip(texts, measured(*texts), strict=True):
            done = text.rstrip().endswith("<|end_of_solution|>")
            total[done] += 1
            fired[done] += fires(row)
    assert fired[True] == 0 and total[True] > 150
    assert fired[False] > 40
