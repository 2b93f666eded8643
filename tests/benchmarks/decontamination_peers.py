"""What other projects do against contamination, over the same corpus: rows flagged and CPU seconds."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tests.contamination_corpus import Corpus, Item

SPACES = re.compile(r"\s+")


def texts_of(corpus: Corpus, rows: int) -> list[str]:
    """The first rows as plain texts, turns joined by line breaks."""
    return [row.get("text") or "\n".join(turn["content"] for turn in row["messages"]) for row in corpus.rows[:rows]]


def open_r1(items: Sequence[Item], texts: Sequence[str], size: int = 8) -> tuple[set[int], float]:
    """open-r1's scripts/decontaminate.py: lower case, white-space words, any shared 8-gram with a question."""

    def grams(text: str) -> Iterable[str]:
        words = SPACES.sub(" ", text.lower().strip()).split()
        return (" ".join(words[place : place + size]) for place in range(len(words) - size + 1))

    began = time.process_time()
    known: dict[str, set[int]] = {}
    for number, item in enumerate(items):
        for gram in grams(item["question"]):
            known.setdefault(gram, set()).add(number)
    flagged = {row for row, text in enumerate(texts) if any(gram in known for gram in set(grams(text)))}
    return flagged, time.process_time() - began


def datatrove(items: Sequence[Item], texts: Sequence[str]) -> tuple[set[int], float]:
    """datatrove's NGramsDecontFilter with its defaults (12-grams, numbers all alike) and `find_query_ngrams`, questions
    and answers indexed; words by white space, because its English tokenizer needs spaCy. The index is filled here,
    because its indexer fails with present releases of lighteval."""
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text

    class Words:
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    began = time.process_time()
    config = NGramsDecontConfig(find_query_ngrams=True)
    step: Any = NGramsDecontFilter("unused", config)
    step.tokenizer = Words()
    step._index_hashes = {
        step.hash_func(" ".join(gram)): "items"
        for item in items for text in (item["question"], item["answer"])
        for gram in ngrams(simplify_text(text, config.norm_config).split(), config.n_grams)
    }  # fmt: skip
    flagged = {row for row, text in enumerate(texts) if step.filter(Document(text, str(row))) is not True}
    return flagged, time.process_time() - began
