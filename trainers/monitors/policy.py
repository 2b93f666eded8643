"""Monitors of reinforcement learning: the policy's entropy, its distance, what it is rewarded for, and its answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from trainers.monitors import Trip
from trainers.monitors.readings import Readings, Series
from trainers.monitors.trends import averaged, calmed, early, lasting, rise, smoothed

Share = Annotated[float, Field(gt=0, lt=1)]
Steps = Annotated[int, Field(ge=1)]
Evaluations = Annotated[int, Field(ge=4)]
Factor = Annotated[float, Field(gt=1)]
Positive = Annotated[float, Field(gt=0)]


def entropy_collapse(run: Readings, *, share: Share = 0.4, steps: Steps = 50,
                     early_steps: Steps = 20) -> Iterator[Trip]:  # fmt: skip
    """The entropy stays below `share` of its early median for `steps` steps without coming back above it
    (medians of five readings, here and where a share is judged). A published
    GSPO run that dips to .6 of its start between steps 50 and 200 and recovers to .67 is healthy (llama32_single_node);
    how exploration ends with entropy: Cui et al. 2025, arXiv 2505.22617."""
    yield from _fallen(run.get("entropy").finite(), share, steps, early_steps, "the entropy",
                       "raise clip_ratio_high (epsilon_high) or the temperature, lower the learning rate, or take "
                       "harder prompts; go back to a checkpoint before it fell")  # fmt: skip


def distinct_ngrams(run: Readings, *, share: Share = 0.5, steps: Steps = 20,
                    early_steps: Steps = 20) -> Iterator[Trip]:  # fmt: skip
    """The share of distinct 4-grams of words among those of a step's completions (Li et al. 2016, arXiv 1510.03055)
    stays below `share` of its early median for `steps` steps."""
    yield from _fallen(run.get("distinct_ngrams").finite(), share, steps, early_steps,
                       "the share of distinct 4-grams", "read the rollouts of these steps: the completions repeat each "
                       "other or themselves")  # fmt: skip


def unique_answers(run: Readings, *, share: Share = 0.5, steps: Steps = 20,
                   early_steps: Steps = 20) -> Iterator[Trip]:  # fmt: skip
    """How different the answers to a prompt are (0 all alike, 1 no two alike), over prompts whose rollouts are not all
    right, stays below `share` of its early median for `steps` steps: where the policy errs it always errs alike."""
    yield from _fallen(run.get("unique_answers").finite(), share, steps, early_steps,
                       "the variety of answers to prompts that are not solved yet",
                       "raise the temperature or the group size; drop prompts that no rollout solves")  # fmt: skip


def _fallen(series: Series, share: float, steps: int, early_steps: int, what: str, then: str) -> Iterator[Trip]:
    start = early(series, early_steps)
    if start is None:
        return
    level, end = start
    later = calmed(Series(series.steps[end:], series.values[end:]))
    for index in lasting(later, later.values < share * level, steps):
        yield Trip(int(later.steps[index]), float(later.values[index]),
                   f"{what} is {later.values[index]:.3g} and has been below {share:.0%} of its early {level:.3g} for "
                   f"{steps} steps", then)  # fmt: skip


def kl_runaway(run: Readings, *, factor: Factor = 3.0, floor: Positive = 0.3,
               steps: Steps = 50) -> Iterator[Trip]:  # fmt: skip
    """The KL divergence from the reference (else the one of an update) is above `floor` nats and its median over the
    last `steps` steps more than `factor` times that of the `steps` steps before: it multiplies. (Even one that grows
    with the square of the steps only doubles from step 120 to 170.)"""
    for quantity in ("kl", "update_kl"):
        series = run.get(quantity).finite()
        series = Series(series.steps, np.abs(series.values))
        if not series:
            continue
        level = smoothed(series, steps)
        before = np.searchsorted(series.steps, series.steps - steps, side="right") - 1
        judged = series.steps - steps - steps >= series.steps[0] - 1
        holds = judged & (level > floor) & (level > factor * np.where(before >= 0, level[before], np.inf))
        for index in lasting(series, holds, 1, 1):
            yield Trip(int(series.steps[index]), float(level[index]),
                       f"the KL divergence is {level[index]:.3g}, {steps} steps before it was "
                       f"{level[before[index]]:.3g}", "raise beta (kl_loss_coef) or lower the learning rate, from a "
                       "checkpoint before it")  # fmt: skip


def reward_hacking(run: Readings, *, held_out: str = "held_out_score", evaluations: Evaluations = 12,
                   at_least: Evaluations = 5, share: Share = 0.25,
                   least_rise: Positive = 0.05) -> Iterator[Trip]:  # fmt: skip
    """The reward rises while held-out accuracy is flat. Over the last `evaluations` evaluations (`at_least` as many)
    the rise of a straight line through the training reward, averaged between evaluations, and that of held-out accuracy
    have 95 % intervals; it trips where the reward surely rises by more than `least_rise` and held-out accuracy surely
    by less than `share` of that. `held_out` may name a metric of the log (`eval_rewards/answer/mean`)."""
    held = run.get(held_out).finite()
    holds, seen = gap(run.get("reward").finite(), held, evaluations, at_least, share, least_rise)
    for index in lasting(held, holds, 1, 1):
        up, flat = seen[index]
        yield Trip(int(held.steps[index]), up, f"the reward rose by {up:.3g} while held-out accuracy moved by "
                   f"{flat:.3g}", "read rollouts of high reward for what they exploit; weigh or mend the component "
                   "that rises alone")  # fmt: skip


def gap(rising: Series, held: Series, evaluations: int, at_least: int, share: float,
        least_rise: float) -> tuple[NDArray[np.bool_], dict[int, tuple[float, float]]]:  # fmt: skip
    """At each of N held-out readings whether the one series surely rises and the other surely by less than `share` of
    that; with both rises where so."""
    holds, seen = np.zeros(len(held.steps), bool), {}
    binned = averaged(rising, held.steps)
    for index in range(at_least - 1, len(held.steps)):
        first = max(0, index - evaluations + 1)
        window = Series(held.steps[first : index + 1], held.values[first : index + 1])
        up, up_interval = rise(binned.until(int(window.steps[-1])).after(int(window.steps[0]) - 1))
        if up_interval.low <= least_rise:
            continue
        flat, flat_interval = rise(window)
        holds[index] = flat_interval.high < share * up_interval.low
        seen[index] = (up, flat)
    return holds, seen


def length_drift(run: Readings, *, factor: Factor = 2.0, steps: Steps = 50,
                 early_steps: Steps = 20) -> Iterator[Trip]:  # fmt: skip
    """The mean length of completions stays for `steps` steps above `factor` times its early median, or its early median
    above `factor` times it, while the reward since then does not rise (the lower end of its 95 % interval is not above
    zero). Longer answers that earn more are what reasoning runs do."""
    series, reward = run.get("length").finite(), run.get("reward").finite()
    start = early(series, early_steps)
    if start is None:
        return
    level, end = start
    later = Series(series.steps[end:], smoothed(series, early_steps)[end:])
    drifted = (later.values > factor * level) | (later.values < level / factor)
    since = reward.after(int(series.steps[end - 1]))
    idle = np.array([bool(here) and rise(since.until(step))[1].low <= 0
                     for step, here in zip(later.steps.tolist(), drifted.tolist(), strict=True)], bool)  # fmt: skip
    for index in lasting(later, idle, steps):
        yield Trip(int(later.steps[index]), float(later.values[index]),
                   f"completions have {later.values[index]:.0f} tokens, at first {level:.0f}, and the reward has not "
                   "risen with it", "look for a bias of the loss or reward towards length (loss_type, length terms), "
                   "and for loops in long completions")  # fmt: skip


def _above(series: Series, limit: float, steps: int, what: str, then: str) -> Iterator[Trip]:
    series = calmed(series)
    for index in lasting(series, series.values > limit, steps):
        yield Trip(int(series.steps[index]), float(series.values[index]),
                   f"{what} is {series.values[index]:.3g} and has been above {limit:g} for {steps} steps",
                   then)  # fmt: skip


def clip_share(run: Readings, *, limit: Share = 0.3, steps: Steps = 20) -> Iterator[Trip]:
    """The share of tokens (GSPO: of sequences, some 0.15 in its paper, arXiv 2507.18071) whose ratio is clipped stays
    above `limit` for `steps` steps."""
    yield from _above(run.get("clipped").finite(), limit, steps, "the clipped share",
                      "lower the learning rate or the number of updates per generation; check the mismatch of "
                      "log-probabilities")  # fmt: skip


def truncation_share(run: Readings, *, limit: Share = 0.3, steps: Steps = 20) -> Iterator[Trip]:
    """The share of completions that end at the length limit stays above `limit` for `steps` steps."""
    yield from _above(run.get("truncated").finite(), limit, steps, "the share of completions cut at the length limit",
                      "raise max_completion_length (max_response_length), or train the end of turn first")  # fmt: skip


def advantage_collapse(run: Readings, *, limit: Share = 0.8, steps: Steps = 20) -> Iterator[Trip]:
    """The share of groups whose rewards are all equal, which teach nothing (DAPO, arXiv 2503.14476, section 3.2), stays
    above `limit` for `steps` steps."""
    series = run.get("equal_groups").finite()
    if not series:
        high, low = run.get("advantage_high"), run.get("advantage_low")
        if np.array_equal(high.steps, low.steps):
            series = Series(high.steps, (high.values == low.values).astype(float))
    yield from _above(
        series,
        limit,
        steps,
        "the share of groups with equal rewards",
        "take prompts of middling pass rate (rule always_or_never_solved), or larger groups",
    )


def rollout_mismatch(run: Readings, *, limit: Positive = 0.05, probability_limit: Positive = 0.03,
                     steps: Steps = 10) -> Iterator[Trip]:  # fmt: skip
    """The trainer's log-probabilities of sampled tokens differ from the rollout engine's: their mean absolute
    difference (TRL) or divergence (verl's rollout_corr) in nats stays above `limit`, or the mean difference of
    probabilities above `probability_limit`, for `steps` steps (arXiv 2512.01374 on why that ends runs)."""
    then = "give both sides one dtype, or correct for it (vllm_importance_sampling_correction, rollout_correction)"
    seen = [*_above(run.get("mismatch").finite(), limit, steps, "the mismatch of log-probabilities", then),
            *_above(run.get("probability_mismatch").finite(), probability_limit, steps, "the mismatch of "
                    "probabilities", then)]  # fmt: skip
    yield from {trip.step: trip for trip in reversed(seen)}.values()
