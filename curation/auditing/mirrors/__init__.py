"""Mirrors: one file per trainer and version range. A mirror says what the trainer does to rows, as arithmetic over
their anatomy."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa

from curation.registry import Plugin

FATES = ("whole", "cut", "dropped")


class Mirror(Plugin):
    """What one trainer does to rows. Its fields are the trainer's options that decide the fate of rows."""

    kind: ClassVar[str] = "mirrors"
    package: ClassVar[str]
    versions: ClassVar[str]  # the mirrored versions, as a requirement (`>=1.16,<1.17`)
    dead_options: ClassVar[dict[str, str]] = {}  # option that the trainer ignores or no longer has -> what to use

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Mirror:
        """The mirror under a run's trainer options; options that do not touch rows are left to the trainer."""
        return cls(**{name: value for name, value in options.items() if name in cls.model_fields})

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        """The rendering path under these options for rows of `stage` whose filled payload columns are `columns`."""
        raise NotImplementedError

    def fates(self, anatomy: pa.Table) -> pa.Table:
        """N rows of anatomy in training order -> N rows: fate, kept_tokens, kept_trained_tokens, bin (-1 unpacked)."""
        raise NotImplementedError

    def refuses(self, anatomy: pa.Table) -> list[str]:
        """Why the trainer would stop at the start instead of training; empty where it would not."""
        return []
