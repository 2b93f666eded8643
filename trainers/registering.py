"""Registering checkpoints of others, listing and tagging."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from curation.console import out, print_json, table
from curation.errors import Problem, UserError
from trainers.retention import Verdict, standing


def add_foreign(paths: list[Path], run: str, base: str | None) -> None:
    """Register each folder as a checkpoint of `run`; all problems at once, and none registered where there is one."""
    catalog = Catalog(find_project())
    require_run_name(run)
    home = checkpoints.register_base(catalog, base) if base is not None else None
    made, problems = [], []
    for number, path in enumerate(paths, 1):
        try:
            made.append(_foreign(catalog, path, run, number, home))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    for item in made:
        checkpoints.register(catalog, item)
        out.print(f"{item.id}: {item.weights} weights {item.weights_hash[:12]}, data unknown", markup=False)


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
    state = path / "trainer_state.json"
    if state.is_file():
        return int(json.loads(state.read_text())["global_step"])
    match = re.fullmatch(r"(?:checkpoint|global_step|step)[-_]?(\d+)", path.name)
    return int(match[1]) if match else number


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
