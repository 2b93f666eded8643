"""Benchmark items that stand in training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from curation import schema
from curation.contamination.facts import EVIDENCE
from curation.measures import JoinMeasure

if TYPE_CHECKING:
    from curation.contamination.search import Options
    from curation.join_work import JoinWork


class Contamination(JoinMeasure):
    """Compares every row with every item of the ingested benchmarks (stage `benchmark`).

    Seeds are n-grams of an item (3 to 5 words by its length) that stand in a row; candidates are aligned with the row
    by characters; similarity is 1 - edit distance / characters of the item's component. `contamination_score` is the
    best similarity over copies, edited copies and paraphrases (0 where there is none, null where no benchmark is
    ingested), `contamination_class` the class of that hit, `contamination_items` the number of items found,
    `contamination_words` the words of the longest component found, `contamination_answered` whether the answer of one
    stands near it, and `benchmark_twin_score` the best similarity of a twin: the words of an item with other numbers
    or names.

    An n-gram is boilerplate, and seeds nothing, in more than `item_cap` items, in more than max(common_rows,
    common_share of all rows) rows, or in more than max(common_rows, common_share_of_source) rows of a source; but an
    exact agreement of `long_agreement` words, or of a whole item of at least 12, is found however frequent it is.
    """

    version: ClassVar[int] = 1
    against: ClassVar[tuple[str, ...]] = (schema.BENCHMARK,)
    columns: ClassVar[pa.Schema] = pa.schema(
        [("contamination_score", pa.float64()), ("contamination_class", pa.string()),
         ("contamination_items", pa.int32()), ("contamination_words", pa.int32()),
         ("contamination_answered", pa.bool_()), ("benchmark_twin_score", pa.float64())]
    )  # fmt: skip
    evidence: ClassVar[pa.Schema] = EVIDENCE
    evidence_kind: ClassVar[str] = "contamination_hits"
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/texts.py", "curation/embedding.py", "curation/kernels/words.py", "curation/kernels/ngrams.py",
        "curation/kernels/candidates.py", "curation/kernels/hits.py", "curation/kernels/alignment.py",
        "curation/kernels/word_kinds.py", "curation/contamination/items.py", "curation/contamination/index.py",
        "curation/contamination/seeds.py", "curation/contamination/verification.py",
        "curation/contamination/classes.py", "curation/contamination/facts.py", "curation/contamination/evidence.py",
        "curation/contamination/search.py",
        "curation/contamination/figures.py", "curation/contamination/paraphrases.py",
    )  # fmt: skip

    threshold: float = 0.65
    item_cap: int = 64
    common_rows: int = 32
    common_share: float = 0.001
    common_share_of_source: float = 0.01
    long_agreement: int = 25
    candidates: int = 4
    embedding_model: str | None = None
    embedding_threshold: float = 0.85

    def model_digest(self) -> str:
        """32 hex characters over the bytes of the embedding model; empty without one. Raises UserError where there is
        none in that folder."""
        from curation.embedding import model_hash

        return model_hash(self.embedding_model) if self.embedding_model is not None else ""

    def identity(self) -> dict[str, Any]:
        """The model counts by its bytes, not by its path."""
        found = super().identity()
        return {**found, "config": found["config"] | {"embedding_model": self.model_digest()}}

    def options(self) -> Options:
        """What the search goes by."""
        from curation.contamination.search import Options

        return Options(version=self.version, model_digest=self.model_digest(), **self.model_dump())

    def least(self) -> dict[str, float]:
        """What agrees less with an item is no hit."""
        return {"contamination_score": self.threshold, "benchmark_twin_score": self.threshold}

    def join(self, work: JoinWork) -> None:
        from curation.contamination.search import search

        search(work, self.options())
