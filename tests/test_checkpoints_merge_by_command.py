"""`kedge checkpoint merge`: sweeps that are ordinary checkpoints, adapters onto their base, refusals, kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curation import checkpoints
from curation.catalog import Catalog
from tests.merging_models import adapter_of, moved, state

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_model, folder / "tiny")
    moved(tiny_model, folder / "dpo", seed=1)
    moved(tiny_model, folder / "rl", seed=2)
    adapter_of(folder / "tiny", folder / "lora")
    return folder


@pytest.fixture
def lake(catalog: Catalog, models: Path) -> Catalog:
    """`dpo@1` and `rl@1`, both from `base-tiny@0`, and the adapter `lora@1` on it."""
    shutil.copytree(models, catalog.project.root / "models")
    base = checkpoints.register_base(catalog, "models/tiny")
    for run in ("dpo", "rl"):
        kind, digest = checkpoints.weights_of(catalog.project.root / "models" / run)
        checkpoints.register(catalog, checkpoints.Checkpoint(
            run=run, step=1, path=f"models/{run}", weights=kind, weights_hash=digest, parent=base.id))  # fmt: skip
    kind, digest = checkpoints.weights_of(catalog.project.root / "models" / "lora")
    checkpoints.register(catalog, checkpoints.Checkpoint(
        run="lora", step=1, path="models/lora", weights=kind, weights_hash=digest, parent=base.id,
        base_path=base.path, base_hash=base.weights_hash))  # fmt: skip
    return catalog


def test_a_sweep_registers_a_checkpoint_for_every_weight(lake: Catalog, kedge):
    code, out, err = kedge("checkpoint", "merge", "rl", "dpo", "--weight", "0.3", "--weight", "0.05", "--run", "valve")
    assert code == 0, err
    assert "valve@50: 0.95 of rl@1 and 0.05 of dpo@1" in out and "kedge eval valve" in out
    found = checkpoints.every(lake, "valve")
    assert [item.step for item in found] == [50, 300]
    assert found[1].parent == "rl@1" and found[1].merged_from == {"rl@1": 0.7, "dpo@1": 0.3}
    assert found[1].template == checkpoints.find(lake, "rl").template and found[1].mixture is None
    assert [item.id for item in checkpoints.lineage(lake, found[1])] == ["base-tiny@0", "rl@1", "valve@300"]
    one, other = (state(lake.project.root / "models" / name) for name in ("rl", "dpo"))
    for name, tensor in state(found[1].folder(lake)).items():
        assert torch.allclose(tensor, one[name] * 0.7 + other[name] * 0.3, atol=1e-7)
    code, out, _ = kedge("checkpoint", "list", "valve")
    assert "merged: 0.3 dpo@1, 0.7 rl@1" in " ".join(out.split())
    before = {path: path.stat().st_mtime_ns for path in lake.lake.rglob("*.safetensors")}
    code, out, _ = kedge("checkpoint", "merge", "rl", "dpo", "--weight", "0.3", "--run", "valve", "--json")
    assert code == 0 and [item["id"] for item in json.loads(out)] == ["valve@300"]
    assert before == {path: path.stat().st_mtime_ns for path in lake.lake.rglob("*.safetensors")}


def test_an_adapter_is_put_onto_its_base_and_compares_equal_to_itself(lake: Catalog, kedge):
    code, out, err = kedge("checkpoint", "merge", "lora")
    assert code == 0, err
    assert "lora-merged@1" in out and "logits differ by" in err
    found = checkpoints.find(lake, "lora-merged")
    assert found.weights == "full" and found.parent == "lora@1"
    assert found.merged_from == {"lora@1": 1.0, "base-tiny@0": 1.0}
    assert kedge("checkpoint", "merge", "lora")[0] == 0
    assert kedge("checkpoint", "merge", "lora-merged", "dpo", "--weight", "0.5", "--run", "valve")[0] == 0


@pytest.mark.parametrize(("arguments", "expected"), [
    (["rl", "dpo", "--weight", "0.3"], "--run: has no name"),
    (["rl", "dpo", "--run", "valve"], "give --weight once for each merge"),
    (["rl", "dpo", "--weight", "1", "--weight", "0", "--run", "v"], "0 would be A itself"),
    (["rl", "dpo", "--weight", "0.0005", "--run", "v"], "steps of 0.001"),
    (["rl", "dpo", "--weight", "nan", "--run", "v"], "nan is none"),
    (["rl", "rl@1", "--weight", "0.3", "--run", "v"], "have the same weights"),
    (["rl", "lora", "--weight", "0.3", "--run", "v"], "first: kedge checkpoint merge lora@1"),
    (["rl", "dpo", "--weight", "0.3", "--run", "base-v"], "is no name for a run"),
    (["rl", "dpo", "--weight", "0.3", "--run", "dpo", "--waive", "no"], "'no' is no reason"),
    (["rl", "dop", "--weight", "0.3", "--run", "v"], "did you mean 'dpo'"),
    (["rl"], "has full weights"), (["lora", "--weight", "0.3"], "leave out --weight"),
    (["rl", "dpo", "lora", "--weight", "0.3", "--run", "v"], "name two, or one adapter"),
])  # fmt: skip
def test_what_cannot_be_merged_is_a_clear_error(lake: Catalog, kedge, arguments: list[str], expected: str):
    before = [item.id for item in checkpoints.every(lake)]
    code, _, err = kedge("checkpoint", "merge", *arguments)
    assert code == 2 and expected in " ".join(err.split()) and "Traceback" not in err
    assert [item.id for item in checkpoints.every(lake)] == before


def test_a_name_that_others_have_is_refused(lake: Catalog, kedge):
    (lake.project.root / "catalogs" / "runs").mkdir()
    (lake.project.root / "catalogs" / "runs" / "sft.yaml").write_text("nothing: true\n")
    code, _, err = kedge("checkpoint", "merge", "rl", "dpo", "--weight", "0.3", "--run", "sft")
    assert code == 2 and "is a run file's" in err
    assert kedge("checkpoint", "merge", "rl", "dpo", "--weight", "0.3", "--run", "valve")[0] == 0
    code, _, err = kedge("checkpoint", "merge", "dpo", "rl", "--weight", "0.3", "--run", "valve")
    assert code == 2 and "valve@300 is registered already and was not merged from these" in err


def test_weights_that_changed_and_a_base_of_another_hash_are_refused(lake: Catalog, kedge):
    models = lake.project.root / "models"
    shutil.copyfile(models / "rl" / "model.safetensors", models / "tiny" / "model.safetensors")
    code, _, err = kedge("checkpoint", "merge", "lora")
    assert code == 2 and "another base than the adapter's" in err
    shutil.copyfile(models / "rl" / "model.safetensors", models / "dpo" / "model.safetensors")
    code, _, err = kedge("checkpoint", "merge", "rl", "dpo", "--weight", "0.5", "--run", "valve")
    assert code == 2 and "the weights of dpo@1 changed since it was registered" in err
    assert {item.run for item in checkpoints.every(lake)} == {"base-tiny", "dpo", "lora", "rl"}


KILLED = """
import os, signal, sys
from curation import checkpoints, cli
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
checkpoints.register = kill
cli.run(sys.argv[1:])
"""


def test_a_kill_before_the_merge_is_registered_is_finished_by_the_same_command(lake: Catalog, kedge):
    command = ["checkpoint", "merge", "rl", "dpo", "--weight", "0.5", "--run", "valve"]
    done = subprocess.run([sys.executable, "-c", KILLED, *command], cwd=lake.project.root, check=False,
                          env=dict(os.environ), capture_output=True)  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    (weights,) = (lake.lake / "runs" / "valve").rglob("*.safetensors")
    written = weights.stat().st_mtime_ns
    assert not checkpoints.every(lake, "valve")
    assert kedge(*command)[0] == 0
    assert checkpoints.find(lake, "valve@500").folder(lake) == weights.parent
    assert weights.stat().st_mtime_ns == written, "what was whole is not merged again"
