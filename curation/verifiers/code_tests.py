"""What tests a ground truth of the verifier `code` holds, and which code an answer holds. Runs nothing."""

from __future__ import annotations

import ast
import builtins
import json
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

_FENCE = re.compile(
    r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON = ("", "py", "python", "python3", "py3")
_CANDIDATE = "candidate"


class Tests(NamedTuple):
    """The tests of one prompt. `steps` are statements in order, run in one namespace after `setup`; where `counted`, a
    step is a test: it passes where it raises nothing. `names` are (what the answer defines, what the tests call it).
    `programs` are (standard input, expected standard output) instead."""

    setup: str = ""
    steps: tuple[tuple[str, bool], ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    programs: tuple[tuple[str, str], ...] = ()

    @property
    def total(self) -> int:
        return len(self.programs) or sum(counted for _, counted in self.steps)


def read_tests(gold: str) -> Tests:
    """The tests of a ground truth: Python text (`assert` statements, or HumanEval's `check(candidate)` with the call
    that names the entry point), a JSON list of such statements, or a JSON object with

    - `tests` (or `test_list`, `test`): statements as text or list, or a list of {"stdin", "stdout"}
    - `inputs` and `outputs`, with `fn_name` arguments and values, else standard input and output
    - `entry_point` (or `fn_name`): what `check(candidate)` is given; `setup` (or `test_setup_code`): run before.

    Raises ValueError where there is no test in it."""
    stripped = gold.strip()
    given: Any = stripped
    if stripped[:1] in "[{" and stripped:
        try:
            given = json.loads(stripped)
        except ValueError:
            given = stripped
    if isinstance(given, str):
        given = {"tests": given}
    if isinstance(given, list):
        given = {"tests": given}
    try:
        found = _of_object(given)
    except (SyntaxError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the tests cannot be read: {error}") from error
    if not found.total:
        raise ValueError("there is no test in the ground truth")
    return found


def _of_object(given: dict[str, Any]) -> Tests:
    setup = _joined(given.get("setup") or given.get("test_setup_code") or given.get("test_imports") or "")
    entry = given.get("entry_point") or given.get("fn_name")
    if "inputs" in given and "outputs" in given:
        if not entry:
            return Tests(programs=tuple((_text(one), _text(two)) for one, two in
                                        zip(given["inputs"], given["outputs"], strict=True)))  # fmt: skip
        calls = [f"assert __same__({entry}(*{one!r}), {two!r})" for one, two in
                 zip(given["inputs"], given["outputs"], strict=True)]  # fmt: skip
        return _of_statements(setup, "\n".join(calls), entry)
    tests = given.get("tests") or given.get("test_list") or given.get("test") or ""
    if isinstance(tests, list) and isinstance(tests[0], dict):
        pairs = [(item.get("stdin", item.get("input")), item.get("stdout", item.get("output"))) for item in tests]
        return Tests(programs=tuple((_text(one), _text(two)) for one, two in pairs))
    return _of_statements(setup, _joined(tests), entry)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value))


def _joined(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else "\n".join(value)


def _of_statements(setup: str, text: str, entry: str | None) -> Tests:
    tree = ast.parse(text)
    check = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"), None)
    body: list[ast.stmt] = list(tree.body)
    names: list[tuple[str, str]] = []
    if check is not None:
        calls = [node for node in body if _calls_check(node)]
        entry = entry or next((node.value.args[0].id for node in calls), None)  # type: ignore[attr-defined]
        if entry is None:
            raise ValueError("check(candidate) is given, but no entry point")
        body = [node for node in body if node not in calls]
        if any(isinstance(node, ast.Return | ast.Yield) for node in ast.walk(check)):
            body.append(ast.parse(f"assert check({_CANDIDATE}) is not False").body[0])
        else:
            place = body.index(check)
            body[place : place + 1] = check.body
        names.append((entry, check.args.args[0].arg))
    counted = [_tests_something(node) for node in body]
    steps = tuple((ast.unparse(node), counts) for node, counts in zip(body, counted, strict=True))
    free = _free(ast.parse(setup), *body)
    free -= {alias for _, alias in names}
    modules = sorted(name for name in free if name in sys.stdlib_module_names)
    asked = sorted(free - set(modules) - set(vars(builtins)) - {"__same__", "__name__"})
    if entry and check is None and entry not in asked:
        asked.append(entry)
    if not asked and not names:  # a function that the answer names as a built-in one
        asked = sorted({name for node in body for name in _called(node)})[:1]
    names += [(name, name) for name in asked]
    imports = "".join(f"import {name}\n" for name in modules)
    return Tests(imports + setup, steps, tuple(names))


def _calls_check(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.Expr) else None
    return (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "check"
            and len(call.args) == 1 and isinstance(call.args[0], ast.Name))  # fmt: skip


def _tests_something(node: ast.stmt) -> bool:
    """Whether a statement asserts more than a constant (`assert True` tests nothing)."""
    return not isinstance(node, ast.FunctionDef | ast.ClassDef) and any(
        isinstance(item, ast.Assert) and not isinstance(item.test, ast.Constant) for item in ast.walk(node)
    )


def _called(node: ast.stmt) -> list[str]:
    return [item.left.func.id for item in ast.walk(node) if isinstance(item, ast.Compare)
            and isinstance(item.left, ast.Call) and isinstance(item.left.func, ast.Name)]  # fmt: skip


def _free(*trees: ast.AST) -> set[str]:
    """Names that statements read and nowhere bind."""
    read: set[str] = set()
    bound: set[str] = set()
    for node in (item for tree in trees for item in ast.walk(tree)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return read - bound


def code_of(text: str) -> str | None:
    """The code of an answer: its last fenced block of Python or of no named language, else the whole text where that
    is Python with a definition, an import, an assignment or a call. None where there is none."""
    blocks = [match[3] for match in _FENCE.finditer(text) if match[2].lower() in _PYTHON]
    if blocks:
        return next((block for block in reversed(blocks) if block.strip()), None)
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.For, ast.While, ast.If)
    written = any(isinstance(node, kinds) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
                  for node in body)  # fmt: skip
    return text if written else None
