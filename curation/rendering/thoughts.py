"""Thoughts in messages: the marks that enclose them, whether they are well formed, and their texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

Marks = tuple[tuple[str, str], ...]
THINK_MARKS: Marks = (("<think>", "</think>"), ("<|begin_of_thought|>", "<|end_of_thought|>"))
SOLUTION_MARKS: Marks = (("<|begin_of_solution|>", "<|end_of_solution|>"),)
FORMATS = (
    "well formed",
    "opened and never closed",
    "closed and never opened",
    "nested",
    "empty where thinking is asked",
)

_ANY = re.compile("|".join(re.escape(mark) for pair in THINK_MARKS for mark in pair))
_OPEN = frozenset(pair[0] for pair in THINK_MARKS)
_ASKED = re.compile(r"(?<!\S)/think(?!\S)")
_SPARED = re.compile(r"(?<!\S)/no_think(?!\S)")


def text_format(text: str) -> int:
    """Index into FORMATS of one assistant's text; its first fault where there are several."""
    depth = 0
    for mark in _ANY.findall(text):
        if mark in _OPEN:
            if depth:
                return 3
            depth = 1
        elif not depth:
            return 2
        else:
            depth = 0
    return depth


def think_format(messages: Sequence[dict[str, Any]]) -> int:
    """Index into FORMATS of a conversation's assistant turns. An empty thought is a fault only where a turn before
    asks for thinking (`/think`)."""
    asked = False
    for message in messages:
        content = message.get("content") or ""
        if message["role"] != "assistant":
            if _ASKED.search(content) or _SPARED.search(content):
                asked = _SPARED.search(content) is None
            continue
        if "<" not in content:
            continue
        found = text_format(content)
        if not found and asked and any(not thought.strip() for thought in _enclosed(content)):
            found = 4
        if found:
            return found
    return 0


def thoughts(messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The text of every thought in order, without the white space around it: `reasoning` of a turn, or what the marks
    enclose. Empty ones are none."""
    for message in messages:
        if message["role"] != "assistant":
            continue
        content = message.get("content") or ""
        apart = message.get("reasoning") or ""
        for text in [apart, *(_enclosed(content) if "<" in content else ())]:
            if text.strip():
                yield text.strip()


def _enclosed(content: str) -> Iterator[str]:
    for open_mark, close_mark in THINK_MARKS:
        if open_mark in content:
            for part in content.split(open_mark)[1:]:
                if close_mark in part:
                    yield part.partition(close_mark)[0]
