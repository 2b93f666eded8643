"""Conversations for differential tests: random, seeded, and as awkward as real data is."""

from __future__ import annotations

import json
import random
from typing import Any

Turn = dict[str, Any]

WORDS = (
    "plus", "naïve", "東京", "🙂🙂", "x", "  ", "\n\n", "The answer is", "<think>a</think>", "é", "12", "half <think>",
    "e\u0301", "👩‍👩‍👧", "\u00a0", "</think>",
)  # fmt: skip
NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
TOOLS = json.dumps(
    [{"type": "function", "function": {"name": "add", "description": "Add two numbers.", "parameters": NUMBERS}}]
)


def text(draw: random.Random, longest: int) -> str:
    """Up to `longest` - 1 words, now and then none."""
    return " ".join(draw.choice(WORDS) for _ in range(draw.randrange(longest)))


def conversation(draw: random.Random, *, answered: bool = True) -> list[Turn]:
    """One to three exchanges: multi-byte text, thoughts open, closed and kept apart, tool calls with their results,
    empty turns. Without `answered`, now and then a conversation that is only a system or user turn."""
    turns: list[Turn] = [{"role": "system", "content": text(draw, 6)}] if draw.random() < 0.4 else []
    if not answered and draw.random() < 0.1:
        return turns or [{"role": "user", "content": text(draw, 30)}]
    for _ in range(draw.randrange(1, 4)):
        # now and then a question fills the limit, so that the cut leaves nothing to train
        turns.append({"role": "user", "content": text(draw, 90 if draw.random() < 0.2 else 12)})
        if draw.random() < 0.15:
            call = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": draw.randrange(9)}}}]
            turns.append({"role": "assistant", "content": None, "tool_calls": json.dumps(call)})
            turns.append({"role": "tool", "content": "3", "name": "add"})
        answer: Turn = {"role": "assistant", "content": "" if draw.random() < 0.1 else text(draw, 30)}
        if draw.random() < 0.15:
            answer["reasoning"] = text(draw, 20)
        turns.append(answer)
    return turns


def conversations(seed: int, count: int = 120, *, answered: bool = True) -> list[list[Turn]]:
    """`count` conversations that follow from the seed."""
    draw = random.Random(seed)
    return [conversation(draw, answered=answered) for _ in range(count)]


def pairs(seed: int, count: int = 120) -> list[dict[str, list[Turn]]]:
    """`count` preference rows: a conversation up to its last answer, and two answers. Some are alike, some begin alike,
    some are long on one side, some empty."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        talk = conversation(draw)
        prompt, last = talk[:-1], talk[-1]
        kind = draw.randrange(5)
        other = text(draw, 60 if kind == 0 else 20)
        if kind == 1:
            other = last["content"]
        elif kind == 2:
            other = last["content"] + " " + other
        found.append({"prompt": prompt, "chosen": [last], "rejected": [{"role": "assistant", "content": other}]})
    return found


def prompts(seed: int, count: int = 120) -> list[list[Turn]]:
    """`count` prompts: conversations up to their last answer."""
    draw = random.Random(seed)
    return [conversation(draw)[:-1] for _ in range(count)]
