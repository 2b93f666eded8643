"""The processes in which an answer's code and its tests run: `python -P -s -S -B code_sandbox.py ROLE SETTINGS`.

The answer and the tests never share a process. `tests` runs the test statements and holds the expected values; what it
asks of the answer (a function called, an attribute read) goes over a pipe to `answer`, which holds the answer's code,
and comes back as plain data. So no answer can read a test, overwrite `assert`, compare itself equal or print a mark:
all it can do is to return values. `program` runs an answer that reads standard input and writes standard output.

SETTINGS is JSON; both roles read one JSON object from the descriptor `input`. Standard library alone, and no import of
this package. Each role raises the walls (code_walls.py) before it runs anything.
"""

# pathlib would double the time in which this starts:
# ruff: noqa: PTH100, PTH109, PTH118, PTH120
from __future__ import annotations

import json
import os
import sys
import types
from importlib.machinery import SourceFileLoader
from typing import Any

ANSWER, TESTS = "answer", "tests"


def _beside(name: str) -> Any:
    """A module of this folder, which is not on the path: it holds names of the standard library."""
    return SourceFileLoader(name, os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")).load_module()


code_link = _beside("code_link")
Closed, Handle, Link, text_of = code_link.Closed, code_link.Handle, code_link.Link, code_link.text_of


def same(found: Any, expected: Any) -> bool:
    """Whether two values are equal where tuples count as lists, as tests that came as JSON mean it."""
    if isinstance(found, tuple | list) and isinstance(expected, tuple | list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected) and isinstance(found, bool) == isinstance(expected, bool)


class _Names:
    """What the tests may ask the answer's process for: its globals, and `Solution().NAME` where only that is there."""

    def __init__(self, module: types.ModuleType, failure: str):
        self.module, self.failure = module, failure

    def find(self, name: str) -> Any:
        if self.failure:
            raise RuntimeError(self.failure)
        held = vars(self.module)
        if name not in held and "Solution" in held:
            return getattr(held["Solution"](), name)
        if name not in held:
            raise NameError(f"the answer defines no {name}")
        return held[name]


def run_answer(given: dict[str, Any], source: int, target: int) -> None:
    """Define what the answer defines, then do what the tests ask."""
    link = Link(source, target, trusting=True)
    failure = ""
    module = types.ModuleType(ANSWER)
    sys.modules[ANSWER] = module
    try:
        exec(compile(given["code"], f"<{ANSWER}>", "exec"), vars(module))
    except MemoryError:
        raise
    except BaseException as error:
        failure = f"{type(error).__name__}: {text_of(error)}"
    link.objects.append(_Names(module, failure).find)
    link.serve()


def run_tests(given: dict[str, Any], source: int, target: int, result: int) -> None:
    """Run setup and steps in one namespace; a line [index, passed, what was raised] for each counted step."""
    link = Link(source, target, trusting=False)
    find = Handle(link, 0)
    module = types.ModuleType(TESTS)
    sys.modules[TESTS] = module
    space = vars(module)
    space["__same__"] = same
    problem = None
    for name, alias in given["names"]:
        try:
            space[alias] = find(name)
        except Exception as error:
            problem = problem or f"{type(error).__name__}: {text_of(error)}"
    if given["setup"]:
        exec(compile(given["setup"], f"<{TESTS}>", "exec"), space)
    for index, (step, counted) in enumerate(given["steps"]):
        told = problem
        try:
            if problem is None:
                exec(compile(step, f"<{TESTS}>", "exec"), space)
        except (Closed, BrokenPipeError) as error:
            problem = told = text_of(error) or "the answer's process ended"
        except BaseException as error:
            told = f"{type(error).__name__}: {text_of(error)}"
        if counted:
            os.write(result, json.dumps([index, told is None, told]).encode() + b"\n")
    os.write(result, b"done\n")


def main() -> None:
    """Raise the walls, then play the role."""
    role, settings = sys.argv[1], json.loads(sys.argv[2])
    with os.fdopen(settings["input"], "rb") as stream:
        given = json.loads(stream.read())
    limits = {name: settings[name] for name in ("cpu_seconds", "memory_bytes", "file_bytes")}
    _beside("code_walls").raise_walls(os.getcwd(), **limits)
    sys.path[:] = [path for path in sys.path if path]
    if role == "program":
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        sys.argv = [f"{ANSWER}.py"]
        exec(compile(given["code"], f"<{ANSWER}>", "exec"), vars(module))
    elif role == "answer":
        run_answer(given, settings["source"], settings["target"])
    else:
        run_tests(given, settings["source"], settings["target"], settings["result"])


if __name__ == "__main__":
    main()
