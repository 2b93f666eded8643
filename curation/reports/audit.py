"""The audit's report: terminal, HTML, and the rows that lose most with the cut shown in their text."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.catalog import write_parquet
from curation.console import out, table
from curation.measures.pair_anatomy import SIDES
from curation.outputs import Part
from curation.reports.page import PALETTE, figure, render, svg

if TYPE_CHECKING:
    from markupsafe import Markup

    from curation.auditing.audit import Audit
    from curation.measures._rendered import RenderedMeasure
    from curation.rendering import Rendered

NUM_WORST = 20
SHOWN_CHARS = 1_500


def worst_rows(parts: list[Path], fates: pa.Table, measure: RenderedMeasure, stage: str) -> list[dict[str, Any]]:
    """The sequences that lose the most trained tokens (of prompts: tokens), longest loss first: identity and text in
    pieces, each `context`, `trained` or `lost`."""
    unit = "tokens" if stage == "rlvr" else "trained_tokens"
    lost = fates[unit].to_numpy() - fates[f"kept_{unit}"].to_numpy()
    order = [int(index) for index in np.argsort(-lost, kind="stable")[:NUM_WORST] if lost[index] > 0]
    if not order:
        return []
    columns = [name for name in measure.reads(stage) if name in pq.read_schema(parts[0]).names]
    places = fates["position"].take(order)
    rows = pa.concat_tables([pq.read_table(part, columns=columns) for part in parts]).take(places).to_pylist()
    sides = fates["side"].take(order).to_pylist()
    found = []
    for index, rendered in zip(order, _rendered(measure, stage, rows, sides), strict=True):
        fate = {name: fates[name][index].as_py() for name in ("row_id", "source", "fate", "tokens", "kept_tokens")}
        side = {"side": SIDES[fates["side"][index].as_py()]} if stage == "preference" else {}
        kept = kept_mask(len(rendered.ids), fate["kept_tokens"], fates["pieces"][index].as_py())
        found.append(fate | side | {"lost": int(lost[index]), "pieces": _pieces(rendered, kept)})
    return found


def _rendered(measure: RenderedMeasure, stage: str, rows: list[dict[str, Any]], sides: list[int]) -> list[Rendered]:
    """The sequence of each row; of a preference row that of its side."""
    if stage == "rlvr":
        return measure.rendering.render_prompts(rows)
    if stage == "preference":
        pairs = measure.rendering.render_pairs(rows)
        found = [getattr(pair, SIDES[side]) for pair, side in zip(pairs, sides, strict=True)]
        return [item for item in found if item is not None]
    return measure.rendering.render_many(rows, stage)


def kept_mask(length: int, kept: int, pieces: list[dict[str, int]] | None) -> np.ndarray:
    """bool[T]: the tokens of a sequence that stay, from its pieces or, where it has none, its first `kept`."""
    mask = np.zeros(length, bool)
    for piece in [{"start": 0, "length": kept}] if pieces is None else pieces:
        mask[piece["start"] : piece["start"] + piece["length"]] = True
    return mask


def _pieces(rendered: Rendered, kept: np.ndarray) -> list[tuple[str, str]]:
    """(style, text) runs of a rendered row around its cut."""
    styles = np.where(~kept, 2, np.where(rendered.mask, 1, 0))
    edges = [0, *(np.flatnonzero(np.diff(styles)) + 1).tolist(), len(styles)]
    pieces = []
    for first, last in itertools.pairwise(edges):
        text = rendered.text[rendered.encoded.starts[first] : rendered.encoded.ends[last - 1]]
        if len(text) > SHOWN_CHARS:
            text = text[: SHOWN_CHARS // 2] + " [...] " + text[-SHOWN_CHARS // 2 :]
        pieces.append((("context", "trained", "lost")[styles[first]], text))
    return pieces


def page(audit: Audit) -> str:
    """The report as one self-contained HTML page."""
    return render("audit.html.j2", {"title": f"Launch audit: {audit.subject}", "audit": audit,
                                    "histogram": _histogram(audit)})  # fmt: skip


def write(audit: Audit, fates: pa.Table, folder: Path) -> Part:
    """Write fates.parquet, audit.json and report.html into a folder; returns the part of the fates."""
    part = write_parquet(folder / "fates.parquet", fates)
    (folder / "audit.json").write_text(json.dumps(audit.as_json(), indent=1, sort_keys=True, ensure_ascii=False))
    (folder / "report.html").write_text(page(audit))
    return part


def _histogram(audit: Audit) -> Markup:
    drawing = figure(9, 3.2)
    axes = drawing.subplots()
    edges = np.array(audit.details["length_histogram"]["edges"])
    bottom = np.zeros(len(edges) - 1)
    shades = [PALETTE[name] for name in ("calm", "good", "warn", "grey", "bad")]
    for index, (name, counts) in enumerate(audit.details["length_histogram"]["counts"].items()):
        values = np.array(counts)
        axes.bar(edges[:-1], values, np.diff(edges), bottom=bottom, align="edge", label=name,
                 color=shades[index % len(shades)], linewidth=0)  # fmt: skip
        bottom += values
    if audit.max_length is not None:
        axes.axvline(audit.max_length, color=PALETTE["bad"], linestyle="--")
        axes.annotate(f"max_length {audit.max_length:,}", (audit.max_length, axes.get_ylim()[1]), xytext=(4, -4),
                      textcoords="offset points", va="top", color=PALETTE["bad"])  # fmt: skip
    axes.set_xlabel("tokens of a row before any cut")
    axes.set_ylabel("rows")
    axes.legend(frameon=False, fontsize=8)
    return svg(drawing)


def print_audit(audit: Audit) -> None:
    """The verdict line, what each source keeps, and the checks that are not fine."""
    out.print(audit.verdict, style="green" if audit.passed else "red", markup=False)
    for note in audit.details.get("notes", []):
        out.print(note, markup=False)
    unit = "sides" if audit.details.get("stage") == "preference" else "rows"
    columns = ["source", unit, "whole", "cut", "dropped", "split", "trained", "</think>", "answers"]
    table(f"{audit.subject} under {audit.mirror} at {audit.max_length or 'no limit'}: what is kept", columns, [
        [item["source"], item["rows"], item["rows_whole"], item["rows_cut"], item["rows_dropped"], item["rows_split"],
         _of(item["kept_trained_tokens"], item["trained_tokens"]),
         _of(item["think_closed_after"], item["think_closed_before"]),
         _of(item["answers_kept"], item["answers_before"])]
        for item in audit.sources])  # fmt: skip
    for check in audit.checks:
        if check.level != "ok":
            state = f"waived: {check.waived}" if check.waived else check.level
            out.print(f"{check.id} {state}: {check.message}" + (f"; {check.next}" if check.next else ""), markup=False)
    for line in instead(audit):
        out.print(line, markup=False)
    if audit.num_bins is not None:
        kept = sum(item["kept_tokens"] for item in audit.sources if item["source"] == "all")
        filled = kept / max(1, audit.num_bins * (audit.max_length or 1))
        out.print(f"{audit.num_bins:,} packed sequences, {filled:.1%} filled")


def instead(audit: Audit) -> list[str]:
    """What to do instead of cutting: the first setting under which the longest row fits, and what each treatment of the
    data costs."""
    ways = audit.details.get("ways", [])
    fitting = next((way for way in ways if way.get("fits")), None)
    lines = []
    if fitting is not None:
        lines.append(f"{audit.details['ways_length']:,} tokens fit on {fitting['preset']} "
                     f"({fitting['memory_bytes'] / 2**30:.1f} GiB a device) with {fitting['way']}")  # fmt: skip
    for way in (way for way in ways if way["change"] == "data"):
        apart = f" ({way['split']:.1%} of the rows apart from their question)" if way["split"] else ""
        lines.append(f"{way['way']}: {way['answers_kept']:.1%} of the answers whole{apart}, total variation "
                     f"{way['total_variation']:.3f}")  # fmt: skip
    return [("or " if number else "instead of cutting: ") + line for number, line in enumerate(lines)]


def _of(after: int, before: int) -> str:
    return "-" if not before else f"{after / before:.1%}"
