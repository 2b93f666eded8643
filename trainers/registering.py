"""Registering checkpoints of others, listing and tagging."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from curation.console import out, print_json, say, table
from curation.errors import Problem, UserError
from curation.mixtures import find_frozen
from curation.runs import Run
from trainers.bundling import record as bundle_record
from trainers.retention import Verdict, standing
from trainers.rewards import evidence


def add_foreign(paths: list[Path], run: str, base: str | None) -> None:
    """Register each folder as a checkpoint of `run`; all problems at once, and none registered where there is one. One
    of a bundled run keeps the lineage that its record tells, and its rollouts come back as evidence; the data of all
    others is unknown."""
    catalog = Catalog(find_project())
    require_run_name(run)
    made: list[checkpoints.Checkpoint] = []
    problems: list[Problem] = []
    records = {path: bundle_record.place_of(path, known_step=_known_step(path) is not None) for path in paths}
    foreign = base is not None and not all(records.values())
    home = checkpoints.register_base(catalog, str(base)) if foreign else None
    for number, path in enumerate(paths, 1):
        try:
            record = records[path]
            made.append(_foreign(catalog, path, run, number, home) if record is None else
                        _bundled(catalog, path, run, record, base))  # fmt: skip
        except UserError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise UserError(problems)
    for item in made:
        checkpoints.register(catalog, item)
        data = f"trained on {item.mixture} from {item.parent}" if item.mixture else "data unknown"
        out.print(f"{item.id}: {item.weights} weights {item.weights_hash[:12]}, {data}", markup=False)
    for folder, digest in {(path.absolute().parent / "rollouts", item.run_fingerprint) for path, item in
                           zip(paths, made, strict=True) if records[path] is not None}:  # fmt: skip
        if digest is not None and folder.is_dir():
            _bring_rollouts(catalog, run, digest, folder)


def _bring_rollouts(catalog: Catalog, run: str, digest: str, folder: Path) -> None:
    """Put what the rewards of a bundled run wrote beside what those of the run wrote here, and publish all of it."""
    target = catalog.folder("runs", run, digest[:16], "rollouts")
    target.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("rollouts-*.jsonl"):
        shutil.copyfile(path, target / path.name)
    counts = evidence.publish(catalog, run, target)
    out.print(f"{counts['rollouts']:,} rollouts of {counts['rows']:,} rows are evidence of {run}", markup=False)


def require_run_name(run: str) -> None:
    """Raises UserError where no run can have this name."""
    if run.startswith(("base-", ".")) or not re.fullmatch(r"[\w.-]+", run):
        raise UserError(f"'{run}' is no name for a run", "use letters, digits, '_', '-' and '.'", key="--run")


def _foreign(
    catalog: Catalog, path: Path, run: str, number: int, base: checkpoints.Checkpoint | None
) -> checkpoints.Checkpoint:
    kind, digest = checkpoints.weights_of(path)
    record = checkpoints.Checkpoint(run=run, step=_step(path, number), path=catalog.project.relative(path.absolute()),
                                    weights=kind, weights_hash=digest, parent=base.id if base else None)  # fmt: skip
    if kind == "full":
        return record
    if base is None:
        raise UserError("is an adapter", "name the model it belongs to: --base MODEL", where=str(path))
    _check_shapes(path, base.folder(catalog))
    return record.model_copy(update={"base_path": base.path, "base_hash": base.weights_hash})


def _bundled(catalog: Catalog, path: Path, run: str, place: Path, base: str | None) -> checkpoints.Checkpoint:
    """A checkpoint of a bundled run as it would be had it been trained here."""
    kind, digest = checkpoints.weights_of(path)
    record, step = bundle_record.read(place), _known_step(path)
    if base is not None:
        raise UserError(f"is of a bundled run, whose start is {record['parent']}", "leave --base out", where=str(path))
    if step is None:
        raise UserError("is of a bundled run, at an unknown step", "name the folder checkpoint-STEP", where=str(path))
    if run != record["run"] and run in catalog.project.paths("runs", ".yaml"):
        raise UserError(f"was trained as {record['run']}, and {run} is another run of this project",
                        f"say --run {record['run']}, or a name of its own", where=str(path), key="--run")  # fmt: skip
    bundle_record.require_known(catalog, record, place)
    _tell_change(catalog, record)
    found = record | {"run": run, "step": step, "path": catalog.project.relative(path.absolute()), "weights": kind,
                      "weights_hash": digest}  # fmt: skip
    if kind == "full":
        found |= {"base_path": None, "base_hash": None}
    else:
        _check_shapes(path, catalog.project.root / str(record["base_path"]))
    return checkpoints.Checkpoint(**found)


def _tell_change(catalog: Catalog, record: dict[str, Any]) -> None:
    """Say where the run's file is not what it was when it was bundled."""
    try:
        now = Run(catalog, record["run"]).fingerprint(find_frozen(catalog, record["mixture"]).content)
    except UserError:
        say(f"{record['run']} has no run file here that can be read")
        return
    if now != record["run_fingerprint"]:
        say(f"the file of {record['run']} has changed since it was bundled: its checkpoints are of the earlier version")


def _check_shapes(adapter: Path, base: Path) -> None:
    """Raises UserError where the adapter cannot belong to the base: its configuration names another model type, or its
    matrices have other sizes."""
    from safetensors import safe_open

    hidden = json.loads((base / "config.json").read_text()).get("hidden_size")
    with safe_open(adapter / "adapter_model.safetensors", framework="np") as file:
        for name in file.keys():  # noqa: SIM118
            if name.endswith("q_proj.lora_A.weight") and file.get_slice(name).get_shape()[1] != hidden:
                what = f"belongs to another base: {name} does not take the {hidden} inputs of the base"
                raise UserError(what, "name the right --base", where=str(adapter))


def _step(path: Path, number: int) -> int:
    known = _known_step(path)
    return number if known is None else known


def _known_step(path: Path) -> int | None:
    """The step that a folder's files or name tell."""
    state = path / "trainer_state.json"
    if state.is_file():
        return int(json.loads(state.read_text())["global_step"])
    match = re.fullmatch(r"(?:checkpoint|global_step|step)[-_]?(\d+)", path.name)
    return int(match[1]) if match else None


def print_list(run: str | None, as_json: bool) -> None:
    """Every registered checkpoint, or those of a run, and what the rules `keep` of their runs say of each."""
    catalog = Catalog(find_project())
    found = checkpoints.every(catalog, run)
    if run is not None and not found:
        raise UserError(f"the run '{run}' has no checkpoints", Problem("run: kedge checkpoint list").what)
    rules = {name: standing(catalog, name) for name in sorted({item.run for item in found})}
    verdicts = {item.id: item for name in rules for item in rules[name]}
    if as_json:
        print_json([item.model_dump() | {"id": item.id} | _told(verdicts.get(item.id)) for item in found])
        return
    rows = [[item.id, item.weights, item.weights_hash[:12], item.parent, _origin(item), ", ".join(item.tags),
             _state(item, verdicts.get(item.id))] for item in found]  # fmt: skip
    table("checkpoints", ["checkpoint", "weights", "hash", "parent", "mixture", "tags", "kept"], rows)


def _told(verdict: Verdict | None) -> dict[str, Any]:
    """What --json says of a run's rule: whether it keeps the weights, and why; nothing where there is no rule."""
    return {} if verdict is None else {"kept": verdict.kept, "why": verdict.why}


def _origin(item: checkpoints.Checkpoint) -> str:
    if item.merged_from:
        return "merged: " + ", ".join(f"{share:g} {name}" for name, share in item.merged_from.items())
    return item.mixture or "data unknown"


def _state(item: checkpoints.Checkpoint, verdict: Verdict | None) -> str | None:
    if item.pruned:
        return "weights removed by the rule"
    if verdict is None:
        return None
    return verdict.why if verdict.kept else f"to be removed: {verdict.why}"


def add_tag(reference: str, name: str) -> None:
    """Tag a checkpoint; a tag names one checkpoint and moves with the last call."""
    catalog = Catalog(find_project())
    chosen = checkpoints.find(catalog, reference)
    if any(name in (item.id, item.run) for item in checkpoints.every(catalog)):
        raise UserError(f"'{name}' names a run or checkpoint already", "choose another tag")
    with checkpoints.amending(catalog):
        for item in checkpoints.every(catalog):
            tags = sorted({*item.tags, name} if item.id == chosen.id else set(item.tags) - {name})
            if tags != item.tags:
                checkpoints.amend(catalog, item, tags=tags)
    out.print(f"{chosen.id} is now also '{name}'", markup=False)
