"""Components with weights -> one reward for each rollout, every component kept."""

from __future__ import annotations

import math
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from curation import registry
from curation.errors import Problem, UserError
from trainers.rewards import Reward, Sample, Score
from trainers.rewards.client import FAILURES, summed


@dataclass(frozen=True)
class Component:
    """A reward under its name in logs and evidence (its plug-in's name; a second one of it is NAME_2), and how much of
    it counts."""

    name: str
    weight: float
    reward: Reward

    @property
    def names(self) -> list[str]:
        """Its name, then those of its parts."""
        return [self.name, *(f"{self.name}.{part}" for part in self.reward.parts)]


def components(uses: Sequence[Mapping[str, Any]], where: str = "rewards") -> list[Component]:
    """The components of a run file's `rewards`: [{name, weight, option: ...}, ...]. Raises UserError with every
    problem."""
    found: list[Component] = []
    problems: list[Problem] = []
    seen: Counter[str] = Counter()
    for use in uses:
        options = {key: value for key, value in use.items() if key not in ("name", "weight")}
        weight = use.get("weight", 1.0)
        name = str(use.get("name", ""))
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not math.isfinite(weight):
            problems.append(Problem(f"{weight!r} is no weight", "give a number", where, f"{name}.weight"))
            continue
        try:
            reward = registry.make("rewards", name, options, where=where)
        except UserError as error:
            problems += error.problems
            continue
        seen[name] += 1
        label = name if seen[name] == 1 else f"{name}_{seen[name]}"
        found.append(Component(label, float(weight), cast(Reward, reward)))
    if not uses:
        problems.append(Problem("there is no reward", "add at least: rewards: [{name: answer}]", where))
    if problems:
        raise UserError(problems)
    return found


def combine(parts: Sequence[Component], samples: Sequence[Sample], *, failed_value: float = 0.0,
            skip: Mapping[str, str] | None = None, starting: Callable[[str], None] = lambda name: None
            ) -> list[dict[str, Any]]:  # fmt: skip
    """For each of N rollouts {"reward", "outcome", "components": {name: number or None}, "outcomes": {name: outcome},
    "detail": text or None} (see client.summed for how they add up); parts of components stand among them. A component
    that raises, returns the wrong number of scores, or something that is no finite number has a failure as its outcome
    (one of FAILURES) and no value.
    `skip` names components that are not asked, with the outcome they get; `starting` is told each name before it is
    asked."""
    columns: dict[str, list[Score]] = {}
    details: list[str] = []
    for part in parts:
        if skip and part.name in skip:
            columns |= dict.fromkeys(part.names, [Score(None, skip[part.name])] * len(samples))
            continue
        starting(part.name)
        found, detail = _asked(part, samples)
        columns |= dict(zip(part.names, found, strict=True))
        details += [f"{part.name}: {detail}"] if detail else []
    weights = {name: part.weight if name == part.name else None for part in parts for name in part.names}
    return [summed({name: (scores[index].value, scores[index].outcome) for name, scores in columns.items()}, weights,
                   failed_value, "; ".join(details) or None) for index in range(len(samples))]  # fmt: skip


def _asked(part: Component, samples: Sequence[Sample]) -> tuple[list[list[Score]], str | None]:
    """The scores of a component and its parts, made sound, and what it raised."""
    try:
        columns = [list(scores) for scores in part.reward.score_parts(samples)]
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {error} ({last.name}, line {last.lineno})"
        return [[Score(None, "exception")] * len(samples)] * len(part.names), told[:500]
    wrong = next((len(scores) for scores in columns if len(scores) != len(samples)), None)
    if wrong is not None or len(columns) != len(part.names):
        told = f"{wrong} scores for {len(samples)} rollouts" if wrong is not None else f"{len(columns)} lists of scores"
        return [[Score(None, "wrong_length")] * len(samples)] * len(part.names), told
    return [[_sound(score) for score in scores] for scores in columns], None


def _sound(score: Any) -> Score:
    if not isinstance(score, Score):
        return Score(None, "no_number")
    if score.value is None:
        return score
    try:
        value = float(score.value)
    except (TypeError, ValueError, OverflowError):
        return Score(None, "no_number")
    if not math.isfinite(value):
        return Score(None, "nan" if math.isnan(value) else "infinite")
    return Score(value, score.outcome if score.outcome not in FAILURES else "scored")
