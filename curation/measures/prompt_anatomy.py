"""Anatomy of rlvr rows: the prompt as the policy is given it, and the length of the reference solution."""

from __future__ import annotations

from typing import Any, ClassVar

import pyarrow as pa

from curation.measures._rendered import RenderedMeasure
from curation.rendering.anatomy import describe

NEEDED = ("prompt", "tools", "reference_solution")


class PromptAnatomy(RenderedMeasure):
    """tokens: the prompt with its generation prompt; trained_tokens: 0, nothing of a prompt is trained; ids_hash: of
    its ids; solution_tokens: the reference solution as plain text, null where the row has none. A row on which the
    template raises has 0 tokens and render_error."""

    version: ClassVar[int] = 2
    stages: ClassVar[tuple[str, ...]] = ("rlvr",)
    columns: ClassVar[pa.Schema] = pa.schema(
        [("tokens", pa.int32()), ("trained_tokens", pa.int32()), ("ids_hash", pa.uint64()),
         ("solution_tokens", pa.int32()), ("render_error", pa.string())]
    )  # fmt: skip

    def reads(self, stage: str) -> tuple[str, ...]:
        return NEEDED

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        values: dict[str, list[Any]] = {name: [] for name in self.columns.names}
        stops = self.rendering.tokenizer.stop_ids
        backend = self.rendering.tokenizer.hf.backend_tokenizer
        for batch in rows.to_batches(max_chunksize=1024):
            given = batch.to_pylist()
            solutions = [row.get("reference_solution") for row in given]
            encoded = backend.encode_batch([text or "" for text in solutions], add_special_tokens=False)
            for rendered, text, solution in zip(self.rendering.render_prompts(given), solutions, encoded, strict=True):
                anatomy = describe(rendered, stops) | {"solution_tokens": None if text is None else len(solution.ids)}
                for name in self.columns.names:
                    values[name].append(anatomy[name])
        return pa.table([pa.array(values[item.name], item.type) for item in self.columns], schema=self.columns)
