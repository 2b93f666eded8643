"""Is the final answer right? The last assistant turn, after its thought, against the reference that the row holds."""

from __future__ import annotations

from typing import ClassVar

import orjson
import polars as pl
import pyarrow as pa
from pydantic import field_validator

from curation.measures import PartMeasure
from curation.measures._asked import last_turn
from curation.references import KEYS, rows_with_key, stated
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

    version: ClassVar[int] = 2
    stages: ClassVar[tuple[str, ...]] = ("sft", "rlvr")
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/measures/_asked.py",
        "curation/references.py",
        *(f"curation/verifiers/{name}.py" for name in (
            "__init__", "choice", "code", "code_link", "code_sandbox", "code_tests", "code_walls", "exact",
            "instructions", "languages", "logic", "math", "named", "numeric", "reading", "worker")),
    )  # fmt: skip
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("answer_state", pa.string()),
            ("final_answer", pa.string()),
            ("reference_key", pa.string()),
            ("reference_verifier", pa.string()),
        ]
    )
    reference_keys: tuple[str, ...] = KEYS
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
        meta = pl.Series("meta", pl.from_arrow(rows["meta"]), dtype=pl.String)
        held = rows_with_key(meta, self.reference_keys)
        items: list[Item | None] = [None] * len(meta)
        keys: list[str | None] = [None] * len(meta)
        if not held:
            return items, keys
        answers = last_turn(rows, "messages", "assistant")
        for index in held:
            told = orjson.loads(meta[index])
            reference = stated(told, self.reference_keys, math.MAX_CHARS)
            if reference is not None and answers[index] is not None:
                keys[index], gold = reference
                name = told.get("verifier") or told.get("data_source")
                items[index] = Item(self._verifier(name if isinstance(name, str) else None, gold), answers[index], gold)
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
