"""The checks of an audit: figures over fates and anatomy, each with a level and what to do next.

Ids are those of the audit's specification: A for rows and cuts, R for rendering, V for mirror and configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.auditing.strata import GATED, shifts

Level = Literal["ok", "warn", "error"]
ROUNDING = 1e-9


@dataclass
class Check:
    """One check. `value` is what a waiver is bound to (larger is worse), `threshold` where an error begins."""

    id: str
    name: str
    level: Level
    value: float
    threshold: float
    message: str
    next: str = ""
    waived: str = ""


def level(value: float, warn: float, error: float) -> Level:
    """`error` above `error`, `warn` above `warn`, but for rounding: one row lost of a hundred is 1 %."""
    return "error" if value > error + ROUNDING else "warn" if value > warn + ROUNDING else "ok"


@dataclass(frozen=True)
class Judged:
    """Columns of all rows in training order as arrays of length N. `source` holds indices into `names`, the sources in
    name order."""

    names: list[str]
    source: np.ndarray
    tokens: np.ndarray
    trained: np.ndarray
    last_stop: np.ndarray
    think_open: np.ndarray
    think_close: np.ndarray
    answer_start: np.ndarray
    answer_end: np.ndarray
    errors: np.ndarray
    whole: np.ndarray
    dropped: np.ndarray
    kept: np.ndarray
    kept_trained: np.ndarray

    @classmethod
    def of(cls, source: pa.ChunkedArray, anatomy: pa.Table, fates: pa.Table) -> Judged:
        """From the tables that the anatomy measure and a mirror return."""
        encoded = source.combine_chunks().dictionary_encode()
        found = encoded.dictionary.to_pylist()
        names = sorted(found)
        ranks = np.array([names.index(name) for name in found], dtype=np.int64)
        columns = {name: anatomy[name].to_numpy() for name in (
            "tokens", "last_stop", "think_open", "think_close", "answer_start", "answer_end")}  # fmt: skip
        return cls(
            names=names, source=ranks[encoded.indices.to_numpy()] if found else np.empty(0, np.int64),
            trained=anatomy["trained_tokens"].to_numpy(), errors=anatomy["render_error"].is_valid().to_numpy(),
            **columns, **cls._after(fates),
        )  # fmt: skip

    @staticmethod
    def _after(fates: pa.Table) -> dict[str, np.ndarray]:
        return {"whole": pc.equal(fates["fate"], "whole").to_numpy(),
                "dropped": pc.equal(fates["fate"], "dropped").to_numpy(),
                "kept": fates["kept_tokens"].to_numpy(),
                "kept_trained": fates["kept_trained_tokens"].to_numpy()}  # fmt: skip

    def under(self, fates: pa.Table) -> Judged:
        """The same rows under other fates."""
        return replace(self, **cast(Any, self._after(fates)))

    def each(self, values: np.ndarray) -> list[int]:
        """Sums of N values per source, then over all: shape len(names) + 1."""
        sums = np.bincount(self.source, weights=values, minlength=len(self.names)) if values.dtype != bool else \
            np.bincount(self.source[values], minlength=len(self.names))  # fmt: skip
        return [*(int(value) for value in sums), int(sums.sum())]

    @property
    def has_stop(self) -> np.ndarray:
        return self.last_stop >= 0

    @property
    def keeps_stop(self) -> np.ndarray:
        return self.has_stop & (self.last_stop < self.kept)

    @property
    def closes(self) -> np.ndarray:
        return self.think_close >= 0

    @property
    def keeps_close(self) -> np.ndarray:
        return self.closes & (self.think_close < self.kept)

    @property
    def has_answer(self) -> np.ndarray:
        return self.answer_end > self.answer_start

    @property
    def keeps_answer(self) -> np.ndarray:
        return self.has_answer & (self.answer_end <= self.kept)


def by_source(rows: Judged) -> list[dict[str, Any]]:
    """Per source and over `all`: counts before and after, in rows and tokens."""
    counts = {
        "rows": rows.each(np.ones(len(rows.source), bool)), "rows_whole": rows.each(rows.whole),
        "rows_cut": rows.each(~rows.whole & ~rows.dropped), "rows_dropped": rows.each(rows.dropped),
        "rows_overlong": rows.each((rows.tokens > rows.kept) & ~rows.errors),
        "tokens": rows.each(rows.tokens), "kept_tokens": rows.each(rows.kept),
        "trained_tokens": rows.each(rows.trained), "kept_trained_tokens": rows.each(rows.kept_trained),
        "stops_before": rows.each(rows.has_stop), "stops_after": rows.each(rows.keeps_stop),
        "think_closed_before": rows.each(rows.closes), "think_closed_after": rows.each(rows.keeps_close),
        "answers_before": rows.each(rows.has_answer), "answers_kept": rows.each(rows.keeps_answer),
    }  # fmt: skip
    longest = np.zeros(len(rows.names), np.int64)
    np.maximum.at(longest, rows.source, rows.tokens)
    counts["longest"] = [*(int(value) for value in longest), int(longest.max(initial=0))]
    return [{"source": name} | {key: values[index] for key, values in counts.items()}
            for index, name in enumerate([*rows.names, "all"])]  # fmt: skip


def _worst(strata: list[dict[str, Any]], share: Any) -> tuple[float, str]:
    """The largest share over the sources, and where."""
    values = [(share(item), str(item["source"])) for item in strata]
    return max(values, default=(0.0, ""))


def _lost(before: str, after: str) -> Any:
    return lambda item: 1 - item[after] / item[before] if item[before] else 0.0


def run_checks(rows: Judged, sources: list[dict[str, Any]], limit: int | None, refusals: list[str]) -> list[Check]:
    """Every check in the order of their ids, given what `by_source` counted."""
    strata = sources[:-1]
    losing = bool((rows.tokens > rows.kept).any() or (rows.kept_trained < rows.trained).any())
    advice = _longer(rows) if losing else "raise max_length"
    return [*_cut_checks(strata, rows, limit, advice), *_signal_checks(strata, rows, advice), _refusals(refusals)]


def _longer(rows: Judged, share: float = 0.99) -> str:
    """The smallest length at which a share of the rows, and of the reasoning rows, of every source stays whole, as
    advice: the length under which A1, A2 and A5 pass."""
    groups = [(rows.source == index) & of for index in range(len(rows.names)) for of in (~rows.errors, rows.closes)]
    lengths = [np.quantile(rows.tokens[group], share, method="higher") for group in groups if group.any()]
    if not lengths:
        return "raise max_length"
    longest = int(max(lengths))
    return f"max_length {longest:,} keeps {share:.0%} of every source whole; or leave the long rows out by a rule"


def _cut_checks(strata: list[dict[str, Any]], rows: Judged, limit: int | None, advice: str) -> Iterator[Check]:
    value, where = _worst(strata, lambda item: item["rows_overlong"] / item["rows"])
    yield Check("A1", "overlong rows", level(value, 0.01, 0.05), value, 0.05,
                f"{value:.1%} of the rows of '{where}' are longer than {limit}" if value else "no row is too long",
                advice if value else "")  # fmt: skip
    value, where = _worst(strata, _lost("stops_before", "stops_after"))
    yield Check("A2", "stop kept", level(value, 0.0, 0.01), value, 0.01,
                f"{value:.1%} of the rows of '{where}' lose the token that ends the answer" if value else
                "every row keeps the token that ends its answer", advice if value else "")  # fmt: skip
    value, where = _worst(strata, lambda item: 1 - item["stops_before"] / item["rows"])
    yield Check("A3", "stop trained", level(value, 0.0, 0.01), value, 0.01,
                f"in {value:.1%} of the rows of '{where}' the last trained token is no stop"
                if value else "the last trained token of every row is a stop",
                "train the end-of-turn token (inside the generation tags), and make it the eos"
                if value else "")  # fmt: skip
    value, where = _worst(strata, _lost("think_closed_before", "think_closed_after"))
    yield Check("A5", "think closed", level(value, 0.0, 0.01), value, 0.01,
                f"{value:.1%} of the reasoning rows of '{where}' never see the end of their reasoning" if value else
                "every thought that closes still closes", advice if value else "")  # fmt: skip
    value = int(((rows.think_open >= 0) & ~rows.closes).sum()) / max(1, len(rows.source))
    yield Check("A6", "source format", level(value, 0.0, 0.01), value, 0.01,
                f"{value:.1%} of all rows open a thought and never close it" if value else "no thought is left open",
                "leave them out: kedge rules unclosed_think" if value else "")  # fmt: skip


def _signal_checks(strata: list[dict[str, Any]], rows: Judged, advice: str) -> Iterator[Check]:
    value, where = _worst(strata, _lost("trained_tokens", "kept_trained_tokens"))
    yield Check("A7", "trained tokens lost", level(value, 0.02, 0.10), value, 0.10,
                f"{value:.1%} of the trained tokens of '{where}' are lost" if value else "no trained token is lost",
                advice if value > 0.02 else "")  # fmt: skip
    silent = int((~rows.dropped & (rows.kept_trained == 0)).sum())
    dropped = int(rows.dropped.sum()) / max(1, len(rows.source))
    grade: Level = "error" if silent else level(dropped, 0.001, 0.05)
    seen = max(silent / max(1, len(rows.source)), dropped)
    yield Check("A8", "nothing to train", grade, seen, 0.0 if silent else 0.05,
                f"{silent:,} rows stay with nothing to train, {dropped:.1%} are dropped" if silent or dropped else
                "every row has something to train", advice if silent or dropped else "")  # fmt: skip
    yield _reweighting(rows)


def _reweighting(rows: Judged) -> Check:
    """A10 over sources and modes, in rows and trained tokens: error where the total variation is above 0.05, PSI above
    0.1 or a stratum loses more than a fifth of its share; the kind and unit that moves most is told."""
    moved = [item for item in shifts(rows) if item.kind in GATED]
    if not moved:
        return Check("A10", "mixture re-weighted", "ok", 0.0, 0.05, "there is nothing to weigh")
    most = max(moved, key=lambda item: max(item.total_variation, item.worst_loss / 4))
    value = max(most.total_variation, most.worst_loss / 4)
    grade = level(most.total_variation, 0.02, 0.05)
    if most.worst_loss > 0.20 + ROUNDING or any(item.psi > 0.1 for item in moved):
        grade = "error"
    elif grade == "ok" and most.worst_loss > 0.10:
        grade = "warn"
    what = f"the shares of {most.unit} by {most.kind} move by {most.total_variation:.3f} (total variation)"
    return Check("A10", "mixture re-weighted", grade, value, 0.05,
                 f"{what}; '{most.worst}' loses {most.worst_loss:.1%} of its share" if value > ROUNDING else
                 "sources and modes keep their shares",
                 "re-balance by the takes, or raise max_length" if grade != "ok" else "")  # fmt: skip


def _refusals(refusals: list[str]) -> Check:
    return Check("R0", "the trainer would start", "error" if refusals else "ok", float(len(refusals)), 0.0,
                 "; ".join(refusals) or "the template renders every row and every row has trained tokens",
                 "leave those rows out by a rule, or mend the template" if refusals else "")  # fmt: skip
