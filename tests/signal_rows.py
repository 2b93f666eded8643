"""Rows with a single exchange, for tests of signals, and what the rules that read them say."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation import schema
from curation.catalog import Catalog
from curation.measuring import named
from curation.rules import judge, load_rules


def turn(role: str, content: str | None, reasoning: str | None = None, tool_calls: str | None = None) -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": content, "reasoning": reasoning, "tool_calls": tool_calls, "tool_call_id": None,
            "name": None}  # fmt: skip


def of_exchange(measure: str, answer: str, question: str = "a?") -> dict[str, Any]:
    """The signals of one question with its answer."""
    messages = pa.array([[turn("user", question), turn("assistant", answer)]], schema.MESSAGES)
    return named(measure).measure(pa.table({"messages": messages}), "sft").to_pylist()[0]


def of_pair(measure: str, prompt: list[dict], chosen: list[dict] | None, rejected: list[dict] | None) -> dict[str, Any]:
    """The signals of one preference pair."""
    sides = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    rows = pa.table({name: pa.array([value], schema.MESSAGES) for name, value in sides.items()})
    return named(measure).measure(rows, "preference").to_pylist()[0]


def reasons(catalog: Catalog, name: str) -> list[str]:
    """The reasons of one rule's verdicts, sorted."""
    (rule,) = [rule for rule in load_rules(catalog, adopted_only=False) if rule.name == name]
    return sorted(pq.read_table(judge(catalog, rule))["reason"].to_pylist())
