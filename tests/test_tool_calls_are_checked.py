"""Tool calls are compared with the row's tools, their schemas, and the results that follow them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from curation.catalog import Catalog
from curation.conversations import messages
from tests import REAL_DATA
from tests.traces import conversations, reasons, turn, values

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["C", "F"]}}, "required": ["city"], "additionalProperties": False}  # fmt: skip
PARIS = {"city": "Paris"}


def tools(schema: Any = CITY, *, bare: bool = False) -> str:
    function = {"name": "weather", "parameters": schema}
    return json.dumps([function if bare else {"type": "function", "function": function}])


def calls(*arguments: Any, name: str = "weather", ids: tuple[str, ...] = ()) -> dict:
    """An assistant turn with one call for each of `arguments`; OpenAI's form where there are ids, else the bare one."""
    if ids:
        listed: list = [{"id": key, "type": "function", "function": {"name": name, "arguments": json.dumps(value)}}
                        for key, value in zip(ids, arguments, strict=True)]  # fmt: skip
    else:
        listed = [{"name": name, "arguments": value} for value in arguments]
    return turn("assistant", None, tool_calls=json.dumps(listed))


ASK, SAY, RESULT = turn("user", "?"), turn("assistant", "It rains."), turn("tool", "rain")


def result(key: str) -> dict:
    return turn("tool", "rain", tool_call_id=key)


def measured(*turns: dict, offered: str | None = None) -> dict:
    (row,) = values("tool_calls", conversations([ASK, *turns], tools=[offered or tools()]))
    return row


def faults(row: dict) -> dict:
    """The counts that are not zero, but for what was offered and made."""
    return {name: count for name, count in row.items() if count and name not in (
        "tools_offered", "calls_made", "parallel_calls", "tool_fault")}  # fmt: skip


@pytest.mark.parametrize("offered", [tools(), tools(bare=True)])
def test_a_good_call_has_no_fault_in_any_form(offered: str):
    for call in (calls(PARIS), calls(PARIS, ids=("a",)), calls(json.dumps(PARIS))):
        row = measured(call, result("a") if "id" in call["tool_calls"].split("name")[0] else RESULT, SAY,
                       offered=offered)  # fmt: skip
        assert row["tool_fault"] is None and (row["tools_offered"], row["calls_made"]) == (1, 1)
        assert set(faults(row)) <= {"text_argument_calls"}


ARGUMENTS = [
    ({}, "an argument of 'weather': lacks 'city'"),
    ({"city": 1}, "an argument of 'weather': 'city' is no string"),
    (PARIS | {"days": 0}, "an argument of 'weather': 'days' breaks minimum"),
    (PARIS | {"unit": "K"}, "an argument of 'weather': 'unit' is none of the 2 values that are allowed"),
    (PARIS | {"town": "x"}, "an argument of 'weather': knows no 'town'"),
]


@pytest.mark.parametrize(("arguments", "fault"), ARGUMENTS)
def test_arguments_that_break_the_schema_are_counted_and_named(arguments: dict, fault: str):
    row = measured(calls(arguments), RESULT, SAY)
    assert faults(row) == {"invalid_argument_calls": 1} and row["tool_fault"] == fault


@pytest.mark.parametrize(("call", "count", "fault"), [
    (calls(PARIS, name="wether"), "unknown_tool_calls", "'wether' is none of the tools"),
    (calls(PARIS, name=""), "malformed_calls", "a call has no name"),
    (calls([1]), "malformed_calls", "the arguments of 'weather' are no JSON object"),
    (turn("assistant", None, tool_calls='{"name": "weather", "arguments": {"city": "Paris"}'), "malformed_calls",
     "a call has no name"),
])  # fmt: skip
def test_calls_of_no_tool_and_calls_that_are_none_are_counted(call: dict, count: str, fault: str):
    row = measured(call, RESULT, SAY)
    assert faults(row) == {count: 1} and row["tool_fault"] == fault


def test_argument_text_that_is_no_json_is_malformed():
    row = measured(calls("{city: Paris"), RESULT, SAY)
    assert faults(row) == {"malformed_calls": 1, "text_argument_calls": 1}


def test_results_are_matched_by_id_then_by_name_then_in_order():
    two = calls(PARIS, PARIS, ids=("a", "b"))
    assert faults(measured(two, result("a"), result("b"), SAY)) == {"text_argument_calls": 2}
    assert faults(measured(two, result("b"), result("a"), SAY)) == {"text_argument_calls": 2, "misordered_results": 1}
    assert faults(measured(two, result("a"), SAY)) == {"text_argument_calls": 2, "unanswered_calls": 1}
    assert faults(measured(two, result("a"), result("c"), result("b"), SAY)) == {
        "text_argument_calls": 2, "stray_results": 1}  # fmt: skip
    same = measured(calls(PARIS, PARIS, ids=("a", "a")), result("a"), result("a"), SAY)
    assert faults(same) == {"text_argument_calls": 2, "duplicate_call_ids": 1}
    again = measured(calls(PARIS, ids=("a",)), result("a"), SAY, ASK, calls(PARIS, ids=("a",)), result("a"), SAY)
    assert faults(again) == {"text_argument_calls": 2}, "an id may be used again once it is answered"


def test_calls_without_ids_are_answered_one_by_one_or_all_at_once():
    three = calls(PARIS, PARIS, PARIS)
    assert faults(measured(three, RESULT, SAY)) == {}
    assert faults(measured(three, RESULT, RESULT, RESULT, SAY)) == {}
    assert faults(measured(three, RESULT, RESULT, SAY)) == {"unanswered_calls": 1}
    assert faults(measured(three, RESULT, RESULT, RESULT, RESULT, SAY)) == {"stray_results": 1}
    assert measured(three, RESULT, SAY)["parallel_calls"] == 3
    assert faults(measured(calls(PARIS), SAY)) == {"unanswered_calls": 1}


def test_a_conversation_that_ends_on_a_call_is_unfinished_and_no_fault():
    row = measured(calls(PARIS), RESULT, SAY, ASK, calls(PARIS, PARIS))
    assert faults(row) == {"unfinished_calls": 2} and row["tool_fault"] is None


def test_rows_without_tools_calls_and_results_have_no_values_and_names_need_tools():
    rows = conversations("4", [ASK, calls({"x": 1}), RESULT, SAY], [ASK, RESULT, SAY])
    none, untold, stray = values("tool_calls", rows)
    assert set(none.values()) == {None}
    assert untold["calls_made"] == 1 and faults(untold) == {}
    assert faults(stray) == {"stray_results": 1}


PYTHON = {"type": "dict", "properties": {"city": {"type": "str"}, "days": {"type": "int, optional"},
          "tags": {"type": "List[str]"}, "x": {"type": "any"}}}  # fmt: skip


def test_schemas_with_the_type_names_of_python_are_told_and_translated():
    row = measured(calls({"city": "Paris", "days": 2, "tags": ["a"], "x": None}), RESULT, SAY, offered=tools(PYTHON))
    assert faults(row) == {"foreign_tool_schemas": 1}
    row = measured(calls({"city": "Paris", "days": "two"}), RESULT, SAY, offered=tools(PYTHON))
    assert row["tool_fault"] == "an argument of 'weather': 'days' is no integer"


def test_a_map_of_properties_is_a_schema_and_a_tool_may_have_none():
    row = measured(calls({"city": 1}), RESULT, SAY, offered=tools({"city": {"type": "string"}}))
    assert row["tool_fault"] == "an argument of 'weather': 'city' is no string"
    for nothing in (None, {}):
        assert faults(measured(calls({"city": 1}), RESULT, SAY, offered=tools(nothing))) == {"unchecked_calls": 1}


def deep(levels: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


DOUBLING = {"$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}},
            "$ref": "#/$defs/d0"}  # fmt: skip
HOSTILE = {
    "no type": ({"type": "objekt"}, {"invalid_tool_schemas": 1, "unchecked_calls": 1}),
    "no schema": ([1], {"invalid_tool_schemas": 1, "unchecked_calls": 1}),
    "elsewhere": ({"$ref": "http://127.0.0.1:9/x.json"}, {"unchecked_calls": 1}),
    "nowhere": ({"$ref": "#/$defs/x"}, {"unchecked_calls": 1}),
    "itself": ({"$ref": "#"}, {"unchecked_calls": 1}),
    "doubling": (DOUBLING, {"unchecked_calls": 1}),
    "too deep": (deep(80), {"invalid_tool_schemas": 1, "unchecked_calls": 1}),
    "far too deep": (deep(400), {"invalid_tool_schemas": 1, "unchecked_calls": 1}),
    "division by zero": ({"properties": {"city": {"multipleOf": 0}}},
                         {"invalid_tool_schemas": 1, "unchecked_calls": 1}),
    "slow pattern": ({"properties": {"city": {"pattern": "^(a+)+$"}}}, {"invalid_argument_calls": 1}),
    "slow names": ({"patternProperties": {"^(i|i)+x$": {}}, "additionalProperties": False},
                   {"invalid_argument_calls": 1}),
    "unknown pattern": ({"properties": {"city": {"pattern": "(?=b)"}}}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_are_checked_in_bounded_time_and_fetch_nothing(name: str, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a schema was fetched")

    monkeypatch.setattr("socket.socket.connect", refuse)
    schema, expected = HOSTILE[name]
    arguments = {"i" * 60: 1} if "names" in name else {"city": "a" * 60 + "!"}
    assert faults(measured(calls(arguments), RESULT, SAY, offered=tools(schema))) == expected


def test_tools_and_calls_that_are_no_json_break_nothing():
    for offered in ("no json", "3", '["x", {"name": 1}, {"function": null}]', "[" * 3000):
        assert measured(calls(PARIS), RESULT, SAY, offered=offered)["tools_offered"] == 0
    for text in ("null", "3", "[[]]", '[{"function": {"name": {}}}]'):
        row = measured(turn("assistant", None, tool_calls=text), RESULT, SAY)
        assert row["malformed_calls"] == 1


def test_a_broken_call_is_left_out_and_an_unfinished_one_is_shown(catalog: Catalog, kedge):
    def line(*turns: dict) -> str:
        plain = [{key: json.loads(value) if key == "tool_calls" else value for key, value in item.items()
                  if value is not None} for item in turns]  # fmt: skip
        return json.dumps({"messages": plain, "tools": json.loads(tools())}) + "\n"

    Path("a.jsonl").write_text(line(ASK, calls({}), RESULT, SAY) + line(ASK, calls(PARIS)) +
                               line(ASK | {"content": "good?"}, calls(PARIS), RESULT, SAY))  # fmt: skip
    assert kedge("add", "a.jsonl")[0] == 0
    assert kedge("measure", "--only", "tool_calls")[0] == 0
    assert reasons(catalog, "broken_tool_call", "unanswered_tool_call") == {
        "broken_tool_call": ["calls with invalid arguments: 1; first fault of the row: an argument of 'weather': lacks "
                             "'city'"],
        "unanswered_tool_call": ["the conversation ends on 1 calls"],
    }  # fmt: skip


def test_the_reason_of_a_rule_names_every_kind_of_fault_that_the_rule_is_about(catalog: Catalog, kedge):
    def line(*turns: dict) -> str:
        plain = [{key: json.loads(value) if key == "tool_calls" else value for key, value in item.items()
                  if value is not None} for item in turns]  # fmt: skip
        return json.dumps({"messages": plain, "tools": json.loads(tools())}) + "\n"

    Path("a.jsonl").write_text(
        line(ASK, calls(PARIS), SAY, ASK, calls({}, PARIS, ids=("a", "a")), result("a"), result("a"), result("b"), SAY,
             ASK, calls(PARIS, PARIS, name="wether"))
        + line(ASK, calls(PARIS, PARIS, PARIS), RESULT, RESULT, SAY))  # fmt: skip
    assert kedge("add", "a.jsonl")[0] == 0
    assert kedge("measure", "--only", "tool_calls")[0] == 0
    first = "first fault of the row: the call of 'weather' has no result"
    assert reasons(catalog, "broken_tool_call", "unanswered_tool_call") == {
        "broken_tool_call": ["calls of unknown tools: 2, calls with invalid arguments: 1, ids that stand twice: 1, "
                             f"results of no call: 1; {first}"],
        "unanswered_tool_call": [f"calls without a result: 1, the conversation ends on 2 calls; {first}",
                                 f"calls without a result: 1; {first}"],
    }  # fmt: skip


@pytest.mark.real_data
def test_real_tool_calls_are_whole_but_for_those_that_were_read():
    folder = REAL_DATA / "sft"
    glaive = json.loads(gzip.decompress((folder / "glaive_toolcall_en_demo.json.gz").read_bytes()))
    lines = gzip.decompress((folder / "reason_tool_use_demo_50.jsonl.gz").read_bytes()).splitlines()
    demo = [json.loads(line) for line in lines]
    found = []
    for records, key in ((glaive, "conversations"), (demo, "messages")):
        offered = [record["tools"] if record["tools"] != "[]" else None for record in records]
        rows = conversations(*(messages(record[key]) for record in records), tools=offered)
        found.append(values("tool_calls", rows))
    assert [(n, row["tool_fault"]) for n, row in enumerate(found[0]) if row["tool_fault"]] == [
        (259, "an argument of 'track_calories': 'calories_per_item' is no number")
    ]  # a list of three numbers
    assert not any(row["tool_fault"] for row in found[1])
    assert sum(row["foreign_tool_schemas"] or 0 for row in found[1]) == 77, "types dict, str, and 'str, optional'"
    assert sum(row["unfinished_calls"] or 0 for row in found[1]) == 20
