"""Prompt and answers of a record of votes, as texts, as conversations, or as one text a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from curation.conversations import Rejected, check_order, messages, split_pair, text_of

Turns = list[dict[str, str]]


def texts_of(asked: Any, said: Sequence[Any], turn: int | None) -> tuple[Turns, tuple[Turns, Turns]]:
    """(prompt, (answer a, answer b)), empty where the record does not give them. Both answers may be whole
    conversations, with the prompt inside; these are cut after `turn` exchanges: more was said, and that much was
    judged. Raises Rejected."""
    if (said[0] in (None, "")) != (said[1] in (None, "")):
        raise Rejected("has the text of one answer alone")
    woven = _woven(asked, said)
    if woven is not None:  # a text for each turn, as in arena-55k
        return _checked([], woven, turn)
    asked = _unpacked(asked)
    prompt: Turns = []
    if isinstance(asked, list):
        prompt = messages(asked, "prompt")
    elif asked not in (None, ""):
        prompt = [{"role": "user", "content": text_of(asked, "prompt")}]
    if said[0] in (None, ""):
        return prompt, ([], [])
    return _checked(prompt, [_unpacked(side) for side in said], turn)


def _checked(prompt: Turns, said: Sequence[Any], turn: int | None) -> tuple[Turns, tuple[Turns, Turns]]:
    sides = [_side(side, turn) for side in said]
    if all(side[0]["role"] != "assistant" for side in sides):
        prompt, *sides = split_pair(*sides)
    if prompt:
        for side in sides:
            check_order([*prompt, *side])
    return prompt, (sides[0], sides[1])


def _woven(asked: Any, said: Sequence[Any]) -> list[Any] | None:
    """Two conversations of lists (or JSON text of lists) of as many texts; None where it is something else."""
    lists = [_listed(value) for value in (asked, *said)]
    if not all(isinstance(item, list) and item and len(item) == len(lists[0])
               and all(isinstance(text, str | None) for text in item) for item in lists):  # fmt: skip
        return None
    return [[turn for question, answer in zip(lists[0], side, strict=True)
             for turn in ({"role": "user", "content": question or ""}, {"role": "assistant", "content": answer or ""})]
            for side in lists[1:]]  # fmt: skip


def _listed(value: Any) -> Any:
    """JSON text of a list as the list, as tables hold one; anything else as it is."""
    if isinstance(value, str) and value.startswith("[") and value.rstrip().endswith("]"):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return value


def _unpacked(value: Any) -> Any:
    """JSON text of messages as the messages; an answer that is a list of something else is text."""
    held = _listed(value)
    whole = isinstance(held, list) and bool(held) and all(isinstance(item, dict) for item in held)
    return held if whole and all("role" in item or "from" in item for item in held) else value


def _side(value: Any, turn: int | None) -> Turns:
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    turns = messages(value, "response")
    asked = [place for place, item in enumerate(turns) if item["role"] == "user"]
    if turn is not None and 1 <= turn < len(asked) and turns[0]["role"] != "assistant":
        return turns[: asked[turn]]
    return turns
