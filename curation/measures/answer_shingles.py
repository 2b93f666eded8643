"""The keys by which nearly equal answers are found: MinHash over the words of a row's last answer."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from curation.duplicates.texts import Scope
from curation.measures._near import ShingleMeasure, shingle_columns


class AnswerShingles(ShingleMeasure):
    """Of the last assistant turn; of a pair's chosen side, else of its rejected one."""

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("midtrain", "sft", "preference")
    columns: ClassVar[pa.Schema] = shingle_columns("answer_")
    scope: ClassVar[Scope] = "answer"
