"""The report of a training run: its curves with the findings at their steps, and what every rule of the run says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curation.reports.page import PALETTE, figure, render, svg
from trainers.monitors import Finding
from trainers.monitors.following import everything
from trainers.monitors.preference import accuracy_interval, margin_interval
from trainers.monitors.readings import Readings, Series
from trainers.monitors.rules import MONITORS, Rule, judge, readable
from trainers.monitors.trends import smoothed

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

MOST_COMPONENTS = 8


@dataclass(frozen=True)
class Chart:
    """A chart of quantities of one unit, and the monitors whose findings are marked on it."""

    title: str
    unit: str
    quantities: tuple[tuple[str, str], ...]  # quantity, label
    monitors: tuple[str, ...]
    logarithmic: bool = False


CHARTS = (
    Chart("Loss", "loss", (("loss", "training"), ("held_out_loss", "held out")), ("loss_spike", "non_finite")),
    Chart("Gradient norm", "before clipping", (("gradient", "gradient norm"),), ("gradient_spike", "non_finite"), True),
    Chart("Reward", "mean of a step", (("reward", "reward"), ("held_out_score", "held out")),
          ("reward_hacking", "non_finite")),
    Chart("Reward components", "mean of a step", (("components", ""),), ("reward_hacking",)),
    Chart("Entropy", "nats a token", (("entropy", "entropy"),), ("entropy_collapse",)),
    Chart("KL divergence", "nats", (("kl", "from the reference"), ("update_kl", "of an update")), ("kl_runaway",)),
    Chart("Length of completions", "tokens", (("length", "mean"),), ("length_drift",)),
    Chart("Shares of a step", "%", (("truncated", "cut at the length limit"), ("clipped", "clipped ratios"),
                                    ("equal_groups", "groups of equal reward")),
          ("truncation_share", "clip_share", "advantage_collapse")),
    Chart("Diversity", "share", (("distinct_ngrams", "distinct 4-grams"),
                                 ("unique_answers", "variety of answers to unsolved prompts")),
          ("distinct_ngrams", "unique_answers")),
    Chart("Trainer against rollout engine", "mean difference", (("mismatch", "log-probabilities, nats"),
                                                                ("probability_mismatch", "probabilities")),
          ("rollout_mismatch",), True),
    Chart("Pairs ranked right", "%", (("accuracy", "training"), ("held_out_accuracy", "held out")),
          ("held_out_accuracy", "second_epoch")),
    Chart("Margin", "chosen - rejected", (("margin", "training"), ("held_out_margin", "held out")),
          ("held_out_margin",)),
    Chart("Rewards of the sides", "beta x log-ratio", (("chosen_reward", "chosen"), ("rejected_reward", "rejected")),
          ("falling_chosen",)),
    Chart("Log-probabilities of the sides", "nats", (("chosen_logp", "chosen"), ("rejected_logp", "rejected")),
          ("falling_chosen",)),
    Chart("Learning rate", "", (("learning_rate", "learning rate"),), ()),
)  # fmt: skip
PERCENT = "%"
SHADES = ("calm", "good", "warn", "bad", "grey")


def write(job: dict[str, Any], rules: Sequence[Rule]) -> Path:
    """Write report.html beside a job's log; returns its path. Equal logs give equal bytes."""
    path = Path(job["progress"]).with_name("report.html")
    path.write_text(page(str(job["record"]["run"]), everything(job), rules))
    return path


def page(name: str, run: Readings, rules: Sequence[Rule]) -> str:
    """The report as one self-contained HTML page."""
    findings = judge(run, rules)
    charts = [{"title": chart.title, "svg": drawn} for chart in CHARTS
              if (drawn := draw(chart, run, findings)) is not None]  # fmt: skip
    stops = [item for item in findings if item.level == "stop"]
    verdict, style = "no monitor tripped", "pass"
    if findings:
        kind = "stop" if stops else "warn"
        verdict = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}: {(stops or findings)[0]}"
        style = {"stop": "fail", "warn": "warn"}[kind]
    return render("training.html.j2", {
        "title": f"Training: {name}", "verdict": verdict, "style": style, "findings": list(enumerate(findings, 1)),
        "charts": charts, "rules": [told(rule, run, findings) for rule in rules], "run": run,
        "held_out": held_out_lines(run),
    })  # fmt: skip


def told(rule: Rule, run: Readings, findings: Sequence[Finding]) -> dict[str, Any]:
    """What a rule says of a run: its state, options, and what it looks at, in the values of its options."""
    mine = [number for number, item in enumerate(findings, 1) if item.name == rule.name]
    what = " ".join((MONITORS[rule.name].judge.__doc__ or "").split())
    for key, value in rule.options.items():
        what = what.replace(f"`{key}`", f"{value:g}" if isinstance(value, int | float) else str(value))
    if mine:
        state, style = "finding " + ", ".join(map(str, mine)), "fail" if rule.level == "stop" else "warn"
    elif readable(run, rule):
        state, style = "quiet", "pass"
    else:
        state, style = "not judged: not in the log", "muted"
    return {"name": rule.name, "level": rule.level, "state": state, "style": style, "command": rule.command,
            "options": ", ".join(f"{key} {value}" for key, value in rule.options.items()),
            "what": what.replace("`", "")}  # fmt: skip


def held_out_lines(run: Readings) -> list[str]:
    """Held-out accuracy and margin of pairs at their last evaluation, each with its 95 % interval."""
    share, margin = run.get("held_out_accuracy").finite(), run.get("held_out_margin").finite()
    lines = []
    if share and run.num_held_out:
        low, high = accuracy_interval(float(share.values[-1]), run.num_held_out)
        lines.append(f"{100 * share.values[-1]:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {run.num_held_out:,} "
                     f"held-out pairs are ranked right at step {share.steps[-1]:,} (Wilson)")  # fmt: skip
    if share and margin and run.num_held_out:
        interval = margin_interval(float(margin.values[-1]), float(share.values[-1]), run.num_held_out)
        if math.isfinite(interval.low):
            lines.append(f"held-out margin {margin.values[-1]:.3g} [{interval.low:.3g}, {interval.high:.3g}] (the "
                         "deviation of margins follows from both figures under a normal law)")  # fmt: skip
    if run.lengths is not None:
        chosen, rejected = run.lengths.mean(1)
        lines.append(f"chosen answers have {chosen:,.0f} trained tokens in the mean, rejected ones {rejected:,.0f}")
    return lines


def draw(chart: Chart, run: Readings, findings: Sequence[Finding]) -> Markup | None:
    """A chart as inline SVG, a numbered line for every finding of its monitors; None where nothing of it was logged."""
    curves: list[tuple[str, str, Series]] = []
    for quantity, label in chart.quantities:
        if label:
            curves.append((quantity, label, run.get(quantity).finite()))
        else:
            each = [(name, series.finite()) for name, series in run.each(quantity).items()]
            curves += [(quantity, _component(name), series) for name, series in each[:MOST_COMPONENTS]]
    curves = [item for item in curves if item[2]]
    if not curves:
        return None
    drawing = figure(6.4, 2.6)
    axes = drawing.subplots()
    scale = 100.0 if chart.unit == PERCENT else 1.0
    for place, (quantity, label, series) in enumerate(curves):
        _curve(axes, quantity, label, Series(series.steps, series.values * scale), SHADES[place % len(SHADES)])
        if quantity == "held_out_accuracy" and run.num_held_out:
            limits = np.array([accuracy_interval(value, run.num_held_out) for value in series.values]).T * scale
            axes.fill_between(series.steps, *limits, color=PALETTE[SHADES[place]], alpha=0.2, linewidth=0)
    mine = [(number, item) for number, item in enumerate(findings, 1) if item.name in chart.monitors]
    for number, item in mine:
        shade = PALETTE["bad" if item.level == "stop" else "warn"]
        axes.axvline(item.step, color=shade, linestyle="--", linewidth=1.2)
        axes.annotate(str(number), (item.step, 1.0), xycoords=("data", "axes fraction"), xytext=(2, -2),
                      textcoords="offset points", va="top", color=shade, fontweight="bold")  # fmt: skip
    if chart.logarithmic and all((series.values > 0).all() for _, _, series in curves):
        axes.set_yscale("log")
    axes.set_ylabel(chart.unit)
    axes.set_xlabel("step")
    axes.margins(x=0.01)
    if len(curves) > 1 or chart.title.startswith("Reward comp"):
        axes.legend(frameon=False, fontsize=8, ncols=2)
    return svg(drawing)


def _curve(axes: Axes, quantity: str, label: str, series: Series, shade: str) -> None:
    """Readings in a pale line with their running median over it; those of evaluations as points."""
    if quantity.startswith("held_out") or len(series.steps) < 20:
        axes.plot(series.steps, series.values, marker="o", markersize=3.5, label=label, color=PALETTE[shade])
        return
    axes.plot(series.steps, series.values, linewidth=0.7, alpha=0.35, color=PALETTE[shade])
    span = max(1, int(series.steps[-1] - series.steps[0]) // 50)
    axes.plot(series.steps, smoothed(series, span), linewidth=1.4, label=label, color=PALETTE[shade])


def _component(name: str) -> str:
    """A component's own name in that of its metric."""
    return name.removeprefix("rollouts/components/").removeprefix("rewards/").removesuffix("/mean")
