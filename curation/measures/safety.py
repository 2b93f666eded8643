"""What kind of hazard a prompt is, what policy is expected of its answer, and whether the answer refuses."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
from pydantic import Field

from curation.fingerprint import hash_file
from curation.measures import PartMeasure
from curation.measures._asked import ASKED_IN, last_turn
from curation.phrases import FOLDER
from curation.phrases import refusals as refusing


class Safety(PartMeasure):
    """Sorts the last user turn into the categories of `taxonomy` (catalogs/taxonomies/NAME.yaml, the project's first).
    Of a turn of more than twice `edge_chars` characters the first and the last `edge_chars` are looked at.

    `safety_category` is the one that the row's meta names (`safety_by` meta), else the first whose patterns the turn
    holds (pattern), null where none does; `safety_policy` is its policy (refuse, answer with caveat, answer).
    `benign_look_alike`: the turn sounds dangerous inside a benign frame, or meta says so; such a row without a label is
    of the category that the taxonomy marks `look_alike`. `answer_refuses`: the last assistant turn of the row (of the
    chosen side, for pairs) refuses, by its phrases; null where there is no such turn (RLVR, a lone rejected answer).
    """

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("sft", "preference", "rlvr")
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/measures/_asked.py", "curation/safety.py", "curation/phrases.py", "curation/references.py",
    )  # fmt: skip
    taxonomy: str = "safety"
    edge_chars: int = Field(default=1_000, ge=1)
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("safety_category", pa.string()),
            ("safety_policy", pa.string()),
            ("safety_by", pa.string()),
            ("benign_look_alike", pa.bool_()),
            ("answer_refuses", pa.bool_()),
        ]
    )

    def identity(self) -> dict[str, Any]:
        from curation.safety import taxonomy_path

        path = taxonomy_path(self.taxonomy)
        return super().identity() | {"phrases": hash_file(FOLDER / "refusals.yaml"),
                                     "taxonomy": hash_file(path) if path.exists() else ""}  # fmt: skip

    def reads(self, stage: str) -> tuple[str, ...]:
        return {"sft": ("messages", "meta"), "preference": ("prompt", "chosen", "meta"),
                "rlvr": ("prompt", "meta")}[stage]  # fmt: skip

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        from curation.safety import categories_by_pattern, load_taxonomy, look_alikes, told_categories

        taxonomy = load_taxonomy(self.taxonomy)
        asked = self._edges(last_turn(rows, ASKED_IN[stage], "user"))
        said_in = {"sft": "messages", "preference": "chosen"}.get(stage)
        none = pl.Series([None] * rows.num_rows, dtype=pl.String)
        answer = none if said_in is None else last_turn(rows, said_in, "assistant")
        meta = pl.Series("meta", pl.from_arrow(rows["meta"]), dtype=pl.String)
        told = pl.Series(told_categories(taxonomy, meta), dtype=pl.String)
        alike = {item.name for item in taxonomy.categories if item.look_alike}
        by_look = look_alikes(taxonomy, asked)
        benign = told.is_in(list(alike)).fill_null(False) | (told.is_null() & by_look)
        seen = categories_by_pattern(taxonomy, asked)
        if alike:
            seen = seen.set(by_look, min(alike))
        category = told.fill_null(seen)
        policies = {item.name: item.policy for item in taxonomy.categories}
        by = pl.Series(["pattern"] * len(told), dtype=pl.String).set(told.is_not_null(), "meta")
        found = {
            "safety_category": category,
            "safety_policy": category.replace_strict(policies, return_dtype=pl.String),
            "safety_by": by.set(category.is_null(), None),
            "benign_look_alike": benign,
            "answer_refuses": pl.Series(refusing(answer), dtype=pl.Boolean).set(answer.is_null(), None),
        }
        return pl.DataFrame([found[name].alias(name) for name in self.columns.names]).to_arrow().cast(self.columns)

    def _edges(self, asked: pl.Series) -> pl.Series:
        """Texts without the middle of long ones."""
        edges = asked.str.head(self.edge_chars) + "\n" + asked.str.tail(self.edge_chars)
        return edges.zip_with((asked.str.len_chars() > 2 * self.edge_chars).fill_null(False), asked)
