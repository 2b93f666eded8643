"""Registering checkpoints of others, listing and tagging."""

from __future__ import annotations

import json
import re
from pathlib import Path

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from curation.console import out, print_json, table
from curation.errors import Problem, UserError
from curation.outputs import write_atomically


def add_foreign(paths: list[Path], run: str, base: str | None) -> None:
    """Register each folder as a checkpoint of `run`; all problems at once, and none registered where there is one."""
    catalog = Catalog(find_project())
    if run.startswith("base-") or not re.fullmatch(r"[\w.-]+", run):
        raise UserError(f"'{run}' is no name for a run", "use letters, digits, '_', '-' and '.'", key="--run")
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
    """Every registered checkpoint, or those of a run."""
    found = checkpoints.every(Catalog(find_project()), run)
    if run is not None and not found:
        raise UserError(f"the run '{run}' has no checkpoints", Problem("run: kedge checkpoint list").what)
    if as_json:
        print_json([item.model_dump() | {"id": item.id} for item in found])
        return
    rows = [[item.id, item.weights, item.weights_hash[:12], item.parent, item.mixture or "data unknown",
             ", ".join(item.tags)] for item in found]  # fmt: skip
    table("checkpoints", ["checkpoint", "weights", "hash", "parent", "mixture", "tags"], rows)


def add_tag(reference: str, name: str) -> None:
    """Tag a checkpoint; a tag names one checkpoint and moves with the last call."""
    catalog = Catalog(find_project())
    chosen = checkpoints.find(catalog, reference)
    if any(name in (item.id, item.run) for item in checkpoints.every(catalog)):
        raise UserError(f"'{name}' names a run or checkpoint already", "choose another tag")
    for item in checkpoints.every(catalog):
        tags = sorted({*item.tags, name} if item.id == chosen.id else set(item.tags) - {name})
        if tags != item.tags:
            text = json.dumps(item.model_copy(update={"tags": tags}).model_dump(mode="json"), indent=1, sort_keys=True)
            path = catalog.folder("runs", item.run, "checkpoints", f"step-{item.step:08d}.json")
            write_atomically(path, text.encode())
    out.print(f"{chosen.id} is now also '{name}'", markup=False)
