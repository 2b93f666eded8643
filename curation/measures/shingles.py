"""The keys by which near duplicates are found: MinHash over a row's words."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from curation.duplicates.texts import Scope
from curation.measures._near import ShingleMeasure, shingle_columns


class Shingles(ShingleMeasure):
    """Of all turns but the system's, read as one text; of a midtrain row its text, of an rlvr row prompt and ground
    truth."""

    version: ClassVar[int] = 1
    columns: ClassVar[pa.Schema] = shingle_columns()
    scope: ClassVar[Scope] = "row"
