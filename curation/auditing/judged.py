"""The sequences of an audit as columns: what each held before the trainer touched it, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from curation.auditing.fates import SPLIT, Fates, Flags, Integers

Value = TypeVar("Value")
MALFORMED = (1, 2, 3)  # of rendering.thoughts.FORMATS: those in which text stands beside or between marks
POSITIONS = ("tokens", "last_stop", "think_open", "think_close", "answer_start", "answer_end")


@dataclass(frozen=True)
class Judged:
    """Columns of all N sequences in training order. `source` holds indices into `names`, the sources in name order;
    the positions are those of measures.anatomy. `labels` holds further strata (language, skill): their names and the
    index of each sequence's."""

    names: list[str]
    source: np.ndarray
    tokens: np.ndarray
    trained: np.ndarray
    last_stop: np.ndarray
    think_open: np.ndarray
    think_close: np.ndarray
    answer_start: np.ndarray
    answer_end: np.ndarray
    think_format: np.ndarray
    thoughts: np.ndarray
    thoughts_trained: np.ndarray
    errors: np.ndarray
    fates: Fates
    labels: dict[str, tuple[list[str], np.ndarray]] = field(default_factory=dict)
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, source: pa.ChunkedArray, anatomy: pa.Table, fates: Fates,
           labels: dict[str, pa.ChunkedArray] | None = None) -> Judged:  # fmt: skip
        """From the columns of the anatomy measure (those that a stage lacks count as none) and a mirror's fates."""
        names, codes = encoded(source)
        columns: dict[str, Any] = {name: anatomy[name].to_numpy() for name in POSITIONS}
        nothing = np.zeros(len(source), np.int8)
        more: dict[str, Any] = {name: anatomy[name].to_numpy() if name in anatomy.column_names else nothing
                for name in ("think_format", "thoughts", "thoughts_trained")}  # fmt: skip
        return cls(
            names=names, source=codes, labels={kind: encoded(values) for kind, values in (labels or {}).items()},
            trained=anatomy["trained_tokens"].to_numpy(), errors=anatomy["render_error"].is_valid().to_numpy(),
            fates=fates, **columns, **more,
        )  # fmt: skip

    def under(self, fates: Fates) -> Judged:
        """The same sequences under other fates; what was computed `once` stays."""
        return replace(self, fates=fates)

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """What does not depend on the fates, computed at the first call."""
        if name not in self.memo:
            self.memo[name] = make()
        value: Value = self.memo[name]
        return value

    def each(self, values: np.ndarray) -> list[int]:
        """Sums of N values per source, then over all: shape len(names) + 1."""
        sums = np.bincount(self.source, weights=values, minlength=len(self.names)) if values.dtype != bool else \
            np.bincount(self.source[values], minlength=len(self.names))  # fmt: skip
        return [*(int(value) for value in sums), int(sums.sum())]

    @property
    def whole(self) -> Flags:
        return self.fates.whole

    @property
    def dropped(self) -> Flags:
        return self.fates.dropped

    @property
    def kept(self) -> Integers:
        return self.fates.kept

    @property
    def kept_trained(self) -> Integers:
        return self.fates.kept_trained

    @property
    def has_stop(self) -> np.ndarray:
        return self.last_stop >= 0

    @cached_property
    def keeps_stop(self) -> Flags:
        return self.fates.holds(self.last_stop, self.last_stop + 1)

    @property
    def closes(self) -> np.ndarray:
        return self.think_close >= 0

    @property
    def close_end(self) -> np.ndarray:
        """The token after the close mark and, where an answer follows, the first of it."""
        return self.think_close + 1 + (self.has_answer & (self.answer_end > self.think_close + 1))

    @cached_property
    def keeps_close(self) -> Flags:
        """Whether the thought still closes, and where an answer follows also the next token."""
        return self.fates.holds(self.think_close, self.close_end)

    @property
    def thinks(self) -> Flags:
        """Whether the source has a thought, be it malformed. Empty ones are none, nor are marks that a template writes
        into plain rows or that a system prompt names."""
        flags: Flags = (self.thoughts > 0) | np.isin(self.think_format, MALFORMED)
        return flags

    @property
    def has_answer(self) -> np.ndarray:
        return self.answer_end > self.answer_start

    @cached_property
    def keeps_answer(self) -> Flags:
        return self.has_answer & self.fates.holds(self.answer_start, self.answer_end)


def encoded(values: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """(distinct values in order, index of each of N values among them); null is `unknown`."""
    made = values.combine_chunks().fill_null("unknown").dictionary_encode()
    found = made.dictionary.to_pylist()
    names = sorted(found)
    rank = {name: index for index, name in enumerate(names)}
    ranks = np.array([rank[name] for name in found], dtype=np.int64)
    return names, ranks[made.indices.to_numpy()] if found else np.empty(0, np.int64)


def by_source(rows: Judged) -> list[dict[str, Any]]:
    """Per source and over `all`: counts before and after, in rows and tokens."""
    counts: dict[str, list[int]] = rows.once("counts", lambda: _before(rows)) | {
        "rows_whole": rows.each(rows.whole),
        "rows_cut": rows.each(~rows.whole & ~rows.dropped & (rows.fates.fate != SPLIT)),
        "rows_dropped": rows.each(rows.dropped), "rows_split": rows.each(rows.fates.fate == SPLIT),
        "kept_tokens": rows.each(rows.kept), "kept_trained_tokens": rows.each(rows.kept_trained),
        "stops_after": rows.each(rows.keeps_stop), "think_closed_after": rows.each(rows.keeps_close),
        "answers_kept": rows.each(rows.keeps_answer),
    }  # fmt: skip
    return [{"source": name} | {key: values[index] for key, values in counts.items()}
            for index, name in enumerate([*rows.names, "all"])]  # fmt: skip


def _before(rows: Judged) -> dict[str, list[int]]:
    """The counts that no fate changes."""
    longest = [int(rows.tokens[rows.source == index].max(initial=0)) for index in range(len(rows.names))]
    return {
        "rows": rows.each(np.ones(len(rows.source), bool)), "tokens": rows.each(rows.tokens),
        "trained_tokens": rows.each(rows.trained), "stops_before": rows.each(rows.has_stop),
        "think_closed_before": rows.each(rows.closes), "answers_before": rows.each(rows.has_answer),
        "longest": [*longest, max(longest, default=0)],
    }  # fmt: skip
