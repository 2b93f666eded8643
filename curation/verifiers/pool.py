"""Processes that compare mathematics and can be killed. Standard library alone: a reward inside another environment
uses the same file with the interpreter of the project as `python`."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from curation.errors import InstrumentError
from curation.verifiers import State

CPU_SECONDS = 5.0
WALL_SECONDS = 30.0
START_SECONDS = 120.0
MEMORY_BYTES = 2 << 30
_IN_FLIGHT = 32  # questions that a worker has at a time
_TRIES = 2  # of a question whose worker died for no reason of its own (the machine's memory ran out)


class WorkersFailed(InstrumentError):
    """Worker processes cannot start (exit 4); the message holds what they printed last and what to do next."""


class Workers:
    """`number` processes that live until `close` (or the end of a `with`), started at the first question.

    A question has `cpu_seconds` of processor time (the kernel ends its process) and `wall_seconds` (this process kills
    it): its outcome is `timeout`, and a fresh process takes the questions that waited behind it. A process that dies
    otherwise is tried once more, then `error`. `memory_bytes` limits each process's address space (0: no limit).
    Not thread-safe: one caller at a time.
    """

    def __init__(self, number: int = 1, *, cpu_seconds: float = CPU_SECONDS, wall_seconds: float = WALL_SECONDS,
                 memory_bytes: int = MEMORY_BYTES, python: str = sys.executable):  # fmt: skip
        self.number, self.wall_seconds = number, wall_seconds
        # -P: a file of the working directory must not stand in for a library
        self.command = [python, "-P", "-m", "curation.verifiers.worker", str(cpu_seconds), str(memory_bytes)]
        self.started = 0
        self._idle: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        while self._idle:
            self._idle.pop().end()

    def ask(self, questions: Sequence[dict[str, Any]]) -> list[State]:
        """The states of N questions (see worker.py), in their order, whatever the workers. Raises WorkersFailed."""
        states: list[State | None] = [None] * len(questions)
        waiting = deque(range(len(questions)))
        tries = [0] * len(questions)
        busy: list[_Worker] = []
        window = max(1, min(_IN_FLIGHT, -(-len(questions) // self.number)))
        with selectors.DefaultSelector() as selector:
            try:
                while waiting or busy:
                    while waiting and len(busy) < self.number:
                        busy.append(self._worker(selector))
                        busy[-1].feed(waiting, questions, window, selector)
                    for worker in busy:
                        worker.feed(waiting, questions, window, selector)
                    for key, events in selector.select(_pause(busy)):
                        key.data.serve(events, states, selector)
                    for worker in [item for item in busy if item.is_done(self.wall_seconds)]:
                        busy.remove(worker)
                        self._retire(worker, waiting, states, tries, selector)
            finally:
                for worker in busy:
                    worker.leave(selector)
                    worker.end()
        return [state or "error" for state in states]

    def _worker(self, selector: selectors.BaseSelector) -> _Worker:
        if self._idle:
            worker = self._idle.pop()
        else:
            self.started += 1
            try:
                worker = _Worker(self.command)
            except OSError as error:
                raise self._failed("cannot be started", str(error)) from error
        worker.join(selector)
        return worker

    def _failed(self, what: str, complaint: str) -> WorkersFailed:
        return WorkersFailed(f"a verifier process {what}: {complaint}",
                             f"run '{' '.join(self.command)}' to see why, install what it misses (pip install "
                             "math-verify) or free memory, then run the same command again")  # fmt: skip

    def _retire(self, worker: _Worker, waiting: deque[int], states: list[State | None], tries: list[int],
                selector: selectors.BaseSelector) -> None:  # fmt: skip
        """Take out a worker that finished, died or was slow; what it left goes back to the front of the queue."""
        worker.leave(selector)
        if not worker.asked and worker.process.poll() is None:
            self._idle.append(worker)
            return
        slow = worker.process.poll() is None and not worker.closed
        code = worker.end()
        if not worker.ready:
            raise self._failed(f"was not ready after {START_SECONDS:g} seconds" if slow else
                               f"ended before it was ready (exit code {code})", worker.complaint())  # fmt: skip
        left = list(worker.asked)
        if left:
            culprit = left[0]
            tries[culprit] += 1
            if slow or code == -signal.SIGPROF:
                states[culprit] = "timeout"
            elif tries[culprit] >= _TRIES:
                states[culprit] = "error"
            waiting.extendleft(index for index in reversed(left) if states[index] is None)


def _pause(busy: Sequence[_Worker]) -> float:
    return 0.5 if any(worker.asked or not worker.ready for worker in busy) else 0.0


class _Worker:
    """One process, the questions that it has and when it last said something."""

    def __init__(self, command: Sequence[str]):
        environment = os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        env=environment, bufsize=0)  # fmt: skip
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.stdin, self.stdout, self.stderr = self.process.stdin, self.process.stdout, self.process.stderr
        for stream in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(stream.fileno(), False)
        self.asked: deque[int] = deque()
        self.unsent, self.unread, self.printed = bytearray(), bytearray(), bytearray()
        self.ready = self.closed = False
        self.since = time.monotonic()

    def join(self, selector: selectors.BaseSelector) -> None:
        selector.register(self.stdout, selectors.EVENT_READ, self)
        selector.register(self.stderr, selectors.EVENT_READ, self)

    def leave(self, selector: selectors.BaseSelector) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if not stream.closed and stream in selector.get_map():
                selector.unregister(stream)

    def feed(self, waiting: deque[int], questions: Sequence[dict[str, Any]], window: int,
             selector: selectors.BaseSelector) -> None:  # fmt: skip
        """Have up to `window` questions, and write what the pipe takes."""
        while waiting and not self.closed and len(self.asked) < window:
            if not self.asked:
                self.since = time.monotonic()
            index = waiting.popleft()
            self.asked.append(index)
            self.unsent += json.dumps(questions[index]).encode() + b"\n"
        self._write(selector)

    def _write(self, selector: selectors.BaseSelector) -> None:
        try:
            while self.unsent:
                sent = os.write(self.stdin.fileno(), self.unsent[: 1 << 16])
                del self.unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:  # it died; its output tells when it has been read
            self.unsent.clear()
        known = self.stdin in selector.get_map()
        if self.unsent and not known:
            selector.register(self.stdin, selectors.EVENT_WRITE, self)
        elif known and not self.unsent:
            selector.unregister(self.stdin)

    def serve(self, events: int, states: list[State | None], selector: selectors.BaseSelector) -> None:
        """Read what the process said; write what it has room for."""
        if events & selectors.EVENT_WRITE:
            self._write(selector)
        self.printed = (self.printed + (_read(self.stderr.fileno()) or b""))[-4000:]
        if not self.closed:
            said = _read(self.stdout.fileno())
            self.closed = said == b""
            self.unread += said or b""
        *lines, rest = self.unread.split(b"\n")
        self.unread = bytearray(rest)
        for line in lines:
            self.since = time.monotonic()
            if not self.ready:
                self.ready = True
            else:
                states[self.asked.popleft()] = json.loads(line)["state"]

    def is_done(self, wall_seconds: float) -> bool:
        """Whether it finished what it was asked, died, or is over its time."""
        limit = wall_seconds if self.ready else START_SECONDS
        return self.closed or (self.ready and not self.asked) or time.monotonic() - self.since > limit

    def end(self) -> int:
        """Kill the process, unless it is ending by itself; its exit code."""
        if not self.closed:
            self.process.kill()
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.printed += _read(self.stderr.fileno()) or b""
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()
        return code

    def complaint(self) -> str:
        lines = self.printed.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing was printed"


def _read(number: int) -> bytes | None:
    """What can be read now: None for nothing yet, empty at the end."""
    try:
        return os.read(number, 1 << 16)
    except BlockingIOError:
        return None
