"""Rollouts that reward functions wrote down, as values of a step: diversity, groups of equal reward, components."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainers.monitors.readings import Readings, complete_lines

NGRAM = 4
WORDS = 256  # of each completion, and
COMPLETIONS = 64  # of each step: the share of distinct n-grams falls with the amount of text
LAG = 2  # steps after which no process writes rollouts of a step any more
TRAIN = (None, "train")
SIGNIFICANT = 9
Rollout = dict[str, Any]


@dataclass
class Rollouts:
    """The files of a folder (JSON lines, one per completion: `row_id`, `step`, `reward`, `components`, `answer`,
    `completion`, and `split` where it is not `train`; or as verl's `rollout_data_dir` has them: `input`, `step`,
    `score`, `output`; those without a step are left out), how far each was read, and the rollouts of steps that may not
    be over."""

    folder: Path
    offsets: dict[Path, int] = field(default_factory=dict)
    open_steps: dict[int, list[Rollout]] = field(default_factory=lambda: defaultdict(list))
    newest: int = -1

    def read(self, run: Readings, last: bool = False) -> None:
        """Take what was written since the last call; what steps that are over say of themselves goes into `run`. With
        `last` all steps are over."""
        for path in sorted(self.folder.glob("*.jsonl")):
            found, self.offsets[path] = complete_lines(path, self.offsets.get(path, 0))
            for rollout in found:
                if rollout.get("split") in TRAIN and isinstance(rollout.get("step"), int):
                    self.open_steps[rollout["step"]].append(rollout)
                    self.newest = max(self.newest, rollout["step"])
        for step in sorted(self.open_steps):
            if last or step + LAG <= self.newest:
                for name, value in summary(self.open_steps.pop(step)).items():
                    run.put(f"rollouts/{name}", step, value)

    def cut(self, step: int) -> None:
        """Forget rollouts behind a step."""
        self.open_steps = defaultdict(list, {at: found for at, found in self.open_steps.items() if at <= step})
        self.newest = min(self.newest, step)


def summary(rollouts: list[Rollout]) -> dict[str, float]:
    """What the rollouts of one step say: `distinct_ngrams` (share of distinct 4-grams of words), `unique_answers` (mean
    of `unique_share` over groups that are not all right), `equal_groups` (share of groups with one reward) and
    `components/NAME` (means). What cannot be told is left out."""
    found: dict[str, float] = {}
    texts = [text for rollout in rollouts[:COMPLETIONS] if (text := _text(rollout)) is not None]
    distinct = distinct_share(texts)
    if not math.isnan(distinct):
        found["distinct_ngrams"] = distinct
    groups = [group for group in _groups(rollouts) if len(group) > 1]
    rewards = [[round(float(_reward(item)), SIGNIFICANT) for item in group if _number(_reward(item))]
               for group in groups]  # fmt: skip
    full = [(group, values) for group, values in zip(groups, rewards, strict=True) if len(values) == len(group)]
    if full:
        found["equal_groups"] = sum(len(set(values)) == 1 for _, values in full) / len(full)
        best = max(max(values) for _, values in full)
        shares = [share for group, values in full
                  if min(values) < best and not math.isnan(share := unique_share(group))]  # fmt: skip
        if shares:
            found["unique_answers"] = sum(shares) / len(shares)
    components: dict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        for name, value in (rollout.get("components") or {}).items():
            if _number(value):
                components[name].append(float(value))
    return found | {f"components/{name}": sum(values) / len(values) for name, values in sorted(components.items())}


def distinct_share(texts: Iterable[str]) -> float:
    """Distinct 4-grams of words as a share of all in the first words of the texts; NaN where there is none."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        words = text.split()[:WORDS]
        grams = [tuple(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1)]
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else math.nan


def unique_share(group: list[Rollout]) -> float:
    """How different the answers of a group are: 0 where all are alike, 1 where no two are ((different answers - 1) /
    (rollouts - 1)). No answer counts as one answer; the completion stands for the answer where no rollout of the group
    has one. NaN where there is neither."""
    answers = [rollout.get("answer") for rollout in group]
    if all(answer is None for answer in answers):
        answers = [_text(rollout) for rollout in group]
    if all(answer is None for answer in answers):
        return math.nan
    different = {json.dumps(answer, sort_keys=True, default=str) for answer in answers}
    return (len(different) - 1) / (len(group) - 1)


def _groups(rollouts: list[Rollout]) -> list[list[Rollout]]:
    found: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        prompt = rollout.get("row_id") or rollout.get("input")
        if prompt is not None:
            found[str(prompt)].append(rollout)
    return list(found.values())


def _text(rollout: Rollout) -> str | None:
    found = rollout.get("completion", rollout.get("output"))
    return found if isinstance(found, str) else None


def _reward(rollout: Rollout) -> Any:
    return rollout.get("reward", rollout.get("score"))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
