"""Is this answer right? One file per verifier; measures, rewards and harnesses share them.

A verifier judges the text after a closed thought. What a truncated or unclosed thought means is the caller's business.
`exact`, `numeric`, `choice` and `logic` are `judge(text, gold, finder) -> Judgement`; `math` needs worker processes
(pool.py), `code` a sandbox per answer (code.py); `instructions` has an answer of many parts. `named.judge_all` judges
items of any verifier by its name, `named.grade_all` with the share that is right. Everything but worker.py is standard
library alone: the same files are read inside the environments of trainers, which have no parser of mathematics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

VERSION = 3  # raised whenever a verifier judges anything differently; part of every benchmark's fingerprint
State = Literal["right", "wrong", "unparsed", "timeout", "error"]


class Judgement(NamedTuple):
    """`unparsed` means that no answer was found, and `answer` is None then. `timeout` and `error` are outcomes of
    verifiers that work in processes of their own: the comparison was killed at its limit, or its process died (or the
    gold answer is none). They are no reward, and never `wrong`."""

    state: State
    answer: str | None


@dataclass(frozen=True)
class Finder:
    """Where in a text the answer stands. `after` keeps what follows the last occurrence of a marker; `pattern` then
    keeps the last match's first group (the whole match where it has none)."""

    after: str | None = None
    pattern: str | None = None

    def find(self, text: str) -> str | None:
        """The stretch of `text` that holds the answer; None where the marker or the pattern does not occur."""
        if self.after is not None:
            _, marker, text = text.rpartition(self.after)
            if not marker:
                return None
        if self.pattern is not None:
            matches = list(re.finditer(self.pattern, text, re.DOTALL | re.MULTILINE))
            if not matches:
                return None
            text = matches[-1][1] if matches[-1].re.groups else matches[-1][0]
            if text is None:
                return None
        return text


ANYWHERE = Finder()
