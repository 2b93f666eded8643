"""An annotation job's report as a page and as JSON, both of the same figures (see curation.annotation.report_study)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.reports.page import PALETTE, figure, finite, render, svg

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

FILES = ("report.html", "annotation.json")


def write(study: Mapping[str, Any], folder: Path) -> None:
    """Write report.html and annotation.json into a folder; the same figures give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite(dict(study)), indent=1, sort_keys=True, ensure_ascii=False, default=str)
    (folder / "annotation.json").write_text(text + "\n")
    (folder / "report.html").write_text(page(study))


def page(study: Mapping[str, Any]) -> str:
    """The report as one self-contained HTML page."""
    charts = {"funnel": _funnel(study["funnel"]), "time": _time(study["over_time"]),
              "annotators": _annotators(study["annotators"])}  # fmt: skip
    return render("annotation.html.j2", {"title": f"Annotation job {study['job']}", "study": study, "charts": charts,
                                         "share": share, "number": number, "money": money, "seconds": seconds,
                                         "limits": limits, "points": points})  # fmt: skip


def share(figure: Mapping[str, Any] | None) -> str:
    """A share with its interval in percent: `81.3 % [74.0, 87.2]`; a dash where it is not known."""
    if figure is None or figure.get("value") is None or not math.isfinite(figure["value"]):
        return "–"
    return f"{100 * figure['value']:.1f} %" + span(figure, 100, 1)


def number(figure: Mapping[str, Any] | None, digits: int = 2) -> str:
    """A coefficient with its interval: `0.52 [0.44, 0.60]`; a dash where it is not defined."""
    if figure is None or figure.get("value") is None or not math.isfinite(figure["value"]):
        return "–"
    return _text(figure["value"], digits) + span(figure, 1, digits)


def span(figure: Mapping[str, Any], factor: float = 1, digits: int = 2) -> str:
    """` [low, high]` of a figure; nothing where a limit is not known."""
    limits = [limit for limit in (figure.get("low"), figure.get("high")) if limit is not None and math.isfinite(limit)]
    if len(limits) < 2:
        return ""
    return f" [{', '.join(_text(factor * limit, digits) for limit in limits)}]"


def _text(value: float, digits: int) -> str:
    """A number with so many digits, a true minus, and no minus before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def points(change: Mapping[str, Any]) -> str:
    """A difference of shares with its interval in points: `+4.3 [−16.0, 27.7]`."""
    return f"{100 * change['value']:+.1f}".replace("-", "−") + span(change, 100, 1)


def limits(figure: Mapping[str, Any]) -> str:
    """`74 to 87` of a share in percent; nothing where a limit is not known."""
    ends = [figure["low"], figure["high"]]
    return "" if None in ends else " to ".join(f"{100 * end:.0f}" for end in ends)


def money(amount: float | None, currency: str) -> str:
    """An amount with its currency: `EUR 1,204.50`."""
    return "–" if amount is None else f"{currency} {amount:,.2f}"


def seconds(value: float | None) -> str:
    """A time: `42 s`, `12 min`, `5.5 h`."""
    if value is None or not math.isfinite(value):
        return "–"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _funnel(steps: Sequence[Mapping[str, Any]]) -> Markup:
    drawing = figure(9, 0.8 + 0.36 * len(steps))
    axes = drawing.subplots()
    names = [step["step"] for step in steps]
    left = [step["left"] for step in steps]
    gone = [sum(step["lost"].values()) for step in steps]
    axes.barh(names, left, color=PALETTE["calm"], label="left")
    axes.barh(names, gone, left=left, color=PALETTE["bad"], label="lost here")
    for place, step in enumerate(steps):
        why = ", ".join(f"{count:,} {name}" for name, count in step["lost"].items())
        axes.annotate(f"{left[place]:,}" + (f"  (−{why})" if why else ""), (left[place] + gone[place], place),
                      xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * max(1, *left))
    axes.set_xlabel("items")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(drawing)


def _time(batches: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Agreement over time with its interval as a band; nothing to draw under two points."""
    drawn = [item for item in batches if _known(item["alpha"]) or _known(item["pairwise"])]
    if len(drawn) < 2:
        return None
    drawing = figure(9, 2.9)
    axes = drawing.subplots()
    for name, label, colour in (("pairwise", "pairs of votes that agree", "calm"),
                                ("alpha", "Krippendorff's alpha", "good")):  # fmt: skip
        places = [place for place, item in enumerate(drawn) if _known(item[name])]
        values, low, high = ([drawn[place][name][key] for place in places] for key in ("value", "low", "high"))
        axes.plot(places, values, marker="o", markersize=4, color=PALETTE[colour], label=label)
        if all(limit is not None for limit in [*low, *high]):
            axes.fill_between(places, low, high, color=PALETTE[colour], alpha=0.15, linewidth=0)
    axes.set_xticks(range(len(drawn)), [item["label"] for item in drawn], fontsize=8,
                    rotation=0 if len(drawn) <= 8 else 30, ha="center" if len(drawn) <= 8 else "right")  # fmt: skip
    axes.axhline(0, color=PALETTE["grey"], linewidth=0.6)
    axes.set_ylim(min(-0.05, axes.get_ylim()[0]), 1.02)
    axes.set_ylabel("agreement")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(drawing)


def _known(figure: Mapping[str, Any] | None) -> bool:
    return figure is not None and figure["value"] is not None and math.isfinite(figure["value"])


def _annotators(people: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Each annotator's agreement with the others and share of slot A, with intervals, flagged ones in red."""
    panels = (("agreement", "agreement with the others"), ("slot_a", "share that chose slot A"))
    if not any(_known(person[name]) for person in people for name, _ in panels):
        return None
    drawing = figure(9, 0.9 + 0.3 * len(people))
    for axes, (name, title) in zip(drawing.subplots(1, 2, sharey=True), panels, strict=True):
        for place, person in enumerate(people):
            if _known(person[name]):
                _interval(axes, place, person[name], PALETTE["bad" if person["flags"] else "calm"])
        axes.set_yticks(range(len(people)), [person["annotator"] for person in people])
        axes.set_ylim(len(people) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.set_title(title, fontsize=9)
        axes.axvline(0.5, color=PALETTE["grey"], linestyle=":" if name == "slot_a" else "None", linewidth=1)
    return svg(drawing)


def _interval(axes: Axes, place: int, found: Mapping[str, Any], colour: str) -> None:
    if found["low"] is not None and found["high"] is not None:
        axes.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=1.6)
    axes.plot([found["value"]], [place], marker="o", markersize=5, color=colour)
