"""Documents with planted near duplicates of known kinds: made from nothing, the same every time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

COPIES = 0.14  # share of the documents that repeat an earlier one
ARITHMETIC = 0.05  # templated sums that differ in their numbers alone: no duplicates of one another
SHINGLE_WORDS = 5


@dataclass(frozen=True)
class Planted:
    """N documents: their texts, the mechanism of each ("" for one that was not made from another), and the number of
    the document it repeats, -1 for none."""

    texts: list[str]
    mechanism: list[str]
    original: list[int]


class Writer:
    """Sentences of made words, which are drawn as unevenly as real ones are."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)
        sizes = self.random.integers(2, 10, 30_000)
        letters = self.random.integers(0, 26, int(sizes.sum())).astype(np.uint8) + 97
        text, ends = letters.tobytes().decode(), np.cumsum(sizes)
        self.words = [text[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        self.upper = np.cumsum(1 / np.arange(2, len(self.words) + 2))

    def draw(self, count: int) -> list[str]:
        """`count` words."""
        at = np.searchsorted(self.upper, self.random.random(count) * self.upper[-1])
        return [self.words[index] for index in at]

    def document(self) -> list[str]:
        """A text of sentences of 6 to 18 words: 20 to 1,200 words, 100 in the median."""
        count = int(np.clip(self.random.lognormal(4.6, 0.7), 20, 1200))
        words = self.draw(count)
        at = 0
        while at < count:
            words[at] = words[at].capitalize()
            at = min(count, at + int(self.random.integers(6, 18)))
            words[at - 1] += "."
        return words

    def edited(self, words: list[str], share: float) -> list[str]:
        """A share of the words replaced by others."""
        other = self.draw(len(words))
        changed = self.random.random(len(words)) < share
        return [new if hit else old for old, new, hit in zip(words, other, changed, strict=True)]

    def respelt(self, words: list[str]) -> list[str]:
        return [re.sub(r"\.", " ;", word).upper() for word in words]

    def reordered(self, words: list[str]) -> list[str]:
        """The sentences in another order."""
        sentences = re.split(r"(?<=\.) ", " ".join(words))
        return [sentences[index] for index in self.random.permutation(len(sentences))]

    def lengthened(self, words: list[str]) -> list[str]:
        """A tenth to a half appended."""
        return words + self.draw(int(len(words) * self.random.uniform(0.1, 0.5)))

    def renumbered(self, words: list[str]) -> list[str]:
        """A number put before every 40th word, another one in each copy."""
        return [word if index % 40 else f"{self.random.integers(1000)} {word}" for index, word in enumerate(words)]


def planted(num_documents: int, seed: int = 0) -> Planted:
    """The corpus: originals in the first fifth, copies by seven mechanisms and sums in the rest."""
    writer = Writer(seed)
    change: dict[str, Callable[[list[str]], list[str]]] = {
        "verbatim": list, "case and punctuation": writer.respelt, "sentences reordered": writer.reordered,
        "3 % edited": lambda words: writer.edited(words, 0.03), "6 % edited": lambda words: writer.edited(words, 0.06),
        "text appended": writer.lengthened, "numbers added": writer.renumbered,
    }  # fmt: skip
    texts = [" ".join(writer.document()) for _ in range(num_documents)]
    mechanism, original = [""] * num_documents, [-1] * num_documents
    first = num_documents // 5
    drawn = writer.random.permutation(np.arange(first, num_documents))
    num_copies, num_sums = round(num_documents * COPIES), round(num_documents * ARITHMETIC)
    for index, at in enumerate(drawn[:num_copies]):
        name = list(change)[index % len(change)]
        source = int(writer.random.integers(first))
        texts[at], mechanism[at], original[at] = " ".join(change[name](texts[source].split())), name, source
    for index, at in enumerate(drawn[num_copies : num_copies + num_sums]):
        a, b = 1_000 + index, int(writer.random.integers(100, 9_999))
        texts[at] = (
            f"What is {a} plus {b}? Add {a} and {b}: the sum of {a} and {b} is {a + b}, so the answer is {a + b}."
        )
    return Planted(texts, mechanism, original)


def word_shingles(text: str) -> set[tuple[str, ...]]:
    """The shingles of a text as a slow reference makes them."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1)}


def true_jaccard(first: str, second: str) -> float:
    """Of the sets of shingles of two texts; 0 where both are empty."""
    a, b = word_shingles(first), word_shingles(second)
    return len(a & b) / len(a | b) if a | b else 0.0
