"""A run rehearsed on its longest rows, rolled back, extended, and bundled for a machine without kedge."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from tests.trl_runs import make_project, train_here, write_run

OPTIONS = {"max_steps": 4, "save_steps": 2, "eval_strategy": "no"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A DPO run under LoRA, audited and trained for four steps, saved every two."""
    from curation import cli
    from curation.quickstart.journey import inside

    root = make_project(tmp_path_factory.mktemp("lora"), tiny_model)
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    write_run(root, "lora", tiny_model, "trl_dpo", "pairs", {**OPTIONS, "lora": lora}, {})
    with inside(root), pytest.MonkeyPatch.context() as patch:
        train_here(patch)
        for command in ("audit", "train"):
            assert cli.run([command, "lora"]) == 0
    return root


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.chdir(project)
    train_here(monkeypatch)
    return Catalog(find_project(project))


def test_a_rehearsal_takes_three_steps_and_registers_nothing(inside: Catalog, kedge):
    before = checkpoints.every(inside)
    code, out, err = kedge("train", "lora", "--rehearse", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert len(found["seconds"]) == len(found["losses"]) == 3 and found["peak_memory_bytes"] > 1 << 26
    assert found["checkpoint_same"] and found["seconds_per_step"] > 0
    assert len(found["answers"]) == 5 and all(item["tokens"] for item in found["answers"])
    assert checkpoints.every(inside) == before
    assert not list(inside.folder("runs", "lora").rglob("rehearsal/weights"))
    code, out, err = kedge("plan", "lora", "--json")
    assert code == 0, err
    (planned,) = json.loads(out)["plans"]
    assert planned["rehearsed"]["hours"] == pytest.approx(4 * found["seconds_per_step"] / 3600)
    assert planned["rehearsed"]["memory_bytes"] == found["peak_memory_bytes"]


def test_the_longest_rows_are_rehearsed(inside: Catalog):
    from trainers.rehearsing import longest_rows

    (fates,) = inside.folder("audits", "lora").rglob("fates.parquet")
    import pyarrow.parquet as pq

    rows = pq.read_table(fates).to_pylist()
    kept = {row["position"]: max(item["kept_tokens"] for item in rows if item["position"] == row["position"])
            for row in rows}  # fmt: skip
    chosen = longest_rows(fates, 4)
    assert len(chosen) == 4 and min(kept[item] for item in chosen) >= max(
        kept[item] for item in kept if item not in chosen)  # fmt: skip


def test_a_run_goes_back_to_one_of_its_checkpoints_and_ends_with_the_same_weights(inside: Catalog, kedge):
    end = checkpoints.find(inside, "lora@4").weights_hash
    code, _, err = kedge("train", "lora", "--from", "lora@2")
    assert code == 0 and "goes back to step 2" in err, err
    assert checkpoints.find(inside, "lora@4").weights_hash == end


def test_a_finished_run_is_extended_with_its_optimizer_state(inside: Catalog, project: Path, kedge, tiny_model: Path):
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    write_run(project, "longer", tiny_model, "trl_dpo", "pairs", {**OPTIONS, "max_steps": 6, "lora": lora}, {})
    path = project / "catalogs" / "runs" / "longer.yaml"
    value = yaml.safe_load(path.read_text())
    del value["base"]
    path.write_text(yaml.safe_dump({**value, "extends": "lora"}))
    assert kedge("audit", "longer")[0] == 0
    code, _, err = kedge("train", "longer")
    assert code == 0, err
    assert [item.step for item in checkpoints.every(inside, "longer")] == [6]
    assert checkpoints.find(inside, "longer@6").parent == "lora@4"


def test_an_adapter_is_merged_onto_its_base_before_the_next_stage(inside: Catalog, project: Path, kedge, tiny_model):
    write_run(project, "next", tiny_model, "trl_kto", "pairs", {"max_steps": 1, "save_steps": 1}, {})
    path = project / "catalogs" / "runs" / "next.yaml"
    value = yaml.safe_load(path.read_text())
    del value["base"]
    path.write_text(yaml.safe_dump({**value, "parent": "lora"}))
    assert kedge("audit", "next")[0] == 0
    code, _, err = kedge("train", "next")
    assert code == 0 and "its logits agree" in err, err
    assert checkpoints.find(inside, "next@1").weights == "full"


def test_a_bundle_trains_without_kedge_and_its_checkpoints_come_back_with_their_lineage(
    inside: Catalog, project: Path, kedge, tiny_model: Path, tmp_path: Path
):
    code, _, err = kedge("train", "lora", "--bundle", tmp_path / "bundle")
    assert code == 0, err
    path = tmp_path / "bundle" / "config.json"
    given = json.loads(path.read_text())
    path.write_text(json.dumps(given | {"config": given["config"] | {"max_steps": 1, "save_steps": 1}}))
    hidden = (
        "import sys, runpy; sys.modules.update(curation=None, trainers=None, evals=None);"
        "sys.argv = ['train.py', '--model', sys.argv[1]]; runpy.run_path('train.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", hidden, str(tiny_model)], cwd=tmp_path / "bundle", text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    made = tmp_path / "bundle" / "out" / "checkpoint-1"
    code, _, err = kedge("checkpoint", "add", made, "--run", "lora")
    assert code == 0, err
    here, there = checkpoints.find(inside, "lora@2"), checkpoints.find(inside, "lora@1")
    assert str(there.mixture).startswith("pairs@") and there.folder(inside) == made
    own = {"step", "path", "weights_hash"}
    assert there.model_dump(exclude=own) == here.model_dump(exclude=own)


def test_a_run_that_extends_another_is_not_bundled_without_its_optimizer(
    inside: Catalog, project: Path, kedge, tiny_model: Path, tmp_path: Path
):
    write_run(project, "on", tiny_model, "trl_dpo", "pairs", {**OPTIONS, "max_steps": 8}, {})
    path = project / "catalogs" / "runs" / "on.yaml"
    value = yaml.safe_load(path.read_text())
    del value["base"]
    path.write_text(yaml.safe_dump({**value, "extends": "lora"}))
    assert kedge("audit", "on")[0] == 0
    code, _, err = kedge("train", "on", "--bundle", tmp_path / "bundle")
    assert code == 2 and "train it here, or name the checkpoint as parent" in err
    assert not (tmp_path / "bundle").exists()
