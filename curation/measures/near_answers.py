"""Rows whose last answer nearly repeats that of another row, whatever was asked."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from curation.duplicates.texts import Scope
from curation.measures._near import NearMeasure, near_columns


class NearAnswers(NearMeasure):
    """By the last assistant turn alone: canned answers that differ in a few words."""

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("midtrain", "sft", "preference")
    needs: ClassVar[tuple[str, ...]] = ("answer_shingles", "text_statistics")
    columns: ClassVar[pa.Schema] = near_columns("near_answer")
    evidence_kind: ClassVar[str] = "near_answer_pairs"
    scope: ClassVar[Scope] = "answer"
