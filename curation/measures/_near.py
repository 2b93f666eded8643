"""What the near duplicates of whole rows and those of answers share: the keys, and the join over all sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.duplicates.texts import COLUMNS, Scope, compared
from curation.measures import JoinMeasure, PartMeasure

if TYPE_CHECKING:
    from curation.join_work import JoinWork

SHINGLE_FILES = ("curation/measures/_near.py", "curation/duplicates/texts.py", "curation/kernels/minhash.py",
                 "curation/kernels/words.py", "curation/texts.py")  # fmt: skip
NEAR_FILES = (*SHINGLE_FILES, "curation/kernels/jaccard.py", "curation/duplicates/order.py",
              "curation/duplicates/index.py", "curation/duplicates/verification.py",
              "curation/duplicates/clusters.py")  # fmt: skip


def shingle_columns(prefix: str = "") -> pa.Schema:
    """The columns of a measure of shingles."""
    return pa.schema([(f"{prefix}shingle_count", pa.int32()), (f"{prefix}shingle_set", pa.int64()),
                      (f"{prefix}shingle_keys", pa.list_(pa.int64()))])  # fmt: skip


def near_columns(prefix: str) -> pa.Schema:
    """The columns of a measure of near duplicates."""
    return pa.schema([(f"{prefix}_rank", pa.int32()), (f"{prefix}_cluster", pa.int32()),
                      (f"{prefix}_similarity", pa.float64()), (f"{prefix}_link", pa.float64())])  # fmt: skip


NEAR_PAIRS = pa.schema(
    [
        ("row_id", pa.uuid()),
        ("partner", pa.uuid()),
        ("representative", pa.uuid()),
        ("jaccard", pa.float64()),
        ("containment", pa.float64()),
        ("source", pa.string()),
        ("partner_source", pa.string()),
        ("representative_source", pa.string()),
    ]
)


class ShingleMeasure(PartMeasure):
    """MinHash of 14 bands of 8 over the distinct shingles of 5 words (letters folded, digits kept) of the texts of
    `scope`, before any template. The keys of the bands, a hash of the set of shingles, the size of the set. Texts of
    fewer than 5 words have no shingles: no keys, a null set, the count 0."""

    depends_on: ClassVar[tuple[str, ...]] = SHINGLE_FILES
    scope: ClassVar[Scope]

    def reads(self, stage: str) -> tuple[str, ...]:
        return COLUMNS[stage]

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        from curation.kernels.minhash import BANDS, SHINGLE_WORDS, permutations, signatures

        keys_NB = np.zeros((rows.num_rows, BANDS), np.int64)
        count_N, set_N = np.zeros(rows.num_rows, np.int32), np.zeros(rows.num_rows, np.int64)
        texts = compared(rows, stage, self.scope)
        signatures(*texts.stretches, SHINGLE_WORDS, BANDS, *permutations(), keys_NB, count_N, set_N)
        have = count_N > 0
        offsets = np.concatenate([[0], np.cumsum(BANDS * have)]).astype(np.int32)
        keys = pa.ListArray.from_arrays(pa.array(offsets), pa.array(keys_NB[have].reshape(-1)))
        return pa.table([pa.array(count_N), pa.array(set_N, mask=~have), keys], schema=self.columns)


class NearMeasure(JoinMeasure):
    """Pairs of rows of one stage whose sets of 5-word shingles have a Jaccard similarity of at least `threshold`
    (0.5..1; MinHash of 14 x 8 offers half of the pairs at .68, nine in ten at .76). Pairs form clusters.

    PREFIX_rank is 0 for the row that represents its cluster, for held-out rows and for rows without a near duplicate;
    PREFIX_cluster the number of rows of the cluster; PREFIX_similarity that to the most similar row (null without one).
    PREFIX_link is the largest threshold at which a row of better rank is in the same cluster (null for rows that stay
    at every threshold): a rule that leaves out link >= t keeps exactly one row of every cluster at t, for any t from
    `threshold` up. `quality` ranks rows of one source: the larger stays.

    The evidence has every verified pair once, from the row that ranks lower, with `containment`: the share of the
    smaller set that the larger one holds. Of rows with the same set of shingles the first stands for all, and the
    others are paired with it."""

    depends_on: ClassVar[tuple[str, ...]] = NEAR_FILES
    evidence: ClassVar[pa.Schema] = NEAR_PAIRS
    scope: ClassVar[Scope]

    threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.7
    quality: Literal["chars", "words", "turns", "prompt_chars", "answer_chars"] = "chars"

    def least(self) -> dict[str, float]:
        """Pairs below the threshold are not looked for."""
        return {name: self.threshold for name in self.columns.names if name.endswith(("_similarity", "_link"))}

    def join(self, work: JoinWork) -> None:
        from curation.duplicates.clusters import publish
        from curation.duplicates.index import candidate_pairs, load_index
        from curation.duplicates.verification import common_shingles

        index = load_index(work, self.needs[0], self.quality)
        a, b, boilerplate = candidate_pairs(index, self.threshold)
        work.counts.update(rows_too_short=int((index.set_N < 0).sum()), candidate_pairs=len(a),
                           boilerplate_groups=boilerplate)  # fmt: skip
        common = common_shingles(work, index, a, b, self.scope)
        publish(work, index, a, b, common, self.threshold, self.columns.names)
