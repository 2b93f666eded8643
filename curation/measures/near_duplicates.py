"""Rows that nearly repeat another row, within and across sources: MinHash finds the pairs, their true Jaccard
similarity decides."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from curation.duplicates.texts import Scope
from curation.measures._near import NearMeasure, near_columns


class NearDuplicates(NearMeasure):
    """By the whole row: every turn but the system's. A pair with its sides swapped is no near duplicate."""

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("shingles", "text_statistics")
    columns: ClassVar[pa.Schema] = near_columns("near_duplicate")
    evidence_kind: ClassVar[str] = "near_duplicate_pairs"
    scope: ClassVar[Scope] = "row"
