"""The funnel's report: what every rule leaves out, as a page and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.reports.page import PALETTE, figure, render, svg

if TYPE_CHECKING:
    from markupsafe import Markup

    from curation.funnel import Funnel


def write(funnel: Funnel, folder: Path) -> None:
    """Write funnel.json and report.html into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(funnel.as_json(), indent=1, sort_keys=True, ensure_ascii=False, default=str)
    (folder / "funnel.json").write_text(text)
    (folder / "report.html").write_text(page(funnel))


def page(funnel: Funnel) -> str:
    """The report as one self-contained HTML page."""
    rows, kept = (sum(item[name] for item in funnel.sources) for name in ("rows", "kept"))
    rules: dict[str, dict[str, Any]] = {}
    for item in funnel.effects:
        of = rules.setdefault(
            item["rule"], {"adopted": item["adopted"], "caught": 0, "alone": 0, "sources": [], "note": ""}
        )
        if item["caught"] is None:
            of |= {"caught": None, "alone": None, "note": item["example"]}
            continue
        of["caught"] += item["caught"]
        of["alone"] += item["alone"]
        of["sources"] += [item] if item["source"] else []
    return render("funnel.html.j2", {"title": "What the rules leave out, and why", "funnel": funnel, "rows": rows,
                                     "kept": kept, "rules": rules, "chart": _chart(funnel, rows)})  # fmt: skip


def _chart(funnel: Funnel, rows: int) -> Markup:
    steps = [step for step in funnel.steps if step["removed"]]
    drawing = figure(9, 0.9 + 0.3 * (len(steps) + 1))
    axes = drawing.subplots()
    names = ["ingested", *(step["rule"] for step in steps)]
    left = [rows, *(step["left"] for step in steps)]
    removed = [0, *(step["removed"] for step in steps)]
    axes.barh(names, left, color=PALETTE["calm"], label="left")
    axes.barh(names, removed, left=left, color=PALETTE["bad"], label="left out here")
    for place, (stay, go) in enumerate(zip(left, removed, strict=True)):
        axes.annotate(f"{stay:,}" + (f"  (-{go:,})" if go else ""), (stay + go, place), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(1, rows))
    axes.set_xlabel("rows")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(drawing)
