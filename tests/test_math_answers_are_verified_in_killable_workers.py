"""Verifier `math`: every comparison ends with an outcome, and what ends badly harms no other."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import signal
from pathlib import Path

import psutil
import pytest

from curation.errors import EXIT_INSTRUMENT
from curation.verifiers.math import Comparison, answers, clean, num_parts, settle
from curation.verifiers.named import Item, judge_all
from curation.verifiers.pool import Workers, WorkersFailed
from tests import REAL_DATA

EASY = {"gold": "\\frac{1}{2}", "answers": ["0.5"], "together": None}
WRONG = {"gold": "\\frac{1}{2}", "answers": ["0.4"], "together": None}
ENDLESS = {"gold": "18", "answers": ["9^{9^{9^{9}}}"], "together": None}


@pytest.fixture(scope="module")
def workers():
    with Workers() as pool:
        yield pool


@pytest.mark.parametrize(("text", "gold", "state"), [
    ("\\boxed{\\frac{1}{2}}", "0.5", "right"), ("\\boxed{x=5}", "5", "right"), ("\\boxed{5}", "x=5", "right"),
    ("\\boxed{2(x+3)}", "2x+6", "right"), ("\\boxed{2,1}", "1, 2", "right"),
    ("\\boxed{1} and \\boxed{2}", "1,2", "right"),
    ("\\boxed{90}", "90^\\circ", "right"), ("\\boxed{Evelyn}", "\\text{Evelyn}", "right"),
    ("\\boxed{E}", "\\text{(E)}", "right"),
    ("\\boxed{1 + \\sqrt{19}, 1 - \\sqrt{19}}", "1 \\pm \\sqrt{19}", "right"),
    ("\\boxed{12^{\\text{th}}\\text{ grade}}", "12", "right"),
    ("so the value of $b$ is $\\frac{7}{4}$.\n\nI think that's the answer.", "\\frac 74", "right"),
    ("so 9", "9", "right"), ("Therefore there are 9 divisors.", "9", "right"),
    ("n = 3, 5, 13", "n = 2, 5, 13", "wrong"),
    ("#### 1,000", "1000", "right"), ("\\boxed{10\\,000}", "10,000", "right"),
    ("\\boxed{3} then \\boxed{18}", "18", "wrong"), ("\\boxed{\\neq 18}", "18", "wrong"),
    ("\\boxed{5 = 18}", "18", "wrong"),
    ("\\boxed{\\sqrt{6} = \\sqrt{5}}", "\\sqrt{5}", "wrong"), ("\\boxed{\\theta = 60^\\circ}", "60^\\circ", "right"),
    ("\\boxed{\\sin 30^\\circ = \\frac{1}{2}}", "\\frac{1}{2}", "right"), ("\\boxed{f(2) = 5}", "5", "right"),
    ("\\boxed{2+3 = 5}", "5", "right"), ("\\boxed{a_{10} = 5}", "5", "right"),
    ("\\boxed{20t+12 = 10t+12}", "10t+12", "wrong"),
    ("\\boxed{x \\in [-3,7]}", "x \\in [-2,7]", "wrong"), ("\\boxed{[-2,7]}", "x \\in [-2,7]", "right"),
    ("\\boxed{y = 3x = y = 2x}", "y = 2x", "wrong"), ("\\boxed{1 5}", "15", "wrong"),
    ("\\boxed{5 \\cup 18}", "18", "wrong"), ("\\boxed{18 \\text{ is wrong}}", "18", "wrong"),
    ("\\boxed{1 8}", "9", "wrong"),
    ("\\boxed{seat}", "\\text{east}", "wrong"), ("The answer is $3$ or $18$.", "18", "wrong"),
    ("\\boxed{80 150}", "230", "wrong"),
    ("The answer is $3$. The answer is $18$.", "18", "wrong"), ("The answer is not $18$.", "18", "wrong"),
    ("\\boxed{(1,2)}", "(2,1)", "wrong"), ("\\boxed{}", "18", "unparsed"), ("", "18", "unparsed"),
    ("no idea at all, I am lost", "18", "unparsed"),
    ("<think>\\boxed{18}", "18", "unparsed"), ("<think>\\boxed{3}</think>\\boxed{18}", "18", "right"),
    ("<|begin_of_thought|>3<|end_of_thought|><|begin_of_solution|>\\boxed{18}<|end_of_solution|>", "18", "right"),
    ("\\boxed{18}", " ", "error"), ("\\boxed{0.5}", "\\frac{2 k n}{n+k-1}-2 \\frac{k!n!}{(k+n-1)!", "error"),
])  # fmt: skip
def test_an_answer_is_right_wrong_unparsed_or_has_no_reference(workers, text: str, gold: str, state: str):
    assert judge_all([Item("math", text, gold)], workers)[0].state == state


def test_a_question_that_never_ends_is_a_timeout_and_its_neighbours_keep_their_verdicts():
    with Workers(cpu_seconds=1) as pool:
        assert pool.ask([EASY, ENDLESS, WRONG, EASY, ENDLESS, EASY]) == [
            "right", "timeout", "wrong", "right", "timeout", "right"]  # fmt: skip
        assert pool.started == 3, "each timeout costs one process"
        assert pool.ask([WRONG]) == ["wrong"] and pool.started == 3, "the pool is used again"


def test_the_wall_clock_ends_what_spends_no_processor_time():
    with Workers(cpu_seconds=600, wall_seconds=1) as pool:
        assert pool.ask([EASY, ENDLESS, EASY]) == ["right", "timeout", "right"]


HOSTILE = ["(10^9)!", "10^{10^{10}}", "(" * 900 + "2" + ")" * 900, "\\frac{1}{" * 150 + "2" + "}" * 150, "9" * 1999]


def test_hostile_mathematics_ends_with_an_outcome_and_is_never_right():
    items = [Item("math", f"\\boxed{{{text}}}", "18.5") for text in HOSTILE]
    with Workers(cpu_seconds=1) as pool:
        states = [item.state for item in judge_all([*items, Item("math", "\\boxed{37/2}", "18.5")], pool)]
    assert states[-1] == "right" and set(states[:-1]) <= {"timeout", "wrong", "unparsed", "error"}
    assert "timeout" in states


def test_a_worker_that_is_killed_from_outside_is_replaced_and_its_question_asked_again(workers):
    assert workers.ask([EASY]) == ["right"]
    (idle,) = workers._idle
    os.kill(idle.process.pid, signal.SIGKILL)
    assert workers.ask([EASY, WRONG]) == ["right", "wrong"]


def test_results_are_the_same_whatever_the_number_of_workers(workers):
    questions = [{"gold": "18.5", "answers": [f"{value}/2"], "together": None} for value in range(30, 45)]
    assert workers.number == 1
    with Workers(3) as three:
        assert (
            workers.ask(questions)
            == three.ask(questions)
            == ["right" if value == 37 else "wrong" for value in range(30, 45)]
        )


def test_a_closed_pool_leaves_no_process_behind():
    with Workers() as pool:
        pool.ask([EASY])
        process = psutil.Process(pool._idle[0].process.pid)
        assert process.is_running()
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_an_interpreter_without_math_verify_is_one_clear_error(tmp_path: Path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'ModuleNotFoundError: math_verify' >&2\nexit 1\n")
    fake.chmod(0o755)
    with Workers(python=str(fake)) as pool, pytest.raises(WorkersFailed, match=r"exit code 1.*math_verify") as error:
        pool.ask([EASY])
    assert error.value.exit_code == EXIT_INSTRUMENT
    assert "pip install math-verify" in str(error.value) and str(fake) in error.value.problems[0].next
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value), "it crosses from a measuring process"


def test_an_interpreter_that_is_not_there_is_one_clear_error(tmp_path: Path):
    with Workers(python=str(tmp_path / "gone")) as pool, pytest.raises(WorkersFailed, match="cannot be started"):
        pool.ask([EASY])


def test_a_measure_whose_verifier_cannot_start_ends_without_a_traceback(catalog, kedge, monkeypatch):
    """The interpreter finds a math_verify first that cannot be imported."""
    broken = catalog.project.root / "broken"
    broken.mkdir()
    (broken / "math_verify.py").write_text("raise ImportError('No module named latex2sympy2_extended')\n")
    row = {"prompt": "half?", "ground_truth": "\\sqrt{2}", "verifier": "math"}
    Path("asked.jsonl").write_text(json.dumps(row) + "\n")
    assert kedge("add", "asked.jsonl")[0] == 0
    monkeypatch.setenv("PYTHONPATH", str(broken), prepend=":")
    code, _, err = kedge("measure", "--only", "verifiable")
    assert code == EXIT_INSTRUMENT and "latex2sympy2_extended" in err and "pip install math-verify" in err
    assert "Traceback" not in err and "defect of kedge" not in err


def test_a_file_of_the_working_directory_does_not_stand_in_for_a_library(tmp_path: Path, monkeypatch):
    (tmp_path / "sympy.py").write_text("raise SystemExit('taken over')")
    monkeypatch.chdir(tmp_path)
    with Workers() as pool:
        assert pool.ask([EASY]) == ["right"]


def test_whole_numbers_fractions_and_words_need_no_process():
    for text, gold in (("\\boxed{1,000}", "1000"), ("\\boxed{\\frac{2}{4}}", "1/2"), ("\\boxed{east}", "\\text{east}")):
        assert settle(text, gold) == ("right", text[7:-1])
    assert isinstance(settle("\\boxed{0.5}", "1/2"), Comparison)


def test_the_answer_is_the_box_else_the_statement_else_the_last_value():
    assert answers("\\boxed{1} so \\boxed{ 1 }") == (("1",), True)
    assert answers("\\boxed{\\boxed{7}}") == (("7",), True)
    assert answers("The answer is $x+1$, since 3 > 2.") == (("x+1",), True)
    assert answers("so\n\n$y = 2$\n") == (("y = 2",), True)
    assert answers("2\n1\n-1")[1] is False
    assert answers("I think the answer is correct.") == ((), True)


def test_a_reference_is_read_without_the_marks_around_it():
    for gold in ("$\\frac{1}{2}$", "\\boxed{\\frac{1}{2}}", "\\( \\frac{1}{2} \\)", "steps\n#### \\frac{1}{2}."):
        assert clean(gold) == "\\frac{1}{2}"
    assert clean("$x$ or $y$") == "$x$ or $y$"
    for text, count in (
        ("1, 2 or 3", 3),
        ("(1,2)", 2),
        ("1,000", 1),
        ("f(1,2)", 1),
        ("3 \\pm \\sqrt{2}", 2),
        ("x=1,y=2", 2),
    ):
        assert num_parts(text) == count


@pytest.mark.real_data
def test_every_one_of_500_real_answers_has_an_outcome_that_agrees_with_the_published_one_or_mends_it():
    with gzip.open(REAL_DATA / "reasoning" / "sky_t1_5k_27b_math500.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    judged = judge_all([Item("math", row["code"][0], row["answer"]) for row in rows])
    assert len(judged) == 500 and {item.state for item in judged} == {"right", "wrong", "unparsed"}
    differing = {row["idx"]: item.state for row, item in zip(rows, judged, strict=True)
                 if (item.state == "right") != row["score"][0]}  # fmt: skip
    # Read one by one: 14 right answers that the published parser misread, a cut text that ends with the right number by
    # luck, 7 texts that were cut before their answer.
    assert sorted(differing.values()) == ["right"] * 15 + ["unparsed"] * 7
