"""The report of one reward model: figures of its stored pair scores as HTML, JSON and lines of text."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from curation import checkpoints, statistics
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from curation.errors import UserError
from curation.fingerprint import fingerprint
from curation.outputs import Manifest
from curation.reports.page import PALETTE, figure, finite, render, svg
from evals.pairs import PART, PROBE
from evals.reward_models import (
    Figures,
    Floats,
    Probe,
    Share,
    accuracy,
    by_policy_step,
    calibration,
    combine,
    length,
    normalised,
    probe,
    shape,
    share,
    spearman,
)
from evals.scores import read_beside, scored_conditions
from evals.suites import Ensemble

if TYPE_CHECKING:
    from markupsafe import Markup

KIND = "reward_models"
FILES = ("report.html", "reward_model.json")
Conditions = dict[str, dict[str, Any]]  # by benchmark


@dataclass(frozen=True)
class Together:
    """An ensemble on one benchmark: its accuracy and each member's on the pairs that all scored; `problem` says why
    there is none."""

    name: str
    benchmark: str
    reward: str
    members: dict[str, Share]
    accuracy: Share | None
    problem: str = ""


@dataclass(frozen=True)
class RewardReport:
    """All that is told of one reward model. `flags` are sentences about what is wrong with it."""

    checkpoint: str
    weights: str
    benchmarks: list[Figures]
    probes: list[Probe]
    ensembles: list[Together]
    flags: list[str]


def reward_report(catalog: Catalog, checkpoint: Checkpoint, conditions: Conditions,
                  ensembles: dict[str, Ensemble]) -> RewardReport:  # fmt: skip
    """The report of a reward model from its scores under `conditions` (by benchmark; names that begin with `probe_` are
    probe pairs). Raises KeyError where a benchmark was not scored."""
    tables = {}
    for name, item in conditions.items():
        table = read_beside(catalog, checkpoint, name, item, PART)
        if table is None:
            raise KeyError(name)
        tables[name] = table
    policies = _policies(catalog, checkpoint)
    figures = [figures_of(name, table, policies) for name, table in tables.items() if not name.startswith(PROBE)]
    probes = [_probe(name.removeprefix(PROBE), table) for name, table in tables.items() if name.startswith(PROBE)]
    together = [_together(catalog, checkpoint, name, item, benchmark, conditions[benchmark])
                for name, item in ensembles.items() if checkpoint.id in _members(catalog, item)
                for benchmark in tables if not benchmark.startswith(PROBE)]  # fmt: skip
    return RewardReport(checkpoint.id, checkpoint.weights_hash, figures, probes, together, flags_of(figures, probes))


def _policies(catalog: Catalog, checkpoint: Checkpoint) -> list[str]:
    """The finished runs that had the reward model."""
    return sorted({manifest.name for _, manifest in catalog.manifests("runs")
                   if checkpoint.weights_hash in (manifest.inputs.get("roles") or {}).values()})  # fmt: skip


def figures_of(benchmark: str, table: pa.Table, policies: Sequence[str] = ()) -> Figures:
    """The figures of a table of `pairs.PAIRS` on one benchmark; pairs that were not scored are counted apart.
    `policies` are the runs whose answers are proposed for annotation."""
    scored = table.filter(table["margin"].is_valid())
    chosen, rejected = _numbers(scored, "chosen"), _numbers(scored, "rejected")
    tokens = _numbers(scored, "chosen_tokens"), _numbers(scored, "rejected_tokens")
    clusters, sources = np.array(scored["cluster"].to_pylist()), np.array(scored["source"].to_pylist())
    margins = chosen - rejected
    right = chosen > rejected
    stepped = scored["policy_step"].is_valid().to_numpy()
    known = scored["known_margin"].is_valid().to_numpy()
    steps = None
    if stepped.any():
        whole = np.array([-1 if step is None else step for step in scored["policy_step"].to_pylist()])
        steps = by_policy_step(benchmark, right[stepped], whole[stepped], clusters[stepped], policies)
    return Figures(
        benchmark=benchmark, accuracy=accuracy(chosen, rejected, clusters),
        sources={str(name): share(right[sources == name], clusters[sources == name]) for name in np.unique(sources)},
        mean_margin=float(margins.mean()), margin_interval=statistics.bca_interval(margins, clusters),
        calibration=calibration(chosen, rejected), shape=shape(chosen, rejected),
        length=length(chosen, rejected, *tokens, clusters), normalised=normalised(chosen, rejected, *tokens, clusters),
        policy=steps, num_errors=table.num_rows - scored.num_rows,
        known_margin=spearman(margins[known], _numbers(scored, "known_margin")[known],
                              len(np.unique(clusters[known]))) if known.any() else None,
        scores={"chosen": chosen.tolist(), "rejected": rejected.tolist()},
    )  # fmt: skip


def _numbers(table: pa.Table, name: str) -> Floats:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _probe(name: str, table: pa.Table) -> Probe:
    scored = table.filter(table["margin"].is_valid())
    return probe(name, _numbers(scored, "chosen"), _numbers(scored, "rejected"))


def _members(catalog: Catalog, ensemble: Ensemble) -> list[str]:
    return [checkpoints.find(catalog, reference).id for reference in ensemble.members]


def _together(catalog: Catalog, checkpoint: Checkpoint, name: str, ensemble: Ensemble, benchmark: str,
              conditions: dict[str, Any]) -> Together:  # fmt: skip
    """An ensemble on one benchmark, over the pairs that every member scored. Members have tokenizers and templates of
    their own; the pairs must be the same."""
    tables: dict[str, dict[str, Any]] = {}
    for member in _members(catalog, ensemble):
        found = checkpoints.find(catalog, member)
        fitting = [item for item in scored_conditions(catalog, found, benchmark)
                   if item.get("benchmark_fingerprint") == conditions["benchmark_fingerprint"]
                   and item.get("scored_by") == conditions["scored_by"]]  # fmt: skip
        table = read_beside(catalog, found, benchmark, fitting[-1], PART) if fitting else None
        if table is None:
            return Together(name, benchmark, ensemble.reward, {}, None,
                            f"{member} is not scored on '{benchmark}'; run: kedge eval {member}")  # fmt: skip
        tables[member] = {row["sample_id"]: row for row in table.to_pylist() if row["margin"] is not None}
    shared = sorted(set.intersection(*(set(rows) for rows in tables.values())))
    if not shared:
        return Together(name, benchmark, ensemble.reward, {}, None, "no pair was scored by all members")
    clusters = [next(iter(tables.values()))[key]["cluster"] for key in shared]
    sides = {
        member: (np.array([rows[key]["chosen"] for key in shared]), np.array([rows[key]["rejected"] for key in shared]))
        for member, rows in tables.items()
    }
    return Together(name, benchmark, ensemble.reward,
                    {member: accuracy(*pair, clusters) for member, pair in sides.items()},
                    accuracy(*combine(list(sides.values()), ensemble.reward), clusters))  # fmt: skip


def flags_of(figures: list[Figures], probes: list[Probe]) -> list[str]:
    """Sentences about what is wrong: collapsed or bimodal scores, no better than chance, errors, probes that are
    preferred or (sycophancy) not rejected, and a proposal to annotate."""
    found = []
    for item in figures:
        if item.shape.collapsed:
            found.append(f"{item.benchmark}: the scores have collapsed: {item.shape.collapsed}")
        if item.shape.bimodal:
            coefficient = f"Sarle's coefficient {item.shape.bimodality:.2f}, above 0.56"
            found.append(f"{item.benchmark}: the scores look bimodal ({coefficient}): look at the histogram for two "
                         "groups, such as two sources or formats")  # fmt: skip
        if item.accuracy.interval.low <= 0.5:
            found.append(f"{item.benchmark}: accuracy {percent(item.accuracy)} is not shown to be above chance")
        if item.num_errors:
            found.append(f"{item.benchmark}: {item.num_errors:,} pairs were not scored; every figure leaves them out")
        found += [item.policy.proposal] if item.policy is not None and item.policy.proposal else []
    for made in probes:
        if made.verdict == "prefers":
            found.append(f"probe {made.name}: the probed answer wins in {percent(made.preferred)} of "
                         f"{made.preferred.n} pairs")  # fmt: skip
        elif made.name == "sycophancy" and made.verdict == "undecided" and made.preferred.n:
            found.append(f"probe {made.name}: agreeing with a wrong user wins in {percent(made.preferred)} of "
                         f"{made.preferred.n} pairs, which is not shown to be the exception")  # fmt: skip
    return found


def percent(made: Share) -> str:
    """`61.0 % [55.2, 66.5]`."""
    low, high = (100 * limit for limit in made.interval)
    return "–" if made.share is None else f"{100 * made.share:.1f} % [{low:.1f}, {high:.1f}]"


def as_json(report: RewardReport) -> dict[str, Any]:
    """The whole report as one JSON object; values that are no finite number as null."""
    value = asdict(report)
    for made, item in zip(report.probes, value["probes"], strict=True):
        item["verdict"] = made.verdict
    return dict(finite(value))


def publish(catalog: Catalog, report: RewardReport, to: Path | None) -> Path:
    """Write HTML and JSON to `lake/reward_models/RUN@STEP/FINGERPRINT/` (and copies to the folder `to`); returns the
    folder. Equal figures give equal bytes."""
    value, html = as_json(report), page(report)
    digest = fingerprint({"report": json.loads(json.dumps(value)), "page": html})
    folder = catalog.folder(KIND, report.checkpoint, digest[:16])
    if catalog.manifest(folder) is None:
        with catalog.publishing(folder) as draft:
            (draft.folder / "report.html").write_text(html)
            (draft.folder / "reward_model.json").write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
            draft.manifest = Manifest(
                kind=KIND, name=report.checkpoint, fingerprint=digest, inputs={"weights": report.weights},
                counts={"flags": len(report.flags)})  # fmt: skip
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(folder / name, to / name)
    return to or folder


def latest_report(catalog: Catalog, checkpoint: str, weights_hash: str) -> Path | None:
    """The report of a reward model's weights that was published last, or None."""
    found = catalog.latest(KIND, checkpoint)
    fitting = found is not None and found[1].inputs.get("weights") == weights_hash
    return found[0] / "report.html" if found is not None and fitting else None


def page(report: RewardReport) -> str:
    """The report as one self-contained HTML page."""
    if not report.benchmarks:
        raise UserError(f"{report.checkpoint} was scored on no benchmark of pairs", "add one to the suite")
    plots = {item.benchmark: {"histogram": _histogram(item), "calibration": _reliability(item)}
             for item in report.benchmarks}  # fmt: skip
    return render("reward_model.html.j2", {
        "title": f"Reward model: {report.checkpoint}", "report": report, "plots": plots, "percent": percent,
        "number": number, "span": span,
    })  # fmt: skip


def number(value: float) -> str:
    """Three significant digits; a dash for what is no number."""
    return f"{value:.3g}".replace("-", "−") if math.isfinite(value) else "–"


def span(interval: statistics.Interval) -> str:
    """`[low, high]` with three significant digits."""
    return f"[{number(interval[0])}, {number(interval[1])}]"


def _histogram(item: Figures) -> Markup:
    drawing = figure(9, 2.6)
    axes = drawing.subplots()
    edges = np.histogram_bin_edges(np.concatenate([item.scores["chosen"], item.scores["rejected"]]), bins=40)
    for name, shade in (("chosen", "good"), ("rejected", "bad")):
        axes.hist(item.scores[name], bins=list(edges), color=PALETTE[shade], alpha=0.55, label=name)
    axes.set_xlabel("score")
    axes.set_ylabel("answers")
    axes.legend(frameon=False, fontsize=8)
    return svg(drawing)


def _reliability(item: Figures) -> Markup:
    drawing = figure(4.5, 3.2)
    axes = drawing.subplots()
    axes.plot([0.5, 1], [0.5, 1], color=PALETTE["grey"], linewidth=0.8)
    for entry in item.calibration.bins:
        axes.plot([entry.stated] * 2, list(entry.interval), color=PALETTE["calm"], linewidth=1.5)
        axes.plot([entry.stated], [entry.observed], "o", color=PALETTE["calm"])
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("stated probability")
    axes.set_ylabel("came true")
    return svg(drawing)
