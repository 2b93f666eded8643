"""Checks P1 to P4: packed sequences, document boundaries, padding, and what documents see of each other."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from curation.auditing.checks import Check, graded
from curation.auditing.fates import SPLIT
from curation.auditing.judged import Judged
from curation.auditing.mirrors import Mirror

DRAWN = 65_536


def packing_checks(rows: Judged, mirror: Mirror, isolation: Check | None) -> Iterator[Check]:
    """The P checks that apply: `isolation` is P2, None where no sequence holds two documents."""
    fates = rows.fates
    if mirror.packs:
        value = float((fates.fate == SPLIT).sum() / max(1, len(fates.fate)))
        apart = "" if mirror.isolates else "; positions run on over documents"
        yield graded("P1", "document boundary", value, (0.02, 1.0),
                     f"{value:.1%} of the documents are split over packed sequences, the rest of each without its "
                     f"beginning{apart}", f"no document is split{apart}",
                     "packing_strategy: bfd keeps documents whole (and cuts what is too long)")  # fmt: skip
    if isolation is not None:
        yield isolation
    yield _efficiency(rows, mirror)
    yield _repeated(rows)


def _efficiency(rows: Judged, mirror: Mirror) -> Check:
    """P3: the share of a batch's tokens that are no padding: of packed sequences, or of batches in seeded order."""
    kept, limit = rows.kept, mirror.context_length
    if mirror.packs:
        bins = rows.fates.num_bins() or 0
        share = float(kept.sum() / max(1, bins * (limit or 1)))
        said = f"{bins:,} packed sequences, {share:.1%} filled"
    else:
        share = 1 - padding_waste(kept[kept > 0], int(getattr(mirror, "per_device_train_batch_size", 8) or 8))
        said = f"{share:.1%} of the tokens of a batch of 8 are no padding"
    return Check("P3", "efficiency", "ok", 1 - share, 1.0, said)


@functools.lru_cache(maxsize=8)
def _drawn(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(count)[:DRAWN]


def padding_waste(lengths: np.ndarray, batch: int, seed: int = 0) -> float:
    """The share (0..1) of padded tokens where N sequences (of very many the first DRAWN) are drawn in seeded random
    order, `batch` at a time, and padded to the longest of each batch."""
    if not len(lengths):
        return 0.0
    lengths = lengths[_drawn(len(lengths), seed)]
    drawn = np.concatenate((lengths, np.zeros(-len(lengths) % batch, lengths.dtype))).reshape(-1, batch)
    sizes = np.full(len(drawn), batch)
    sizes[-1] = batch - (-len(lengths) % batch)
    return float(1 - lengths.sum() / (drawn.max(axis=1) * sizes).sum())


def _repeated(rows: Judged) -> Check:
    """P4: tokens that lie in more than one piece of their document."""
    fates = rows.fates
    ends = fates.start + fates.length
    same = np.r_[False, np.diff(fates.row) == 0] if len(fates.row) else np.empty(0, bool)
    before = np.r_[0, ends[:-1]] if len(ends) else ends
    overlap = np.clip(np.where(same, before - fates.start, 0), 0, None)
    value = float(overlap.sum() / max(1, fates.length.sum() - overlap.sum()))
    return graded("P4", "repeated windows", value, (0.0, 1.0),
                  f"{value:.1%} of the tokens lie in two windows of their document", "no token is trained twice",
                  "split documents without overlap")  # fmt: skip
