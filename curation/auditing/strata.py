"""What cutting and dropping does to the mixture: shares of every stratum before and after."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from curation.auditing.judged import Judged

LENGTHS = (512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
GATED = ("source", "mode", "language", "skill")  # a cut always moves lengths: those are shown and never gate


@dataclass(frozen=True)
class Shift:
    """Shares p before and q after (each sums to 1) of the strata `names`, of one kind and unit. Total variation is
    sum |p - q| / 2 (0..1); KL(q || p) in nats; Jensen-Shannon in bits; PSI is sum (q - p) ln(q / p). KL and PSI are
    infinite where a stratum is gone or new. `worst` names the stratum that loses most, `worst_loss` its relative loss
    1 - q / p (0..1)."""

    kind: str
    unit: str
    names: list[str]
    before: list[float]
    after: list[float]
    total_variation: float
    kl: float
    js_bits: float
    psi: float
    worst: str
    worst_loss: float

    @property
    def gain(self) -> float:
        """The largest relative gain of a stratum, q / p - 1 (0 where none gains)."""
        return max((q / p - 1 for p, q in zip(self.before, self.after, strict=True) if p), default=0.0)

    def as_json(self) -> dict[str, Any]:
        """Everything, infinite values as null; `strata` lists those that hold something, with both shares."""
        values = {name: value for name, value in vars(self).items() if name not in ("names", "before", "after")}
        lines = [{"name": name, "before": p, "after": q}
                 for name, p, q in zip(self.names, self.before, self.after, strict=True) if p or q]  # fmt: skip
        return {"strata": lines} | {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()}  # fmt: skip


def shift(kind: str, unit: str, names: list[str], before: np.ndarray, after: np.ndarray) -> Shift | None:
    """The shift between two vectors of counts (shape of `names`); None where nothing was there before."""
    if not before.sum():
        return None
    p = before / before.sum()
    q = after / after.sum() if after.sum() else np.zeros(len(p))
    gone = 1.0 if not after.sum() else float(np.abs(p - q).sum() / 2)
    losses = np.where(p > 0, 1 - q / np.where(p > 0, p, 1), 0.0)
    worst = int(np.argmax(losses))
    m = (p + q) / 2
    return Shift(kind, unit, names, p.tolist(), q.tolist(), gone, _divergence(q, p),
                 (_divergence(p, m) + _divergence(q, m)) / 2 / math.log(2),
                 _divergence(q, p) + _divergence(p, q), names[worst], max(0.0, float(losses[worst])))  # fmt: skip


def _divergence(a: np.ndarray, b: np.ndarray) -> float:
    """KL(a || b) in nats; infinite where b lacks what a has."""
    if ((a > 0) & (b == 0)).any():
        return math.inf
    of = a > 0
    return float(np.sum(a[of] * np.log(a[of] / b[of])))


def shifts(rows: Judged) -> list[Shift]:
    """The shift of every kind of stratum (source, mode, labels, length), in rows and in trained tokens."""
    edges = rows.once("edges", lambda: np.searchsorted(np.array(LENGTHS), rows.tokens))
    lengths = [f"up to {length:,}" for length in LENGTHS] + [f"above {LENGTHS[-1]:,}"]
    modes = rows.once("modes", lambda: rows.thinks.astype(int))
    kinds = [("source", rows.source, rows.names), ("mode", modes, ["no thought", "thought"]),
             *((kind, codes, names) for kind, (names, codes) in rows.labels.items()),
             ("length", edges, lengths)]  # fmt: skip
    units = (("rows", np.ones(len(rows.tokens)), (~rows.dropped).astype(float)),
             ("trained tokens", rows.trained.astype(float), rows.kept_trained.astype(float)))  # fmt: skip
    found = []
    for kind, codes, names in kinds:
        for unit, before, after in units:
            given = rows.once(f"before {kind} {unit}", functools.partial(np.bincount, codes, before, len(names)))
            made = shift(kind, unit, names, given, np.bincount(codes, after, len(names)))
            found += [made] if made is not None else []
    return found
