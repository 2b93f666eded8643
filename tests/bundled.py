"""Environments and parts of bundles that tests of them share."""

from __future__ import annotations

import subprocess
from pathlib import Path

OWN = ("curation", "trainers", "evals", "catalogs", "kedge")


def without_kedge(python: Path | str, folder: Path) -> Path:
    """The interpreter of a new environment that has every package of another one but kedge."""
    subprocess.run([str(python), "-m", "venv", "--without-pip", str(folder)], check=True)
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    there = Path(subprocess.run(asked, check=True, text=True, capture_output=True).stdout.strip())
    (here,) = folder.glob("lib/python*/site-packages")
    for path in there.iterdir():
        if not path.name.startswith(OWN) and not _leads_to_kedge(path) and not (here / path.name).exists():
            (here / path.name).symlink_to(path)
    made = folder / "bin" / "python"
    for name in OWN[:3]:
        importing = [str(made), "-c", f"import {name}"]
        found = subprocess.run(importing, cwd=folder, text=True, capture_output=True, check=False)
        assert f"No module named '{name}'" in found.stderr
    return made


def _leads_to_kedge(path: Path) -> bool:
    """Whether a .pth file adds a folder that holds kedge."""
    return path.suffix == ".pth" and any((Path(line) / "curation").is_dir() for line in path.read_text().splitlines())
