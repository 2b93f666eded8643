"""Where a rendered row's stop, its thought and its answer lie, and which of its tokens are trained."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xxhash

from curation.rendering.render import Rendered
from curation.rendering.thoughts import SOLUTION_MARKS, THINK_MARKS, text_format, think_format, thoughts

INT = (
    "tokens",
    "trained_tokens",
    "prompt_tokens",
    "last_stop",
    "think_open",
    "think_close",
    "answer_start",
    "answer_end",
)


def describe(rendered: Rendered, stops: tuple[int, ...]) -> dict[str, Any]:
    """The anatomy of one rendered row (columns of Anatomy)."""
    ids, mask = rendered.ids, rendered.mask
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.view(np.int8), [0]))))
    starts, ends = edges[::2], edges[1::2]
    trained = np.flatnonzero(mask)
    last_stop = _last_stop(rendered, trained, stops)
    opened, closed, answer_from = _thought(rendered)
    answer_start = answer_end = -1
    solved, solution_ends = _solution(rendered)
    if len(trained) and solved and not (opened >= 0 and closed < 0):
        answer_end = solution_ends if solution_ends >= 0 else last_stop if last_stop >= 0 else int(trained[-1]) + 1
        answer_start = max(int(starts[-1]), answer_from)
        if answer_start >= answer_end:
            answer_start = answer_end = -1
    return {
        "tokens": len(ids),
        "trained_tokens": len(trained),
        "prompt_tokens": int(trained[0]) if len(trained) else len(ids),
        "last_stop": last_stop,
        "think_open": opened,
        "think_close": closed,
        "answer_start": answer_start,
        "answer_end": answer_end,
        "ids_hash": xxhash.xxh3_64_intdigest(ids.astype("<i4").tobytes()),
        "last_stop_trained": last_stop >= 0,
        "mask_starts": starts.tolist(),
        "mask_lengths": (ends - starts).tolist(),
        "render_error": rendered.error or None,
    }


def of_source(row: dict[str, Any], rendered: Rendered) -> dict[str, Any]:
    """What the thoughts of the source are and whether they reach the trained part (columns of Anatomy)."""
    messages = row.get("messages")
    if messages is None:
        text = row.get("text") or ""
        found = sum(1 for _ in thoughts([{"role": "assistant", "content": text}])) if rendered.text else 0
        return {"think_format": text_format(text), "thoughts": found, "thoughts_trained": found}
    total, trained = trained_thoughts(messages, rendered)
    return {"think_format": think_format(messages), "thoughts": total, "thoughts_trained": trained}


def trained_thoughts(messages: list[dict[str, Any]], rendered: Rendered) -> tuple[int, int]:
    """(thoughts of the messages, those whose whole text stands in a trained part of the rendered row)."""
    total = trained = position = 0
    for thought in thoughts(messages):
        total += 1
        found = rendered.text.find(thought, position)
        while found >= 0 and not _trains(rendered, found, found + len(thought)):
            found = rendered.text.find(thought, found + 1)  # a question may have the same words
        if found >= 0:
            trained += 1
            position = found + len(thought)
    return total, trained


def _trains(rendered: Rendered, start: int, end: int) -> bool:
    """Whether the characters start..end (end exclusive) begin and end in trained tokens."""
    first, last = _token_at(rendered, start), _token_at(rendered, end - 1)
    return bool(last < len(rendered.mask) and rendered.mask[first] and rendered.mask[last])


def _last_stop(rendered: Rendered, trained: np.ndarray, stops: tuple[int, ...]) -> int:
    for index in trained[::-1]:
        if int(rendered.ids[index]) in stops:
            return int(index)
        if rendered.text[rendered.encoded.starts[index] : rendered.encoded.ends[index]].strip():
            return -1
    return -1


def _thought(rendered: Rendered) -> tuple[int, int, int]:
    """First token of the first open mark, last token of the last close mark, and the first token after that mark and
    the white space behind it."""
    opened = closed = after = -1
    for open_mark, close_mark in THINK_MARKS:
        first, last = rendered.text.find(open_mark), rendered.text.rfind(close_mark)
        if opened < 0 and first >= 0:
            opened = _token_at(rendered, first)
        # A system prompt may name both marks: a close before the last open closes nothing.
        if closed < 0 and last > rendered.text.rfind(open_mark):
            end = last + len(close_mark)
            closed = _token_at(rendered, end - 1)
            after = _token_at(rendered, end + len(re.match(r"\s*", rendered.text[end:]).group()))  # type: ignore[union-attr]
    return opened, closed, after


def _solution(rendered: Rendered) -> tuple[bool, int]:
    """Whether the row finishes its answer as far as marks can tell, and the token after the last marked solution (-1
    where none is marked)."""
    for open_mark, close_mark in SOLUTION_MARKS:
        opened, closed = rendered.text.rfind(open_mark), rendered.text.rfind(close_mark)
        if opened >= 0 or closed >= 0:
            return closed > opened, _token_at(rendered, closed + len(close_mark) - 1) + 1 if closed >= 0 else -1
    return True, -1


def _token_at(rendered: Rendered, character: int) -> int:
    """The token that holds a character; T where it lies past the end."""
    return rendered.encoded.token_at(character)
