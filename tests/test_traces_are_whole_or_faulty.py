"""The structure of thoughts: faults of marks, wrong turns, answers that follow, scripts; and which rules act on it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import schema
from curation.catalog import Catalog
from curation.errors import UserError
from curation.measuring import named
from curation.rendering.thoughts import FORMATS, text_format
from tests.lakes import conversation
from tests.traces import conversations, reasons, turn, values


def measured(*rows: list[dict] | str, **options: object) -> list[dict]:
    return values("trace_structure", conversations(*rows), **options)


FAULTS = {
    "<think>sum</think>4": None,
    "<think>and so on": "unclosed",
    "<think>a</think>b<think>c": "unclosed",
    "a thought</think>4": "never opened",
    "<think>a</think>b</think>c": "closed twice",
    "<think>a<think>b</think>c": "nested",
    "<think>a</thinking>b": "mismatched",
    "<think>a b</think><think>a  b</think>c": "duplicated",
    "<think>a</think>b<think>c</think>d": None,
    "<think>\n\n</think>\n\n4": "empty",
    "4": None,
    'It opens with `<think>` and "</think>".': None,
}


def test_every_fault_of_marks_is_named_and_what_is_quoted_is_no_mark():
    assert [row["think_fault"] for row in measured(*FAULTS)] == list(FAULTS.values())


@pytest.mark.parametrize(("opening", "closing"), [
    ("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"), ("<reasoning>", "</reasoning>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"),
])  # fmt: skip
def test_every_pair_of_marks_encloses_a_thought(opening: str, closing: str):
    whole, cut = measured(f"{opening}\né b {closing}\n\n4.", f"{opening}a, b and")
    assert whole["think_marks"] == [opening] and whole["num_thoughts"] == 1
    assert (whole["thought_chars"], whole["chars_outside_thoughts"], whole["thought_share"]) == (3, 2, 0.6)
    assert whole["answer_after_thought"] and not whole["truncated_at_source"]
    assert cut["think_fault"] == "unclosed" and cut["answer_after_thought"] is None and cut["truncated_at_source"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " b\n"]), max_size=8))
def test_faults_agree_with_what_the_launch_audit_says(pieces: list[str]):
    text = "".join(pieces)
    (row,) = measured(text)
    fault = {"unclosed": 1, "never opened": 2, "closed twice": 2, "nested": 3}.get(row["think_fault"], 0)
    assert FORMATS[fault] == FORMATS[text_format(text)]


def test_reasoning_apart_is_a_thought_and_marks_inside_of_it_or_beside_it_are_told():
    apart = lambda thought, answer: [turn("user", "?"), turn("assistant", answer, reasoning=thought)]  # noqa: E731
    rows = measured(apart("a", "4"), apart("<think>a</think>", "4"), apart("a", "<think> a</think>4"), apart("  ", "4"))
    assert [row["think_fault"] for row in rows] == [None, "nested", "duplicated", "empty"]
    both = ["reasoning", "<think>"]
    assert [row["think_marks"] for row in rows[:3]] == [["reasoning"], both, both]
    assert rows[2]["thoughts_per_turn"] == 2 and rows[3]["empty_thoughts"] == 1


def test_marks_are_options():
    (row,) = measured("<plan>a</plan>4 <think>", think_marks=[["<plan>", "</plan>"]])
    assert row["think_marks"] == ["<plan>"] and row["think_fault"] is None
    with pytest.raises(UserError, match="think_marks"):
        named("trace_structure", {"think_marks": []})


def test_text_or_a_call_must_follow_a_thought_in_every_turn():
    call = '[{"name": "f", "arguments": {}}]'
    ask = turn("user", "?")
    rows = measured(
        "<think>a</think>\n  ",
        "<think>a</think>\n4",
        [ask, turn("assistant", "<think>a</think>", tool_calls=call), turn("tool", "1"), turn("assistant", "4")],
        [ask, turn("assistant", None, reasoning="a", tool_calls=call), turn("tool", "1"), turn("assistant", "4")],
        [ask, turn("assistant", "", reasoning="a")],
        [ask, turn("assistant", "<think>a</think>"), ask, turn("assistant", "<think>a</think>4")],
        "<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>\n<|end_of_solution|>",
        "no thought",
    )
    assert [row["answer_after_thought"] for row in rows] == [False, True, True, True, False, False, False, None]


def test_text_before_a_thought_and_thoughts_of_other_turns_are_told():
    thought = f"<think>{'x' * 250}</think>"
    rows = measured(
        "Sure!\n<think>a</think>4",
        "<think>a</think>4 and <think>b</think>5",
        [turn("system", thought), turn("user", "Write <think>your thought</think>."), turn("assistant", "4")],
        [turn("user", f"{thought} x"), turn("assistant", "4")],
        [turn("user", "What is </think>?"), turn("assistant", "<think>a</think>4")],
    )
    assert [row["chars_before_thought"] for row in rows] == [5, 0, 0, 0, 0]
    found = [(row["misplaced_thought_role"], row["misplaced_thought_chars"]) for row in rows]
    assert found == [(None, 0), (None, 0), ("system", 250), ("user", 250), (None, 0)]
    assert rows[3]["num_thoughts"] == 0


@pytest.mark.parametrize(("answer", "cut"), [
    ("<think>so x is", True), ("<think>so x = ", True), ("<think>so, first,", True), ("<think>因此最大值", True),
    ("<think>it is 4.", False), ("<think>对不对？", False), ("<think>he said “no”", False), ("so x is", False),
    ("<think>a</think>\n<answer>it is", True), ("<think>a</think>\n<answer>it is</answer>", False),
])  # fmt: skip
def test_a_row_is_cut_where_its_thought_or_marked_answer_breaks_off_in_mid_sentence(answer: str, cut: bool):
    assert measured(answer)[0]["truncated_at_source"] is cut


def test_scripts_are_counted_in_runs_of_letters_without_formulas_and_single_signs():
    mixed, formula, greek, clean, across = measured(
        "The answer 答案 is therefore 因此 seven.", "设函数 f(x) 满足 \\frac{x}{2} 和 sin x，求 abc 的值。",
        "The angles alpha and β are α + β, and λ too.", "4", "<think>首先我们需要求出</think>The answer is seven.",
    )  # fmt: skip
    assert (mixed["answer_script"], mixed["second_script"], mixed["script_switches"]) == ("Latin", "Han", 4)
    assert mixed["second_script_share"] == pytest.approx(4 / 24)
    assert (formula["answer_script"], formula["second_script"]) == ("Han", None)
    assert (greek["second_script"], greek["second_script_share"]) == (None, 0)
    assert (clean["answer_script"], clean["second_script_share"]) == (None, None)
    assert (across["thought_script"], across["answer_script"], across["script_switches"]) == ("Han", "Latin", 0)


def test_pages_count_as_an_assistants_and_a_pair_is_judged_by_its_chosen_side():
    pages = pa.table({"text": ["<think>a", None], "messages": pa.array(
        [None, [turn("user", "<think>"), turn("assistant", "<think>a</think>b")]], schema.MESSAGES)})  # fmt: skip
    assert [row["think_fault"] for row in values("trace_structure", pages, stage="midtrain")] == ["unclosed", None]
    good, bad = [turn("assistant", "<think>a</think>b")], [turn("assistant", "<think>a")]
    pairs = pa.table({"prompt": pa.array([[turn("user", "?")]] * 3, schema.MESSAGES),
                      "chosen": pa.array([good, bad, None], schema.MESSAGES),
                      "rejected": pa.array([bad, good, bad], schema.MESSAGES)})  # fmt: skip
    found = [row["think_fault"] for row in values("trace_structure", pairs, stage="preference")]
    assert found == [None, "unclosed", "unclosed"]


def test_behaviours_are_counted_in_thoughts_as_words():
    counts = values("reasoning_behaviour", conversations(
        "<think>First, add. Wait, that’s wrong. Let me   double-check. Alternatively, count.</think>Wait, no",
        "<think>首先计算。不对，让我检查。或者换一种方法。</think>4", "<think>The waiters await firsthand.</think>4",
        "Wait, no thought", "<think></think>4",
    ))  # fmt: skip
    names = ("verifications", "backtracks", "subgoals", "alternatives")
    assert [[row[name] for name in names] for row in counts] == [
        [1, 2, 1, 1], [1, 1, 1, 2], [0, 0, 0, 0], [None] * 4, [None] * 4]  # fmt: skip
    assert counts[0]["behaviours_per_1000_chars"] == pytest.approx(1000 * 5 / 77, rel=0.05)


def test_phrases_and_whole_answers_are_options_and_part_of_the_identity():
    rows = conversations("Wait, alternatively <think>hmm</think>")
    (row,) = values("reasoning_behaviour", rows, whole_answers=True, phrases={"backtracks": ["hmm", "wait"]})
    assert (row["backtracks"], row["alternatives"]) == (2, 0)
    prints = {named("reasoning_behaviour", config).fingerprint() for config in
              ({}, {"phrases": {"backtracks": ["hmm"]}}, {"whole_answers": True})}  # fmt: skip
    assert len(prints) == 3


def test_each_rule_of_traces_catches_its_row_and_no_whole_one(catalog: Catalog, kedge):
    thought = "I add the numbers, one after the other, and then I look whether it is right. " * 60
    answers = {
        "unclosed_think": f"<think>{thought}and so",
        "broken_thought": "<think>a<think>b</think>c",
        "no_answer_after_thought": "<think>Alternatively, wait.</think>",
        "odd_thought": "a thought</think>4",
        "language_mixing": "The answer 答案 is therefore 因此 seven.",
        "little_reasoning": f"<think>{'two plus two is four. ' * 100}</think>4",
    }
    lines = [conversation(f"{name}?", answer) for name, answer in answers.items()]
    lines.append(conversation(f"<think>{thought}</think> thought_in_wrong_turn?", "4"))
    lines.append(conversation("whole?", "<think>Wait, let me check that.</think>It is 4."))
    Path("a.jsonl").write_text("".join(lines))
    assert kedge("add", "a.jsonl")[0] == 0
    assert kedge("measure", "--only", "trace_structure")[0] == 0
    found = reasons(catalog, *answers, "thought_in_wrong_turn")
    assert found == {
        "unclosed_think": ["a think block opens and never closes: cut at its source, in mid-sentence after 4626 "
                           "characters"],
        "broken_thought": ["a think block is nested"],
        "no_answer_after_thought": ["no answer follows the thought"],
        "odd_thought": ["a thought is never opened"],
        "language_mixing": ["17 % Han, 4 switches"],
        "little_reasoning": ["0 signs of checking or turning back in 4626 characters of thought",
                             "0 signs of checking or turning back in 2199 characters of thought"],
        "thought_in_wrong_turn": ["a thought of 4619 characters stands in a turn of the user"],
    }  # fmt: skip
