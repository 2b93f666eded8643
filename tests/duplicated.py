"""Made sources with duplicates, and what measures say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curation import cli
from curation.catalog import Catalog
from curation.measuring import ensure, named, signal_parts
from tests.benchmarks.near_duplicate_rows import Writer

SHAPES = {"midtrain": "text", "sft": "messages"}


def add(name: str, rows: list[dict[str, Any]], *, stage: str = "midtrain", **source: Any) -> None:
    """Ingest rows as a source of one file into the project around the working directory; `source` are keys of its
    source file."""
    Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if source:
        Path("catalogs/sources").mkdir(exist_ok=True, parents=True)
        text = {"reader": "jsonl", "path": f"{name}.jsonl", "stage": stage, "shape": SHAPES[stage]} | source
        Path(f"catalogs/sources/{name}.yaml").write_text(json.dumps(text))
    assert cli.run(["add", name] if source else ["add", f"{name}.jsonl", "--stage", stage]) == 0


def values(catalog: Catalog, measure: str, source: str, **options: Any) -> list[dict[str, Any]]:
    """What a measure says of a source, in the order of its file."""
    wanted = named(measure, options)
    ensure(catalog, wanted, workers=1)
    folder, rows = catalog.source(source)
    lines = [line for part in rows.parts for line in pq.read_table(folder / part.name)["line"].to_pylist()]
    parts = signal_parts(catalog, wanted, source)
    assert parts is not None
    found = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return [row for _, row in sorted(zip(lines, found, strict=True), key=lambda item: item[0])]


def near_values(catalog: Catalog, source: str, **options: Any) -> list[dict[str, Any]]:
    """What near_duplicates says of a source."""
    return values(catalog, "near_duplicates", source, **options)


def evidence(catalog: Catalog, kind: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rows, counts) of the newest evidence of a kind."""
    found = catalog.latest("evidence", kind)
    assert found is not None
    return pq.read_table(found[0] / "part-00000.parquet").to_pylist(), found[1].counts


def texts(*items: str) -> list[dict[str, Any]]:
    """Midtrain records."""
    return [{"text": item} for item in items]


def page(words: Writer) -> str:
    """Some 200 words."""
    return " ".join(words.document() + words.document())


def edited(text: str, every: int) -> str:
    """Every so many-th word is another one."""
    return " ".join(f"other{index}" if index % every == every - 1 else word for index, word in enumerate(text.split()))
