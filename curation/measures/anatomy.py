"""Rendered length and anatomy: where a row's stop, its thought and its answer lie, and which tokens are trained."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import Field

from curation.config import Project
from curation.measures import PartMeasure
from curation.rendering import Rendered, Rendering, load_template, load_tokenizer

Marks = tuple[tuple[str, str], ...]
THINK_MARKS: Marks = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))
SOLUTION_MARKS: Marks = (("<|begin_of_solution|>", "<|end_of_solution|>"),)
INT = (
    "tokens",
    "trained_tokens",
    "prompt_tokens",
    "last_stop",
    "think_open",
    "think_close",
    "answer_start",
    "answer_end",
)


class Anatomy(PartMeasure):
    """Positions are token indices before any cut, -1 where there is none.

    tokens T; trained_tokens; prompt_tokens: tokens before the first trained one (T where none is trained); ids_hash:
    xxh3-64 of the ids as little-endian int32; last_stop: index of the last trained token if it is a stop id (a
    newline after it does not count); think_open, think_close: first token of the first open and of the last close
    mark, -1 where a thought opens after it and stays open; answer_start..answer_end: the last trained span after the
    thought (inside the solution marks where a row has them), without its stop, end exclusive, -1 where the row never
    finishes its thought or its marked solution;
    mask_starts and mask_lengths: runs of trained tokens. A row on which the template raises has 0 tokens and
    render_error."""

    version: ClassVar[int] = 3
    stages: ClassVar[tuple[str, ...]] = ("midtrain", "sft")
    depends_on: ClassVar[tuple[str, ...]] = ("curation/rendering/render.py",)
    columns: ClassVar[pa.Schema] = pa.schema(
        [(name, pa.int32()) for name in INT]
        + [
            ("ids_hash", pa.uint64()),
            ("last_stop_trained", pa.bool_()),
            ("mask_starts", pa.list_(pa.int32())),
            ("mask_lengths", pa.list_(pa.int32())),
            ("render_error", pa.string()),
        ]
    )

    tokenizer: str = Field(exclude=True)
    template: str = Field(exclude=True)
    template_text: str | None = None
    tokenizer_fingerprint: str
    transformers_version: str
    path: Literal["whole", "trl_assistant", "text"] = "whole"
    kwargs: dict[str, Any] = {}

    def identity(self) -> dict[str, Any]:
        config = {
            name: getattr(self, name) for name in type(self).model_fields if name not in ("tokenizer", "template")
        }
        return {"plugin": self.plugin_name(), "version": self.version, "config": config}

    @cached_property
    def rendering(self) -> Rendering:
        from curation.fingerprint import hash_bytes
        from curation.rendering import Template

        tokenizer = load_tokenizer(None, self.tokenizer)
        if tokenizer.fingerprint != self.tokenizer_fingerprint:
            raise RuntimeError(f"the tokenizer at {self.tokenizer} changed while it was in use")
        text = self.template_text
        template = None if text is None else Template(self.template, text, hash_bytes(text.encode()))
        return Rendering(tokenizer, template, self.path, self.kwargs)

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        values: dict[str, list[Any]] = {name: [] for name in self.columns.names}
        stops = self.rendering.tokenizer.stop_ids
        for batch in rows.to_batches(max_chunksize=1024):
            for rendered in self.rendering.render_many(batch.to_pylist(), stage):
                for name, value in describe(rendered, stops).items():
                    values[name].append(value)
        return pa.table([pa.array(values[item.name], item.type) for item in self.columns], schema=self.columns)


def describe(rendered: Rendered, stops: tuple[int, ...]) -> dict[str, Any]:
    """The anatomy of one rendered row (columns of Anatomy)."""
    ids, mask = rendered.ids, rendered.mask
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.view(np.int8), [0]))))
    starts, ends = edges[::2], edges[1::2]
    trained = np.flatnonzero(mask)
    last_stop = _last_stop(rendered, trained, stops)
    opened, closed, answer_from = _thought(rendered)
    answer_start = answer_end = -1
    solved, solution_ends = _solution(rendered)
    if len(trained) and solved and not (opened >= 0 and closed < 0):
        answer_end = solution_ends if solution_ends >= 0 else last_stop if last_stop >= 0 else int(trained[-1]) + 1
        answer_start = max(int(starts[-1]), answer_from)
        if answer_start >= answer_end:
            answer_start = answer_end = -1
    return {
        "tokens": len(ids),
        "trained_tokens": len(trained),
        "prompt_tokens": int(trained[0]) if len(trained) else len(ids),
        "last_stop": last_stop,
        "think_open": opened,
        "think_close": closed,
        "answer_start": answer_start,
        "answer_end": answer_end,
        "ids_hash": xxhash.xxh3_64_intdigest(ids.astype("<i4").tobytes()),
        "last_stop_trained": last_stop >= 0,
        "mask_starts": starts.tolist(),
        "mask_lengths": (ends - starts).tolist(),
        "render_error": rendered.error or None,
    }


def _last_stop(rendered: Rendered, trained: np.ndarray, stops: tuple[int, ...]) -> int:
    for index in trained[::-1]:
        if int(rendered.ids[index]) in stops:
            return int(index)
        first, last = rendered.offsets[index]
        if rendered.text[first:last].strip():
            return -1
    return -1


def _thought(rendered: Rendered) -> tuple[int, int, int]:
    """Token of the first open mark, of the last close mark, and the first token after that close mark."""
    opened = closed = after = -1
    for open_mark, close_mark in THINK_MARKS:
        first, last = rendered.text.find(open_mark), rendered.text.rfind(close_mark)
        if opened < 0 and first >= 0:
            opened = _token_at(rendered, first)
        # A system prompt may name both marks: a close before the last open closes nothing.
        if closed < 0 and last > rendered.text.rfind(open_mark):
            closed = _token_at(rendered, last)
            end = last + len(close_mark)
            after = _token_at(rendered, end + len(re.match(r"\s*", rendered.text[end:]).group()))  # type: ignore[union-attr]
    return opened, closed, after


def _solution(rendered: Rendered) -> tuple[bool, int]:
    """Whether the row finishes its answer as far as marks can tell, and the token after the last marked solution (-1
    where none is marked)."""
    for open_mark, close_mark in SOLUTION_MARKS:
        opened, closed = rendered.text.rfind(open_mark), rendered.text.rfind(close_mark)
        if opened >= 0 or closed >= 0:
            return closed > opened, _token_at(rendered, closed + len(close_mark) - 1) + 1 if closed >= 0 else -1
    return True, -1


def _token_at(rendered: Rendered, character: int) -> int:
    """The token that holds a character; T where it lies past the end."""
    return int(np.searchsorted(rendered.offsets[:, 1], character, side="right"))


def anatomy_for(project: Project | None, tokenizer: str, template: str, path: str, kwargs: dict[str, Any]) -> Anatomy:
    """The anatomy measure of a tokenizer and template by reference. Raises UserError where either is not there."""
    import transformers

    loaded = load_tokenizer(project, tokenizer)
    text = None
    if path != "text":
        text = load_template(project, template, loaded).text
    return Anatomy(tokenizer=loaded.reference, template=template, template_text=text,
                   tokenizer_fingerprint=loaded.fingerprint, transformers_version=transformers.__version__,
                   path=path, kwargs=kwargs)  # type: ignore[arg-type]  # fmt: skip
