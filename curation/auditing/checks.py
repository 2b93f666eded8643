"""A check: a figure with a level, a threshold and what to do next.

Ids are those of the audit's specification: A for rows and cuts, T for templates, D for preference pairs, R for prompts
of reinforcement learning, P for packing, V for the mirror and its options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "error"]
ROUNDING = 1e-9


@dataclass
class Check:
    """One check. `value` is what a waiver is bound to (larger is worse), `threshold` where an error begins."""

    id: str
    name: str
    level: Level
    value: float
    threshold: float
    message: str
    next: str = ""
    waived: str = ""


def level(value: float, warn: float, error: float) -> Level:
    """`error` above `error`, `warn` above `warn`, but for rounding: one row lost of a hundred is 1 %."""
    return "error" if value > error + ROUNDING else "warn" if value > warn + ROUNDING else "ok"


def graded(id: str, name: str, value: float, limits: tuple[float, float], bad: str, good: str, step: str) -> Check:
    """A check that is graded by (warn, error) limits; `bad` and `step` are said where it is not ok, or its value is
    not zero."""
    grade = level(value, *limits)
    return Check(id, name, grade, value, limits[1], bad if value > ROUNDING else good, step if grade != "ok" else "")


def worst(strata: Iterable[dict[str, Any]], share: Callable[[dict[str, Any]], float]) -> tuple[float, str]:
    """The largest share over the sources, and where."""
    return max(((share(item), str(item["source"])) for item in strata), default=(0.0, ""))


def lost(before: str, after: str) -> Callable[[dict[str, Any]], float]:
    """The share of `before` that `after` lacks, as a function of a source's counts."""
    return lambda item: 1 - item[after] / item[before] if item[before] else 0.0
