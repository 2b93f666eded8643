"""A sweep: the same rows under many context lengths, by arithmetic over stored anatomy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from curation.auditing.case import Case, checks_of, template_checks
from curation.auditing.judged import Judged, by_source

LENGTHS = tuple(2**power for power in range(9, 18))  # 512 to 131,072
KEEP = 0.99


@dataclass
class Sweep:
    """What every length keeps. `lengths` has one entry per context length, ascending: `max_length`, counts over all
    rows (those of checks.by_source), `sources` (the same per source) and `failed`, the ids of the checks that are
    errors. `proposals` names the smallest lengths, in tokens, that keep 99 % of the answers, of the closed thoughts
    and of the rows of every source; None where there are none."""

    subject: str
    mirror: str
    options: dict[str, Any]
    num_rows: int
    lengths: list[dict[str, Any]]
    proposals: dict[str, int | None]
    details: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything a report shows."""
        return {name: value for name, value in vars(self).items() if name != "folder"}


def sweep(case: Case, lengths: tuple[int, ...] = LENGTHS) -> Sweep:
    """Audit N rows at every length up to the first that holds the longest sequence."""
    mirror = case.mirror
    longest = int(np.max(case.sequences[2]["tokens"].to_numpy(), initial=1))
    everything = case.judged(mirror.at(longest).fates(case.anatomy))
    failing = [check.id for check in template_checks(case) if check.level == "error"]
    entries = []
    for length in [length for length in lengths if length < 2 * longest] or lengths[:1]:
        at = replace(case, mirror=mirror.at(length))
        judged = everything.under(at.mirror.fates(case.anatomy))
        counts = by_source(judged)
        failed = [check.id for check in checks_of(at, judged, counts) if check.level == "error"] + failing
        entries.append({"max_length": length, "failed": failed, "sources": counts[:-1]} | counts[-1])
    return Sweep(case.subject, mirror.plugin_name(), mirror.model_dump(mode="json", exclude={mirror.limits}),
                 case.rows.num_rows, entries, proposals(everything))  # fmt: skip


def proposals(rows: Judged) -> dict[str, int | None]:
    """The smallest context length that keeps a share of 99 %, in the source that needs most: of answers, of closed
    thoughts, of whole rows."""
    needed = {
        "answers": (rows.has_answer, rows.answer_end),
        "thoughts": (rows.closes, rows.think_close + 1),
        "rows": (~rows.errors, rows.tokens),
    }
    found: dict[str, int | None] = {}
    for name, (having, length) in needed.items():
        groups = [having & (rows.source == index) for index in range(len(rows.names))]
        ends = [int(np.quantile(length[group], KEEP, method="inverted_cdf")) for group in groups if group.any()]
        found[name] = max(ends, default=None)
    return found
