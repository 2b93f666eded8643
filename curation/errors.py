"""Errors a user can act on, and the exit codes of the command line.

A `Problem` prints as `file:line: key: what is wrong; what to do next`. One error carries all problems of a file.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

EXIT_OK, EXIT_FAILED, EXIT_USER, EXIT_UNDECIDED, EXIT_INSTRUMENT = 0, 1, 2, 3, 4
EXIT_UNFORESEEN, EXIT_LOCKED, EXIT_INTERRUPTED = 70, 75, 130


POOL_DIED = ("a worker process was killed, most often for want of memory",
             "free memory, or set fewer 'workers' in kedge.yaml; then run the same command again")  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. `where` is `file` or `file:line`, `key` the setting or column it is about."""

    what: str
    next: str = ""
    where: str = ""
    key: str = ""

    def __str__(self) -> str:
        head = "".join(f"{part}: " for part in (self.where, self.key) if part)
        return head + self.what + (f"; {self.next}" if self.next else "")


class KedgeError(Exception):
    """Base of every error that is printed without a traceback. `exit_code` becomes the process's exit code."""

    exit_code = EXIT_USER

    def __init__(self, problems: Problem | Iterable[Problem] | str, next: str = "", *, where: str = "", key: str = ""):
        if isinstance(problems, str):
            problems = Problem(problems, next, where, key)
        self.problems: list[Problem] = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.problems,))


class UserError(KedgeError):
    """The input, a file or the command line is wrong (exit 2)."""


class GateFailed(KedgeError):
    """A gate said no: a failed audit, a regression, too many rejects (exit 1)."""

    exit_code = EXIT_FAILED


class Undecided(KedgeError):
    """The evidence does not suffice for a verdict (exit 3)."""

    exit_code = EXIT_UNDECIDED


class InstrumentError(KedgeError):
    """The instrument failed, so its figures may not be read (exit 4)."""

    exit_code = EXIT_INSTRUMENT


class LockHeld(KedgeError):
    """Another command is writing the same thing (exit 75)."""

    exit_code = EXIT_LOCKED


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the known names where none is close; the text that follows a `;` in an error."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if not names:
        return "there are none yet"
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"known: {shown}"
