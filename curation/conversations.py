"""Messages as sources write them -> messages as rows hold them, and whether they make a conversation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import orjson

from curation import schema

ROLES = {
    "system": "system", "developer": "developer", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "function_call": "assistant", "tool_call": "assistant",
    "observation": "tool", "tool": "tool", "function": "tool", "function_response": "tool", "tool_response": "tool",
}  # fmt: skip
CALL_ROLES = ("function_call", "tool_call")
TEXT_PARTS = ("text", "input_text", "output_text")


class Rejected(Exception):
    """Why a record does not become a row; the text is the reason that is kept with it."""


def json_text(value: Any) -> str:
    """Canonical JSON text: keys sorted. Text is taken as it is."""
    if isinstance(value, str):
        return value
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except (TypeError, ValueError) as error:
        raise Rejected(f"holds a value that JSON cannot: {error}") from error
    if "null" in text and not _all_finite(value):  # NaN and infinity are written as null
        raise Rejected("holds a value that JSON cannot: NaN or infinity")
    return text


def _all_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list):
        return all(map(_all_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def text_of(value: Any, name: str) -> str:
    """A field that must be text."""
    if not isinstance(value, str):
        raise Rejected(f"'{name}' is {_kind(value)}, not text")
    return value


def _kind(value: Any) -> str:
    names = {"NoneType": "absent", "dict": "an object", "list": "a list", "int": "a number", "float": "a number",
             "bool": "true or false", "str": "text"}  # fmt: skip
    return names.get(type(value).__name__, type(value).__name__)


def _calls(value: Any) -> list[Any]:
    """Tool calls as a list, from a list, one call, or JSON text of either."""
    if isinstance(value, str | bytes):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise Rejected("a tool call is no valid JSON") from error
    calls = value if isinstance(value, list) else [value]
    for call in calls:
        if not isinstance(call, dict):
            raise Rejected(f"a tool call is {_kind(call)}, not an object")
    return calls


def message(value: Any) -> dict[str, str]:
    """One message with the keys of schema.MESSAGE that it has. Takes `role`/`content` and `from`/`value`, content as
    text or typed parts, reasoning apart (`reasoning_content`, `reasoning`, `thinking`, or a part). Raises Rejected."""
    if not isinstance(value, dict):
        raise Rejected(f"a message is {_kind(value)}, not an object")
    named = value.get("role", value.get("from"))
    role = ROLES.get(named.lower()) if isinstance(named, str) else None
    if role is None:
        raise Rejected(f"unknown role {named!r:.40}")
    content = value.get("content", value.get("value"))
    if len(value) == 2 and type(content) is str and named not in CALL_ROLES:
        return {"role": role, "content": content}  # what most messages are
    found: dict[str, str] = {"role": role}
    calls: list[Any] = []
    reasoning = next((value[key] for key in ("reasoning_content", "reasoning", "thinking") if value.get(key)), None)
    if isinstance(content, list):
        content, part_reasoning, calls = _parts(content)
        reasoning = reasoning or part_reasoning
    elif named in CALL_ROLES:
        content, calls = None, _calls(content)
    if value.get("tool_calls"):
        calls = [*calls, *_calls(value["tool_calls"])]
    if value.get("function_call"):
        calls = [*calls, *_calls(value["function_call"])]
    if content is not None:
        found["content"] = text_of(content, "content")
    elif not calls and not reasoning:
        raise Rejected(f"a message of role {role} has no content")
    if reasoning is not None:
        found["reasoning"] = text_of(reasoning, "reasoning")
    if calls:
        found["tool_calls"] = json_text(calls)
    for key in ("tool_call_id", "name"):
        if value.get(key):
            found[key] = text_of(value[key], key)
    return found


def _parts(parts: list[Any]) -> tuple[str | None, str | None, list[Any]]:
    """Typed parts -> text, reasoning, tool calls. Pictures and sound are rejected: these rows are text."""
    text: list[str] = []
    thoughts: list[str] = []
    calls: list[Any] = []
    for part in parts:
        if isinstance(part, str):
            text.append(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise Rejected(f"a part of content is {_kind(part)} without a type")
        inner = next((part[key] for key in ("text", "value", "content", kind) if part.get(key) is not None), "")
        if kind in TEXT_PARTS:
            text.append(text_of(inner, "text part"))
        elif kind in ("reasoning", "thinking"):
            thoughts.append(text_of(inner, "reasoning part"))
        elif kind in ("tool_call", "function_call"):
            calls += _calls(inner)
        else:
            raise Rejected(f"content has a part of type {kind!r:.40}, which is no text")
    return "".join(text) if text else None, "".join(thoughts) if thoughts else None, calls


def messages(value: Any, name: str = "messages") -> list[dict[str, str]]:
    """A list of messages. Raises Rejected."""
    if not isinstance(value, list) or not value:
        raise Rejected(f"'{name}' is {'empty' if value == [] else _kind(value)}")
    return [message(item) for item in value]


def check_order(turns: list[dict[str, str]], *, ends: str | None = "assistant") -> None:
    """Raises Rejected unless system and developer turns come first, then a user turn, then user and assistant turns in
    alternation, tool results directly after a call (or after another result), and the last turn is `ends`. Two
    assistant turns in a row are accepted where the first only calls tools or says what it is about to call."""
    body = [turn for turn in turns]
    while body and body[0]["role"] in ("system", "developer"):
        body.pop(0)
    if not body:
        raise Rejected("holds a system turn alone")
    if body[0]["role"] != "user":
        raise Rejected(f"the first turn is {body[0]['role']}, not user")
    for before, after in itertools.pairwise(body):
        pair = (before["role"], after["role"])
        if after["role"] in ("system", "developer"):
            raise Rejected(f"a {after['role']} turn comes after the conversation began")
        if pair == ("user", "user"):
            raise Rejected("two user turns in a row")
        if pair == ("assistant", "assistant") and not (before.get("tool_calls") or after.get("tool_calls")):
            raise Rejected("two assistant turns in a row")
        if pair == ("assistant", "tool") and not before.get("tool_calls"):
            raise Rejected("a tool result without a tool call")
        if pair == ("user", "tool"):
            raise Rejected("a tool result without a tool call")
    if ends is not None and body[-1]["role"] != ends:
        raise Rejected(f"the last turn is {body[-1]['role']}, not {ends}")


def transcript(text: str) -> list[dict[str, str]]:
    """An hh-rlhf transcript (`\\n\\nHuman: ...\\n\\nAssistant: ...`) as messages. Raises Rejected."""
    pieces = ("\n\n" + text.lstrip("\n")).split("\n\n")
    turns: list[dict[str, str]] = []
    for piece in pieces[1:]:
        role = next((role for mark, role in (("Human:", "user"), ("Assistant:", "assistant"))
                     if piece.startswith(mark)), None)  # fmt: skip
        if role is not None:
            turns.append({"role": role, "content": piece.partition(":")[2].removeprefix(" ")})
        elif turns:
            turns[-1]["content"] += "\n\n" + piece
        else:
            raise Rejected("the transcript does not begin with 'Human:'")
    if not turns:
        raise Rejected("the transcript is empty")
    return merge_twins(turns)


def merge_twins(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Join turns of one role that follow each other (real transcripts have a few), separated by a blank line."""
    merged: list[dict[str, str]] = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1]["content"] += "\n\n" + turn["content"]
        else:
            merged.append(dict(turn))
    return merged


def split_pair(chosen: list[dict[str, str]], rejected: list[dict[str, str]]) -> tuple[list[dict[str, str]], ...]:
    """Two whole conversations -> (prompt, chosen, rejected): the prompt is what both begin with, up to the last user or
    tool turn of it. Raises Rejected where they share no prompt or a side is left empty."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and (shared == len(chosen) or shared == len(rejected) or chosen[shared - 1]["role"] == "assistant"):
        shared -= 1
    if not shared:
        raise Rejected("chosen and rejected share no prompt")
    return chosen[:shared], chosen[shared:], rejected[shared:]


assert set(ROLES.values()) == set(schema.ROLES)
