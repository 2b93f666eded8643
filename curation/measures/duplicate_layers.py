"""Exact keys of a row's turns, its answer, and its prompt and answer together."""

from __future__ import annotations

from typing import ClassVar

import pyarrow as pa

from curation.measures import PartMeasure


class DuplicateLayers(PartMeasure):
    """64-bit keys, equal where texts differ in white space and Unicode form (NFC) alone: case, punctuation and digits
    count. A turn is its reasoning, content and tool calls. `answer_key` is of the last assistant turn (of a pair's
    chosen side, of a lone bad answer; null for rlvr), `prompt_answer_key` of the turns up to it with their roles; for
    rlvr of prompt and ground truth, for pairs of the prompt and both sides whatever their order. `answer_turn_keys` and
    `user_turn_keys` are of every assistant and user turn. Empty turns have no key."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[tuple[str, ...]] = ("curation/duplicates/layers.py", "curation/duplicates/texts.py",
                                             "curation/kernels/canonical.py", "curation/kernels/words.py",
                                             "curation/texts.py")  # fmt: skip
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("prompt_answer_key", pa.int64()),
            ("answer_key", pa.int64()),
            ("answer_turn_keys", pa.list_(pa.int64())),
            ("user_turn_keys", pa.list_(pa.int64())),
        ]
    )

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        from curation.duplicates.layers import layer_columns

        found = layer_columns(rows, stage)
        return pa.table([found[name] for name in self.columns.names], schema=self.columns)
