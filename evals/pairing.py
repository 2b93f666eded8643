"""Two tables of scores joined item by item: what may be compared, what differs, and what became of what was lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from evals.scores import CONDITIONS, read_scores, scored_conditions

# The tokenizer may grow between stages; what the model read is compared by the hash of every prompt.
Scored = tuple[pa.Table, dict[str, Any]]  # scores and their conditions
COMPARED = tuple(name for name in CONDITIONS if name != "tokenizer")
LOSSES = ("truncated", "unparsed", "timeout", "refused", "changed answer", "error")


class NotComparable(Exception):
    """The two tables may not be compared; the message says why."""


@dataclass(frozen=True)
class Pair:
    """Shared items of two tables, ordered by sample id. Arrays have shape N; scores are means over the repeats that are
    no errors. `fate` names what became of B's answer to an item (a state, or `refused`)."""

    sample_ids: list[str]
    clusters: list[str]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    b_without_cuts: NDArray[np.float64]  # B's score with every truncated sample counted as right
    fate: list[str]
    repeats: int
    num_unshared: int  # items that only one side answered
    num_errors: int  # shared items that an error of the instrument took out

    @property
    def d(self) -> NDArray[np.float64]:
        """score of B - score of A per item."""
        return self.b - self.a

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1."""
        return bool(np.isin(self.a, (0.0, 1.0)).all() and np.isin(self.b, (0.0, 1.0)).all())

    @property
    def clustered(self) -> bool:
        return len(set(self.clusters)) < len(self.clusters)

    def lost(self) -> dict[str, int]:
        """Items that B answers worse than A, by what became of them."""
        found = dict.fromkeys(LOSSES, 0)
        for fate, worse in zip(self.fate, self.d < 0, strict=True):
            if worse:
                found["changed answer" if fate in ("wrong", "right") else fate] += 1
        return found


def _items(table: pa.Table) -> pl.DataFrame:
    """One line per item of a table of scores."""
    frame = pl.DataFrame(table.select(["sample_id", "repeat", "cluster", "state", "score", "refused", "prompt_hash"]))
    right, error = pl.col("state") == "right", pl.col("state") == "error"
    fate = pl.when(pl.col("refused")).then(pl.lit("refused")).otherwise(pl.col("state"))
    uncut = pl.when(pl.col("state") == "truncated").then(1.0).otherwise(pl.col("score"))
    return (
        frame.sort("sample_id", "repeat")
        .group_by("sample_id", maintain_order=True)
        .agg(
            cluster=pl.col("cluster").first(),
            score=pl.col("score").filter(~error).mean(),
            uncut=uncut.filter(~error).mean(),
            fate=fate.filter(~right).mode(maintain_order=True).first().fill_null("right"),
            prompt_hash=pl.col("prompt_hash").first(),
            repeats=pl.len(),
        )
    )


def pair(table_a: pa.Table, table_b: pa.Table) -> Pair:
    """Join two tables of one benchmark on the sample id. Raises NotComparable where a shared item was asked with
    another prompt, where no item is shared, or where errors left nothing."""
    a, b = _items(table_a), _items(table_b)
    joined = a.join(b, on="sample_id", how="inner", suffix="_b", maintain_order="left")
    if not joined.height:
        raise NotComparable("no item was answered by both")
    changed = joined.filter(pl.col("prompt_hash") != pl.col("prompt_hash_b"))
    if changed.height:
        what = f"{changed.height} of {joined.height} prompts differ (first: {changed['sample_id'][0]})"
        raise NotComparable(what)
    fit = joined.drop_nulls(["score", "score_b"])
    if not fit.height:
        raise NotComparable("errors of the instrument left no item that both answered")
    return Pair(
        fit["sample_id"].to_list(), fit["cluster"].to_list(), fit["score"].to_numpy(), fit["score_b"].to_numpy(),
        fit["uncut_b"].to_numpy(), fit["fate_b"].to_list(), int(max(fit["repeats"].max(), fit["repeats_b"].max())),  # type: ignore[type-var, arg-type]
        a.height + b.height - 2 * joined.height, joined.height - fit.height,
    )  # fmt: skip


def common_conditions(
    catalog: Catalog, checkpoints: Sequence[Checkpoint], benchmark: str
) -> tuple[list[Scored | None], dict[str, list[str]]]:
    """One table of scores per checkpoint, all under those conditions of the last checkpoint that most of them share
    (the latest of equals); None where a checkpoint has none under them. And, by checkpoint id, the conditions that
    keep a checkpoint apart that has scores under others only."""
    known = [scored_conditions(catalog, item, benchmark) for item in checkpoints]
    ranked = [(sum(any(not differing(mine, other) for other in others) for others in known), index, mine)
              for index, mine in enumerate(known[-1])]  # fmt: skip
    if not ranked:
        return [None] * len(checkpoints), {}
    chosen = max(ranked, key=lambda entry: entry[:2])[2]
    tables, apart = [], {}
    for item, others in zip(checkpoints, known, strict=True):
        fitting = [other for other in others if not differing(chosen, other)]
        tables.append(read_scores(catalog, item, benchmark, fitting[-1]) if fitting else None)
        if others and not fitting:
            apart[item.id] = differing(chosen, others[-1])
    return tables, apart


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Names of the conditions in which two tables of scores differ and which forbid a comparison."""
    return [name for name in COMPARED if a.get(name) != b.get(name)]
