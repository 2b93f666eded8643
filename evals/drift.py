"""`kedge drift`: what every checkpoint of a run gained, lost or left undecided, from stored scores alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation import checkpoints, statistics
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from curation.errors import EXIT_FAILED, EXIT_INSTRUMENT, EXIT_OK, EXIT_UNDECIDED, Problem, UserError
from curation.statistics import Interval
from evals.accounting import accuracy
from evals.margins import Margin, margins
from evals.pairing import Scored, common_conditions
from evals.prompting import judged_with
from evals.scores import count_states
from evals.suites import Suite, load_suite, suite_name
from evals.verdicts import (
    FAIL,
    IMPROVED,
    NOT_GATED,
    PASS,
    REGRESSED,
    UNCHANGED,
    UNDECIDED,
    Comparison,
    compare,
    decide,
    truncation_decides,
)

Tables = dict[str, list[Scored | None]]  # benchmark -> one entry per column of the chain


@dataclass
class Standing:
    """A checkpoint's scores on one benchmark. `score` counts truncated answers as wrong, `completed` leaves them out,
    `lower` and `upper` count whatever has no answer as wrong and as right. `shares` has a Wilson interval per state:
    (share, low, high)."""

    benchmark: str
    checkpoint: str
    counts: dict[str, int]
    score: float | None
    score_interval: Interval
    completed: float | None
    lower: float
    upper: float
    shares: dict[str, tuple[float, float, float]]
    mean_output_tokens: float | None


@dataclass
class DriftReport:
    """All that a report shows. `columns` is the chain: the ancestors from the first base on, then the run's own
    checkpoints. Comparisons are those of each own checkpoint; the last one's decide."""

    run: str
    suite: str
    columns: list[dict[str, Any]]
    start: str
    last: str
    standings: list[Standing]
    comparisons: list[Comparison]
    instrument: list[Problem]
    context: list[dict[str, Any]] = field(default_factory=list)
    flips: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    margins: list[Margin] = field(default_factory=list)
    reward_model: str | None = None  # the report of the last checkpoint, where it is a reward model

    def of(self, checkpoint: str) -> list[Comparison]:
        """The comparisons of one checkpoint."""
        return [item for item in self.comparisons if item.b == checkpoint]

    def judgement(self, checkpoint: str) -> str:
        """FAIL, UNDECIDED or PASS over the gates of one checkpoint; `not gated` where it has none."""
        verdicts = {item.verdict for item in self.of(checkpoint) if item.gate}
        worst = FAIL if FAIL in verdicts else UNDECIDED if UNDECIDED in verdicts else PASS
        return worst if verdicts else NOT_GATED

    @property
    def exit_code(self) -> int:
        """That of the last checkpoint: 4 before 1 before 3 before 0."""
        codes = {FAIL: EXIT_FAILED, UNDECIDED: EXIT_UNDECIDED, PASS: EXIT_OK, NOT_GATED: EXIT_OK}
        return EXIT_INSTRUMENT if self.instrument else codes[self.judgement(self.last)]

    @property
    def verdict(self) -> str:
        """The first line: the verdict, counts over the benchmarks against the start, and what else decided it."""
        name = "INSTRUMENT FAILURE" if self.instrument else self.judgement(self.last)
        first = [item for item in self.of(self.last) if item.a == self.start]
        count = {label: sum(item.direction == label for item in first) for label in (REGRESSED, IMPROVED, UNCHANGED)}
        undecided = sum(item.verdict == UNDECIDED for item in first)
        also = "".join(f"; {item.verdict} beside {item.a}: {item.benchmark}" for item in self.of(self.last)
                       if item.a != self.start and item.gate and item.verdict in (FAIL, UNDECIDED))  # fmt: skip
        return (f"{self.last} vs {self.start}: {name}: {count[REGRESSED]} regressed, {undecided} undecided, "
                f"{count[IMPROVED]} improved, {count[UNCHANGED]} without a detected change{also}")  # fmt: skip


def drift(catalog: Catalog, reference: str, against: str | None = None, suite: str | None = None) -> DriftReport:
    """Compare every checkpoint of a run with its start (or with the checkpoint `against`), with the best earlier one
    and with the first base. Raises UserError where a score is missing that the verdict needs, or where there is
    nothing to compare with."""
    from evals.flips import flips
    from evals.probing import probe_answers
    from evals.staging import stage_context

    name, _, judged = judged_with(catalog, reference)
    chosen = suite_name(catalog, name, suite)
    loaded = load_suite(catalog, chosen)
    columns, start = chain(catalog, judged, against)
    own = [item for item in columns if item.run == judged[-1].run and item.id != start.id]
    if not own:
        raise UserError(f"{columns[-1].id} has nothing to be compared with",
                        f"name a checkpoint: kedge drift {reference} CHECKPOINT")  # fmt: skip
    tables, instrument = scored_tables(catalog, columns, start, loaded)
    comparisons = []
    for item in own:
        made, problems = judge(columns, item, start, loaded, tables, given=against is not None)
        comparisons += made
        instrument += problems if item.id == own[-1].id else []
    standings = [standing(benchmark, item.id, entry[0]) for benchmark, entries in tables.items()
                 for item, entry in zip(columns, entries, strict=True) if entry is not None]  # fmt: skip
    last = {benchmark: entries[-1] for benchmark, entries in tables.items()}
    first = {benchmark: entries[columns.index(start)] for benchmark, entries in tables.items()}
    return DriftReport(
        name, chosen, [_column(item) for item in columns], start.id, own[-1].id, standings, comparisons, instrument,
        [stage_context(catalog, item) for item in columns if item.mixture is not None or item.run == name],
        flips(first, last), probe_answers(catalog, reference), margins(catalog, columns, start, tables),
        _reward_model(catalog, own[-1]),
    )  # fmt: skip


def _reward_model(catalog: Catalog, checkpoint: Checkpoint) -> str | None:
    from evals.reward_report import latest_report

    found = latest_report(catalog, checkpoint.id, checkpoint.weights_hash)
    return None if found is None else catalog.project.relative(found)


def _column(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"id": checkpoint.id, "run": checkpoint.run, "step": checkpoint.step, "weights": checkpoint.weights_hash,
            "mixture": checkpoint.mixture, "tags": checkpoint.tags}  # fmt: skip


def chain(
    catalog: Catalog, judged: list[Checkpoint], against: str | None
) -> tuple[list[Checkpoint], Checkpoint]:  # fmt: skip
    """(columns, start): the ancestors of the last checkpoint from the first base on, then the checkpoints of its run
    up to it. `start` is the checkpoint `against`, else where the run began, else the run's own first checkpoint (of
    a foreign run whose origin is unknown). Raises UserError where `against` is the checkpoint itself."""
    last = judged[-1]
    own = [item for item in checkpoints.every(catalog, last.run) if item.step <= last.step]
    ancestors = [item for item in checkpoints.lineage(catalog, last) if item.run != last.run]
    ancestors += [item for item in judged if item.run != last.run and item not in ancestors]
    columns = ancestors + own
    if against is None:
        return columns, columns[len(ancestors) - 1] if ancestors else columns[0]
    start = checkpoints.find(catalog, against)
    if start.id == last.id:
        raise UserError(f"'{against}' is the checkpoint itself", "name another one to compare with")
    return (columns if start in columns else [start, *columns]), start


def scored_tables(
    catalog: Catalog, columns: list[Checkpoint], start: Checkpoint, suite: Suite
) -> tuple[Tables, list[Problem]]:
    """Scores per benchmark and column, all under the conditions of the last one. Raises UserError naming every table
    that the verdict needs and that is not there; scores under other conditions are instrument problems."""
    found: Tables = {}
    missing, instrument = [], []
    for benchmark in suite.benchmarks:
        entries, apart = common_conditions(catalog, columns, benchmark.name)
        found[benchmark.name] = entries
        for item, entry in zip(columns, entries, strict=True):
            if entry is not None or item not in (start, columns[-1]):
                continue
            if item.id in apart:
                what = f"{benchmark.name}: {item.id} was scored under another {', '.join(apart[item.id])} than "
                instrument.append(Problem(what + columns[-1].id, "evaluate both under equal conditions"))
            else:
                missing.append(Problem(f"{item.id} is not scored on '{benchmark.name}'",
                                       f"run: kedge eval {columns[-1].run}"))  # fmt: skip
    if missing:
        raise UserError(missing)
    return found, instrument


def judge(columns: Sequence[Checkpoint], item: Checkpoint, start: Checkpoint, suite: Suite, tables: Tables, *,
          given: bool = False) -> tuple[list[Comparison], list[Problem]]:  # fmt: skip
    """The comparisons of one checkpoint with `start` and with the best earlier one, which gate, and with the first
    base, which is reported; and what makes them unreadable."""
    place = [other.id for other in columns].index(item.id)
    judged, problems = [], []
    for benchmark in suite.benchmarks:
        entries = tables[benchmark.name]
        mine = entries[place]
        if mine is None:
            continue
        for against, index, num_candidates in _references(columns, place, start, entries, given):
            other = entries[index]
            assert other is not None
            judged.append(compare(benchmark, other[0], mine[0], columns[index].id, item.id, against, num_candidates))
    decide(judged)
    for made, items in judged:
        entry = tables[made.benchmark][place]
        if items is None and made.gate:
            problems.append(Problem(f"{made.benchmark}: {made.b} and {made.a} may not be compared: {made.message}",
                                    "evaluate both with the same benchmark and template"))  # fmt: skip
        elif items is not None and entry is not None:
            problem = truncation_decides(made, items, count_states(entry[0])["truncated"], entry[0].num_rows)
            problems += [problem] if problem is not None else []
    return [made for made, _ in judged], problems


def _references(columns: Sequence[Checkpoint], place: int, start: Checkpoint, entries: list[Scored | None],
                given: bool) -> list[tuple[str, int, int]]:  # fmt: skip
    """(why, index of the column, candidates it was picked from) of what a checkpoint is compared with."""
    first = next(index for index, item in enumerate(columns) if item.id == start.id)
    found = {}
    if first != place and entries[first] is not None:
        found[first] = ("given" if given else "start", 1)
    earlier = [index for index in range(place) if entries[index] is not None]
    if earlier:
        best = max(earlier, key=lambda index: _accuracy(entries[index]))
        found.setdefault(best, ("best", len(earlier)))
    if place and entries[0] is not None:
        found.setdefault(0, ("base", 1))
    return [(why, index, num_candidates) for index, (why, num_candidates) in found.items()]


def _accuracy(entry: Scored | None) -> float:
    value = None if entry is None else accuracy(entry[0])
    return -math.inf if value is None else value


def standing(benchmark: str, checkpoint: str, table: pa.Table) -> Standing:
    """The accounting of one table of scores."""
    counts = count_states(table)
    n = table.num_rows
    answered = n - counts["error"]
    total = pc.sum(table["score"]).as_py() or 0.0
    complete = answered - counts["truncated"]
    open_ended = counts["truncated"] + counts["unparsed"] + counts["timeout"] + counts["error"]
    mean = statistics.clustered_mean(table["score"].to_numpy(), table["cluster"].to_numpy(zero_copy_only=False))
    binary = counts["right"] == total and mean.num_clusters == n
    interval = (
        statistics.wilson_interval(counts["right"], answered) if binary else statistics.t_interval(mean)
    )  # fmt: skip
    tokens = pc.mean(table["output_tokens"]).as_py()
    return Standing(
        benchmark, checkpoint, counts, total / answered if answered else None, interval,
        total / complete if complete else None, total / n, min(1.0, (total + open_ended) / n),
        {state: (count / n, *statistics.wilson_interval(count, n)) for state, count in counts.items()}, tokens,
    )  # fmt: skip
