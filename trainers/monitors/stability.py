"""Monitors of every stage: values that are no numbers, and spikes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from trainers.monitors import Trip
from trainers.monitors.readings import Readings
from trainers.monitors.trends import spikes

WATCHED = ("loss", "gradient", "entropy", "kl", "reward", "chosen_logp", "rejected_logp", "margin")
SKIPPED_IN_A_ROW = 3

Deviations = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=3)]
Factor = Annotated[float, Field(gt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


def non_finite(run: Readings) -> Iterator[Trip]:
    """A loss, gradient norm, entropy, KL, reward, margin or log-probability that is NaN or infinite. An infinite
    gradient norm alone is what loss scaling (fp16) skips: it counts from the third in a row. `transformers` hides a NaN
    loss by default (`logging_nan_inf_filter`); its gradient norm then tells it."""
    bad: dict[int, list[str]] = {}
    for quantity in WATCHED:
        series = run.get(quantity)
        wrong = ~np.isfinite(series.values)
        if quantity == "gradient":
            infinite = np.isinf(series.values)
            row = np.array([infinite[max(0, end - SKIPPED_IN_A_ROW + 1) : end + 1].sum() for end in range(len(wrong))])
            wrong = np.isnan(series.values) | (row >= SKIPPED_IN_A_ROW)
        for step, here in zip(series.steps.tolist(), wrong.tolist(), strict=True):
            bad.setdefault(step, []).extend([quantity] if here else [])
    last = False
    for step in sorted(bad):
        if bad[step] and not last:
            yield Trip(step, float("nan"), f"{' and '.join(bad[step])} is no finite number",
                       "go back to a checkpoint before it (kedge train RUN --from RUN@STEP) with a lower learning "
                       "rate, or look for the row that does it")  # fmt: skip
        last = bool(bad[step])


def loss_spike(run: Readings, *, deviations: Deviations = 8.0, window: Count = 50, readings: Count = 20,
               floor: Share = 0.02) -> Iterator[Trip]:  # fmt: skip
    """The loss jumps above the median of the last `window` readings by more than `deviations` robust standard
    deviations, of which one is at least `floor` of the median. The first `readings` readings are not judged."""
    series = run.get("loss").finite()
    for index in spikes(series.values, deviations, window, readings, floor):
        middle = float(np.median(series.values[max(0, index - window) : index]))
        yield Trip(int(series.steps[index]), float(series.values[index]),
                   f"the loss jumps to {series.values[index]:.4g} from a median of {middle:.4g}",
                   "look at the rows of this step and at the gradient norm; lower the learning rate or max_grad_norm "
                   "where it stays high")  # fmt: skip


def gradient_spike(run: Readings, *, factor: Factor = 10.0, deviations: Deviations = 8.0, window: Count = 50,
                   readings: Count = 20) -> Iterator[Trip]:  # fmt: skip
    """The gradient norm before clipping rises above `factor` times the median of the last `window` readings and, on a
    logarithmic scale, by more than `deviations` robust standard deviations. The first `readings` are not judged."""
    series = run.get("gradient").finite()
    logs = np.log(np.maximum(series.values, 1e-12))
    for index in spikes(logs, deviations, window, readings, least=float(np.log(factor)) / deviations):
        middle = float(np.median(series.values[max(0, index - window) : index]))
        yield Trip(int(series.steps[index]), float(series.values[index]),
                   f"the gradient norm is {series.values[index]:.4g} after a median of {middle:.4g}",
                   "check that max_grad_norm clips it, and look at the rows of this step")  # fmt: skip
