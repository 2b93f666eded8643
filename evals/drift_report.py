"""The drift report: terminal, HTML, Markdown and JSON from the same numbers."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.catalog import Catalog
from curation.config import shown
from curation.console import out, print_json, table
from curation.fingerprint import fingerprint
from curation.outputs import Manifest
from curation.reports.page import PALETTE, figure, finite, render, svg
from curation.statistics import Interval
from evals.drift import DriftReport
from evals.flips import marked
from evals.verdicts import FAIL, IMPROVED, PASS, REGRESSED, UNDECIDED, Comparison

if TYPE_CHECKING:
    from markupsafe import Markup

FILES = ("report.html", "report.md", "drift.json")
GREYED = "The instrument failed: the scores below may not be read as the model's."


def as_json(report: DriftReport) -> dict[str, Any]:
    """The whole report as one JSON object; shares of 1, infinite limits as null."""
    value = asdict(report) | {"verdict": report.verdict, "exit_code": report.exit_code}
    value["instrument"] = [str(problem) for problem in report.instrument]
    value["margins"] = [asdict(item) | {"line": item.line} for item in report.margins]
    value["judgements"] = {name: report.judgement(name) for name in own(report)}
    return dict(finite(value))


def own(report: DriftReport) -> list[str]:
    """Ids of the checkpoints that are judged, in order."""
    return [item["id"] for item in report.columns if any(made.b == item["id"] for made in report.comparisons)]


def publish(catalog: Catalog, report: DriftReport, to: Path | None) -> Path:
    """Write HTML, Markdown and JSON to `lake/drift/RUN/FINGERPRINT/` (and copies to the folder `to`); returns the
    folder. Equal numbers give equal bytes."""
    value = as_json(report)
    html = page(report)
    digest = fingerprint({"report": json.loads(json.dumps(value, default=str)), "page": html})
    folder = catalog.folder("drift", report.run, digest[:16])
    if catalog.manifest(folder) is None:
        with catalog.publishing(folder) as draft:
            (draft.folder / "report.html").write_text(html)
            (draft.folder / "report.md").write_text(markdown(report))
            (draft.folder / "drift.json").write_text(json.dumps(value, indent=1, sort_keys=True, default=str) + "\n")
            draft.manifest = Manifest(
                kind="drift", name=report.run, fingerprint=digest, inputs={"suite": report.suite, "start": report.start,
                "checkpoints": {item["id"]: item["weights"] for item in report.columns}},
                counts={"exit_code": report.exit_code},
            )  # fmt: skip
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(folder / name, to / name)
    return to or folder


def points(share: float | None, *, sign: bool = True) -> str:
    """A share in points: 0.023 -> `+2.3`."""
    if share is None or not math.isfinite(share):
        return "–"
    text = f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"
    return text.replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


def span(interval: Interval | None) -> str:
    """An interval of differences in points."""
    return "–" if interval is None else f"[{points(interval[0])}, {points(interval[1])}]"


def lost_text(made: Comparison) -> str:
    """`12 lost: 9 truncated, 3 changed answer`."""
    parts = [f"{count} {name}" for name, count in made.lost.items() if count]
    return f"{made.losses} lost" + (f" ({', '.join(parts)})" if parts else "") + f", {made.gains} won"


def context_lines(report: DriftReport) -> list[str]:
    """Sentences about what each stage did besides training."""
    lines = []
    for item in report.context:
        change = {None: "template unknown before or after", True: "TEMPLATE CHANGED", False: "same template as before"}
        line = f"{item['checkpoint']} (from {item['parent'] or 'unknown'}): {_short(item['mixture'])}; "
        line += change[item["template_changed"]]
        for waiver in item["waivers"]:
            line += f"; waived {waiver['check']} at {waiver['value']:.4g}: {waiver['reason']}"
        moved = [
            f"{entry['source']} {_share(entry['parent'])} → {_share(entry['mixture'])} → {_share(entry['kept'])}"
            for entry in item["shares"]
        ]
        lines.append(
            line + (f"; share of trained tokens (parent → mixture → kept): {', '.join(moved)}" if moved else "")
        )
    return lines


def margin_lines(report: DriftReport) -> list[str]:
    """Sentences about the margins of preference pairs, and where a reward model's own report lies."""
    where = [] if report.reward_model is None else [f"reward model report: {report.reward_model}"]
    return [item.line for item in report.margins] + where


def _short(mixture: str) -> str:
    """`NAME@FINGERPRINT` with twelve characters of the fingerprint."""
    name, mark, digest = mixture.partition("@")
    return name + mark + digest[:12]


def _share(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def instrument_lines(report: DriftReport) -> list[str]:
    """What was checked before any score is read."""
    last = [item for item in report.standings if item.checkpoint == report.last]
    lines = []
    for item in last:
        parts = []
        for state in ("truncated", "unparsed", "timeout", "error"):
            share, low, high = (100 * value for value in item.shares[state])
            parts.append(f"{state} {share:.1f} % [{low:.1f}, {high:.1f}]")
        lines.append(f"{item.benchmark}: {', '.join(parts)}")
    equal = "equal prompts, template, budget and sampling in every comparison" if not report.instrument else ""
    return [str(problem) for problem in report.instrument] + ([equal] if equal else []) + lines


def print_report(report: DriftReport, folder: Path, as_json_object: bool) -> None:
    """The verdict, one line per comparison of the last checkpoint, and where the report lies."""
    if as_json_object:
        print_json(as_json(report) | {"report": str(folder / "report.html")})
        return
    style = {0: "green", 1: "red", 3: "yellow", 4: "red"}[report.exit_code]
    out.print(report.verdict, style=f"bold {style}", markup=False)
    for problem in report.instrument:
        out.print(f"instrument: {problem}", style="red", markup=False)
    rows = [[item.benchmark, f"{item.a} ({item.against})",
             f"{points(item.score_a, sign=False)} → {points(item.score_b, sign=False)}",
             f"{points(item.difference)} {span(item.adjusted or item.interval)}", f"{item.verdict}, {item.direction}"]
            for item in report.of(report.last)]  # fmt: skip
    table(f"{report.last}, in points", ["benchmark", "against", "score", "difference", "verdict"], rows)
    for item in report.of(report.last):
        if item.n and (item.gate or item.losses):
            p = "" if item.p is None else f"; {item.test} p {item.p:.2g}"
            p += "" if item.p_adjusted is None else f", adjusted {item.p_adjusted:.2g}"
            extra = f"; {item.message}" if item.message else ""
            out.print(f"{item.benchmark} vs {item.a}: {item.n:,} items, {lost_text(item)}{p}; smallest detectable "
                      f"{points(item.smallest_detectable, sign=False)}{extra}", markup=False)  # fmt: skip
    for line in [*margin_lines(report), *context_lines(report)[-1:]]:
        out.print(line, markup=False)
    out.print(f"report: {shown(folder / 'report.html')}", markup=False)


def markdown(report: DriftReport) -> str:
    """A short text for a pull request."""
    lines = [f"**{report.verdict}**", ""]
    lines += [f"- instrument: {problem}" for problem in report.instrument] + ([""] if report.instrument else [])
    lines += ["| benchmark | against | before | now | difference | interval | p (Holm) | MDE | verdict | direction |",
              "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for item in report.of(report.last):
        cells = [item.benchmark, f"{item.a} ({item.against})", points(item.score_a, sign=False),
                 points(item.score_b, sign=False), points(item.difference), span(item.adjusted or item.interval),
                 "–" if item.p_adjusted is None else f"{item.p_adjusted:.3g}",
                 points(item.smallest_detectable, sign=False), item.verdict, item.direction]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += [""] + [f"- {item.benchmark} vs {item.a}: {lost_text(item)}" for item in report.of(report.last)
                     if item.losses]  # fmt: skip
    lines += [f"- {line}" for line in margin_lines(report) + context_lines(report)]
    return "\n".join(lines) + "\n"


def page(report: DriftReport) -> str:
    """The report as one self-contained HTML page."""
    style = {0: "pass", 1: "fail", 3: "undecided", 4: "fail"}[report.exit_code]
    flips = [item | {"pieces": marked(item["response_before"], item["response_after"])} for item in report.flips]
    probes: dict[str, list[dict[str, Any]]] = {}
    for item in report.probes:
        probes.setdefault(f"{item['probes']}: {item['name']}", []).append(item)
    return render("drift.html.j2", {
        "title": f"Drift: {report.run}", "report": report, "style": style, "greyed": GREYED, "own": own(report),
        "heat": heat(report), "forest": _forest(report), "curves": _curves(report), "flips": flips, "probes": probes,
        "points": points, "span": span, "lost_text": lost_text, "context": context_lines(report),
        "instrument": instrument_lines(report), "margin_lines": margin_lines(report),
    })  # fmt: skip


def heat(report: DriftReport) -> list[dict[str, Any]]:
    """One line per benchmark: per column its score, the change to the column before, and a style by verdict where the
    checkpoint is judged."""
    place = {(item.benchmark, item.checkpoint): item for item in report.standings}
    judged = {(made.benchmark, made.b): made for made in reversed(report.comparisons)}
    lines = []
    for benchmark in dict.fromkeys(item.benchmark for item in report.standings):
        before: float | None = None
        cells = []
        for column in report.columns:
            found = place.get((benchmark, column["id"]))
            score = None if found is None else found.score
            made = judged.get((benchmark, column["id"]))
            change = score - before if score is not None and before is not None else None
            cells.append({"score": score, "change": change, "style": _style(made), "made": made})
            before = score if score is not None else before
        lines.append({"benchmark": benchmark, "cells": cells})
    return lines


def _style(made: Comparison | None) -> str:
    if made is None:
        return "none"
    if made.verdict == UNDECIDED:
        return "undecided"
    return {REGRESSED: "lost" if made.verdict == PASS else "failed", IMPROVED: "won"}.get(
        made.direction, "failed" if made.verdict == FAIL else "still")  # fmt: skip


def _forest(report: DriftReport) -> Markup:
    rows = [item for item in report.of(report.last) if item.interval is not None]
    drawing = figure(9, 0.7 + 0.42 * max(1, len(rows)))
    axes = drawing.subplots()
    shades = {FAIL: PALETTE["bad"], PASS: PALETTE["good"], UNDECIDED: PALETTE["warn"]}
    for height, item in enumerate(reversed(rows)):
        interval = item.adjusted or item.interval
        assert interval is not None
        low, high = (100 * limit for limit in interval)
        shade = shades.get(item.verdict, PALETTE["grey"])
        axes.plot([low, high], [height, height], color=shade, linewidth=2)
        axes.plot([100 * (item.difference or 0.0)], [height], "o", color=shade)
        if item.gate:
            axes.plot([-100 * item.margin] * 2, [height - 0.35, height + 0.35], color=PALETTE["bad"], linestyle=":")
    axes.axvline(0, color=PALETTE["grey"], linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{item.benchmark} vs {item.a}" for item in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("difference in points, adjusted interval; dotted: the margin")
    return svg(drawing)


def _curves(report: DriftReport) -> Markup:
    drawing = figure(9, 2.8)
    axes = drawing.subplots()
    ids = [item["id"] for item in report.columns]
    for index, benchmark in enumerate(dict.fromkeys(item.benchmark for item in report.standings)):
        mine = {item.checkpoint: item for item in report.standings if item.benchmark == benchmark}
        found = [(place, mine[name]) for place, name in enumerate(ids) if name in mine and mine[name].score is not None]
        shade = list(PALETTE.values())[(index * 2 + 3) % len(PALETTE)]
        at = [place + 0.04 * index for place, _ in found]
        score = [100 * (item.score or 0.0) for _, item in found]
        down = [max(0.0, value - 100 * item.score_interval[0]) for value, (_, item) in zip(score, found, strict=True)]
        up = [max(0.0, 100 * item.score_interval[1] - value) for value, (_, item) in zip(score, found, strict=True)]
        axes.errorbar(at, score, yerr=[down, up], marker="o", capsize=3, color=shade, label=benchmark)
    axes.set_xticks(range(len(ids)), ids)
    axes.set_ylim(-4, 104)
    axes.set_ylabel("score, points")
    axes.legend(frameon=False, fontsize=8)
    return svg(drawing)
