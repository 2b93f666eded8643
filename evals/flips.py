"""Items that a checkpoint lost, side by side: what it answered before and what it answers now."""

from __future__ import annotations

import difflib
import re
from typing import Any

from evals.pairing import Scored

NUM_FLIPS = 20
SHOWN_CHARS = 4_000


def flips(first: dict[str, Scored | None], last: dict[str, Scored | None]) -> list[dict[str, Any]]:
    """Right -> not right, at most 20 per benchmark in the order of their ids: benchmark, sample id, prompt,
    gold, both responses, states and answers, and the pieces of a word-level comparison."""
    found = []
    for benchmark, entry in first.items():
        other = last.get(benchmark)
        if entry is None or other is None:
            continue
        after = {(row["sample_id"], row["repeat"]): row for row in other[0].to_pylist()}
        lost = []
        for row in entry[0].to_pylist():
            now = after.get((row["sample_id"], row["repeat"]))
            if row["state"] == "right" and now is not None and now["state"] not in ("right", "error"):
                lost.append(_flip(benchmark, row, now))
        found += lost[:NUM_FLIPS]
    return found


def _flip(benchmark: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    shared = {"benchmark": benchmark, "sample_id": before["sample_id"], "repeat": before["repeat"],
              "prompt": before["prompt"], "gold": before["gold"]}  # fmt: skip
    sides = {f"{name}_{side}": row[name] for side, row in (("before", before), ("after", after))
             for name in ("state", "answer", "response", "output_tokens", "refused")}  # fmt: skip
    return shared | sides


def marked(before: str | None, after: str | None) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Both texts as (style, text) pieces, style `same` or `changed`, compared word by word; long texts are shortened
    in their middle first."""
    old, new = _words(before), _words(after)
    left: list[tuple[str, str]] = []
    right: list[tuple[str, str]] = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        style = "same" if kind == "equal" else "changed"
        left += [(style, "".join(old[i:j]))] if j > i else []
        right += [(style, "".join(new[k:m]))] if m > k else []
    return left, right


def _words(text: str | None) -> list[str]:
    text = text or ""
    if len(text) > SHOWN_CHARS:
        text = f"{text[: SHOWN_CHARS // 2]} [...] {text[-SHOWN_CHARS // 2 :]}"
    return re.findall(r"\s+|\w+|[^\w\s]", text)
