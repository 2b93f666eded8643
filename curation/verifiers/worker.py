"""The process in which math-verify compares: `python -m curation.verifiers.worker CPU_SECONDS MEMORY_BYTES`.

One JSON object a line on standard input, one a line on standard output, in order. Each question has a budget of
processor time: the kernel ends the process by SIGPROF where it is spent, also inside of C code that runs no Python
signal handler. math-verify's own alarms are off, since they turn a timeout into "not equal".
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import Any


def main() -> None:
    """Serve until standard input ends."""
    cpu_seconds, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    output = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # math-verify prints
    import logging

    logging.disable(logging.CRITICAL)
    same("1", "x+1")  # what is loaded and built at first use is no question's cost
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    output.write("ready\n")
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            result = answer(json.loads(line))
        except MemoryError:
            os._exit(3)
        except (Exception, RecursionError) as error:
            result = {"state": "error", "detail": f"{type(error).__name__}: {error}"[:200]}
        signal.setitimer(signal.ITIMER_PROF, 0)
        output.write(json.dumps(result) + "\n")


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The state of one question: `gold` with `answers` and `together`, or `gold` alone (does it parse?)."""
    gold = question["gold"]
    if not expressions(gold):
        return {"state": "error", "detail": "the gold answer does not parse"}
    if "answers" not in question:
        return {"state": "right"}
    states = []
    for item in question["answers"]:
        states.append(same(gold, item))
        if states[-1] is not True:
            break
    if all(states):
        return {"state": "right"}
    if question.get("together") and same(gold, question["together"]):
        return {"state": "right"}
    return {"state": "unparsed" if None in states else "wrong"}


def expressions(text: str) -> list[Any]:
    """The expressions that math-verify reads; the text alone, where it fails to read one, is none."""
    return [item for item in _parse(text) if not isinstance(item, str)]


def same(gold: str, answer: str) -> bool | None:
    """Whether an answer equals the reference; None where the answer does not parse."""
    from math_verify import verify

    parsed = _parse(answer)
    if verify(_parse(gold), parsed, timeout_seconds=0):
        return True
    return None if all(isinstance(item, str) for item in parsed) else False


def _parse(text: str) -> list[Any]:
    from math_verify import parse

    return list(parse(f"\\boxed{{{text}}}", parsing_timeout=0))


if __name__ == "__main__":
    main()
