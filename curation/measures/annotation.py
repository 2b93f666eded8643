"""How sure a pair is: what the votes that it was made of say, as signals."""

from __future__ import annotations

from typing import Any, ClassVar

import orjson
import polars as pl
import pyarrow as pa

from curation.measures import PartMeasure

KEYS = {"num_votes": "votes", "vote_agreement": "agreement", "vote_confidence": "confidence",
        "vote_margin": "vote_margin", "adjudicated": "adjudicated"}  # fmt: skip
MARK = '"votes_for_chosen":'


class Annotation(PartMeasure):
    """Of pairs that `kedge annotate resolve` made, from their meta; null for all others.

    `num_votes` counts the annotators of the pair. `vote_agreement` (0..1) is the share of pairs of annotators that gave
    the same answer, null under two. `vote_confidence` (0.5..1) is the probability of the outcome under the method (of a
    majority: P(more than half of all annotators prefer chosen) under Beta(for + 1, against + 1)), and 1 by rule where
    an adjudicator decided (`adjudicated`). `vote_margin` (-1..1) is (for chosen - for rejected) / votes: below zero
    where better informed votes went against the majority. For label smoothing, 1 - vote_confidence is the chance that
    the label is wrong."""

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("preference",)
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("num_votes", pa.int32()),
            ("vote_agreement", pa.float64()),
            ("vote_confidence", pa.float64()),
            ("vote_margin", pa.float64()),
            ("adjudicated", pa.bool_()),
        ]
    )

    def reads(self, stage: str) -> tuple[str, ...]:
        return ("meta",)

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        meta = pl.Series("meta", pl.from_arrow(rows["meta"]), dtype=pl.String)
        columns: dict[str, list[Any]] = {name: [None] * len(meta) for name in KEYS}
        for place in meta.str.contains(MARK, literal=True).fill_null(False).arg_true().to_list():
            told = orjson.loads(meta[place])
            for name, key in KEYS.items():
                columns[name][place] = _checked(told.get(key), self.columns.field(name).type)
        return pa.table([pa.array(columns[name], self.columns.field(name).type) for name in KEYS], schema=self.columns)


def _checked(value: Any, of: pa.DataType) -> Any:
    """A value of the type; null for anything else, since anybody may write a meta."""
    if isinstance(value, bool) or pa.types.is_boolean(of):
        return value if isinstance(value, bool) and pa.types.is_boolean(of) else None
    if pa.types.is_integer(of):
        return value if isinstance(value, int) and 0 <= value < 2**31 else None
    return float(value) if isinstance(value, int | float) else None
