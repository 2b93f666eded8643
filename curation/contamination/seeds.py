"""Seeds: the n-grams of items that stand in rows, per row part, and which of them are boilerplate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curation.contamination.index import Index, load_index
from curation.join_work import JoinWork, RowPart
from curation.kernels.candidates import COMMON, RARE
from curation.kernels.ngrams import scan
from curation.kernels.words import character_tables
from curation.texts import FIELDS, SIDES, segments

BATCH_ROWS = 4096  # whose texts and words stay in memory that is used again
RARE_ROWS, RARE_SHARE = 8, 0.0001  # a gram in so many rows may seed alone


@dataclass(frozen=True)
class SeedJob:
    """Where a part's rows are, the index, and where its seeds shall be."""

    rows: Path
    stage: str
    index: Path
    seeds: Path


@dataclass(frozen=True)
class Seeds:
    """S seeds of a part in the order of rows and places (row, gram, word of the row's text where it begins), and for
    each gram that it has the number of its rows."""

    row_F: npt.NDArray[np.int32]
    gram_F: npt.NDArray[np.int32]
    at_F: npt.NDArray[np.int32]
    gram_D: npt.NDArray[np.int32]
    rows_D: npt.NDArray[np.int32]


def scan_part(job: SeedJob) -> None:
    """Write the seeds of one part."""
    index = load_index(job.index)
    kind, fold = character_tables()
    file = pq.ParquetFile(job.rows)
    columns = [name for name in SIDES[job.stage] if name in file.schema_arrow.names]
    tally_G = np.zeros(len(index.keys_G), np.int64)
    found = []
    first_row = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
        texts = segments(pa.Table.from_batches([batch]), columns, FIELDS)
        found.append(scan(texts.data_B, texts.start_S, texts.end_S, texts.first_N1, kind, fold, index.wanted,
                          index.keys_G, index.first_C1, index.bits, index.whole_bits, tally_G, first_row))  # fmt: skip
        first_row += batch.num_rows
    row, gram, at = (np.concatenate([np.zeros(0, np.int32), *(part[place] for part in found)]) for place in range(3))
    present = np.flatnonzero(tally_G).astype(np.int32)
    draft = job.seeds.with_name(f".{job.seeds.name}")
    with draft.open("wb") as stream:
        rows = tally_G[present].astype(np.int32)  # the lower half
        np.savez(stream, row_F=row, gram_F=gram, at_F=at, gram_D=present, rows_D=rows)
    draft.replace(job.seeds)


def load_seeds(path: Path) -> Seeds:
    """The seeds of a part."""
    with np.load(path) as found:
        return Seeds(*(found[name] for name in ("row_F", "gram_F", "at_F", "gram_D", "rows_D")))


def find_seeds(work: JoinWork, parts: Sequence[RowPart], index: Path) -> list[Path]:
    """The seeds of every part; parts that were scanned before with this index are not scanned again."""
    paths = [work.cache / f"seeds-{index.name}-{part.stage}-{part.hash}.npz" for part in parts]
    jobs = [SeedJob(part.path, part.stage, index, path) for part, path in zip(parts, paths, strict=True)
            if not path.exists()]  # fmt: skip
    distinct = list({job.seeds: job for job in jobs}.values())
    for _ in work.run(scan_part, distinct, "looking for benchmark items"):
        pass
    return paths


def frequencies(parts: Sequence[RowPart], seeds: Sequence[Path], num_grams: int, least_rows: int, of_all: float,
                of_source: float) -> dict[str, npt.NDArray[np.uint8]]:  # fmt: skip
    """Per source, how frequent each gram is: COMMON (boilerplate) in more than max(least_rows, of_all * N) of all N
    rows or in more than max(least_rows, of_source * N) of the source's; RARE in at most max(RARE_ROWS, RARE_SHARE * N)
    of all rows; else 0."""
    total_G = np.zeros(num_grams, np.int64)
    by_source: dict[str, npt.NDArray[np.bool_]] = {}
    for name in dict.fromkeys(part.source for part in parts):
        source_G, rows = np.zeros(num_grams, np.int64), 0
        for part, path in zip(parts, seeds, strict=True):
            if part.source == name:
                with np.load(path) as found:
                    source_G[found["gram_D"]] += found["rows_D"]
                rows += part.num_rows
        by_source[name] = source_G > max(least_rows, of_source * rows)
        total_G += source_G
    num_rows = sum(part.num_rows for part in parts)
    everywhere = total_G > max(least_rows, of_all * num_rows)
    rare = np.where(total_G <= max(RARE_ROWS, RARE_SHARE * num_rows), RARE, 0)
    return {name: np.where(mask | everywhere, COMMON, rare).astype(np.uint8) for name, mask in by_source.items()}


def uncheckable(index: Index, frequency_by_source: dict[str, npt.NDArray[np.uint8]]) -> npt.NDArray[np.bool_]:
    """References whose every gram is boilerplate in every source (R)."""
    if not frequency_by_source:
        return np.zeros(len(index.size_R), bool)
    common = np.logical_and.reduce([frequency == COMMON for frequency in frequency_by_source.values()])
    gram_P = np.repeat(np.arange(len(index.keys_G)), np.diff(index.post_first_G1))
    useful = np.bincount(index.post_ref_P[~common[gram_P]], minlength=len(index.size_R))
    return (index.reason_R == 0) & (useful == 0)
