"""The order of representatives as SQL, for exact and near duplicates alike."""

from __future__ import annotations

import pyarrow as pa

from curation.join_work import JoinWork

RANK = "CASE WHEN held_out THEN 0 ELSE row_number() OVER same - 1 END::INTEGER"
"""A row's rank in the window `same`, which is ordered by `order_by`: 0 stays. Held-out rows all have 0: inside an
evaluation split duplicates are reported and never left out, and a training row beside one never stays."""


def order_by(quality: str = "") -> str:
    """Held-out rows first, then the source's priority, the larger `quality` (a SQL expression, for rows that differ),
    row_id. Needs the column `priority` of `source_ranks`."""
    return ", ".join(["held_out DESC", "priority", *([f"{quality} DESC NULLS LAST"] if quality else []), "row_id"])


def bind_source_ranks(work: JoinWork) -> None:
    """Create `source_ranks` (source, priority; 0 first)."""
    ranks = pa.table({"source": pa.array(list(work.priorities), pa.string()),
                      "priority": pa.array(list(work.priorities.values()), pa.int32())})  # fmt: skip
    bind_table(work, "source_ranks", ranks)


def bind_table(work: JoinWork, name: str, table: pa.Table) -> None:
    """Create a temporary table from Arrow."""
    work.connection.register(f"{name}_arrow", table)
    work.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM {name}_arrow")
    work.connection.unregister(f"{name}_arrow")
