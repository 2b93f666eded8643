"""`kedge checkpoint`: foreign weights, full or adapter, half-written ones, tags."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project


@pytest.fixture
def project(project_folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project_folder)
    shutil.copytree(tiny_model, project_folder / "models" / "checkpoint-100")
    shutil.copytree(tiny_model, project_folder / "models" / "base")
    return project_folder


def make_adapter(base: Path, folder: Path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(folder)
    return folder


def test_full_weights_are_registered_under_their_step_with_unknown_data(project: Path, kedge):
    code, out, err = kedge("checkpoint", "add", "models/checkpoint-100", "--run", "theirs")
    assert code == 0, err
    assert "theirs@100: full weights" in out and "data unknown" in out
    code, out, _ = kedge("checkpoint", "list", "theirs", "--json")
    (found,) = json.loads(out)
    assert (found["id"], found["mixture"], found["parent"]) == ("theirs@100", None, None)
    assert kedge("checkpoint", "add", "models/checkpoint-100", "--run", "theirs")[0] == 0
    code, out, _ = kedge("show", "theirs@100", "--json")
    assert code == 0 and json.loads(out)


def test_an_adapter_needs_its_base_and_both_are_hashed(project: Path, kedge):
    folder = make_adapter(project / "models" / "base", project / "models" / "adapter")
    code, _, err = kedge("checkpoint", "add", folder, "--run", "lora")
    assert code == 2 and "is an adapter" in err and "--base MODEL" in err
    code, _, err = kedge("checkpoint", "add", folder, "--run", "lora", "--base", "models/base")
    assert code == 0, err
    found = checkpoints.find(Catalog(find_project()), "lora")
    assert found.weights == "adapter"
    assert found.base_hash == checkpoints.weights_of(project / "models" / "base")[1] != found.weights_hash
    assert found.parent == "base-base@0"


def test_an_adapter_of_another_base_is_refused(project: Path, kedge):
    from curation.quickstart.tiny_model import make_model, make_tokenizer

    wide = project / "models" / "wide"
    make_tokenizer(wide, ["a b c"], vocabulary=300)
    make_model(wide, hidden=32, layers=1, positions=64)
    folder = make_adapter(wide, project / "models" / "adapter")
    code, _, err = kedge("checkpoint", "add", folder, "--run", "lora", "--base", "models/base")
    assert code == 2 and "belongs to another base" in err
    assert not checkpoints.every(Catalog(find_project()), "lora")


@pytest.mark.parametrize(("harm", "expected"), [
    ("cut", "is cut off"), ("config", "has weights but no config.json"), ("pickle", "pickled weights"),
    ("shard", "lacks model-00002-of-00002.safetensors"), ("gone", "is no folder"),
])  # fmt: skip
def test_a_half_written_or_unsafe_folder_is_one_clear_error(project: Path, kedge, harm: str, expected: str):
    folder = project / "models" / "checkpoint-100"
    weights = folder / "model.safetensors"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif harm == "config":
        (folder / "config.json").unlink()
    elif harm == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif harm == "shard":
        index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        shutil.rmtree(folder)
    code, _, err = kedge("checkpoint", "add", folder, "models/base", "--run", "theirs")
    assert code == 2 and expected in err and "Traceback" not in err
    assert not checkpoints.every(Catalog(find_project()), "theirs"), "none is registered where one is broken"


def test_other_weights_at_the_same_step_are_refused(project: Path, kedge):
    from curation.quickstart.tiny_model import make_model

    assert kedge("checkpoint", "add", "models/checkpoint-100", "--run", "theirs")[0] == 0
    make_model(project / "models" / "checkpoint-100", hidden=32, layers=1, positions=64)
    code, _, err = kedge("checkpoint", "add", "models/checkpoint-100", "--run", "theirs")
    assert code == 2 and "registered already with other weights" in err


def test_a_tag_names_one_checkpoint_and_moves(project: Path, kedge):
    for name in ("models/checkpoint-100", "models/base"):
        assert kedge("checkpoint", "add", name, "--run", "theirs")[0] == 0
    catalog = Catalog(find_project())
    assert kedge("checkpoint", "tag", "theirs@1", "good")[0] == 0
    assert checkpoints.find(catalog, "good").id == "theirs@1"
    assert kedge("checkpoint", "tag", "theirs@100", "good")[0] == 0
    assert checkpoints.find(catalog, "good").id == "theirs@100"
    code, _, err = kedge("checkpoint", "tag", "theirs@100", "theirs")
    assert code == 2 and "names a run or checkpoint already" in err
    code, _, err = kedge("checkpoint", "tag", "thiers@100", "x")
    assert code == 2 and "did you mean 'theirs@100'" in err


@pytest.mark.parametrize("name", ["base-x", "a/b", "a b"])
def test_a_name_that_no_run_can_have_is_refused(project: Path, kedge, name: str):
    code, _, err = kedge("checkpoint", "add", "models/base", "--run", name)
    assert code == 2 and "is no name for a run" in err
