"""The rules of a run: which monitors watch it, under which options, and what they say of its readings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from curation.errors import Problem, UserError, did_you_mean
from curation.registry import validation_problems
from curation.run_files import MonitorUse
from trainers.monitors import Finding, Level, Trip, policy, preference, stability
from trainers.monitors.readings import Readings


class Monitor(NamedTuple):
    """A monitor: its function, the quantities of which it needs one, and the stages that it watches by default."""

    judge: Callable[..., Iterator[Trip]]
    needs: tuple[str, ...]
    stages: tuple[str, ...]
    level: Level = "warn"


ALL = ("midtrain", "sft", "preference", "rlvr")
MONITORS = {made.judge.__name__: made for made in (
    Monitor(stability.non_finite, stability.WATCHED, ALL, "stop"),
    Monitor(stability.loss_spike, ("loss",), ("midtrain", "sft", "preference")),
    Monitor(stability.gradient_spike, ("gradient",), ALL),
    Monitor(policy.entropy_collapse, ("entropy",), ("rlvr",)),
    Monitor(policy.kl_runaway, ("kl", "update_kl"), ("rlvr",)),
    Monitor(policy.reward_hacking, ("held_out_score",), ("rlvr",)),
    Monitor(policy.length_drift, ("length",), ("rlvr",)),
    Monitor(policy.clip_share, ("clipped",), ("rlvr",)),
    Monitor(policy.truncation_share, ("truncated",), ("rlvr",)),
    Monitor(policy.advantage_collapse, ("equal_groups", "advantage_high"), ("rlvr",)),
    Monitor(policy.distinct_ngrams, ("distinct_ngrams",), ("rlvr",)),
    Monitor(policy.unique_answers, ("unique_answers",), ("rlvr",)),
    Monitor(policy.rollout_mismatch, ("mismatch", "probability_mismatch"), ("rlvr",)),
    Monitor(preference.held_out_accuracy, ("held_out_accuracy",), ("preference",)),
    Monitor(preference.held_out_margin, ("held_out_margin",), ("preference",)),
    Monitor(preference.falling_chosen, ("chosen_reward",), ("preference",)),
    Monitor(preference.length_bias, (), ("preference",)),
    Monitor(preference.second_epoch, ("epoch",), ("preference",)),
)}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A monitor as a run uses it; `options` are all of its options, `command` is run by the shell on a stop."""

    name: str
    level: Level
    options: dict[str, Any] = field(default_factory=dict)
    command: str | None = None


def rules_for(stage: str, uses: Sequence[MonitorUse] = (), where: str = "") -> list[Rule]:
    """The rules of a run: the monitors of its stage under their defaults, changed or joined by the `monitors` of its
    run file (`level: off` leaves one out; a level that is not given stays as it is). Raises UserError with everything
    that is wrong: unknown monitors and options, values out of range, a monitor named twice, a command that no stop
    would run."""
    problems: list[Problem] = []
    named: dict[str, MonitorUse] = {}
    for place, use in enumerate(uses):
        key = f"monitors.{place}"
        if use.name not in MONITORS:
            problems.append(Problem(f"there is no monitor '{use.name}'", did_you_mean(use.name, MONITORS), where, key))
            continue
        if use.name in named:
            problems.append(Problem(f"'{use.name}' stands here twice", "keep one", where, key))
        named[use.name] = use
        problems += _wrong(use, where, f"{key}.{use.name}")
    if problems:
        raise UserError(problems)
    chosen = [name for name, monitor in MONITORS.items() if stage in monitor.stages or name in named]
    return [_rule(name, named.get(name)) for name in chosen if name not in named or named[name].level != "off"]


def _rule(name: str, use: MonitorUse | None) -> Rule:
    given = {} if use is None else use.options
    options = options_of(name)(**given).model_dump()
    return Rule(name, _level(name, use), options, None if use is None else use.command)


def _level(name: str, use: MonitorUse | None) -> Level:
    if use is None or "level" not in use.model_fields_set or use.level == "off":
        return MONITORS[name].level
    return use.level


def _wrong(use: MonitorUse, where: str, key: str) -> Iterator[Problem]:
    model = options_of(use.name)
    try:
        model(**use.options)
    except ValidationError as error:
        yield from validation_problems(error, model, where=where, prefix=key)
    if use.command is not None and _level(use.name, use) != "stop":
        yield Problem("a command is run on a stop, and this monitor warns", "add: level: stop", where, f"{key}.command")


@cache
def options_of(name: str) -> type[BaseModel]:
    """The options of a monitor, the keyword arguments of its function, as a model."""
    judge = MONITORS[name].judge
    hints = get_type_hints(judge, include_extras=True)
    fields: dict[str, Any] = {item.name: (hints[item.name], item.default)
                              for item in inspect.signature(judge).parameters.values()
                              if item.kind is item.KEYWORD_ONLY}  # fmt: skip
    return create_model(name, __config__=ConfigDict(frozen=True, extra="forbid"), **fields)


def judge(run: Readings, rules: Iterable[Rule]) -> list[Finding]:
    """Every finding of the rules in the readings so far, in order of steps and rules."""
    found = [Finding(rule.name, rule.level, trip.step, trip.value, trip.what, trip.next)
             for rule in rules for trip in MONITORS[rule.name].judge(run, **rule.options)]  # fmt: skip
    return sorted(found, key=lambda item: item.step)


def readable(run: Readings, rule: Rule) -> bool:
    """Whether the log has what a rule reads."""
    if rule.name == "length_bias":
        return run.lengths is not None
    if rule.name == "held_out_accuracy" and not run.num_held_out:
        return False
    needs = [str(rule.options["held_out"])] if "held_out" in rule.options else MONITORS[rule.name].needs
    return any(run.get(quantity) for quantity in needs)
