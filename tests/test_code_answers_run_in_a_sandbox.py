"""Code answers are judged by tests that they cannot reach, behind walls that hold one without the other."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from curation.verifiers import code, named
from curation.verifiers.code_attacks import on_code
from curation.verifiers.code_tests import code_of, read_tests
from curation.verifiers.named import Item
from tests import REAL_DATA

SUM = "assert total([1, 2, 3]) == 6\nassert total([]) == 0\nassert abs(total([0.25]) - 0.25) < 1e-6\n"
RIGHT = "```python\ndef total(values):\n    return sum(values)\n```"
QUICK = code.Limits(cpu_seconds=1, wall_seconds=4)


def solved(answer: str, gold: str | dict | list) -> tuple[str, int, int]:
    ran = code.run(answer, gold if isinstance(gold, str) else json.dumps(gold), QUICK)
    return ran.state, ran.passed, ran.total


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """Every attack on a prompt of functions and on one of programs: (kind, text, what became of it), the file that none
    may write, and how many connections came in."""
    mark = tmp_path_factory.mktemp("outside") / "mark"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        golds = (SUM, json.dumps({"tests": [{"stdin": "1 2 3\n", "stdout": "6\n"}]}))
        tried = [(kind, text, gold) for gold in golds
                 for kind, text in on_code(gold, str(mark), listener.getsockname()[1])]  # fmt: skip
        found = code.run_all([(text, gold) for _, text, gold in tried], 6, QUICK)
        try:
            listener.accept()
            connected = True
        except BlockingIOError:
            connected = False
    return [(kind, text, ran) for (kind, text, _), ran in zip(tried, found, strict=True)], mark, connected


def test_no_attack_on_the_tests_of_an_answer_scores(attacked):
    outcomes, _, _ = attacked
    assert [(kind, text) for kind, text, ran in outcomes if ran.state == "right" or ran.share > 0] == []
    assert len({kind for kind, _, _ in outcomes}) >= 15 and len(outcomes) > 80


def test_no_attack_writes_outside_reaches_the_network_or_leaves_a_process(attacked):
    _, mark, connected = attacked
    assert not mark.exists() and not connected and list(mark.parent.iterdir()) == []
    left = [item.info["cmdline"] for item in psutil.process_iter(["cmdline"])
            if any("code_sandbox.py" in part for part in item.info["cmdline"] or ())
            and any(parent.pid == psutil.Process().pid for parent in item.parents())]  # fmt: skip
    assert left == []


def test_attacks_end_with_the_outcome_that_is_theirs(attacked):
    outcomes, _, _ = attacked
    states = {kind: Counter(ran.state for other, _, ran in outcomes if other == kind) for kind, _, _ in outcomes}
    assert states["sleeps"] == {"timeout": 2}
    assert states["never ends"]["timeout"] >= 4
    assert states["prose"] == {"unparsed": 2} and states["empty block"] == {"unparsed": 2}
    for kind in ("leaves before the tests", "agrees to everything", "starts processes", "breaks the interpreter"):
        assert states[kind]["error"] == 0, "what an answer does is no failure of the verifier"


@pytest.mark.parametrize(("call", "name"), [
    ("os.fork()", "fork"), ("os.execv('/bin/true', ['true'])", "exec"), ("socket.socket()", "socket"),
    ("os.kill(os.getppid(), 0)", "kill"), ("open(outside, 'w')", "write"), ("open('/etc/passwd')", "read"),
    ("os.mkdir(outside)", "mkdir"), ("os.symlink('/etc', 'way')", "symlink"),
    ("resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))", "limits"),
])  # fmt: skip
def test_the_kernel_refuses_by_itself_what_the_audit_hook_refuses(tmp_path: Path, call: str, name: str):
    folder = Path(code.__file__).parent
    (tmp_path / "scratch").mkdir()
    program = (
        "import os, resource, socket, sys\n"
        "from importlib.machinery import SourceFileLoader\n"
        f"walls = SourceFileLoader('walls', {str(folder / 'code_walls.py')!r}).load_module()\n"
        "sys.addaudithook = lambda hook: None\n"
        f"outside = {str(tmp_path / 'outside')!r}\n"
        "walls_up = walls.raise_walls(os.getcwd(), cpu_seconds=5, memory_bytes=1 << 30, file_bytes=1 << 20)\n"
        "if not {'landlock', 'seccomp'} <= set(walls_up): print('no walls'); sys.exit()\n"
        "open('inside', 'w').write('x')\n"
        f"try:\n    {call}\n    print('went through')\nexcept (OSError, ValueError) as error:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-P", "-s", "-S", "-c", program], cwd=tmp_path / "scratch", text=True,
                          capture_output=True, check=False)  # fmt: skip
    if done.stdout == "no walls\n":
        pytest.skip("this kernel has no Landlock or no seccomp")
    assert done.stdout == "refused\n", done.stderr


def test_an_answer_is_right_where_every_test_passes_and_has_its_share_otherwise():
    assert solved(RIGHT, SUM) == ("right", 3, 3)
    assert solved(RIGHT.replace("sum(values)", "sum(values) if values else 1"), SUM) == ("wrong", 2, 3)
    assert code.run("```python\ndef total(values): return 6\n```", SUM, QUICK).share == pytest.approx(1 / 3)
    assert solved("```python\ndef total(values)\n```", SUM) == ("wrong", 0, 3), "no Python"
    assert solved("I do not know.", SUM) == ("unparsed", 0, 3)


@pytest.mark.parametrize("gold", [
    {"tests": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]},
    ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    {"test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert True\n"
             "    assert candidate(0, 0) == 0\n", "entry_point": "add"},
    "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(0, 0) == 0\n\ncheck(add)\n",
    {"inputs": [[1, 2], [0, 0]], "outputs": [3, 0], "fn_name": "add"},
    {"test_list": ["assert add(one, 2) == 3", "assert add(0, 0) == 0"], "test_setup_code": "one = 1"},
])  # fmt: skip
def test_tests_are_read_in_every_form_that_data_have(gold):
    assert read_tests(gold if isinstance(gold, str) else json.dumps(gold)).total == 2
    assert solved("def add(a, b):\n    return a + b\n", gold) == ("right", 2, 2)
    assert solved("def add(a, b):\n    return 3\n", gold) == ("wrong", 1, 2)
    method = "class Solution:\n    def add(self, a, b):\n        return a + b\n"
    assert solved(method, gold) == ("right", 2, 2), "a method of Solution is found by its name"


def test_programs_are_judged_by_what_they_print_for_each_input():
    gold = {"tests": [{"stdin": "2\n", "stdout": "4"}, {"stdin": "5\n", "stdout": "10\n"}]}
    assert solved("```py\nprint(int(input()) * 2)\n```", gold) == ("right", 2, 2)
    assert solved("print(4)", gold) == ("wrong", 1, 2)
    assert solved("print(int(input()) * 2)\nraise SystemExit(3)", gold) == ("wrong", 0, 2), "it did not end well"


@pytest.mark.parametrize(("answer", "test"), [
    ("def f(values): values.sort()", "a = [2, 1]\nf(a)\nassert a == [1, 2]"),
    ("def f(g): return g(2) + 1", "assert f(lambda x: x * 10) == 21"),
    ("def f():\n    yield 1\n    yield 2", "assert list(f()) == [1, 2]"),
    ("def f(x):\n    if x < 0: raise ValueError('no')", "try:\n    f(-1)\n    assert False\nexcept ValueError as e:\n"
     "    assert str(e) == 'no'"),
    ("class Full(Exception): pass\ndef f(): raise Full('x')", "try:\n    f()\n    raise RuntimeError\nexcept Full:\n"
     "    assert f is not None"),
    ("class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
     "    def pop(self): return self.items.pop()", "s = Stack()\ns.push(4)\nassert s.pop() == 4"),
    ("def f(): return {'a': (1, {2}), 'b': [None, 1.5, b'x', 1j]}",
     "assert f() == {'a': (1, {2}), 'b': [None, 1.5, b'x', 1j]}"),
    ("def f(x): return [y for y in x if not isinstance(y, str)]", "assert f([1, 'a']) == [1]"),
    ("def f(x, kind): return [y for y in x if isinstance(y, kind)]", "assert f([1, 'a'], str) == ['a']"),
    ("from collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
    ("class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\n"
     "def f(x): return P(x)", "assert f(2) == P(2) and f(2) != P(3) and isinstance(f(2), P) and f(2).x == 2"),
    ("def total(n):\n    return n.value + total(n.next) if n else 0",
     "class Node:\n    def __init__(self, value, next=None): self.value, self.next = value, next\n"
     "assert total(Node(1, Node(2))) == 3"),
    ("import asyncio\nasync def g(): return 3\ndef f(): return asyncio.run(g())", "assert f() == 3"),
    ("def f():\n    open('a.txt', 'w').write('hi')\n    return open('a.txt').read()", "assert f() == 'hi'"),
    ("import math\ndef f(x): return math.sqrt(x)", "assert math.isclose(f(4), 2.0)"),
    ("def sum(a, b): return a - b", "assert sum(3, 1) == 2"),
])  # fmt: skip
def test_values_objects_and_exceptions_cross_between_answer_and_tests(answer: str, test: str):
    ran = code.run(answer, test, QUICK)
    assert (ran.state, ran.detail) == ("right", None)


def test_a_ground_truth_without_tests_is_an_error_and_no_wrong_answer():
    nameless = "def check(candidate):\n    assert candidate(1)"
    for gold in ("", "[]", "{}", "assert True", "x = 1", nameless, "assert ("):
        with pytest.raises(ValueError, match=r"test|entry point"):
            read_tests(gold)
        assert named.judge_all([Item("code", RIGHT, gold)])[0].state == "error"


def test_tests_that_end_their_own_process_are_an_error_of_theirs():
    assert solved(RIGHT, "import os\nos._exit(0)\nassert total([]) == 0")[0] == "error"


def test_code_is_the_last_block_of_python_of_an_answer():
    assert code_of("```python\na = 1\n```\nBetter:\n```python\na = 2\n```\n```json\n{}\n```") == "a = 2\n"
    assert code_of("```\nx = 1") == "x = 1", "a block that is cut"
    assert code_of("Use `x`.") is None and code_of("import os\n") == "import os\n"


def test_code_is_judged_by_name_after_the_thought_with_its_share():
    items = [Item("code", f"<think>{RIGHT}</think>\nno code here", SUM),
             Item("code", f"<think>x</think>{RIGHT}", SUM),
             Item("code", f"<think>{RIGHT}", SUM),
             Item("code", "def total(v): return 0", SUM, "Write total.")]  # fmt: skip
    graded = named.grade_all(items)
    assert [item.judgement.state for item in graded] == ["unparsed", "right", "unparsed", "wrong"]
    assert [round(item.share, 2) for item in graded] == [0, 1, 0, 0.33]
    assert named.canonical("mbpp") == named.canonical("HumanEval") == "code"


def rows(name: str) -> list[dict]:
    with gzip.open(REAL_DATA / "benchmarks" / f"{name}.jsonl.gz", "rt") as stream:
        return [json.loads(line) for line in stream]


@pytest.mark.real_data
def test_the_reference_solutions_of_humaneval_and_mbpp_pass_their_tests():
    """All 1,138 do (two minutes); every 25th is run here."""
    items = [(row["prompt"] + row["canonical_solution"],
              json.dumps({"tests": row["test"], "entry_point": row["entry_point"]}))
             for row in rows("humaneval")]  # fmt: skip
    items += [(row["code"], json.dumps({"tests": row["test_list"], "setup": row["test_setup_code"]}))
              for row in rows("mbpp")]  # fmt: skip
    states = [ran.state for ran in code.run_all(items[::25], 4) if ran is not None]
    assert states == ["right"] * len(items[::25])
