"""A disk that is full while weights are saved, merged or registered: nothing is half registered, and errors are clear.

The limit on the size of a file (RLIMIT_FSIZE) stands for a full disk everywhere; where this process may mount a small
tmpfs, a disk that is really full is used too.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from tests.merging_models import moved

pytest.importorskip("torch")
LIMIT = 300_000  # bytes a file may have: the tiny model's weights have more, a record and a configuration less

SAVE = """
import sys
from pathlib import Path
from transformers import AutoModelForCausalLM
from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
model = AutoModelForCausalLM.from_pretrained("models/tiny")
catalog, folder = Catalog(find_project()), Path("lake/runs/sft/checkpoint-10")
model.save_pretrained(folder)
kind, digest = checkpoints.weights_of(folder)
checkpoints.register(catalog, checkpoints.Checkpoint(run="sft", step=10, path=str(folder), weights=kind,
                                                     weights_hash=digest))
"""


@pytest.fixture
def project(project_folder: Path, tiny_model: Path) -> Path:
    fill(project_folder, tiny_model)
    return project_folder


def fill(folder: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, folder / "models" / "tiny")
    moved(tiny_model, folder / "models" / "one", seed=1)
    moved(tiny_model, folder / "models" / "other", seed=2)
    catalog = Catalog(find_project(folder))
    for run in ("one", "other"):
        kind, digest = checkpoints.weights_of(folder / "models" / run)
        checkpoints.register(catalog, checkpoints.Checkpoint(run=run, step=1, path=f"models/{run}", weights=kind,
                                                             weights_hash=digest))  # fmt: skip


def run(*command: str, cwd: Path, limit: int | None = LIMIT) -> subprocess.CompletedProcess[str]:
    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run([sys.executable, *command], cwd=cwd, preexec_fn=limited, text=True, capture_output=True,
                          check=False, env=dict(os.environ))  # fmt: skip


def registered(root: Path, name: str) -> list[str]:
    return [item.id for item in checkpoints.every(Catalog(find_project(root)), name)]


def test_weights_that_do_not_fit_are_not_registered_and_the_next_save_is(project: Path):
    done = run("-c", SAVE, cwd=project)
    assert done.returncode != 0 and not registered(project, "sft")
    done = run("-c", SAVE, cwd=project, limit=None)
    assert done.returncode == 0, done.stderr
    assert registered(project, "sft") == ["sft@10"]


MERGE = ("-m", "curation.cli", "checkpoint", "merge", "one", "other", "--weight", "0.5", "--run", "valve")


def test_a_merge_that_does_not_fit_is_a_clear_error_and_leaves_nothing(project: Path):
    done = run(*MERGE, cwd=project)
    assert done.returncode == 2 and "there is no room" in done.stderr and "Traceback" not in done.stderr
    assert not registered(project, "valve") and not list(project.glob("lake/runs/valve/merged/*"))
    assert run(*MERGE, cwd=project, limit=None).returncode == 0 and registered(project, "valve") == ["valve@500"]


def test_a_record_that_does_not_fit_leaves_the_old_one(project: Path):
    record = project / "lake" / "runs" / "one" / "checkpoints" / "step-00000001.json"
    before = record.read_bytes()
    done = run("-m", "curation.cli", "checkpoint", "tag", "one", "good", cwd=project, limit=100)
    assert done.returncode != 0 and record.read_bytes() == before
    assert not json.loads(before)["tags"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True,
                             check=False)  # fmt: skip
    if mounted.returncode:
        pytest.skip("this process may not mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount")
def test_a_disk_that_is_really_full_registers_nothing(small_disk: Path, tiny_model: Path):
    (small_disk / "kedge.yaml").write_text("tokenizers: {}\n")
    fill(small_disk, tiny_model)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(free - 200_000))
    done = run(*MERGE, cwd=small_disk, limit=None)
    assert done.returncode == 2 and "there is no room" in done.stderr and not registered(small_disk, "valve")
    (small_disk / "ballast").unlink()
    assert run(*MERGE, cwd=small_disk, limit=None).returncode == 0 and registered(small_disk, "valve") == ["valve@500"]
