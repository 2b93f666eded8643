"""What a search says of itself: items, which of them could not be checked and why, rows found per benchmark."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.contamination.index import COMMON_ROWS, REASONS, Index
from curation.contamination.items import COMPONENTS
from curation.join_work import JoinWork

LISTED = 1000  # components that are named; all are counted


def checkability(index: Index, common_R: npt.NDArray[np.bool_], benchmarks: tuple[str, ...]) -> dict[str, Any]:
    """Counts for the evidence's manifest. `items` and `items_not_checkable` are per benchmark; an item is not checkable
    when none of its components is. `not_checkable` lists questions and passages, and every component of such items,
    with the reason: too short, every n-gram common among items, or in rows (`common_R`)."""
    num_items = int(index.item_R.max(initial=-1)) + 1
    possible = (index.reason_R == 0) & ~common_R
    checkable = np.zeros(num_items, bool)
    checkable[index.item_R[possible]] = True
    first = np.full(num_items, -1)
    first[index.item_R[::-1]] = index.benchmark_R[::-1]
    chief = np.isin(index.component_R, [COMPONENTS.index(name) for name in ("question", "passage")])
    listed = np.flatnonzero(~possible & (chief | ~checkable[index.item_R]))
    reasons = [REASONS[index.reason_R[ref]] or COMMON_ROWS for ref in listed]
    return {
        "items": {name: int((first == number).sum()) for number, name in enumerate(benchmarks)},
        "items_not_checkable": {name: int(((first == number) & ~checkable).sum())
                                for number, name in enumerate(benchmarks)},
        "not_checkable_by_reason": dict(sorted(Counter(reasons).items())),
        "not_checkable": [
            {"benchmark": benchmarks[index.benchmark_R[ref]], "item": bytes(index.row_id_R[ref]).hex(),
             "component": COMPONENTS[index.component_R[ref]], "reason": reason}
            for ref, reason in zip(listed[:LISTED].tolist(), reasons, strict=False)
        ],
    }  # fmt: skip


def findings(work: JoinWork) -> dict[str, Any]:
    """Per benchmark: rows that hold an item of it, items found, rows with a twin."""
    rows = work.connection.execute("""
        SELECT benchmark, count(DISTINCT row_id) FILTER (class <> 'twin'),
               count(DISTINCT item) FILTER (class <> 'twin'), count(DISTINCT row_id) FILTER (class = 'twin')
        FROM found GROUP BY benchmark ORDER BY benchmark""").fetchall()
    return {"found": {name: {"rows": held, "items": items, "twin_rows": twins} for name, held, items, twins in rows}}
