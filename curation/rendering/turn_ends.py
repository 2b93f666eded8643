"""The token with which a template ends an assistant's turn, read off a rendered conversation."""

from __future__ import annotations

from typing import Any

MARK = "kedge-end-of-turn"
TURN = ({"role": "user", "content": "a"}, {"role": "assistant", "content": MARK})


def end_of_turn(hf: Any, text: str) -> set[int]:
    """The id of the special token that follows MARK at its last place in `text`, the rendered TURN; empty where no
    special token does. `hf` is a tokenizer of transformers."""
    ids = hf(text.rpartition(MARK)[2], add_special_tokens=False)["input_ids"]
    special = set(hf.all_special_ids) | set(hf.added_tokens_decoder)
    return {int(token) for token in (ids[:1] if MARK in text else []) if token in special}
