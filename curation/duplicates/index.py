"""The index of near duplicates: every distinct set of shingles of all sources once, in the order of representatives.

Bounded memory: some 60 bytes a row, and the band keys (112 bytes a row) on disk, of which one band at a time is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curation import schema
from curation.duplicates.order import bind_source_ranks, bind_table, order_by
from curation.join_work import JoinWork
from curation.kernels.jaccard import group_pairs
from curation.kernels.minhash import BANDS

Longs = npt.NDArray[np.int64]
LARGE_GROUP = 200  # sets with one band key; beyond it they share boilerplate, and are not all compared with one another
NEIGHBOURS = 16
_ONE_PER_STAGE = np.random.default_rng(0).integers(1, 2**63, len(schema.STAGES), dtype=np.int64)


@dataclass(frozen=True)
class Index:
    """N rows in the order of representatives ("places"), S distinct sets of shingles in the order of their first rows.

    `at_N` is the number of each place's row in the order of `work.parts`; `first_S` the place of a set's first row,
    `set_N` the set of each place (-1 for rows without shingles), `size_S` the number of its shingles, `hash_S` what
    identifies it. `keys` is the file of the band keys (B x N, in the order of the parts).
    """

    at_N: Longs
    set_N: Longs
    first_S: Longs
    size_S: Longs
    hash_S: Longs
    keys: Path

    def band(self, band: int) -> Longs:
        """One band's key of every set (S)."""
        keys = np.memmap(self.keys, np.int64, "r", shape=(BANDS, len(self.at_N)))
        return np.asarray(keys[band])[self.at_N[self.first_S]]


def load_index(work: JoinWork, shingles: str, quality: str) -> Index:
    """The index over `work.parts`, and the table `ordered` (place, row_id, source, held_out) on the connection.
    `shingles` is the measure that has the keys, `quality` a column of the signals that text_statistics gives."""
    at = _places(work, quality)
    keys, size, hashes = _load_signals(work, shingles, len(at))
    place = np.flatnonzero(size[at] > 0)
    _, first, inverse = np.unique(hashes[at][place], return_index=True, return_inverse=True)
    order = np.argsort(first)  # sets in the order of their first rows, whatever their hashes are
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    sets = np.full(len(at), -1, np.int64)
    sets[place] = number[inverse]
    firsts = place[first[order]]
    return Index(at, sets, firsts, size[at][firsts], hashes[at][firsts], keys)


def _places(work: JoinWork, quality: str) -> Longs:
    bind_source_ranks(work)
    parts = pa.table({"part": pa.array(range(len(work.parts)), pa.int32()),
                      "filename": pa.array([str(part.path) for part in work.parts], pa.string())})  # fmt: skip
    bind_table(work, "part_files", parts)
    files = [str(part.path) for part in work.parts]
    rows = "SELECT row_id, source, held_out, part, file_row_number AS position FROM read_parquet($files, " \
           "filename = true, file_row_number = true) JOIN part_files USING (filename)"  # fmt: skip
    if not files:
        rows = "SELECT row_id, source, held_out, 0 AS part, 0::BIGINT AS position FROM rows WHERE false"
    work.connection.execute(
        f"CREATE TEMP TABLE ordered AS SELECT row_number() OVER (ORDER BY {order_by(quality)}) - 1 AS place, row_id, "
        f"source, held_out, part, position FROM ({rows}) AS r JOIN source_ranks USING (source) "
        f"JOIN (SELECT row_id, {quality} FROM signals_text_statistics) USING (row_id)",
        {"files": files} if files else None,
    )
    found = work.connection.execute("SELECT part, position FROM ordered ORDER BY place").fetchnumpy()
    base = np.cumsum([0, *(part.num_rows for part in work.parts)])
    return np.asarray(base[np.asarray(found["part"], np.int64)] + np.asarray(found["position"], np.int64))


def _load_signals(work: JoinWork, shingles: str, num_rows: int) -> tuple[Path, Longs, Longs]:
    """The file of the keys (B x N), and per row the number of its shingles and the hash of their set (N), in the order
    of the parts. Stages are salted apart: a row has near duplicates in its own stage alone."""
    path = work.folder / "keys"
    size, hashes = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
    keys = np.memmap(path, np.int64, "w+", shape=(BANDS, max(1, num_rows)))
    at = 0
    for part in work.parts:
        counts, sets, lists = pq.read_table(part.signals[shingles]).drop_columns("row_id").columns
        salt = _ONE_PER_STAGE[schema.STAGES.index(part.stage)]
        mine = slice(at, at + part.num_rows)
        size[mine] = counts.to_numpy()
        hashes[mine] = sets.fill_null(0).to_numpy() ^ salt
        have = at + np.flatnonzero(size[mine])
        flat = lists.combine_chunks().flatten().to_numpy().reshape(-1, BANDS)
        for band in range(BANDS):
            keys[band, have] = flat[:, band] ^ salt
        at += part.num_rows
    keys.flush()
    return path, size, hashes


def candidate_pairs(index: Index, threshold: float) -> tuple[Longs, Longs, int]:
    """(a, b, groups of boilerplate): the pairs of sets a < b that share a band key and whose sizes do not rule out a
    Jaccard similarity of `threshold`, each once, in order."""
    found, boilerplate = np.zeros(0, np.uint64), 0
    for band in range(BANDS if len(index.first_S) > 1 else 0):
        keys = index.band(band)
        order = np.argsort(keys, kind="stable")
        arguments = (keys, order, index.size_S, threshold, LARGE_GROUP, NEIGHBOURS)
        count, large = group_pairs(*arguments, np.zeros(0, np.uint64))
        pairs = np.zeros(count, np.uint64)
        if count:
            group_pairs(*arguments, pairs)
        found = np.unique(np.concatenate([found, pairs]))
        boilerplate += large
    return (found >> np.uint64(32)).astype(np.int64), (found & np.uint64(0xFFFFFFFF)).astype(np.int64), boilerplate
