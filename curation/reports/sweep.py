"""The report of a sweep: a chart of what each context length keeps, a table, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.console import out, table
from curation.reports.page import PALETTE, figure, render, svg

if TYPE_CHECKING:
    from markupsafe import Markup

    from curation.auditing.sweep import Sweep

KEPT = (  # label, kept, of
    ("rows whole", "rows_whole", "rows"), ("answers kept", "answers_kept", "answers_before"),
    ("</think> kept", "think_closed_after", "think_closed_before"),
    ("trained tokens kept", "kept_trained_tokens", "trained_tokens"),
)  # fmt: skip
SHORT = ("whole", "answer", "think", "train")  # of KEPT, for the terminal
WHAT = {"answers": "answers", "thoughts": "closed thoughts", "rows": "rows whole"}


def share(entry: dict[str, Any], kept: str, of: str) -> float | None:
    """A share (0..1) of one length, None where there is nothing to keep."""
    return entry[kept] / entry[of] if entry[of] else None


def proposal_lines(sweep: Sweep) -> list[str]:
    """What to set max_length to, and what for."""
    if sweep.details.get("stage") == "rlvr":
        return [f"a limit of {sweep.proposals['rows']:,} tokens holds 99 % of the prompts of every source"]
    return [f"max_length {length:,} keeps 99 % of the {WHAT[name]} of every source"
            for name, length in sweep.proposals.items() if length is not None]  # fmt: skip


def memory_lines(sweep: Sweep) -> list[str]:
    """The longest context that fits on each preset of devices."""
    how = "" if not sweep.details.get("default_step") else " (full training, ZeRO-3, one example a device)"
    return [f"{name}: {'not even one token' if length is None else f'up to {length:,} tokens of context'} fit{how}"
            for name, length in sweep.longest.items()]  # fmt: skip


def gib(entry: dict[str, Any]) -> str:
    """Memory per device at a length."""
    return "-" if entry["memory"] is None else f"{entry['memory']['total'] / 2**30:.1f}"


def write(sweep: Sweep, folder: Path) -> None:
    """Write sweep.json and report.html into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(sweep.as_json(), indent=1, sort_keys=True, ensure_ascii=False))
    (folder / "report.html").write_text(page(sweep))


def page(sweep: Sweep) -> str:
    """The report as one self-contained HTML page."""
    sources = [item["source"] for item in sweep.lengths[0]["sources"]]
    return render("sweep.html.j2", {"title": f"What each context length keeps: {sweep.subject}", "sweep": sweep,
                                    "kept": KEPT, "share": share, "chart": _chart(sweep), "sources": sources,
                                    "proposals": proposal_lines(sweep), "gib": gib,
                                    "memory": memory_lines(sweep)})  # fmt: skip


def _chart(sweep: Sweep) -> Markup:
    drawing = figure(9, 3.4)
    axes = drawing.subplots()
    lengths = [entry["max_length"] for entry in sweep.lengths]
    for (label, kept, of), shade in zip(KEPT, ("calm", "good", "bad", "warn"), strict=True):
        shares = [share(entry, kept, of) for entry in sweep.lengths]
        if None not in shares:
            axes.plot(lengths, [100 * (value or 0.0) for value in shares], marker="o", label=label,
                      color=PALETTE[shade])  # fmt: skip
    needed = sweep.proposals["answers"]
    if needed is not None:
        axes.axvline(needed, color=PALETTE["grey"], linestyle="--")
        axes.annotate(f"99 % of answers: {needed:,}", (needed, 2), xytext=(4, 0), textcoords="offset points",
                      color=PALETTE["grey"])  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.set_ylim(-3, 103)
    axes.set_xlabel("context length, tokens")
    axes.set_ylabel("kept, %")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(drawing)


def print_sweep(sweep: Sweep) -> None:
    """One line per length, then the proposals."""
    known = any(entry["memory"] is not None for entry in sweep.lengths)
    columns = ["length", *SHORT, "pad", "steps", *(["GiB"] if known else []), "failed"]
    rows = []
    for entry in sweep.lengths:
        rows.append([entry["max_length"], *(_percent(share(entry, kept, of)) for _, kept, of in KEPT),
                     _percent(entry["padding_waste"]), entry["steps"], *([gib(entry)] if known else []),
                     ", ".join(entry["failed"]) or "none"])  # fmt: skip
    table(f"{sweep.subject}: {sweep.num_rows:,} rows under {sweep.mirror}: % kept, % padding", columns, rows)
    _print_trainers(sweep)
    for line in [*proposal_lines(sweep), *memory_lines(sweep)]:
        out.print(line, markup=False)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _print_trainers(sweep: Sweep) -> None:
    """Of every trainer: sequences that stay whole, and those that are dropped, at each length."""
    columns = ["% rows whole (dropped)", *(str(entry["max_length"]) for entry in sweep.lengths)]
    rows = []
    for other in sweep.trainers:
        cells = []
        for entry in other["lengths"]:
            dropped = f" ({100 * entry['rows_dropped'] / entry['rows']:.1f})" if entry["rows_dropped"] else ""
            cells.append(_percent(share(entry, "rows_whole", "rows")) + dropped)
        rows.append([other["trainer"] + ("*" if other["read_not_run"] else ""), *cells])
    if rows:
        table(f"the same under other trainers ({sweep.trainers[0]['num_rows']:,} rows; * read, not run)", columns, rows)
