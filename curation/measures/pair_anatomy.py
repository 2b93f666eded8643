"""Anatomy of preference rows: both sides over their prompt, and how much of their answers is the same."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.measures._rendered import RenderedMeasure
from curation.rendering.anatomy import INT, describe, think_format, trained_thoughts
from curation.rendering.render import Rendered, RenderedPair, common_prefix

SIDES = ("chosen", "rejected")
OF_SIDE = [(name, pa.int32()) for name in INT] + [
    ("think_format", pa.int8()),
    ("thoughts", pa.int32()),
    ("thoughts_trained", pa.int32()),
    ("ids_hash", pa.uint64()),
]
NOTHING = {name: 0 if name in ("tokens", "trained_tokens", "prompt_tokens") else -1 for name in INT} | {
    "think_format": 0, "thoughts": 0, "thoughts_trained": 0, "ids_hash": 0}  # fmt: skip


class PairAnatomy(RenderedMeasure):
    """Of each side (`chosen_...`, `rejected_...`) the columns of anatomy, over prompt and answer tokenised together and
    trained from where they leave the prompt (TRL 1.16 DPO, KTO; the reward model reads the same ids); chosen_present
    and rejected_present. prompt_only_tokens: the prompt alone with its generation prompt; common_prefix: tokens in
    which both sides begin alike (0 where one is absent); tokens and trained_tokens: of both sides. A row on which the
    template raises has 0 tokens and render_error."""

    version: ClassVar[int] = 2
    stages: ClassVar[tuple[str, ...]] = ("preference",)
    columns: ClassVar[pa.Schema] = pa.schema(
        [("tokens", pa.int32()), ("trained_tokens", pa.int32()), ("prompt_only_tokens", pa.int32()),
         ("common_prefix", pa.int32())]
        + [(f"{side}_present", pa.bool_()) for side in SIDES]
        + [(f"{side}_{name}", kind) for side in SIDES for name, kind in OF_SIDE]
        + [("render_error", pa.string())]
    )  # fmt: skip

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        values: dict[str, list[Any]] = {name: [] for name in self.columns.names}
        stops = self.rendering.tokenizer.stop_ids
        for batch in rows.to_batches(max_chunksize=512):
            given = batch.to_pylist()
            for row, pair in zip(given, self.rendering.render_pairs(given), strict=True):
                for name, value in describe_pair(row, pair, stops).items():
                    values[name].append(value)
        return pa.table([pa.array(values[item.name], item.type) for item in self.columns], schema=self.columns)


def describe_pair(row: dict[str, Any], pair: RenderedPair, stops: tuple[int, ...]) -> dict[str, Any]:
    """The anatomy of one preference row (columns of PairAnatomy)."""
    sides: dict[str, Rendered | None] = {"chosen": pair.chosen, "rejected": pair.rejected}
    found: dict[str, Any] = {"prompt_only_tokens": len(pair.prompt), "render_error": pair.error or None}
    for side, rendered in sides.items():
        found[f"{side}_present"] = row[side] is not None
        found |= {f"{side}_{name}": value for name, value in _side(row[side], rendered, stops).items()}
    both = pair.chosen is not None and pair.rejected is not None
    found["common_prefix"] = common_prefix(pair.chosen.ids, pair.rejected.ids) if both else 0  # type: ignore[union-attr]
    for name in ("tokens", "trained_tokens"):
        found[name] = found[f"chosen_{name}"] + found[f"rejected_{name}"]
    return found


def _side(answer: list[dict[str, Any]] | None, rendered: Rendered | None, stops: tuple[int, ...]) -> dict[str, Any]:
    if answer is None or rendered is None:
        return NOTHING
    anatomy = describe(rendered, stops)
    total, trained = trained_thoughts(answer, rendered)
    return {name: anatomy[name] for name, _ in OF_SIDE if name in anatomy} | {
        "think_format": think_format(answer), "thoughts": total, "thoughts_trained": trained}  # fmt: skip


def sequences(anatomy: pa.Table) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """(row, side, columns): of N pairs the M sides that are present, all chosen ones and then all rejected ones, under
    the column names of anatomy, with the row that each belongs to and 0 for chosen, 1 for rejected (both int64[M])."""
    rows, sides, tables = [], [], []
    for number, side in enumerate(SIDES):
        present = np.flatnonzero(anatomy[f"{side}_present"].to_numpy())
        rows.append(present)
        sides.append(np.full(len(present), number))
        columns = {name: anatomy[f"{side}_{name}"] for name, _ in OF_SIDE}
        tables.append(pa.table(columns | {"render_error": anatomy["render_error"]}).take(present))
    return np.concatenate(rows), np.concatenate(sides), pa.concat_tables(tables)


def complete(anatomy: pa.Table) -> int:
    """Number of rows that have both sides."""
    return pc.sum(pc.and_(anatomy["chosen_present"], anatomy["rejected_present"])).as_py() or 0
