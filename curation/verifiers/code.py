"""Verifier `code`: does the code of an answer pass the tests of the ground truth?

The answer runs in a process of its own, behind the walls of code_walls.py, and its tests in another one, so that no
answer can read, skip or forge a test (code_sandbox.py). `code_tests.py` has the forms of a ground truth. An answer is
right where it passes every test. What it costs more than its limits is `timeout`; memory, files and processes beyond
them are refused to it, and whatever becomes of it then is its own (`wrong`).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from curation.verifiers import Judgement, State
from curation.verifiers.code_tests import Tests, code_of, read_tests

SANDBOX = Path(__file__).with_name("code_sandbox.py")
MAX_CODE_CHARS = 200_000
SHOWN_CHARS = 200
_POLL_SECONDS = 0.05
_BLOCK = 1 << 16


class Limits(NamedTuple):
    """Of one answer: processor seconds of each process, wall seconds of all tests (of each run of a program), bytes of
    address space, of one written file, of the scratch folder and of what a program prints."""

    cpu_seconds: int = 10
    wall_seconds: float = 20.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20
    scratch_bytes: int = 64 << 20
    output_bytes: int = 4 << 20


class Ran(NamedTuple):
    """What became of one answer. `share` (0..1) of the tests passed; `detail` is the first failure; `code` what ran."""

    state: State
    passed: int
    total: int
    detail: str | None
    code: str | None

    @property
    def share(self) -> float:
        return self.passed / self.total if self.total else 0.0


LIMITS = Limits()


def judge(text: str, gold: str) -> Judgement:
    """Right where the code in `text` passes every test of `gold`; unparsed where there is no code; `answer` is the
    code's begin. Raises ValueError where `gold` holds no test."""
    ran = run(text, gold)
    return Judgement(ran.state, None if ran.code is None else ran.code[:SHOWN_CHARS])


def run(text: str, gold: str, limits: Limits = LIMITS, python: str = sys.executable) -> Ran:
    """Run the tests of `gold` on the code in `text`. Raises ValueError where `gold` holds no test."""
    tests = read_tests(gold)
    code = code_of(text)
    if code is None or len(code) > MAX_CODE_CHARS:
        return Ran("unparsed", 0, tests.total, "the answer holds no code", None)
    try:
        json.dumps(code).encode()
        compile(code, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Ran("wrong", 0, tests.total, f"{type(error).__name__}: {error}"[:SHOWN_CHARS], code)
    if tests.programs:
        return _run_programs(code, tests, limits, python)
    return _run_tests(code, tests, limits, python)


def _run_tests(code: str, tests: Tests, limits: Limits, python: str) -> Ran:
    asked_read, asked_write = os.pipe()
    told_read, told_write = os.pipe()
    result_read, result_write = os.pipe()
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        answer = stack.enter_context(
            _process(python, "answer", {"code": code}, scratch, limits, {"source": asked_read, "target": told_write})
        )
        given = {"setup": tests.setup, "steps": tests.steps, "names": tests.names}
        tester = stack.enter_context(_process(
            python, "tests", given, scratch, limits,
            {"source": told_read, "target": asked_write, "result": result_write}))  # fmt: skip
        for descriptor in (asked_read, asked_write, told_read, told_write, result_write):
            os.close(descriptor)
        stack.callback(os.close, result_read)
        printed, why = _collect(result_read, tester, scratch, limits, 1 << 20)
        died = _died(answer, why)
    lines = printed.decode(errors="replace").splitlines()
    done = lines[-1:] == ["done"]
    outcomes = [json.loads(line) for line in lines if line.startswith("[") and line.endswith("]")]
    passed = sum(ok for _, ok, _ in outcomes)
    detail = next((told for _, ok, told in outcomes if not ok), None)
    if died == "timeout":
        return Ran("timeout", passed, tests.total, f"the limit of time after {len(outcomes)} tests", code)
    if why == "files":
        return Ran("wrong", passed, tests.total, "more bytes in files than are allowed", code)
    if not done:  # the tests' own process ended: nothing that the answer does ends it
        return Ran("error", passed, tests.total, "the process of the tests ended", code)
    right = passed == tests.total
    return Ran("right" if right else "wrong", passed, tests.total, detail, code)


def _run_programs(code: str, tests: Tests, limits: Limits, python: str) -> Ran:
    passed, first, slow = 0, None, False
    for given, expected in tests.programs:
        found, why = _run_program(code, given, limits, python)
        slow = slow or why == "timeout"
        if why is None and _same_output(found, expected):
            passed += 1
        else:
            first = first or why or "the output differs"
        if slow:
            break
    state: State = "timeout" if slow else "right" if passed == tests.total else "wrong"
    return Ran(state, passed, tests.total, first, code)


def _run_program(code: str, given: str, limits: Limits, python: str) -> tuple[str, str | None]:
    """(what it printed, why that does not count)."""
    output_read, output_write = os.pipe()
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        stdin = stack.enter_context(tempfile.TemporaryFile())
        stdin.write(given.encode(errors="replace"))
        stdin.seek(0)
        process = stack.enter_context(
            _process(python, "program", {"code": code}, scratch, limits, {}, stdin=stdin, stdout=output_write)
        )
        os.close(output_write)
        stack.callback(os.close, output_read)
        printed, why = _collect(output_read, process, scratch, limits, limits.output_bytes)
        if why is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
        died = _died(process, why)
        if died is None and process.returncode:
            died = f"the program ended with exit code {process.returncode}"
    return printed.decode(errors="replace"), died


def _same_output(found: str, expected: str) -> bool:
    """Whether two outputs are equal but for white space at the end of lines and empty lines at the end."""
    one, two = ([line.rstrip() for line in text.rstrip().splitlines()] for text in (found, expected))
    return one == two


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    folder = os.path.realpath(tempfile.mkdtemp(prefix="kedge-answer-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _process(
    python: str,
    role: str,
    given: dict[str, Any],
    scratch: str,
    limits: Limits,
    pipes: dict[str, int],
    stdin: Any = subprocess.DEVNULL,
    stdout: Any = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the sandbox in a session of its own, with an empty environment and no other descriptors; it is
    killed with all that is in its group at the end. Isolation is by the environment (PYTHONHASHSEED alone, which `-I`
    would ignore), `-P`, `-s` and `-S`."""
    with tempfile.TemporaryFile() as source:
        source.write(json.dumps(given).encode())
        source.seek(0)
        settings = {"input": source.fileno(), "cpu_seconds": limits.cpu_seconds, "file_bytes": limits.file_bytes,
                    "memory_bytes": limits.memory_bytes} | pipes  # fmt: skip
        process = subprocess.Popen(
            [python, "-P", "-s", "-S", "-B", "-X", "utf8", str(SANDBOX), role, json.dumps(settings)], cwd=scratch,
            stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, env={"PYTHONHASHSEED": "0"},
            pass_fds=(source.fileno(), *pipes.values()), start_new_session=True)  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def _collect(source: int, process: subprocess.Popen[bytes], scratch: str, limits: Limits, most: int
             ) -> tuple[bytes, str | None]:  # fmt: skip
    """What a process writes until it closes the pipe; why it was given up: timeout, files, output."""
    end = time.monotonic() + limits.wall_seconds
    found = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            if selector.select(_POLL_SECONDS):
                block = os.read(source, _BLOCK)
                if not block:
                    return bytes(found), None
                found += block
                if len(found) > most:
                    return bytes(found), "output"
            if time.monotonic() > end:
                return bytes(found), "timeout"
            if _bytes_in(scratch) > limits.scratch_bytes:
                return bytes(found), "files"


def _bytes_in(folder: str) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{place}/{name}").st_blocks * 512
    return total


def _died(process: subprocess.Popen[bytes], why: str | None) -> str | None:
    """`timeout` where a process met its limit of processor time or the wall limit; else why it was given up."""
    if why is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "timeout"
    return why


def run_all(items: Sequence[tuple[str, str]], number: int = 1, limits: Limits = LIMITS) -> list[Ran | None]:
    """`run` of N (text, gold), `number` at a time; None where the gold holds no test."""
    from concurrent.futures import ThreadPoolExecutor

    def one(item: tuple[str, str]) -> Ran | None:
        try:
            return run(*item, limits=limits)
        except ValueError:
            return None

    if number <= 1 or len(items) < 2:
        return [one(item) for item in items]
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, items))
