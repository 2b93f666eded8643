"""What the rewards of a run need in its bundle: kedge's own source, functions of the user's, packages, weights."""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import tomllib
from pathlib import Path
from typing import Any

from curation import checkpoints, registry
from curation.auditing.setting import installed_version
from curation.config import SHIPPED, find_project
from curation.errors import Problem, UserError

SOURCE = ("curation", "trainers", "catalogs/judges")
EXTRA = {"endpoint": "httpx", "judge": "httpx", "reward_model": "torch", "token_classifier": "torch"}
FAILURES = ("failed_value", "max_failure_share", "wall_seconds")  # of the client of the reward services
Use = dict[str, Any]


def write(job: dict[str, Any], folder: Path) -> tuple[list[Use], dict[str, str]]:
    """Put kedge's source into `source/`, functions into `functions/` and judges into `judges/`; returns the components
    as the bundle asks for them, and by the name of the script's argument the weights that they need. A function or a
    judge is a path below the bundle then, weights are `{ARGUMENT}`. Raises UserError for a component that another
    package brought."""
    known, where = registry.entries("rewards"), job.get("where", "")
    problems = [Problem(f"the reward '{name}' is a plug-in of {known[name].origin}, which a bundle does not hold",
                        "put it into a file and use {name: function, path: FILE.py:NAME}, or train here", where,
                        "rewards")
                for name in named(job["rewards"]) if name in known and known[name].origin != "kedge"]  # fmt: skip
    if problems:
        raise UserError(problems)
    if not job["rewards"]:
        return [], {}
    for package in SOURCE:
        shutil.copytree(SHIPPED.parent / package, folder / "source" / package,
                        ignore=shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc"))  # fmt: skip
    weights: dict[str, str] = {}
    return [_placed(use, job, folder, weights) for use in job["rewards"]], weights


def named(uses: list[Use]) -> list[str]:
    """Names of components and, in their order, of those that they are made of."""
    return [name for use in uses for name in (use["name"], *named(_inner(use)))]


def _inner(use: Use) -> list[Use]:
    """What a component is made of: {name: ..., option: ...} among its options."""
    return [value for value in use.values() if isinstance(value, dict) and "name" in value]


def _placed(use: Use, job: dict[str, Any], folder: Path, weights: dict[str, str], inner: bool = False) -> Use:
    """A component, or what it is made of, with what it reads in the bundle."""
    found = {key: _placed(value, job, folder, weights, True) if value in _inner(use) else value
             for key, value in use.items()}  # fmt: skip
    if use.get("name") == "judge":
        judge = str(use.get("judge", "steps" if inner else "score"))
        with contextlib.chdir(job["project"]):
            file = find_project().path("judges", judge, ".yaml").absolute()
        found["judge"] = f"judges/{taken(file, folder / 'judges')}"
    if isinstance(path := use.get("path"), str | list):
        paths = [path] if isinstance(path, str) else path
        there = [_place(item, job, folder, weights) for item in paths]
        found["path"] = there[0] if isinstance(path, str) else there
    return found


def _place(path: str, job: dict[str, Any], folder: Path, weights: dict[str, str]) -> str:
    file, _, name = path.rpartition(":")
    if file.endswith(".py"):
        return f"functions/{taken(Path(job['project']) / file, folder / 'functions')}:{name}"
    argument = "reward_model" if not weights else f"reward_model_{len(weights) + 1}"
    weights[argument] = f"{path} ({checkpoints.weights_of(Path(job['project']) / path)[1][:12]})"
    return f"{{{argument}}}"


def taken(file: Path, folder: Path) -> str:
    """Copy a file into a folder of the bundle; returns the name that it has there, another where that is taken by
    another file."""
    folder.mkdir(exist_ok=True)
    number, name = 1, file.name
    while (folder / name).exists() and (folder / name).read_bytes() != file.read_bytes():
        number += 1
        name = f"{file.stem}_{number}{file.suffix}"
    shutil.copyfile(file, folder / name)
    return name


def failures(job: dict[str, Any]) -> dict[str, Any]:
    """What becomes of a reward that fails."""
    return {name: job[name] for name in FAILURES if name in job}


def requirements(rewards: list[Use]) -> list[str]:
    """Names of the packages that the rewards' process needs, in name order."""
    from packaging.requirements import Requirement

    project = SHIPPED.parent / "pyproject.toml"
    if project.is_file():  # what is installed from a source folder may be told by older metadata
        lines = tomllib.loads(project.read_text())["project"]["dependencies"]
    else:
        lines = importlib.metadata.requires("kedge") or []
    own = {item.name for line in lines if (item := Requirement(line)).marker is None}
    return sorted(own | {EXTRA[name] for name in named(rewards) if name in EXTRA}, key=str.lower)


def write_requirements(names: list[str], path: Path) -> None:
    """Packages at the versions that are installed here."""
    lines = [f"{name}=={version}" if (version := installed_version(name)) else name for name in names]
    path.write_text("\n".join(lines) + "\n")
