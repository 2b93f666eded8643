"""Monitors of DPO, APO, KTO and reward models: do held-out pairs agree, and what is given up for the margin."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from curation.statistics import Interval, wilson_interval
from trainers.monitors import Trip
from trainers.monitors.policy import Evaluations, Factor, Share, Steps, gap
from trainers.monitors.readings import Readings, Series
from trainers.monitors.trends import lasting, mean_interval

OVER = 0.01


def accuracy_interval(share: float, num_pairs: int) -> Interval:
    """Wilson's 95 % interval of a share of pairs that are ranked right."""
    return wilson_interval(round(share * num_pairs), num_pairs)


def margin_interval(margin: float, share: float, num_pairs: int) -> Interval:
    """A 95 % interval of a mean margin of which only the mean and the share of positive ones are logged: under a normal
    law its standard deviation is margin / z(share). Infinite where the share is too near one half to tell, or says the
    other sign."""
    from scipy.stats import norm

    if num_pairs < 2:
        return Interval(-math.inf, math.inf)
    inner = (share * num_pairs + 0.5) / (num_pairs + 1)
    z = float(norm.ppf(inner))
    if abs(z) < 0.05 or (margin > 0) != (z > 0):
        return Interval(-math.inf, math.inf)
    reach = 1.96 * abs(margin / z) / math.sqrt(num_pairs)
    return Interval(margin - reach, margin + reach)


def held_out_accuracy(run: Readings, *, chance: Share = 0.5, after: Annotated[float, Field(ge=0, lt=1)] = 0.25,
                      ) -> Iterator[Trip]:  # fmt: skip
    """Behind the share `after` of the planned steps, Wilson's 95 % interval of the share of held-out pairs ranked right
    reaches down to `chance`. Needs the number of held-out pairs."""
    series = run.get("held_out_accuracy").finite()
    if not run.num_held_out:
        return
    judged = series.after(int(after * (run.max_steps or 0)) - 1)
    low = np.array([accuracy_interval(value, run.num_held_out).low for value in judged.values])
    for index in lasting(judged, low <= chance, 1, 1):
        interval = accuracy_interval(float(judged.values[index]), run.num_held_out)
        yield Trip(int(judged.steps[index]), float(judged.values[index]),
                   f"{judged.values[index]:.1%} [{interval.low:.1%}, {interval.high:.1%}] of {run.num_held_out:,} "
                   f"held-out pairs are ranked right: it may be chance", "hold out more pairs, or look at how the "
                   "annotators agree before training on")  # fmt: skip


def held_out_margin(run: Readings, *, evaluations: Evaluations = 12, at_least: Evaluations = 5,
                    share: Share = 0.25) -> Iterator[Trip]:  # fmt: skip
    """The margin of training pairs surely rises over the last `evaluations` evaluations and that of held-out pairs
    surely by less than `share` of it: the pairs are learnt by heart."""
    held = run.get("held_out_margin").finite()
    holds, seen = gap(run.get("margin").finite(), held, evaluations, at_least, share, 0.0)
    for index in lasting(held, holds, 1, 1):
        up, flat = seen[index]
        yield Trip(int(held.steps[index]), flat, f"the margin of training pairs rose by {up:.3g}, that of held-out "
                   f"pairs by {flat:.3g}", "take a checkpoint before it, or lower the learning rate")  # fmt: skip


def falling_chosen(run: Readings, *, share: Share = 0.5, steps: Steps = 50) -> Iterator[Trip]:
    """Chosen answers become less likely than under the reference by at least `share` of the margin: over the last
    `steps` steps (and eight readings) the mean of the chosen reward has a 95 % interval below zero. The likelihood of
    both sides is pushed down (Pal et al. 2024, arXiv 2402.13228; Razin et al. 2024, arXiv 2410.08847)."""
    chosen, margin = run.get("chosen_reward").finite(), run.get("margin").finite()
    holds = np.zeros(len(chosen.steps), bool)
    for index, step in enumerate(chosen.steps.tolist()):
        last = chosen.until(step).after(step - steps).values
        if len(last) < 8 or step - steps < chosen.steps[0] - 1:
            continue
        mean, interval = mean_interval(last)
        gained = margin.until(step).after(step - steps).values
        holds[index] = interval.high < 0 and -mean >= share * max(0.0, float(gained.mean()) if len(gained) else 0.0)
    for index in lasting(chosen, holds, 1, 1):
        step = int(chosen.steps[index])
        yield Trip(step, float(chosen.values[index]),
                   f"the reward of chosen answers is {chosen.values[index]:.3g}{_logps(run, step)}: they "
                   "become less likely", "add an SFT term (loss_type: [sigmoid, sft]), take apo_zero, lower the "
                   "learning rate or raise beta")  # fmt: skip


def _logps(run: Readings, step: int) -> str:
    series = run.get("chosen_logp").finite().until(step)
    if not series:
        return ""
    return f", their log-probability {series.values[-1]:.4g} after {series.values[0]:.4g} at the start"


def length_bias(run: Readings, *, factor: Factor = 1.25) -> Iterator[Trip]:
    """The chosen sides that are trained on are longer (or shorter) than their rejected ones by more than `factor` in
    the geometric mean, with its 95 % interval: length is then learnt as a reward (Singhal et al. 2023, arXiv
    2310.03716). Told before the first step."""
    if run.lengths is None or run.lengths.shape[1] < 2:
        return
    logs = np.log(np.maximum(run.lengths[0], 1) / np.maximum(run.lengths[1], 1))
    mean, interval = mean_interval(logs)
    if interval.low > math.log(factor) or interval.high < -math.log(factor):
        chosen, rejected = run.lengths.mean(1)
        yield Trip(0, math.exp(mean), f"chosen answers have {chosen:.0f} trained tokens, rejected ones {rejected:.0f}: "
                   f"a factor of {math.exp(mean):.2f} [{math.exp(interval.low):.2f}, {math.exp(interval.high):.2f}]",
                   "balance the mixture by length, or take a length-normalised loss (sigmoid_norm)")  # fmt: skip


def second_epoch(run: Readings, *, epochs: Annotated[float, Field(ge=1)] = 1.0) -> Iterator[Trip]:
    """Training goes beyond `epochs` passes over the pairs: every published recipe of catalogs/practices.yaml stops
    after one."""
    series = run.get("epoch").finite()
    begun = run.matching("epoch") == ["training/epoch"]  # verl counts the epochs that are over
    holds = series.values >= epochs if begun else series.values > epochs + OVER
    for index in lasting(Series(series.steps, series.values), holds, 1, 1):
        yield Trip(int(series.steps[index]), float(series.values[index]),
                   f"epoch {series.values[index]:.2f} of the same pairs has begun", "compare held-out accuracy with "
                   "the checkpoint at the end of the first epoch")  # fmt: skip
