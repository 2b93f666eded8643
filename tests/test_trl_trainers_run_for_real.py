"""Every trainer of TRL through `kedge train`: its own configuration and trainer, the audited rows, a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from tests.trl_runs import TRAINERS, make_project, train_here


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    return make_project(tmp_path_factory.mktemp("trl"), tiny_model)


@pytest.mark.parametrize("name", TRAINERS)
def test_the_trainer_trains_the_audited_rows_and_leaves_a_checkpoint(name: str, project: Path, kedge, monkeypatch):
    monkeypatch.chdir(project)
    train_here(monkeypatch)
    code, out, err = kedge("audit", name)
    assert code == 0, out + err
    code, _, err = kedge("train", name)
    assert code == 0, err
    catalog = Catalog(find_project(project))
    made = checkpoints.find(catalog, f"{name}@2")
    folder = made.folder(catalog)
    log = [json.loads(line) for line in (folder.parent.parent / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2]
    assert made.weights_hash != checkpoints.find(catalog, str(made.parent)).weights_hash
