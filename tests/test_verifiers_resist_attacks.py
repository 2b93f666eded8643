"""Attacks on verifiers: answers that know nothing, or say everything, score zero, and honest ones keep their score."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.verifiers import attacks, choice, logic, math, named, numeric
from curation.verifiers.named import Item, judge_all
from curation.verifiers.pool import Workers
from tests import REAL_DATA

PUZZLE = json.dumps({"solution_text_format": "(1) Ann is a knight\n(2) Bob is a knave\n(3) Cy is a knight"})
OPTIONS = "Which one is it? (A) a cat (B) a dog (C) a cow (D) a hen"
MADE = [
    ("numeric", "18", "Ann has 16 eggs, eats 3 and sells 4 for 2 dollars each."),
    ("numeric", "-3.5", "From 7 take 10.5, then 0."),
    ("math", "18", "Ann has 16 eggs, eats 3 and sells 4 for 2 dollars each."),
    ("math", "\\frac{3}{7}", "Simplify the ratio of 9 and 21 to one another."),
    ("math", "2x+6", "Double the sum of 3 and the unknown x."),
    ("math", "(3, \\frac{\\pi}{2})", "Convert the point (0, 3) to polar coordinates."),
    ("math", "\\text{east}", "After 3 turns of 90 degrees, where does she look?"),
    ("exact", "Paris", "Which city is the capital of France?"),
    ("logic", PUZZLE, 'Ann says "Bob is a knave". Bob says "Cy is a knave". Who is a knight?'),
    *(("choice", letter, OPTIONS) for letter in "ABCD"),
]


def tried(rows: list[tuple[str, str, str]]) -> tuple[list[tuple[str, Item]], list[Item]]:
    hostile = [(kind, Item(verifier, text, gold, prompt)) for verifier, gold, prompt in rows
               for kind, text in attacks.attacks(verifier, gold, prompt)]  # fmt: skip
    honest = [Item(verifier, text, gold, prompt) for verifier, gold, prompt in rows
              for text in attacks.forms(verifier, gold).values()]  # fmt: skip
    return hostile, honest


def scored(rows: list[tuple[str, str, str]]) -> tuple[list[tuple[str, Item]], list[Item], Counter[str]]:
    """The attacks that are not refused, the honest answers that are, and how many attacks of each kind were tried."""
    hostile, honest = tried(rows)
    with Workers() as workers:
        judged = judge_all([item for _, item in hostile] + honest, workers)
    hits = [
        pair for pair, judgement in zip(hostile, judged, strict=False) if judgement.state not in ("wrong", "unparsed")
    ]
    losses = [
        item for item, judgement in zip(honest, judged[len(hostile) :], strict=True) if judgement.state != "right"
    ]
    return hits, losses, Counter(kind for kind, _ in hostile)


def test_no_attack_on_made_rows_scores_and_no_honest_answer_is_lost():
    hits, losses, kinds = scored(MADE)
    assert hits == [] and losses == []
    assert len(kinds) >= 18 and kinds["several boxed answers"] > 50 and kinds["all options listed"] > 100


def read(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(REAL_DATA / "benchmarks" / name, "rt") as stream:
        yield from map(json.loads, stream)


def real_rows(name: str) -> list[tuple[str, str, str]]:
    if name == "gsm8k":
        return [
            ("numeric", row["answer"].split("####")[1].strip(), row["question"]) for row in read("gsm8k_test.jsonl.gz")
        ]
    if name == "math500":
        return [("math", row["answer"], row["problem"]) for row in read("math500.jsonl.gz")]
    puzzles = pq.read_table(REAL_DATA / "rlvr" / "knights_knaves_5ppl_test.parquet", columns=["reward_model", "quiz"])
    return [("logic", json.dumps(row["reward_model"]["ground_truth"]), row["quiz"]) for row in puzzles.to_pylist()]


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "step"), [("gsm8k", 40), ("math500", 50), ("knights", 6)])
def test_no_attack_on_real_rows_scores_and_no_honest_answer_is_lost(name: str, step: int):
    hits, losses, _ = scored(real_rows(name)[::step])
    assert hits == [] and losses == []


def test_a_number_that_is_alone_in_a_copied_prompt_is_a_guess_and_no_attack():
    assert list(attacks._copied("Name the number 18.")) == []
    assert numeric.judge("18", "18").state == "right", "no verifier can tell this copy from an answer"


@pytest.mark.parametrize("verifier", ["numeric", "math"])
def test_an_echoed_prompt_is_no_answer_even_where_it_ends_with_the_right_number(verifier: str):
    prompt = "How many legs do two cats have if one of them has 4 and both have 8"
    first, second, third = (
        judge_all([Item(verifier, text, "8", prompt)])[0].state
        for text in (prompt, f"{prompt}\nThe answer is", f"{prompt}\n\nThe answer is 8")
    )
    assert (first, second, third) == ("unparsed", "unparsed", "right")
    short = Item("choice", "B", "B", "Is it (A) or (B) or (B) again, say A or B")
    assert judge_all([short])[0].state == "right", "a few words of the prompt may be the answer"


@pytest.mark.parametrize(("text", "state"), [
    ("16, 3, 4 or 18", "wrong"), ("3 4 18", "wrong"), ("3\n4\n18", "wrong"), ("The answer is not 18.", "wrong"),
    ("18 is wrong", "wrong"), ("The answer is 3. The answer is 18.", "wrong"), ("\\boxed{3} \\boxed{18}", "wrong"),
    ("\\boxed{18}, that is \\boxed{18.0}", "right"), ("Step 2\n18", "right"), ("9 + 9 = 18", "right"),
    ("not 17 but 18", "right"), ("The answer is 17+1.\nSo it is 18", "right"), ("an area of 18 m^2", "right"),
    ("an area of 18 m²", "right"), ("17 ½ + ½ = 18", "right"), ("l8", "wrong"), ("<step18></step18>", "unparsed"),
    ("I counted 5, then 13: 18", "right"), ("1⁸", "wrong"), ("<think>18</think> it is", "unparsed"),
])  # fmt: skip
def test_a_number_counts_where_the_answer_commits_itself_to_it(text: str, state: str):
    assert judge_all([Item("numeric", text, "18")])[0].state == state


@pytest.mark.parametrize(("text", "letter"), [
    ("The answer is A or B", None), ("Answer: B is incorrect", None), ("A\nB\nC", None),
    ("\\boxed{A} \\boxed{B}", None),
    ("Option A is a fish. Option B is a bird. So option B", "B"), ("A) no\nB) no\nC) no", None), ("ABCD", None),
    ("Answer: A\n\nWait.\n\nAnswer: B", None), ("**Answer: (C)**", "C"), ("А", None), ("B. The second", "B"),
])  # fmt: skip
def test_a_letter_counts_where_the_answer_commits_itself_to_it(text: str, letter: str | None):
    assert choice.read_letter(text) == letter


def test_the_dotless_i_is_no_letter_of_an_option():
    assert choice.judge("ı", "I").state == "unparsed"
    with pytest.raises(ValueError, match="no letter"):
        choice.judge("A", "AB")


@pytest.mark.parametrize(("text", "state"), [
    ("(1) Ann is a knight (2) Bob is a knave (3) Cy is a knight", "right"),
    ("- **Ann**: Knight\n- **Bob**: Knave\n- **Cy**: Knight", "right"),
    ("Knights: Ann, Cy\nKnaves: Bob", "right"), ("Ann and Cy are knights, and Bob is a knave.", "right"),
    ("Ann is not a knave, Bob isn't a knight, Cy is a knight", "right"),
    ("<think>Bob is a knight</think><answer>(1) Ann is a knight (2) Bob is a knave\n(3) Cy is a knight</answer>",
     "right"),
    ("If Bob is a knight, Ann lies.\n\nSo Ann is a knight, Bob is a knave, Cy is a knight.", "right"),
    ("Ann is a knight, Bob is a knave", "wrong"), ("Ann is a knight, Bob is a knave, Cy is a knave", "wrong"),
    ("Ann is a knight, Bob is a knight and a knave, Cy is a knight", "wrong"), ("Ann, Bob and Cy", "unparsed"),
    ("<answer></answer>", "unparsed"), ("Annabel is a knight", "unparsed"), ("", "unparsed"),
    ("<answer>Ann is a knave</answer><answer>Ann is a knight, Bob is a knave, Cy is a knight</answer>", "wrong"),
])  # fmt: skip
def test_roles_of_knights_and_knaves_are_read_in_several_phrasings(text: str, state: str):
    assert judge_all([Item("logic", text, PUZZLE)])[0].state == state


def test_a_puzzle_without_roles_or_with_somebody_twice_is_a_defect():
    for gold in ("nobody", "{}", '{"solution_text_format": 3}', "(1) Ann is a knight\n(2) Ann is a knave"):
        with pytest.raises(ValueError, match="assigns no roles"):
            logic.judge("Ann is a knight", gold)


@pytest.mark.parametrize(("name", "verifier"), [
    ("openai/gsm8k", "numeric"), ("math_dapo", "math"), ("deepscaler", "math"), ("AIME2025", "math"),
    ("kk_logic", "logic"), ("numeric", "numeric"), ("codeforces", None), ("", None), (None, None),
])  # fmt: skip
def test_names_of_data_stand_for_a_verifier_or_for_none(name: str | None, verifier: str | None):
    assert named.canonical(name) == verifier


@pytest.mark.parametrize(("verifier", "gold", "other"), [
    ("numeric", "18", "28"), ("math", "\\frac{9}{7}", "\\frac{0}{7}"), ("math", "\\pi", "\\pi + 1"),
    ("math", "\\text{east}", "\\text{ease}"), ("choice", "(B)", "C"), ("choice", "H", "A"), ("exact", "Rome", "Roma"),
])  # fmt: skip
def test_a_perturbed_answer_is_another_answer_of_the_same_form(verifier: str, gold: str, other: str):
    assert attacks.perturbed(verifier, gold) == other


def test_the_first_role_of_a_perturbed_puzzle_is_flipped():
    assert attacks.perturbed("logic", PUZZLE).splitlines()[0] == "(1) Ann is a knave"


def test_huge_hostile_texts_are_judged_in_time_that_is_linear_in_them():
    texts = ["\\boxed{" * 20_000, "(" * 50_000, "1 " * 20_000, "$" * 20_000, "answer is " * 10_000, "9" * 50_000,
             "\\boxed{1}" * 10_000, "<answer>" * 10_000, "a knight " * 10_000, "x\n" * 20_000,
             "answer" + " " * 20_000 + "x", "option" + " " * 20_000 + "x", "\n" * 20_000,
             "\\boxed{a" + " " * 20_000 + "x}", "Bob is a knight " * 10_000]  # fmt: skip
    judged = judge_all([Item(verifier, text, gold) for verifier, gold in
                        (("numeric", "2"), ("choice", "A"), ("logic", PUZZLE), ("exact", "x"), ("math", "2"))
                        for text in texts])  # fmt: skip
    assert {item.state for item in judged} <= {"wrong", "unparsed"}


def test_the_verifiers_but_for_the_worker_need_the_standard_library_alone():
    import subprocess
    import sys

    folder = Path(math.__file__).parent
    modules = [f"curation.verifiers.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"]
    code = f"import sys; sys.path.insert(0, {str(folder.parent.parent)!r}); import {', '.join(modules)}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
