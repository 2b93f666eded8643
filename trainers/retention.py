"""Which checkpoints of a run keep their weights: the rule `keep` of its run file.

A rule never removes the run's last checkpoint, one that has a tag, or one that something needs: a run file that starts
from it or has it as reference, teacher or reward model, a registered checkpoint that was trained from it, merged from
it or is an adapter on it, another record of the same folder. Only folders inside the run's own part of the lake are
removed. What is not scored yet may be the best and is kept.

The record says `pruned` before the folder goes: a kill in between leaves a folder that nothing uses and that the next
call removes; the other way round it would leave a record of weights that are half there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation import checkpoints
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from curation.config import read_text, read_yaml, shown
from curation.console import say
from curation.errors import UserError
from curation.run_files import Keep
from curation.runs import Run

ORIGINS = ("parent", "extends", "base", "reference", "teacher", "reward_model")
STATES = ("truncated", "unparsed", "timeout", "error", "refused")  # shares of samples: fewer are better


@dataclass(frozen=True)
class Verdict:
    """Whether a checkpoint keeps its weights, and why."""

    id: str
    kept: bool
    why: str


def decide(run: Sequence[Checkpoint], rule: Keep, scores: Mapping[str, float], needed: Mapping[str, str], *,
           lower_is_better: bool = False) -> list[Verdict]:  # fmt: skip
    """What the rule says of the checkpoints of a run, in order of steps. `scores` are those of `rule.best` by
    checkpoint id, `needed` says by id why others cannot do without one. Of equal scores the earlier checkpoint's is
    the best. Checkpoints without weights have no verdict."""
    ordered = sorted((item for item in run if not item.pruned), key=lambda item: item.step)
    last = {item.id for item in ordered[-rule.last :]}
    known = [item for item in ordered if item.id in scores]
    sign = 1 if lower_is_better else -1
    best = min(known, key=lambda item: (sign * scores[item.id], item.step), default=None)
    verdicts = []
    for item in ordered:
        reasons = [f"tagged {', '.join(item.tags)}"] if item.tags else []
        reasons += [needed[item.id]] if item.id in needed else []
        reasons += [f"among the last {rule.last}" if rule.last > 1 else "the last"] if item.id in last else []
        reasons += [f"a multiple of {rule.every} steps"] if rule.every and item.step % rule.every == 0 else []
        if rule.best is not None and item.id not in scores:
            reasons.append(f"not scored on {rule.best}")
        elif best is not None and item.id == best.id:
            reasons.append(f"the best on {rule.best} ({scores[item.id]:.4g})")
        verdicts.append(Verdict(item.id, bool(reasons), "; ".join(reasons) or "no rule keeps it"))
    return verdicts


def standing(catalog: Catalog, name: str) -> list[Verdict]:
    """What the rule of the run `name` says of its checkpoints as things are; empty where it has none, or is no run
    file that can be read."""
    if name not in catalog.project.paths("runs", ".yaml"):
        return []
    try:
        rule = Run(catalog, name).file.keep
        return [] if rule is None else _decide_now(catalog, name, rule)
    except UserError:
        return []


def apply(catalog: Catalog, run: Run) -> list[str]:
    """Remove the weights that the run's rule does not keep, and what an earlier call that was killed left; returns the
    ids of the checkpoints that lost theirs now. Their records stay, `pruned`. Raises UserError where a run file cannot
    be read, because it may need any of them; nothing is removed then."""
    if run.file.keep is None:
        return []
    removed = []
    with checkpoints.amending(catalog):
        verdicts = _decide_now(catalog, run.name, run.file.keep)
        known = {item.id: item for item in checkpoints.every(catalog, run.name)}
        for verdict in verdicts:
            if not verdict.kept:
                known[verdict.id] = checkpoints.amend(catalog, known[verdict.id], pruned=True)
                removed.append(verdict.id)
        for item in known.values():
            if item.pruned and _removable(catalog, item):
                shutil.rmtree(item.place(catalog))
    for name in removed:
        say(f"the weights of {name} were removed by the rule 'keep' of {run.where}")
    return removed


def _decide_now(catalog: Catalog, name: str, rule: Keep) -> list[Verdict]:
    own = checkpoints.every(catalog, name)
    scores = {} if rule.best is None else scores_of(catalog, own, rule.best)
    return decide(own, rule, scores, needed_by_others(catalog, own), lower_is_better=lower_is_better(rule.best or ""))


# ---- what others need


def needed_by_others(catalog: Catalog, run: Sequence[Checkpoint]) -> dict[str, str]:
    """Why the project cannot do without a checkpoint, by id. Raises UserError where a run file cannot be read."""
    records = checkpoints.every(catalog)
    named = _named_in_files(catalog)
    found: dict[str, str] = {}
    for item in run:
        place = item.place(catalog).resolve()
        reason = next(_reasons(catalog, item, place, records, named), None)
        if reason is None and not _owned(catalog, item):
            reason = "lies outside the run's own folder"
        if reason is not None:
            found[item.id] = reason
    return found


def _reasons(
    catalog: Catalog, item: Checkpoint, place: Path, records: Iterable[Checkpoint], named: Mapping[str, str]
) -> Any:
    """Every reason why others need a checkpoint, as texts."""
    for reference, file in named.items():
        if reference in (item.id, *item.tags) or (catalog.project.root / reference).resolve() == place:
            yield f"{file} names it"
    for other in records:
        if other.id == item.id:
            continue
        if item.id == other.parent:
            yield f"{other.id} was trained from it"
        elif item.id in other.merged_from:
            yield f"{other.id} was merged from it"
        elif not other.pruned and other.base_path and (catalog.project.root / other.base_path).resolve() == place:
            yield f"the adapter {other.id} needs it"
        elif not other.pruned and other.place(catalog).resolve() == place:
            yield f"it is {other.id} too"


def _named_in_files(catalog: Catalog) -> dict[str, str]:
    """Every checkpoint or folder that a run file starts from or has a use for -> the file. Read as YAML without the run
    file's own rules, so that a file that is wrong elsewhere still protects what it names."""
    found: dict[str, str] = {}

    def gather(value: Any, file: str) -> None:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if key in ORIGINS:
                named = item if isinstance(item, list) else [item]
                found.update({one: file for one in named if isinstance(one, str) and one not in found})
            if isinstance(item, dict | list):
                gather(item, file)

    for path in catalog.project.paths("runs", ".yaml").values():
        value, _ = read_yaml(read_text(path), shown(path))
        if isinstance(value, dict | list):
            gather(value, shown(path))
    return found


def _owned(catalog: Catalog, item: Checkpoint) -> bool:
    """Whether the weights lie in the run's own part of the lake, and not behind a link."""
    place, home = item.place(catalog), catalog.folder("runs", item.run).resolve()
    return not place.is_symlink() and home in place.resolve().parents


def _removable(catalog: Catalog, item: Checkpoint) -> bool:
    """Whether the folder of a pruned record is still there and is no other record's."""
    place = item.place(catalog)
    return place.is_dir() and _owned(catalog, item) and not any(
        other.place(catalog).resolve() == place.resolve() for other in checkpoints.every(catalog)
        if other.id != item.id and not other.pruned)  # fmt: skip


# ---- scores


def lower_is_better(metric: str) -> bool:
    """Whether less is better: of losses and perplexities, and of shares of samples that failed or were refused."""
    name = metric.rpartition(":")[2]
    return name.endswith(("loss", "perplexity", "nll")) or (":" in metric and name in STATES)


def scores_of(catalog: Catalog, run: Sequence[Checkpoint], metric: str) -> dict[str, float]:
    """The scores of a run's checkpoints by id: of a benchmark (`BENCHMARK` or `BENCHMARK:score`: the mean score over
    its samples without errors; `BENCHMARK:truncated` and the like: a share of samples) under the conditions that most
    of them were scored under; else of a metric in the training log, its last value since the checkpoint before."""
    name, _, detail = metric.partition(":")
    published = list(catalog.manifests("scores", name))
    if not published:
        return _logged(catalog, run, metric)
    groups: dict[str, dict[str, Path]] = {}
    for folder, manifest in published:
        conditions = json.dumps(manifest.parameters, sort_keys=True)
        for item in run:
            if manifest.inputs == {"weights_hash": item.weights_hash, "base_hash": item.base_hash}:
                groups.setdefault(conditions, {})[item.id] = folder
    chosen = max(groups.items(), key=lambda group: (len(group[1]), group[0]), default=("", {}))[1]
    found = {identifier: _score(folder, detail or "score") for identifier, folder in chosen.items()}
    return {identifier: value for identifier, value in found.items() if value is not None}


def _score(folder: Path, detail: str) -> float | None:
    import polars as pl

    parts = sorted(folder.glob("*.parquet"))
    table = pl.concat([pl.read_parquet(part, columns=["score", "state", "refused"]) for part in parts])
    if not table.height:
        return None
    if detail == "refused":
        return float(table["refused"].fill_null(False).sum()) / table.height
    if detail in STATES:
        return float((table["state"] == detail).sum()) / table.height
    if detail not in ("score", "accuracy"):
        return None
    mean = table.filter(pl.col("state") != "error")["score"].mean()
    return None if mean is None else float(mean)  # type: ignore[arg-type]


def _logged(catalog: Catalog, run: Sequence[Checkpoint], metric: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for digest in {item.run_fingerprint for item in run if item.run_fingerprint}:
        own = sorted((item for item in run if item.run_fingerprint == digest), key=lambda item: item.step)
        values = _values(catalog.folder("runs", own[0].run, str(digest)[:16]) / "log.jsonl", metric)
        before = -1
        for item in own:
            since = [value for step, value in values if before < step <= item.step]
            if since:
                found[item.id] = since[-1]
            before = item.step
    return found


def _values(log: Path, metric: str) -> list[tuple[int, float]]:
    """(step, value) of a metric in a training log, in the order written; a last line that was cut off is left out."""
    found = []
    for line in log.read_text().splitlines() if log.is_file() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        value = entry.get(metric) if isinstance(entry, dict) else None
        if isinstance(value, int | float) and value == value:
            found.append((int(entry.get("step", 0)), float(value)))
    return found
