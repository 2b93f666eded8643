"""The record of a bundle: what its checkpoints were made of. It goes out with the bundle as `kedge.json`, comes back
beside its checkpoints, and is checked against the lake then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curation import checkpoints
from curation.catalog import Catalog
from curation.errors import Problem, UserError
from curation.fingerprint import fingerprint

NAME = "kedge.json"
KEYS = ("run", "run_fingerprint", "parent", "audit", "mixture", "tokenizer", "template", "base_path", "base_hash")
LEVELS = 2  # folders above a checkpoint where its record may lie: the bundle's, whose out/ holds it
FOREIGN = f"or remove {NAME} to register it as foreign, its data unknown"


def write(record: Mapping[str, Any], folder: Path) -> None:
    """Write the record of a run into a folder, with the fingerprint of what it says."""
    said = {name: record[name] for name in KEYS}
    (folder / NAME).write_text(json.dumps(said | {"fingerprint": fingerprint(said)}, indent=1, sort_keys=True))


def place_of(checkpoint: Path, *, known_step: bool) -> Path | None:
    """The record of a checkpoint's folder: in it, or, where the folder's step is known, in a folder above; None where
    there is none."""
    above = list(checkpoint.absolute().parents)[:LEVELS] if known_step else []
    return next((folder / NAME for folder in [checkpoint, *above] if (folder / NAME).is_file()), None)


def read(path: Path) -> dict[str, Any]:
    """What a record says. Raises UserError where it is none, or was edited."""
    try:
        found = json.loads(path.read_bytes())
        said = {name: found[name] for name in KEYS}
        whole = fingerprint(said) == found["fingerprint"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError("is no record of a bundle", f"copy the bundle's {NAME} again, {FOREIGN}",
                        where=str(path)) from None  # fmt: skip
    if not whole:
        raise UserError("was edited: its fingerprint is that of another record", f"copy the bundle's {NAME} again, "
                        f"{FOREIGN}", where=str(path))  # fmt: skip
    return said


def require_known(catalog: Catalog, record: Mapping[str, Any], path: Path) -> None:
    """Raises UserError with everything of a record that the lake does not hold, or holds otherwise."""
    where, home = str(path), "register it in the project that wrote the bundle"
    problems = []
    name, _, digest = str(record["mixture"]).partition("@")
    if catalog.latest("mixtures", name, digest) is None:
        problems.append(Problem(f"was trained on the mixture {name}@{digest[:12]}, which this lake does not hold",
                                f"{home}, {FOREIGN}", where, "mixture"))  # fmt: skip
    parent = next((item for item in checkpoints.every(catalog) if item.id == record["parent"]), None)
    if parent is None:
        problems.append(Problem(f"was trained from {record['parent']}, which is not registered here",
                                f"register it first, {FOREIGN}", where, "parent"))  # fmt: skip
    elif parent.weights == "full" and parent.weights_hash != record["base_hash"]:
        problems.append(Problem(f"was trained from {parent.id} with the weights {str(record['base_hash'])[:12]}, and "
                                f"here it has {parent.weights_hash[:12]}", f"{home}, {FOREIGN}", where,
                                "parent"))  # fmt: skip
    if problems:
        raise UserError(problems)
