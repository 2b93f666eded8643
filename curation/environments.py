"""Environments for parts that cannot share the project's: made from pinned files, used over a process border."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from curation import __version__
from curation.config import SHIPPED
from curation.console import say
from curation.errors import UserError, did_you_mean
from curation.fingerprint import hash_bytes

MARKER = "kedge-environment-is-complete"


def base_folder() -> Path:
    """Where environments lie: `KEDGE_ENVIRONMENTS`, else a folder of the user's data directory."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(os.environ.get("KEDGE_ENVIRONMENTS") or data / "kedge" / "environments")


def definitions() -> dict[str, Path]:
    """The requirement files `catalogs/environments/*.txt` by name."""
    return {path.stem: path for path in sorted((SHIPPED / "environments").glob("*.txt"))}


def folder(name: str) -> Path:
    """The folder of an environment; it changes with its requirement file. Raises UserError for an unknown name."""
    known = definitions()
    if name not in known:
        raise UserError(f"there is no environment '{name}'", did_you_mean(name, known))
    return base_folder() / f"{name}-{hash_bytes(known[name].read_bytes())[:12]}"


def python(name: str) -> Path:
    """The interpreter of a finished environment. Raises UserError naming the command that makes it."""
    path = folder(name) / "bin" / "python"
    if not (folder(name) / MARKER).is_file():
        raise UserError(f"the environment '{name}' is not there", f"run: kedge env create {name}")
    return path


def create(name: str) -> Path:
    """Make an environment, or return the finished one. An unfinished one is removed and made anew."""
    target = folder(name)
    if (target / MARKER).is_file():
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    venv.create(target, with_pip=True)
    install = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    say(f"installing {name} from {definitions()[name].name} (minutes)")
    _run([*install, "-r", str(definitions()[name])])
    _run([*install, "--no-deps", *_own_distribution()])
    (target / MARKER).write_text(__version__ + "\n")
    return target


def _own_distribution() -> list[str]:
    """What installs this very kedge: its source folder where there is one, else its released version."""
    root = SHIPPED.parent
    return [str(root)] if (root / "pyproject.toml").is_file() else [f"kedge=={__version__}"]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"pip failed: {last}", "check the network and the disk, then run the same command again")
