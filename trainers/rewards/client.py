"""Asks for rewards, in any interpreter: starts service processes in the project's, watches them, kills them, counts.

Standard library alone, and no import of this package: trainers read this file inside environments that hold neither.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

# Outcomes of a component that failed: it was no judgement on the rollout. Counted, and too many stop the run.
FAILURES = ("exception", "timeout", "died", "nan", "infinite", "wrong_length", "no_number", "endpoint")
START_SECONDS = 180.0
WALL_SECONDS = 60.0  # of one component on what a process is asked at a time
CHUNK = 16  # rollouts that a process is asked at a time
WINDOW, LEAST = 64, 8  # rollouts over which failures are counted, and how many of them say something
_SHOWN_CHARS = 2_000


class RewardsFailed(RuntimeError):
    """A reward cannot be computed: the service does not start, or a component fails too often."""


def summed(scores: Mapping[str, tuple[float | None, str]], weights: Mapping[str, float | None], failed_value: float,
           detail: str | None = None) -> dict[str, Any]:  # fmt: skip
    """One rollout's result from its components' (value, outcome). `reward` is the sum of weight * value, where a
    component that failed counts as `failed_value` and one with nothing to say is left out, as is what has no weight
    (a part of a component); None where none has anything to say. `outcome` is the first failure, else what the
    component `answer` says, else `scored`."""
    failed = [outcome for _, outcome in scores.values() if outcome in FAILURES]
    counted = {name: failed_value if outcome in FAILURES else value for name, (value, outcome) in scores.items()}
    terms = [weight * value for name, value in counted.items()
             if value is not None and (weight := weights[name]) is not None]  # fmt: skip
    outcome = failed[0] if failed else scores.get("answer", (None, "scored" if terms else "none"))[1]
    return {"reward": math.fsum(terms) if terms else None, "outcome": outcome, "detail": detail,
            "components": {name: value for name, (value, _) in scores.items()},
            "outcomes": {name: said for name, (_, said) in scores.items()}}  # fmt: skip


class Client:
    """Asks `processes` services, which live until `close`. Threads may share it.

    `settings`: `rewards` ([{name, weight, option: ...}]), and optionally `project`, `python` (the project's
    interpreter), `processes` (1), `wall_seconds` (60: what one component may take for up to 16 rollouts, which are
    asked one by one where it takes longer), `failed_value` (0: what a failed component counts as) and
    `max_failure_share` (0.5: a component that fails for more of a batch, or of the last 64 rollouts, raises; counted
    from 8 rollouts on)."""

    def __init__(self, settings: Mapping[str, Any]):
        self.settings = dict(settings)
        self.wall_seconds = float(settings.get("wall_seconds") or WALL_SECONDS)
        self.failed_value = float(settings.get("failed_value") or 0.0)
        self.processes = max(1, int(settings.get("processes") or 1))
        share = settings.get("max_failure_share")
        self.failures = Failures(0.5 if share is None else float(share))
        self.weights: dict[str, float | None] = {}
        self._idle: queue.SimpleQueue[_Service | None] = queue.SimpleQueue()
        for _ in range(self.processes):
            self._idle.put(None)
        self.started = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the services that are idle."""
        held = []
        with contextlib.suppress(queue.Empty):
            while True:
                held.append(self._idle.get_nowait())
        for service in held:
            if service is not None:
                service.end()
            self._idle.put(None)

    def score(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The results (see `summed`) of N rollouts, in their order. Raises RewardsFailed."""
        size = max(1, min(CHUNK, -(-len(samples) // self.processes)))
        chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
        if len(chunks) == 1 or self.processes == 1:
            found = [self._chunk(chunk) for chunk in chunks]
        else:
            with ThreadPoolExecutor(self.processes) as pool:
                found = list(pool.map(self._chunk, chunks))
        results = [item for chunk in found for item in chunk]
        self.failures.add(results)
        return results

    def _chunk(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        answer = self._ask(samples, {})
        if isinstance(answer, list):
            return answer
        if len(samples) > 1:  # whose fault it is shows one by one
            return [item for sample in samples for item in self._chunk([sample])]
        skip: dict[str, str] = {}
        while not isinstance(answer, list):
            outcome, component = answer
            if component is None or component in skip:
                names: Mapping[str, float | None] = self.weights or {"answer": 1.0}
                return [summed(dict.fromkeys(names, (None, outcome)), names, self.failed_value)]
            skip[component] = outcome
            answer = self._ask(samples, skip)
        return answer

    def _ask(self, samples: Sequence[Mapping[str, Any]], skip: Mapping[str, str]
             ) -> list[dict[str, Any]] | tuple[str, str | None]:  # fmt: skip
        """The results, or what became of the process (timeout, died) and at which component."""
        service = self._idle.get()
        try:
            if service is None:
                service = _Service(self.settings)
                self.started += 1
                self.weights = service.weights
            answer = service.ask({"samples": list(samples), "skip": dict(skip)}, self.wall_seconds)
            if not isinstance(answer, list):
                service.end()
                service = None
            return answer
        except BaseException:
            if service is not None:
                service.end()
                service = None
            raise
        finally:
            self._idle.put(service)


class Failures:
    """Which components fail too often. Raises RewardsFailed from `add`."""

    def __init__(self, most: float):
        self.most = most
        self.recent: dict[str, deque[str]] = {}
        self.lock = threading.Lock()

    def add(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Count the outcomes of a batch."""
        with self.lock:
            for name in results[0]["outcomes"] if results else ():
                batch = [item["outcomes"].get(name, "") for item in results]
                recent = self.recent.setdefault(name, deque(maxlen=WINDOW))
                recent.extend(batch)
                self._judge(name, batch, results)
                self._judge(name, list(recent), results)

    def _judge(self, name: str, outcomes: Sequence[str], results: Sequence[Mapping[str, Any]]) -> None:
        failed = Counter(outcome for outcome in outcomes if outcome in FAILURES)
        if len(outcomes) >= LEAST and failed.total() > self.most * len(outcomes):
            detail = next((str(item["detail"]) for item in results if item.get("detail")), "")
            counted = ", ".join(f"{outcome} {count}" for outcome, count in failed.most_common())
            what = f"the reward '{name}' failed for {failed.total()} of {len(outcomes)} rollouts ({counted})"
            raise RewardsFailed(f"{what}: {detail}" if detail else what)


class _Service:
    """One process. A process of its own session, so that what it starts dies with it."""

    def __init__(self, settings: Mapping[str, Any]):
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 closed by `end`
        command = [str(settings.get("python") or sys.executable), "-P", "-m", "trainers.rewards.service", "-"]
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_PRELOAD")}  # fmt: skip
        environment |= {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        env=environment, bufsize=0, start_new_session=True)  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)
        self.unread = bytearray()
        try:
            self._start(settings)
        except BaseException:
            self.end()
            raise

    def _start(self, settings: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it says why on standard error
            self._write(dict(settings), time.monotonic() + START_SECONDS)
        first = self._line(time.monotonic() + START_SECONDS)
        if first is None or "ready" not in first:
            problem = first.get("problem") if first else None
            raise RewardsFailed(f"the rewards cannot be computed: {problem or self._complaint()}")
        given = [float(item.get("weight", 1.0)) for item in settings["rewards"]]
        weights: dict[str, float | None] = dict(zip(first["ready"], given, strict=True))
        self.weights = weights | dict.fromkeys(first.get("parts", ()))

    def ask(self, request: Mapping[str, Any], seconds: float) -> list[dict[str, Any]] | tuple[str, str | None]:
        at: str | None = None
        try:
            self._write(request, time.monotonic() + seconds)
            while True:
                message = self._line(time.monotonic() + seconds)
                if message is None:
                    return "died", at
                if "results" in message:
                    results = message["results"]
                    return results if len(results) == len(request["samples"]) else ("died", at)
                at = message.get("at", at)
        except TimeoutError:
            return "timeout", at
        except (OSError, ValueError):
            return "died", at

    def _write(self, message: Mapping[str, Any], end: float) -> None:
        data = memoryview(json.dumps(message, default=str).encode() + b"\n")
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdin, selectors.EVENT_WRITE)
            while data:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise TimeoutError
                data = data[os.write(self.stdin, data[: 1 << 16]) :]

    def _line(self, end: float) -> dict[str, Any] | None:
        """The next message; None where the process ended. Raises TimeoutError."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            while b"\n" not in self.unread:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise TimeoutError
                block = os.read(self.stdout, 1 << 16)
                if not block:
                    return None
                self.unread += block
        line, _, rest = bytes(self.unread).partition(b"\n")
        self.unread = bytearray(rest)
        return dict(json.loads(line))

    def _complaint(self) -> str:
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][-_SHOWN_CHARS:] if lines else "the process ended without a word"

    def end(self) -> None:
        """Kill the process and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Journal:
    """Rollouts as JSON lines: `FOLDER/rollouts-PID-RANDOM.jsonl`, one file for each process, each line in one write."""

    def __init__(self, folder: str):
        self.folder = folder
        self.lock = threading.Lock()
        self.file: int | None = None
        self.owner = 0

    def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        data = "".join(json.dumps(record, default=str) + "\n" for record in records).encode()
        with self.lock:
            if self.file is None or self.owner != os.getpid():
                os.makedirs(self.folder, exist_ok=True)  # noqa: PTH103
                name = f"{self.folder}/rollouts-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
                self.file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
                self.owner = os.getpid()
            view = memoryview(data)
            while view:
                view = view[os.write(self.file, view) :]


def record(sample: Mapping[str, Any], result: Mapping[str, Any], run: str | None) -> dict[str, Any]:
    """A rollout's line of evidence."""
    meta = sample.get("meta") or {}
    return {"row_id": sample.get("row_id"), "run": run, "step": sample.get("step"),
            "split": meta.get("split") or "train", "components": result["components"], "outcomes": result["outcomes"],
            "outcome": result["outcome"], "reward": result["reward"], "num_tokens": sample.get("num_tokens"),
            "finished": sample.get("finished"), "completion": sample.get("completion")}  # fmt: skip
