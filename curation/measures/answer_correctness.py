"""Is the final answer right? The last assistant turn, after its thought, against the reference that the row holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import orjson
import polars as pl
import pyarrow as pa
from pydantic import field_validator

from curation.measures import PartMeasure
from curation.verifiers import math, named
from curation.verifiers.choice import judge as judge_choice
from curation.verifiers.named import Item

TRUTH = "ground_truth"
MAX_SHOWN = 200  # characters of an answer


class AnswerCorrectness(PartMeasure):
    """`answer_state` is right, wrong, unparsed (no answer after the thought, or the thought never closes), timeout or
    error (the reference is none that the verifier reads, or the verifier's process died); null where there is no
    reference or nothing to judge. `final_answer` is what was judged, `reference_key` where the reference stood,
    `reference_verifier` which verifier judged.

    sft: the last assistant turn against the first of `reference_keys` that the row's meta holds, on top or in
    `reward_model`. rlvr: `reference_solution` against `ground_truth`.

    The verifier is the option `verifier`; else the one that the row's `verifier` stands for (rlvr) or that its meta
    names as `verifier` or `data_source` (sft); else `choice` for a reference that is a letter in brackets (or a bare
    one that `math` would take for a variable), and `math` for all others.
    """

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("sft", "rlvr")
    depends_on: ClassVar[tuple[str, ...]] = tuple(
        f"curation/verifiers/{name}.py"
        for name in ("__init__", "choice", "exact", "logic", "math", "named", "numeric", "reading", "worker")
    )
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("answer_state", pa.string()),
            ("final_answer", pa.string()),
            ("reference_key", pa.string()),
            ("reference_verifier", pa.string()),
        ]
    )
    reference_keys: tuple[str, ...] = (
        "ground_truth", "gt", "gold", "gold_answer", "reference_answer", "correct_answer", "expected_answer",
        "final_answer",
    )  # fmt: skip
    verifier: str | None = None

    @field_validator("verifier")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and named.canonical(value) is None:
            raise ValueError(f"there is no verifier '{value}'; use one of {', '.join(named.VERIFIERS)}")
        return value

    def reads(self, stage: str) -> tuple[str, ...]:
        return ("messages", "meta") if stage == "sft" else ("reference_solution", TRUTH, "verifier")

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        items, keys = self._of_messages(rows) if stage == "sft" else self._of_truths(rows)
        asked = [index for index, item in enumerate(items) if item is not None]
        judged = named.judge_all([item for item in items if item is not None])
        found: dict[str, list[str | None]] = {name: [None] * rows.num_rows for name in self.columns.names}
        for index, judgement in zip(asked, judged, strict=True):
            item = items[index]
            assert item is not None
            answer = None if judgement.answer is None else judgement.answer[:MAX_SHOWN]
            row = (judgement.state, answer, keys[index], item.verifier)
            for name, value in zip(self.columns.names, row, strict=True):
                found[name][index] = value
        return pa.table(found, schema=self.columns)

    def _of_messages(self, rows: pa.Table) -> tuple[list[Item | None], list[str | None]]:
        pattern = '"(?:' + "|".join(self.reference_keys) + ')":'
        meta = pl.Series("meta", pl.from_arrow(rows["meta"]), dtype=pl.String)
        held = meta.str.contains(pattern).fill_null(False).arg_true().to_list()
        items: list[Item | None] = [None] * len(meta)
        keys: list[str | None] = [None] * len(meta)
        if not held:
            return items, keys
        answers = _last_answers(rows["messages"])
        for index in held:
            reference = _reference(orjson.loads(meta[index]), self.reference_keys)
            if reference is not None and answers[index] is not None:
                keys[index], gold, name = reference
                items[index] = Item(self._verifier(name, gold), answers[index], gold)
        return items, keys

    def _of_truths(self, rows: pa.Table) -> tuple[list[Item | None], list[str | None]]:
        columns = [rows[name].to_pylist() for name in ("reference_solution", TRUTH, "verifier")]
        items = [Item(self._verifier(name, gold), text, gold) if text and (gold or "").strip() else None
                 for text, gold, name in zip(*columns, strict=True)]  # fmt: skip
        return list(items), [TRUTH if item else None for item in items]

    def _verifier(self, name: str | None, gold: str) -> str:
        known = named.canonical(self.verifier) or named.canonical(name)
        return known or ("choice" if _is_option(gold) else "math")


def _is_option(gold: str) -> bool:
    bare = gold.strip()
    try:
        judge_choice("", bare)
    except ValueError:
        return False
    return len(bare) > 1 or "A" <= bare <= "J"


def _reference(meta: Any, keys: Sequence[str]) -> tuple[str, str, str | None] | None:
    """(key, gold, the verifier's name or None) of a row's meta."""
    if not isinstance(meta, dict):
        return None
    inner = meta.get("reward_model")
    for place in [meta, inner] if isinstance(inner, dict) else [meta]:
        for key in keys:
            value = place.get(key)
            if (
                isinstance(value, str | int | float)
                and not isinstance(value, bool)
                and 0 < len(str(value)) <= math.MAX_CHARS
            ):
                name = meta.get("verifier") or meta.get("data_source")
                return key, str(value), name if isinstance(name, str) else None
    return None


def _last_answers(messages: pa.ChunkedArray) -> pl.Series:
    """The text of the last assistant turn (N; null where there is none)."""
    frame = pl.DataFrame({"messages": pl.from_arrow(messages)})
    spoken = pl.col("messages").list.filter(pl.element().struct.field("role") == "assistant").list.last()
    return frame.select(spoken.struct.field("content"))["content"]
