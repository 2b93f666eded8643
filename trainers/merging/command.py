"""`kedge checkpoint merge`: two checkpoints averaged under one or several weights, or an adapter put onto its base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from curation import checkpoints
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from curation.config import find_project, shown
from curation.console import out, print_json, say
from curation.errors import Problem, UserError
from trainers.merging.adapters import check_base, merge_adapter
from trainers.merging.linear import RECORD, linear_record, merge_linear
from trainers.registering import require_run_name

STEPS_PER_WEIGHT = 1000  # a merge with 0.3 of B is step 300
MOST_WEIGHTS = 99


def merge(references: list[str], weights: list[float], run: str | None, waive: str | None) -> list[Checkpoint]:
    """Merge and register: two checkpoints A and B with shares of B, or one adapter. Each merge is published by itself
    and one that is registered already is left as it is, so that the same command goes on after a kill. Raises
    UserError with all that is wrong."""
    catalog = Catalog(find_project())
    if len(references) == 1:
        if weights or waive is not None:
            raise UserError("an adapter is merged onto its base whole", "leave out --weight and --waive")
        return [_merge_adapter(catalog, checkpoints.find(catalog, references[0]), run)]
    if len(references) != 2:
        raise UserError(f"{len(references)} checkpoints were named", "name two, or one adapter")
    return _merge_two(catalog, references, weights, run, waive)


def _merge_two(
    catalog: Catalog, references: list[str], weights: list[float], run: str | None, waive: str | None
) -> list[Checkpoint]:
    """A merge for every weight, each a checkpoint of `run` at the step of its weight."""
    problems = _weight_problems(weights)
    if run is None:
        problems.append(Problem("has no name", "name the run that the merges belong to", key="--run"))
    elif run in catalog.project.paths("runs", ".yaml"):
        problems.append(Problem(f"'{run}' is a run file's", "name another one", key="--run"))
    if waive is not None and len(waive.strip()) < 10:
        problems.append(Problem(f"'{waive}' is no reason", "say in ten letters or more why", key="--waive"))
    first, second = (checkpoints.find(catalog, reference) for reference in references)
    if first.weights_hash == second.weights_hash:
        problems.append(Problem(f"{first.id} and {second.id} have the same weights", "name two that differ"))
    problems += [_adapter_problem(item) for item in (first, second) if item.weights == "adapter"]
    if problems:
        raise UserError(problems)
    assert run is not None
    require_run_name(run)
    require_weights(catalog, first)
    require_weights(catalog, second)
    with catalog.writing("runs", run):
        return [_merge_one(catalog, first, second, weight, run, waive) for weight in sorted(set(weights))]


def _weight_problems(weights: list[float]) -> list[Problem]:
    what = "is the share of B, in steps of 0.001 between 0 and 1 (0 would be A itself, 1 B)"
    if not weights or len(weights) > MOST_WEIGHTS:
        return [Problem(f"{len(weights)} weights", "give --weight once for each merge, for example: --weight 0.3",
                        key="--weight")]  # fmt: skip
    return [Problem(f"{weight:g} is none: it {what}", "for example: --weight 0.3", key="--weight") for weight in weights
            if not 0 < weight < 1 or abs(weight * STEPS_PER_WEIGHT - _step(weight)) > 1e-6]  # fmt: skip


def _step(weight: float) -> int:
    return round(weight * STEPS_PER_WEIGHT)


def _adapter_problem(checkpoint: Checkpoint) -> Problem:
    return Problem(f"{checkpoint.id} is an adapter, whose numbers mean nothing without its base",
                   f"first: kedge checkpoint merge {checkpoint.id}")  # fmt: skip


def _merge_one(
    catalog: Catalog, first: Checkpoint, second: Checkpoint, weight: float, run: str, waive: str | None
) -> Checkpoint:
    shares = {first.id: 1 - weight, second.id: weight}
    record = linear_record([first.weights_hash, second.weights_hash], list(shares.values()), waive)
    folders = [first.folder(catalog), second.folder(catalog)]
    target, whole = _target(catalog, run, _step(weight), record)
    if not whole:
        say(f"merging {1 - weight:g} of {first.id} and {weight:g} of {second.id}")
        merge_linear(folders, list(shares.values()), target, waive=waive,
                     hashes=[first.weights_hash, second.weights_hash])  # fmt: skip
    return _enter(catalog, first, run, _step(weight), target, shares)


def _merge_adapter(catalog: Catalog, adapter: Checkpoint, run: str | None) -> Checkpoint:
    """The adapter on its base, registered at the adapter's step of the run `run` (RUN-merged unless named)."""
    base = adapter.base_folder(catalog)
    if adapter.weights != "adapter" or base is None:
        raise UserError(f"{adapter.id} has full weights", "name a second checkpoint to average it with, or an adapter")
    name = run or f"{adapter.run}-merged"
    require_run_name(name)
    if name in catalog.project.paths("runs", ".yaml"):
        raise UserError(f"'{name}' is a run file's", "name another one", key="--run")
    folder = adapter.folder(catalog)
    require_weights(catalog, adapter)
    digest = check_base(base, folder, adapter.base_hash)
    with catalog.writing("runs", name):
        record = {"method": "adapter", "base": digest, "adapter": adapter.weights_hash}
        target, whole = _target(catalog, name, adapter.step, record)
        if not whole:
            say(f"merging {adapter.id} onto {shown(base)}")
            agreement = merge_adapter(base, folder, target, base_hash=adapter.base_hash)[2]
            say(
                f"logits differ by {agreement.difference:.2g} from base and adapter (rounding in {agreement.dtype} "
                f"explains {agreement.tolerance:.2g}; the adapter moves them by {agreement.adapter_effect:.2g})"
            )
        owner = [item.id for item in checkpoints.every(catalog) if item.weights_hash == digest]
        shares = {adapter.id: 1.0} | ({owner[0]: 1.0} if owner else {})
        return _enter(catalog, adapter, name, adapter.step, target, shares)


def require_weights(catalog: Catalog, checkpoint: Checkpoint) -> None:
    """Raises UserError where the weights in a checkpoint's folder are not those that were registered."""
    digest = checkpoints.weights_of(checkpoint.folder(catalog))[1]
    if digest != checkpoint.weights_hash:
        raise UserError(f"the weights of {checkpoint.id} changed since it was registered "
                        f"({checkpoint.weights_hash[:12]}, now {digest[:12]})",
                        "register them under another --run name", where=shown(checkpoint.folder(catalog)))  # fmt: skip


def _target(catalog: Catalog, run: str, step: int, record: dict[str, Any]) -> tuple[Path, bool]:
    """Where a merge lies, and whether it is whole there: a folder takes its place in one step, so that one of the same
    merge is whole; of another merge that was never registered it is removed. Raises UserError where another
    checkpoint is registered there."""
    target = catalog.folder("runs", run, "merged", f"step-{step:08d}")
    registered = [item for item in checkpoints.every(catalog, run) if item.step == step]
    found = target / RECORD
    same = found.is_file() and json.loads(found.read_text()).items() >= record.items()
    if registered and not (same and registered[0].place(catalog).resolve() == target.resolve()):
        raise UserError(f"{run}@{step} is registered already and was not merged from these",
                        "register the merge under another --run name", key="--run")  # fmt: skip
    if target.exists() and not same:
        shutil.rmtree(target)
    return target, same


def _enter(
    catalog: Catalog, parent: Checkpoint, run: str, step: int, target: Path, shares: dict[str, float]
) -> Checkpoint:
    """Register a merged model; its parent is the first one, whose tokenizer and template it has."""
    known = [item for item in checkpoints.every(catalog, run) if item.step == step]
    if known:
        return known[0]
    kind, digest = checkpoints.weights_of(target)
    return checkpoints.register(catalog, Checkpoint(
        run=run, step=step, path=catalog.project.relative(target), weights=kind, weights_hash=digest, parent=parent.id,
        tokenizer=parent.tokenizer, template=parent.template, merged_from=shares))  # fmt: skip


def print_merged(merged: list[Checkpoint], as_json: bool) -> None:
    """The merged checkpoints, and what to type next."""
    if as_json:
        print_json([item.model_dump() | {"id": item.id} for item in merged])
        return
    for item in merged:
        shares = " and ".join(f"{share:g} of {name}" for name, share in item.merged_from.items())
        out.print(f"{item.id}: {shares}, weights {item.weights_hash[:12]}", markup=False)
    out.print(f"next: kedge eval {merged[0].run} --suite SUITE, then: kedge drift {merged[0].run}", markup=False)
