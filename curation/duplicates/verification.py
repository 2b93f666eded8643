"""The true Jaccard similarity of candidate pairs: their texts are cut into shingles again and the sets intersected.

What was counted once is kept by the two sets' hashes, so that a grown source reads the texts of new pairs alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import xxhash

from curation.duplicates.index import Index, Longs
from curation.duplicates.texts import COLUMNS, Scope, compared
from curation.join_work import JoinWork
from curation.kernels.jaccard import intersections
from curation.kernels.minhash import SHINGLE_WORDS, sorted_shingles


@dataclass(frozen=True)
class ShingleJob:
    """Write the sorted shingles of the rows at `positions` (ascending) of a row part to the file `target` of `total`
    64-bit hashes, from `first` on. `sizes` are their numbers of shingles."""

    path: Path
    stage: str
    scope: Scope
    positions: Longs
    sizes: Longs
    target: Path
    first: int
    total: int


def write_shingles(job: ShingleJob) -> None:
    """Do a job, one row group of texts in memory at a time. Raises RuntimeError where a row's shingles are not those
    that were counted."""
    file = pq.ParquetFile(job.path)
    target = np.memmap(job.target, np.uint64, "r+", shape=(job.total,))
    columns = [name for name in COLUMNS[job.stage] if name in file.schema_arrow.names]
    begin, at = 0, job.first
    for group in range(file.metadata.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        low, high = np.searchsorted(job.positions, [begin, end])
        if high > low:
            rows = file.read_row_group(group, columns=columns).take(job.positions[low:high] - begin)
            room = int(job.sizes[low:high].sum())
            shingles, first = np.zeros(room, np.uint64), np.zeros(high - low + 1, np.int64)
            sorted_shingles(*compared(rows, job.stage, job.scope).stretches, SHINGLE_WORDS, shingles, first)
            if not np.array_equal(np.diff(first), job.sizes[low:high]):
                raise RuntimeError(f"{job.path.name}: the shingles of its rows are not those that were counted")
            target[at : at + room] = shingles
            at += room
        begin = end
    target.flush()


def common_shingles(work: JoinWork, index: Index, a_P: Longs, b_P: Longs, scope: Scope) -> Longs:
    """The number of shingles that each pair of sets has in common (P): from earlier runs, else counted from texts."""
    keys = pair_keys(index.hash_S[a_P], index.hash_S[b_P])
    common = _recalled(work.cache, keys)
    unknown = np.flatnonzero(common < 0)

    if len(unknown):
        a, b = a_P[unknown], b_P[unknown]
        sets = np.unique(np.concatenate([a, b]))
        hashes, first = _shingles_of(work, index, sets, scope)
        counted = np.zeros(len(unknown), np.int64)
        intersections(hashes, first, index.size_S[sets], np.searchsorted(sets, a), np.searchsorted(sets, b), counted)
        common[unknown] = counted
    _remember(work.cache, keys, common)
    return common


def _shingles_of(work: JoinWork, index: Index, sets_K: Longs, scope: Scope) -> tuple[npt.NDArray[np.uint64], Longs]:
    """(hashes, where each set's begin): the shingles of K sets, on disk, in the order of the parts."""
    at = index.at_N[index.first_S[sets_K]]
    order = np.argsort(at)
    sizes = index.size_S[sets_K]
    first = np.zeros(len(sets_K), np.int64)
    first[order] = np.cumsum(sizes[order]) - sizes[order]
    target, total = work.folder / "shingles", int(sizes.sum())
    np.memmap(target, np.uint64, "w+", shape=(total,)).flush()
    jobs, base = [], 0
    for part in work.parts:
        low, high = np.searchsorted(at[order], [base, base + part.num_rows])
        mine = order[low:high]
        if len(mine):
            jobs.append(ShingleJob(part.path, part.stage, scope, at[mine] - base, sizes[mine], target,
                                   int(first[mine[0]]), total))  # fmt: skip
        base += part.num_rows
    for _ in work.run(write_shingles, jobs, "verifying near duplicates"):
        pass
    return np.memmap(target, np.uint64, "r", shape=(total,)), first


def pair_keys(a_P: Longs, b_P: Longs) -> npt.NDArray[np.uint64]:
    """A key for every unordered pair of sets, from the hashes of the two."""
    low: npt.NDArray[np.uint64] = np.minimum(a_P, b_P).view(np.uint64)
    high: npt.NDArray[np.uint64] = np.maximum(a_P, b_P).view(np.uint64)
    turned = np.bitwise_xor(high, np.right_shift(high, np.uint64(31))) * np.uint64(0xD6E8FEB86659FD93)
    key = np.add(low * np.uint64(0x9E3779B97F4A7C15), turned)
    return np.bitwise_xor(key, np.right_shift(key, np.uint64(32))) * np.uint64(0xBF58476D1CE4E5B9)


def _recalled(cache: Path, keys_P: npt.NDArray[np.uint64]) -> Longs:
    """What earlier runs counted (P); -1 where they did not meet the pair."""
    common = np.full(len(keys_P), -1, np.int64)
    for path in sorted(cache.glob("common-*.npy")):
        known, counts = np.load(path, mmap_mode="r")
        if len(known):
            at = np.minimum(np.searchsorted(known, keys_P), len(known) - 1)
            hit = known[at] == keys_P
            common[hit] = counts[at[hit]].astype(np.int64)
    return common


def _remember(cache: Path, keys_P: npt.NDArray[np.uint64], common_P: Longs) -> None:
    """Keep the counts of these pairs, and forget those of pairs that are none any more."""
    order = np.argsort(keys_P)
    kept = np.stack([keys_P[order], common_P[order].astype(np.uint64)])
    target = cache / f"common-{xxhash.xxh3_64_hexdigest(kept.tobytes())}.npy"
    draft = target.with_suffix(".draft")
    with draft.open("wb") as stream:
        np.save(stream, kept)
    draft.replace(target)
    for path in cache.glob("common-*"):
        if path != target:
            path.unlink(missing_ok=True)
