"""Rendered length and anatomy: where a row's stop, its thought and its answer lie, and which tokens are trained."""

from __future__ import annotations

from importlib import metadata
from typing import Any, ClassVar

import pyarrow as pa

from curation.config import Project
from curation.errors import UserError
from curation.measures._rendered import RenderedMeasure
from curation.rendering.anatomy import INT, describe, of_source
from curation.rendering.checked import checked


class Anatomy(RenderedMeasure):
    """Positions are token indices before any cut, -1 where there is none.

    tokens T; trained_tokens; prompt_tokens: tokens before the first trained one (T where none is trained); ids_hash:
    xxh3-64 of the ids as little-endian int32; last_stop: index of the last trained token if it is a stop id (a
    newline after it does not count); think_open, think_close: first token of the first open mark and last token of the
    last close mark, -1 where a thought opens after it and stays open; answer_start..answer_end: the last trained span
    after the thought (inside the solution marks where a row has them), without its stop, end exclusive, -1 where the
    row never finishes its thought or its marked solution; think_format: index into rendering.thoughts.FORMATS of the
    source's own text; thoughts: thoughts of the source, thoughts_trained: those whose text is in the trained part;
    mask_starts and mask_lengths: runs of trained tokens, from which the trained tokens of any stretch follow. A row on
    which the template raises has 0 tokens and render_error."""

    version: ClassVar[int] = 5
    stages: ClassVar[tuple[str, ...]] = ("midtrain", "sft")
    columns: ClassVar[pa.Schema] = pa.schema(
        [(name, pa.int32()) for name in INT]
        + [
            ("think_format", pa.int8()),
            ("thoughts", pa.int32()),
            ("thoughts_trained", pa.int32()),
            ("ids_hash", pa.uint64()),
            ("last_stop_trained", pa.bool_()),
            ("mask_starts", pa.list_(pa.int32())),
            ("mask_lengths", pa.list_(pa.int32())),
            ("render_error", pa.string()),
        ]
    )

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        values: dict[str, list[Any]] = {name: [] for name in self.columns.names}
        stops = self.rendering.tokenizer.stop_ids
        for batch in rows.to_batches(max_chunksize=1024):
            given = batch.to_pylist()
            for row, rendered in zip(given, self.rendering.render_many(given, stage), strict=True):
                for name, value in (describe(rendered, stops) | of_source(row, rendered)).items():
                    values[name].append(value)
        return pa.table([pa.array(values[item.name], item.type) for item in self.columns], schema=self.columns)


def anatomy_for(project: Project | None, tokenizer: str, template: str, path: str, kwargs: dict[str, Any],
                stage: str = "sft") -> RenderedMeasure:  # fmt: skip
    """The anatomy measure of a stage's rows under a tokenizer and template by reference. Raises UserError where either
    is not there."""
    from curation.measures.pair_anatomy import PairAnatomy
    from curation.measures.prompt_anatomy import PromptAnatomy

    kinds: dict[str, type[RenderedMeasure]] = {"preference": PairAnatomy, "rlvr": PromptAnatomy}
    if path == "text" and stage in kinds:
        raise UserError(f"rows of {stage} are chats", "name a template: template: chatml", key="template")
    found = checked(project, tokenizer, None if path == "text" else template)
    return kinds.get(stage, Anatomy)(
        tokenizer=found.reference, template=template, template_text=found.template_text,
        tokenizer_fingerprint=found.fingerprint, stop_ids=found.stop_ids,
        transformers_version=metadata.version("transformers"), path=path, kwargs=kwargs)  # type: ignore[arg-type]  # fmt: skip
