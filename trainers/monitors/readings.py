"""A run's log as series of the quantities that monitors read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainers.monitors.names import Names, names_of

BESIDE = ("step", "max_steps")


class Series(NamedTuple):
    """N readings of one quantity at ascending steps; a value may be NaN or infinite."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def finite(self) -> Series:
        """Without the values that are no numbers."""
        kept = np.isfinite(self.values)
        return Series(self.steps[kept], self.values[kept])

    def until(self, step: int) -> Series:
        """The readings up to a step, itself included."""
        end = int(np.searchsorted(self.steps, step, side="right"))
        return Series(self.steps[:end], self.values[:end])

    def after(self, step: int) -> Series:
        """The readings behind a step."""
        start = int(np.searchsorted(self.steps, step, side="right"))
        return Series(self.steps[start:], self.values[start:])

    def __bool__(self) -> bool:
        return bool(len(self.steps))


NOTHING = Series(np.empty(0, np.int64), np.empty(0))


@dataclass
class Readings:
    """Everything that was logged so far. `names` says which logged metrics each quantity is read from, `values` holds
    them by step, `max_steps` is the number of steps that the trainer plans (None: unknown), `num_held_out` that of the
    held-out rows, `lengths` the trained tokens of the chosen and of the rejected sides, [2, N]."""

    names: Names = field(default_factory=lambda: names_of(""))
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    max_steps: int | None = None
    num_held_out: int = 0
    lengths: NDArray[np.int64] | None = None
    last_step: int = -1
    cached: dict[str, Series] = field(default_factory=dict, repr=False)

    def add(self, line: Mapping[str, Any]) -> None:
        """Take one line of a log: kedge's own, or that of verl's file logger, whose metrics lie below `data` and whose
        null is a value that is no number. A step that lies before the last one means that training went back to a
        checkpoint: the readings from it on are forgotten."""
        step = int(line["step"])
        if step < self.last_step:
            self.cut(step - 1)
        self.last_step = step
        self.cached.clear()
        if isinstance(line.get("max_steps"), int) and line["max_steps"] > 0:
            self.max_steps = line["max_steps"]
        nested = line.get("data")
        for name, value in (nested if isinstance(nested, Mapping) else line).items():
            if name in BESIDE or isinstance(value, bool):
                continue
            if value is None:
                value = math.nan
            if isinstance(value, int | float):
                self.values.setdefault(name, {})[step] = float(value)

    def put(self, name: str, step: int, value: float) -> None:
        """Set one value that was not read from the log."""
        self.values.setdefault(name, {})[step] = value
        self.cached.clear()

    def cut(self, step: int) -> None:
        """Forget everything behind a step."""
        for name, values in self.values.items():
            self.values[name] = {at: value for at, value in values.items() if at <= step}
        self.cached.clear()
        self.last_step = min(self.last_step, step)

    def matching(self, quantity: str) -> list[str]:
        """Names of the logged metrics of a quantity: those that fit the first of its names that any fits; a quantity
        that is none of the table is taken as a metric's own name."""
        for pattern in self.names.get(quantity, (quantity,)):
            found = sorted(name for name in self.values if fnmatchcase(name, pattern))
            if found:
                return found
        return []

    def get(self, quantity: str) -> Series:
        """The series of a quantity, averaged at each step over the metrics that match."""
        if quantity not in self.cached:
            self.cached[quantity] = self._mean(self.matching(quantity))
        return self.cached[quantity]

    def each(self, quantity: str) -> dict[str, Series]:
        """One series for every metric that matches."""
        return {name: self._mean([name]) for name in self.matching(quantity)}

    def _mean(self, names: Iterable[str]) -> Series:
        gathered: dict[int, list[float]] = {}
        for name in names:
            for step, value in self.values[name].items():
                gathered.setdefault(step, []).append(value)
        if not gathered:
            return NOTHING
        steps = sorted(gathered)
        return Series(np.array(steps, np.int64), np.array([np.mean(gathered[step]) for step in steps]))

    def up_to(self, step: int) -> Readings:
        """A copy without what came after a step."""
        copy = Readings(self.names, {name: dict(values) for name, values in self.values.items()}, self.max_steps,
                        self.num_held_out, self.lengths, self.last_step)  # fmt: skip
        copy.cut(step)
        return copy


def read_log(path: Path, names: Names | None = None) -> Readings:
    """All readings of a log of JSON lines; a last line that is still being written is left out."""
    found = Readings(names_of("") if names is None else names)
    for line in complete_lines(path, 0)[0]:
        found.add(line)
    return found


def complete_lines(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of the complete lines from a byte offset on, and the offset behind them. What is no JSON object
    (a torn line of a killed process) is left out."""
    if not path.is_file():
        return [], offset
    with path.open("rb") as stream:
        offset = 0 if offset > path.stat().st_size else offset  # the file was begun anew
        stream.seek(offset)
        data = stream.read()
    end = data.rfind(b"\n") + 1
    found = []
    for line in data[:end].splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("step", 0), int):
            found.append(value)
    return found, offset + end
