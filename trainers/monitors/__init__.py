"""Monitors: what a run's own log and rollouts say about its health, as named rules that warn or stop.

A monitor is a function over `Readings`, whose name is its name in run files and whose keyword arguments are its options
there. It looks at nothing later than what it reports: what it says of the first steps of a run, it still says when the
run is over. Thresholds whose source is not named beside them are this project's choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Level = Literal["warn", "stop"]


class Trip(NamedTuple):
    """What a monitor saw: the step at which it was plain, a value (its unit is told in `what`), and what to do next."""

    step: int
    value: float
    what: str
    next: str


@dataclass(frozen=True)
class Finding:
    """A trip of a rule of the run."""

    name: str
    level: Level
    step: int
    value: float
    what: str
    next: str

    def __str__(self) -> str:
        return f"{self.name} at step {self.step:,} ({self.level}): {self.what}; {self.next}"
