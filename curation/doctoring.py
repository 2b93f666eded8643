"""`kedge doctor`: versions, the lake, its index, locks."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Literal

from curation import __version__
from curation.catalog import INDEX, Catalog
from curation.config import SHIPPED, find_project
from curation.errors import LockHeld, UserError

PACKAGES = ("duckdb", "polars", "pyarrow", "datasets", "transformers", "torch", "trl", "lighteval", "math-verify",
            "argilla", "datatrove", "ray")  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `good`, `note` (worth knowing) or `broken`; `next` is what to type."""

    level: Literal["good", "note", "broken"]
    what: str
    next: str = ""


def examine() -> list[Finding]:
    """Everything `kedge doctor` looks at, the environment first."""
    findings = [Finding("good", f"kedge {__version__} on Python {sys.version.split()[0]}"), *_packages(), _own_evals()]
    try:
        project = find_project()
    except UserError as error:
        return [*findings, Finding("note", str(error.problems[0].what), error.problems[0].next)]
    return findings + examine_lake(Catalog(project))


def _packages() -> list[Finding]:
    found, absent = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    findings = [Finding("good", ", ".join(found))]
    if absent:
        findings.append(Finding("note", f"not installed: {', '.join(absent)}", 'pip install "kedge[all]"'))
    return findings


def _own_evals() -> Finding:
    """`evals` is a generic import name: it must be ours."""
    spec = importlib.util.find_spec("evals")
    origin = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
    if origin == SHIPPED.parent:
        return Finding("good", "the package 'evals' is kedge's own")
    other = "another distribution"
    with contextlib.suppress(PackageNotFoundError):
        other = distribution("evals").metadata["Name"]
    return Finding("broken", f"'import evals' finds {other}, not kedge's", "uninstall it, or use a fresh environment")


def examine_lake(catalog: Catalog) -> list[Finding]:
    """Parts against their manifests, the index against the lake, leftovers of killed commands."""
    findings = []
    outputs = broken = 0
    for kind in sorted(path.name for path in catalog.lake.glob("*") if path.is_dir() and path.name[0] != "."):
        for folder, manifest in catalog.manifests(kind):
            outputs += 1
            for part in manifest.parts:
                matches = [folder / part.name, *folder.glob(f"*/{part.name}")]
                path = next((item for item in matches if item.is_file()), None)
                if path is None or (path == matches[0] and path.stat().st_size != part.num_bytes):
                    broken += 1
                    place = folder.relative_to(catalog.project.root)
                    what = f"{place}/{part.name} is absent or has another size than its manifest says"
                    findings.append(Finding("broken", what, f"delete {place} and make it again"))
    if not broken:
        findings.append(Finding("good", f"{outputs} outputs in the lake, every part as its manifest says"))
    leftovers = catalog.sweep()
    if leftovers:
        findings.append(Finding("note", f"removed {len(leftovers)} leftovers of killed commands"))
    findings.append(_index(catalog, outputs))
    return findings


def _index(catalog: Catalog, outputs: int) -> Finding:
    if not (catalog.lake / INDEX).exists():
        return Finding("note", f"there is no {INDEX}", "run: kedge rebuild")
    try:
        with catalog.index(read_only=True) as connection:
            known = connection.execute("SELECT count(*) FROM manifests").fetchall()[0][0]
    except LockHeld as error:
        return Finding("note", error.problems[0].what, error.problems[0].next)
    if known != outputs:
        return Finding("note", f"{INDEX} knows {known} outputs, the lake holds {outputs}", "run: kedge rebuild")
    return Finding("good", f"{INDEX} agrees with the lake")
