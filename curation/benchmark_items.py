"""A benchmark's record as an item: question, answer, passage and choices, whatever the benchmark calls them."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from curation.conversations import Rejected, json_text

KEYS = {
    "question": ("question", "problem", "prompt", "input", "instruction", "query", "turns", "text", "ctx", "sentence"),
    "answer": ("solution", "canonical_solution", "code", "answer", "answers", "target", "output", "best_answer",
               "ground_truth", "label"),
    "passage": ("passage", "context", "support", "article", "story", "background"),
    "choices": ("choices", "options", "endings"),
}  # fmt: skip


def benchmark_item(record: Mapping[str, Any], stage: str) -> tuple[dict[str, Any], set[str]]:
    """The components of an item, each from the first key that the record has, and the keys used. Raises Rejected where
    there is no question."""
    fields: dict[str, Any] = {}
    used: set[str] = set()
    for component, names in KEYS.items():
        for name in names:
            value = record.get(name)
            if name in used or value is None:
                continue
            found = _choices(value) if component == "choices" else _text(value, component)
            if found:
                fields[component] = found
                used.add(name)
                break
    if "question" not in fields:
        raise Rejected(f"has no question; its fields are {', '.join(map(str, record))}"[:300])
    letters = [letter for letter in string.ascii_uppercase if isinstance(record.get(letter), str | int | float)]
    if "choices" not in fields and len(letters) > 1 and letters == list(string.ascii_uppercase[: len(letters)]):
        fields["choices"] = [str(record[letter]) for letter in letters]
        used |= set(letters)
    return fields, used


def _text(value: Any, component: str) -> str | None:
    """One text; a list of texts is joined by line breaks (turns of a conversation), of several answers the first is
    taken; other values are written as JSON."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "\n".join(value) if component != "answer" else value[0]
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):  # SQuAD's answers
        return _text(value["text"], component)
    return json_text(value) if not isinstance(value, list | Mapping) or value else None


def _choices(value: Any) -> list[str] | None:
    """The options in order: a list, or ARC's `{text: [...], label: [...]}`."""
    if isinstance(value, Mapping):
        value = value.get("text")
    if isinstance(value, list) and value and all(isinstance(item, str | int | float) for item in value):
        return [str(item) for item in value]
    return None
