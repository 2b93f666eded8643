"""Candidates of a part, verified by alignment: from seeds to hits with their evidence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curation.catalog import write_parquet
from curation.contamination.evidence import Batch, Hits, Places, evidence_of
from curation.contamination.facts import EVIDENCE
from curation.contamination.index import Index, load_index
from curation.contamination.items import COMPONENTS
from curation.contamination.seeds import BATCH_ROWS, load_seeds
from curation.kernels.candidates import rank
from curation.kernels.hits import verify
from curation.kernels.ngrams import hash_stretches
from curation.kernels.word_kinds import differences
from curation.kernels.words import character_tables
from curation.texts import FIELDS, SIDES, segments

LEAST_AGREEING = 0.55  # share of an item's words that must agree ...
FEW_CHARACTERS = 0.85  # ... unless its characters are this similar: misspelt words
TELLING_WORDS = 3  # plain words of no template: of so many half must agree
PLACE_WORDS = 32  # of a row, for which the best candidates are kept


@dataclass(frozen=True)
class VerifyJob:
    """A part's rows and seeds, the index, how frequent grams are in its source, and where its hits shall be."""

    source: str
    stage: str
    rows: Path
    seeds: Path
    index: Path
    frequency: Path
    hits: Path
    benchmarks: tuple[str, ...]
    threshold: float
    long_agreement: int
    candidates: int


@dataclass(frozen=True)
class Candidates:
    """C candidates, by row and then by rank: fact_C (C x 5) holds row, reference, seeds, longest exact run and pieces;
    piece_C (C x PIECES x 4) see `gather`."""

    fact_C: npt.NDArray[np.int32]
    idf_C: npt.NDArray[np.float64]
    piece_C: npt.NDArray[np.int32]

    def of_rows(self, first: int, end: int) -> tuple[npt.NDArray[np.int32], Candidates]:
        """The distinct rows from first to end - 1 that have candidates, counted from `first`, and those candidates,
        whose rows are indices into them."""
        low, high = np.searchsorted(self.fact_C[:, 0], [first, end])
        fact_C = self.fact_C[low:high].copy()
        rows, fact_C[:, 0] = np.unique(fact_C[:, 0] - np.int32(first), return_inverse=True)
        return rows, Candidates(fact_C, self.idf_C[low:high], self.piece_C[low:high])


def needed_seeds(index: Index) -> npt.NDArray[np.int64]:
    """Distinct seeds that a reference must have in a row before it is aligned: one, one more per 16 grams, and a tenth
    of them from 60 on. An item with a quarter of its words replaced keeps a quarter of its grams or more."""
    active_R = index.active_R.astype(np.int64)
    return np.maximum(1 + np.maximum(0, active_R - 4) // 16, np.where(active_R >= 60, active_R // 10, 0))


def thresholds(index: Index, threshold: float) -> npt.NDArray[np.float64]:
    """The least similarity per reference. It rises by .02 per word under 13, because a few words agree by chance, and
    is .1 higher for answers, whose steps look alike."""
    is_answer = index.component_R == COMPONENTS.index("answer")
    return threshold + 0.02 * np.maximum(0, 13 - index.words_R) + 0.1 * is_answer


def candidates_of(job: VerifyJob, index: Index) -> Candidates:
    """The candidates of a part."""
    seeds = load_seeds(job.seeds)
    return Candidates(*rank(seeds.row_F, seeds.gram_F, seeds.at_F, np.load(job.frequency), index.post_first_G1,
                            index.post_ref_P, index.post_at_P, index.items_G, index.idf_I, index.size_R,
                            index.words_R, needed_seeds(index), job.long_agreement, job.candidates,
                            PLACE_WORDS))  # fmt: skip


def read_batch(rows: pa.Table, stage: str) -> Batch:
    """The words of some rows."""
    texts = segments(rows, SIDES[stage], FIELDS)
    kind, fold = character_tables()
    room = int((texts.end_S - texts.start_S).sum()) // 2 + len(texts.start_S) + 1
    return Batch(texts, *hash_stretches(texts.data_B, texts.start_S, texts.end_S, texts.first_N1, kind, fold, room))


def hits_of(batch: Batch, found: Candidates, index: Index, threshold: float) -> Hits:
    """The candidates of a batch that reach their threshold; rows are numbered within the batch."""
    row_C, ref_C, seeds_C, _, used_C = np.ascontiguousarray(found.fact_C.T)
    data_B = batch.texts.data_B
    enough_R = thresholds(index, threshold)
    score_C, first_C, end_C, chain_C, chained = verify(
        row_C, ref_C, used_C, found.piece_C, batch.words_W, batch.at_W, batch.of_W, batch.first_word_N1, data_B,
        *character_tables(), index.words_W, index.first_word_R1, index.symbols_M, index.first_symbol_R1,
        enough_R)  # fmt: skip
    keep = np.flatnonzero(score_C >= enough_R[ref_C])
    words_H = differences(
        ref_C[keep], first_C[keep], end_C[keep], chain_C[keep], chained, batch.words_W, data_B, batch.at_W, batch.of_W,
        batch.texts.start_S, index.words_W, index.kind_W, index.first_word_R1, index.plain_V, index.number_V,
        index.pronoun_V)  # fmt: skip
    agreeing = (words_H[:, 1] + words_H[:, 4]) / np.maximum(1, index.words_R[ref_C[keep]])
    telling, told = words_H[:, 8], words_H[:, 9]
    own = (telling < TELLING_WORDS) | (2 * told >= telling)  # more than a template that many items share
    same = own & ((agreeing >= LEAST_AGREEING) | (score_C[keep] >= FEW_CHARACTERS))
    keep = keep[same]
    return Hits(row_C[keep], ref_C[keep], score_C[keep], found.idf_C[keep], seeds_C[keep], first_C[keep], end_C[keep],
                chain_C[keep], chained, words_H[same])  # fmt: skip


def verify_part(job: VerifyJob) -> None:
    """Write the evidence of one part."""
    index = load_index(job.index)
    found = candidates_of(job, index)
    file = pq.ParquetFile(job.rows)
    columns = [name for name in SIDES[job.stage] if name in file.schema_arrow.names]
    tables = [EVIDENCE.empty_table()]
    first_row = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=["row_id", *columns], use_threads=False):
        chosen, mine = found.of_rows(first_row, first_row + batch.num_rows)
        first_row += batch.num_rows
        if len(chosen):
            rows = pa.Table.from_batches([batch]).take(pa.array(chosen))
            texts = read_batch(rows, job.stage)
            hits = hits_of(texts, mine, index, job.threshold)
            places = Places(job.source, job.stage, job.benchmarks, rows["row_id"])
            tables.append(evidence_of(hits, texts, index, places))
    draft = job.hits.with_name(f".{job.hits.name}")
    write_parquet(draft, pa.concat_tables(tables))
    draft.replace(job.hits)
