"""Steps: text is split without loss, and records with labelled steps become rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.steps import labelled, split, stepwise
from tests.ingested import rows_of

PIECES = st.sampled_from([
    "a", " ", "\n", "\n\n", "\n \n", "\r\n", "Step 1:", "\nStep 2: ", "\n**Step 3.**", "```", "\n```python\n",
    "\n~~~\n", "$$", "\\[", "\\]", "\\begin{align}", "\\end{align}", "<think>", "</think>", "<|begin_of_thought|>",
    "é", "\u2028",
])  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join), st.sampled_from(["auto", "blank", "marker", "line"]),
       st.sampled_from(["whole", "split"]))  # fmt: skip
def test_steps_that_are_joined_give_the_text_back_and_none_is_blank(text: str, by, thoughts):
    steps = split(text, by, thoughts)
    assert "".join(steps) == text and bool(steps) == bool(text)
    assert all(step.strip() for step in steps) or not text.strip()


@pytest.mark.parametrize(("text", "by", "steps"), [
    ("a\n\nb\n \n\nc\n", "blank", ["a\n\n", "b\n \n\n", "c\n"]),
    ("a\nb\n\nc", "blank", ["a\nb\n\n", "c"]), ("a\nb\n\nc", "auto", ["a\nb\n\n", "c"]),
    ("a\nb\n\n", "auto", ["a\n", "b\n\n"]), ("\n\na\nb", "line", ["\n\na\n", "b"]),
    ("So:\nStep 1: a\n\nb\nstep 2: c", "auto", ["So:\n", "Step 1: a\n\nb\n", "step 2: c"]),
    ("## Step 1\na\n**Step 2.** b", "marker", ["## Step 1\na\n", "**Step 2.** b"]),
    ("Step 1: a\n\nb", "auto", ["Step 1: a\n\n", "b"]), 
    ("see Step 1:\nstepping 2", "marker", ["see Step 1:\nstepping 2"]),
    ("a\n```py\nx\n\ny\n```\nb", "line", ["a\n", "```py\nx\n\ny\n```\n", "b"]),
    ("a\n\n````\n```\n\nx\n````\n\nb", "blank", ["a\n\n", "````\n```\n\nx\n````\n\n", "b"]),
    ("a\n```\nb\n\nc", "line", ["a\n", "```\nb\n\nc"]),
    ("a\n$$\nx\n\ny\n$$\nb", "line", ["a\n", "$$\nx\n\ny\n$$\n", "b"]), ("$$ a\nb", "line", ["$$ a\n", "b"]),
    ("\\[x\ny\\]\nb", "line", ["\\[x\ny\\]\n", "b"]), 
    ("x \\\\[2pt]\ny\n\\]\n", "line", ["x \\\\[2pt]\n", "y\n", "\\]\n"]),
    ("\\begin{cases}a\n\\begin{cases}b\n\\end{cases}\nc\\end{cases}\nd", "line",
     ["\\begin{cases}a\n\\begin{cases}b\n\\end{cases}\nc\\end{cases}\n", "d"]),
    ("`$$`\n```\n$$\n```\na\n$$x$$\nb", "line", ["`$$`\n", "```\n$$\n```\n", "a\n", "$$x$$\n", "b"]),
    ("", "auto", []), ("\n \n", "auto", ["\n \n"]), ("a", "marker", ["a"]),
])  # fmt: skip
def test_a_text_is_split_at_blank_lines_markers_or_lines_but_not_in_code_and_mathematics(text: str, by, steps: list):
    assert split(text, by) == steps


def test_a_thought_is_one_step_unless_its_steps_are_asked_for():
    text = "<think>a\n\nb\n```\nc</think>\n\nd\n\ne"
    assert split(text) == ["<think>a\n\nb\n```\nc</think>\n\n", "d\n\n", "e"]
    assert split(text, thoughts="split") == ["<think>a\n\n", "b\n```\nc</think>\n\n", "d\n\n", "e"]
    assert split("so <think>a\n\nb") == ["so ", "<think>a\n\nb"]
    assert split("a\n\nb</think>\nc\n\nd") == ["a\n\nb</think>\n", "c\n\n", "d"], "the prompt opened the thought"


@pytest.mark.parametrize("unit", ["\n", "$$", "```\n", "<think>", "</think>", "Step 1:\n", "\\[", "\\begin{a}", 
                                  "\n ", "a\n\n", "~~~~", " " * 7])  # fmt: skip
def test_long_texts_without_sense_are_split_in_time(unit: str):
    """Two hundred thousand units: what takes time in proportion to the square never ends."""
    text = unit * 200_000
    for by in ("auto", "blank", "marker", "line"):
        assert "".join(split(text, by, "split")) == text


def line(steps: list, finish: str = "solution", **more) -> dict:
    question = {
        "problem": "What is 2 + 2?",
        "ground_truth_answer": "4",
        "ground_truth_solution": "4",
        "pre_generated_steps": None,
        "pre_generated_answer": None,
    }
    return {"labeler": "9b0e", "timestamp": "2023-01-22T04:34:27.052924", "generation": 9,
            "is_quality_control_question": False, "is_initial_screening_question": False, "question": question,
            "label": {"steps": steps, "total_time": 65782, "finish_reason": finish}} | more  # fmt: skip


def step(*ratings: int | None, chosen: int | None = 0, human=None) -> dict:
    completions = [{"text": f"try {number}\nof it", "rating": rating, "flagged": None}
                   for number, rating in enumerate(ratings)]  # fmt: skip
    return {"completions": completions or None, "human_completion": human, "chosen_completion": chosen}


HUMAN = {"text": "by hand", "rating": None, "source": "human", "flagged": False, "corrected_rating": None}


def add(kedge, name: str, records: list[dict]) -> list[dict]:
    Path(f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    code, _, err = kedge("add", f"{name}.jsonl")
    assert code == 0, err
    return rows_of(name)


def test_lines_of_prm800k_become_rows_with_labelled_steps(catalog, kedge):
    rows = add(kedge, "data", [
        line([step(1), step(-1, 0, chosen=1), step(1)]),
        line([step(1), step(-1, 0, -1, chosen=None)], "found_error"),
        line([step(-1, -1, chosen=None, human=HUMAN), step(None, 1, chosen=1), step(chosen=None), step(1)]),
        line([step(1)], "give_up"),
    ])  # fmt: skip
    assert {row["stage"] for row in rows} == {"preference"} and all(row["prompt"][0]["role"] == "user" for row in rows)
    solved, error, human, given_up = rows
    assert solved["chosen"][0]["content"] == "try 0\nof it\ntry 1\nof it\ntry 0\nof it" and "rejected" not in solved
    assert labelled(solved["chosen"][0]["content"], solved["step_labels"]) == [
        ("try 0\nof it", True), ("try 1\nof it", True), ("try 0\nof it", True)]  # fmt: skip
    assert labelled(solved["chosen"][0]["content"], solved["step_labels"], neutral=False)[1][1] is False
    assert [right for _, right in labelled(error["rejected"][0]["content"], error["step_labels"])] == [True, False]
    assert [text for text, _ in labelled(human["chosen"][0]["content"], human["step_labels"])] == [
        "by hand", "try 1\nof it"]  # fmt: skip
    assert "chosen" not in given_up and given_up["rejected"][0]["content"] == "try 0\nof it"
    kept = json.loads(error["step_labels"])
    assert kept["label"] == {"finish_reason": "found_error", "total_time": 65782}
    assert [other["rating"] for other in kept["steps"][1]["alternatives"]] == [0, -1]
    meta = json.loads(solved["meta"])
    assert meta["question"]["ground_truth_answer"] == "4" and meta["labeler"] == "9b0e" and "label" not in meta


def test_labelled_rows_give_the_records_that_trl_names_stepwise_supervision(catalog, kedge):
    (row,) = add(kedge, "one", [line([step(1), step(-1, 0, chosen=None)], "found_error")])
    records = stepwise("What is 2 + 2?", row["rejected"][0]["content"], row["step_labels"])
    assert [(record["completions"], record["labels"]) for record in records] == [
        (["try 0\nof it", "try 0\nof it"], [True, False]),
        (["try 0\nof it", "try 1\nof it"], [True, True])]  # fmt: skip
    (again,) = add(kedge, "two", [records[0] | {"task": "sum"}])
    assert again["rejected"] == row["rejected"] and again["content_hash"] == row["content_hash"]
    assert records[0] == stepwise("What is 2 + 2?", again["rejected"][0]["content"], again["step_labels"])[0]


def test_records_of_trls_shape_become_rows(catalog, kedge):
    rows = add(kedge, "data", [
        {"prompt": "Which is larger?", "completions": ["a\n", "b"], "labels": [True, True]},
        {"prompt": [{"role": "user", "content": "Which?"}], "completions": ["a", "b"], "labels": [1, 0]},
        {"prompt": "Which one?", "completions": ["a", "b", "c"], "labels": [1, 0, -1]},
        {"prompt": "Which two?", "completions": ["a", "b"], "labels": [True, None]},
    ])  # fmt: skip
    ratings = [[item["rating"] for item in json.loads(row["step_labels"])["steps"]] for row in rows]
    assert ratings == [[1, 1], [1, -1], [1, 0, -1], [1, None]]
    assert rows[0]["chosen"][0]["content"] == "a\n\nb" and [row.get("chosen") for row in rows[1:]] == [None] * 3
    assert [text for text, _ in labelled("a\n\nb", rows[0]["step_labels"])] == ["a\n", "b"]
    assert [record["labels"] for record in stepwise("q", "a\nb", rows[3]["step_labels"])] == [[True]]


BAD = {
    "the labeller called the problem bad": line([step(1)], "bad_problem"),
    "no step has a label": line([step(None)]),
    "a step is blank": {"prompt": "q", "completions": [" "], "labels": [True]},
    "the rating 2 in step 1 is none of": line([step(2)]),
    "chosen_completion 3 of step 1 is none of 1": line([step(1, chosen=3)]),
    "2 completions have 1 labels": {"prompt": "q", "completions": ["a", "b"], "labels": [True]},
    "the label 0.5 of a step": {"prompt": "q", "completions": ["a"], "labels": [0.5]},
    "'completions' is a number": {"prompt": "q", "completions": [3], "labels": [True]},
    "the prompt is empty": {"prompt": " ", "completions": ["a"], "labels": [True]},
    "has no question or no labelled steps": line([step(1)], question="?"),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_record_whose_labels_are_no_use_is_a_counted_reject(catalog, kedge, reason: str):
    good = line([step(1)]) if "question" in BAD[reason] else {"prompt": "q", "completions": ["a"], "labels": [True]}
    Path("data.jsonl").write_text(json.dumps(BAD[reason]) + "\n" + (json.dumps(good) + "\n") * 2)
    code, _, err = kedge("add", "data.jsonl")
    assert code == 1 and reason in err and "data.jsonl:1" in err and "1 of 3 records" in err
