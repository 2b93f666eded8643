"""Rows of a stage as the items of a benchmark: held-out rows of a mixture, or records of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation.catalog import Catalog
from curation.config import shown
from curation.conversations import Rejected
from curation.errors import UserError
from curation.shapes import SHAPES


def held_out_files(catalog: Catalog, name: str, mixture: str, stage: str) -> list[Path]:
    """The Parquet files with a frozen mixture's held-out rows. Raises UserError, naming the benchmark `name`, where the
    mixture is of another stage or holds nothing out."""
    from curation.mixtures import find_frozen

    frozen = find_frozen(catalog, mixture)
    where = shown(catalog.project.path("benchmarks", name, ".yaml"))
    if frozen.stage != stage:
        raise UserError(f"'{mixture}' is a mixture of stage {frozen.stage}, not {stage}", "name one of that stage",
                        where=where, key="mixture")  # fmt: skip
    if not frozen.manifest.counts.get("held_out_rows"):
        raise UserError(f"'{mixture}' holds no rows out", "set 'held_out' in its source files, then: kedge add SOURCE; "
                        f"kedge mix build {frozen.name}", where=where, key="mixture")  # fmt: skip
    return frozen.held_out


def row_of(record: dict[str, Any], shapes: tuple[str, ...]) -> dict[str, Any]:
    """A record's fields as the first fitting of `shapes` maps them; a frozen row is taken as it is. Raises ValueError
    with the reason where none fits."""
    if "row_id" in record and isinstance(record.get("prompt"), list):
        return record
    fitting = [SHAPES[name] for name in shapes if SHAPES[name].matches(record)]
    if not fitting:
        raise ValueError(f"is no record of shape {' or '.join(shapes)}")
    try:
        return dict(fitting[0].parse(record, fitting[0].stages[0])[0])
    except Rejected as error:
        raise ValueError(str(error)) from error
