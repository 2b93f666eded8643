"""Tool calls: are they calls of the row's tools, with arguments that keep to the schema, and is every one answered?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from curation.measures import PartMeasure
from curation.measures._judged import with_answer
from curation.measures._tool_schemas import (
    MAX_CHARS,
    Unusable,
    checker,
    first_error,
    functions,
    json_bytes,
    schema_of,
)  # fmt: skip

READS = {"sft": ("messages", "tools"), "preference": ("prompt", "chosen", "rejected", "tools")}
COUNTS = (
    "tools_offered", "invalid_tool_schemas", "foreign_tool_schemas", "duplicate_tools", "calls_made", "parallel_calls",
    "malformed_calls", "unknown_tool_calls", "invalid_argument_calls", "unchecked_calls", "text_argument_calls",
    "duplicate_call_ids", "unanswered_calls", "unfinished_calls", "stray_results", "misordered_results",
)  # fmt: skip


class ToolCalls(PartMeasure):
    """Counts of a row with tools, calls or tool results (of pairs: of the prompt and the chosen side, else the rejected
    one); null for any other row. Calls are those of the messages (OpenAI's, or a bare name and arguments), not text
    that looks like a call.

    tools_offered; invalid_tool_schemas: tools whose schema of arguments is no JSON schema; foreign_tool_schemas: those
    that are one when Python's type names (dict, str) are translated, as they are for checking; duplicate_tools: names
    that stood before. calls_made; parallel_calls: the most of one turn. malformed_calls: without a name, or with
    arguments that are no JSON object. unknown_tool_calls: of a name that no tool has (0 where the row offers no tools:
    they may stand in its system turn). invalid_argument_calls: arguments that break the schema. unchecked_calls: of a
    known tool whose schema is missing, invalid, or leads nowhere. text_argument_calls: arguments given as JSON text.
    duplicate_call_ids: ids that a call before had and no result had yet answered, or that its own turn repeats.
    unanswered_calls: calls that another turn follows and no result answers (a result without an id answers the turn's
    calls in order; one alone may answer all of a turn whose calls have no ids). unfinished_calls: those of the last
    turns, which nothing but results follows and which lack theirs. stray_results: results of no open call, or of an
    unknown id; misordered_results: results in another order than their calls.
    tool_fault: the first of these faults in words, in the order of the conversation; null without one. Unfinished
    calls, argument text and schemas are no faults of a call.

    References to elsewhere are never fetched, patterns are matched in linear time."""

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("sft", "preference")
    depends_on: ClassVar[tuple[str, ...]] = ("curation/measures/_tool_schemas.py", "curation/measures/_judged.py")
    columns: ClassVar[pa.Schema] = pa.schema([*((name, pa.int32()) for name in COUNTS), ("tool_fault", pa.string())])

    def reads(self, stage: str) -> tuple[str, ...]:
        return READS[stage]

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        judged = with_answer(rows, stage)
        names = [name for name in judged.column_names if name != "tools"]
        some = _applicable(judged, names)
        chosen = judged.take(pa.array(some))
        offered = chosen["tools"].to_pylist() if "tools" in chosen.column_names else [None] * len(some)
        turns = zip(*(chosen[name].to_pylist() for name in names), strict=True)
        found = [_check([turn for part in parts for turn in part or ()], tools)
                 for parts, tools in zip(turns, offered, strict=True)]  # fmt: skip
        place = np.full(rows.num_rows, -1)
        place[some] = np.arange(len(some))
        where = pa.array(place, mask=place < 0)
        columns = [pa.array([item.counts[name] for item in found], pa.int32()).take(where) for name in COUNTS]
        faults = pa.array([item.fault for item in found], pa.string()).take(where)
        return pa.Table.from_arrays([*columns, faults], schema=self.columns)


def _applicable(rows: pa.Table, names: list[str]) -> np.ndarray:
    """Indices of the rows that have tools, calls or tool results."""
    some = np.zeros(rows.num_rows, np.bool_)
    if "tools" in rows.column_names:
        some |= pc.is_valid(rows["tools"]).to_numpy()
    for name in names:
        array = rows[name].combine_chunks()
        items = array.flatten()
        parents = pc.list_parent_indices(array).to_numpy()
        results = pc.fill_null(pc.equal(items.field("role"), "tool"), False)
        marked = pc.or_(pc.is_valid(items.field("tool_calls")), results).to_numpy(zero_copy_only=False)
        some[parents[marked]] = True
    return np.flatnonzero(some)


@dataclass
class _Found:
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    fault: str | None = None

    def add(self, name: str, fault: str = "") -> None:
        self.counts[name] += 1
        self.fault = self.fault or fault or None


@dataclass
class _Call:
    name: str
    id: str | None
    answered: bool = False


def _check(turns: list[dict[str, Any]], tools: str | None) -> _Found:
    found = _Found()
    known: dict[str, Any] = {}
    for function in functions(tools) if tools else ():
        found.add("tools_offered")
        if function["name"] in known:
            found.add("duplicate_tools")
            continue
        schema = schema_of(function)
        known[function["name"]], wrong = checker(json_bytes(schema))
        if wrong:
            found.add(f"{wrong}_tool_schemas")
    pending: list[_Call] = []
    last = 0  # the call of `pending` that the last result answered
    for turn in turns:
        if turn["role"] == "tool":
            last = _answer(turn, pending, last, found)
            continue
        if not (turn["role"] == "assistant" and turn["tool_calls"] and pending and not any(
                call.answered for call in pending)):  # calls that follow calls belong to one round  # fmt: skip
            _close(pending, found)
            pending, last = [], 0
        if turn["role"] == "assistant" and turn["tool_calls"]:
            calls = _calls(turn["tool_calls"], known, found)
            taken = {call.id for call in pending if call.id}
            for call in calls:
                if call.id in taken:
                    found.add("duplicate_call_ids", f"the call id '{call.id:.40}' stands twice")
                if call.id:
                    taken.add(call.id)
            found.counts["parallel_calls"] = max(found.counts["parallel_calls"], len(calls))
            pending = [*pending, *calls]
    found.counts["unfinished_calls"] = len(_open(pending))
    return found


def _calls(text: str, known: dict[str, Any], found: _Found) -> list[_Call]:
    try:
        listed = orjson.loads(text)
    except orjson.JSONDecodeError:
        listed = [None]
    calls = []
    for item in listed if isinstance(listed, list) else [listed]:
        found.add("calls_made")
        outer = item if isinstance(item, dict) else {}
        inner = outer["function"] if isinstance(outer.get("function"), dict) else outer
        name = inner.get("name")
        name = name if isinstance(name, str) else ""
        identity = outer.get("id") or outer.get("tool_call_id")
        calls.append(_Call(name, identity if isinstance(identity, str) else None))
        arguments: Any = next((inner[key] for key in ("arguments", "parameters", "input") if key in inner), {})
        if isinstance(arguments, str):
            found.add("text_argument_calls")
            try:
                arguments = orjson.loads(arguments or "{}")
            except orjson.JSONDecodeError:
                arguments = None
        if not name:
            found.add("malformed_calls", "a call has no name")
        elif not isinstance(arguments, dict):
            found.add("malformed_calls", f"the arguments of '{name:.60}' are no JSON object")
        elif known and name not in known:
            found.add("unknown_tool_calls", f"'{name:.60}' is none of the tools")
        elif known:
            _check_arguments(name, arguments, known[name], found)
    return calls


def _check_arguments(name: str, arguments: dict[str, Any], validator: Any, found: _Found) -> None:
    text = json_bytes(arguments)
    if validator is None or text is None or len(text) > MAX_CHARS:
        found.add("unchecked_calls")
        return
    try:
        wrong = first_error(validator, arguments)
    except Unusable:
        found.add("unchecked_calls")
        return
    if wrong:
        found.add("invalid_argument_calls", f"an argument of '{name:.60}': {wrong}")


def _answer(turn: dict[str, Any], pending: list[_Call], last: int, found: _Found) -> int:
    """Take a result; returns the index of the call that it answers."""
    identity = turn["tool_call_id"]
    open_calls = [index for index, call in enumerate(pending) if not call.answered]
    if identity and any(call.id for call in pending):
        open_calls = [index for index in open_calls if pending[index].id == identity]
    elif turn["name"] and any(pending[index].name == turn["name"] for index in open_calls):
        open_calls = [index for index in open_calls if pending[index].name == turn["name"]]
    if not open_calls:
        found.add("stray_results", "a tool result answers no call")
        return last
    index = open_calls[0]
    pending[index].answered = True
    if index < last:
        found.add("misordered_results", "tool results stand in another order than their calls")
    return max(index, last)


def _close(pending: list[_Call], found: _Found) -> None:
    """A turn follows: calls without a result stay without."""
    for call in _open(pending):
        found.add("unanswered_calls", f"the call of '{call.name:.60}' has no result")


def _open(pending: list[_Call]) -> list[_Call]:
    """The calls without a result: none where one result came for all calls of a turn, which have no ids."""
    if not any(call.id for call in pending) and sum(call.answered for call in pending) == 1:
        return []
    return [call for call in pending if not call.answered]
