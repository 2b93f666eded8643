"""`kedge checkpoint compare`: distances by group, cosines of deltas, and what differs beside the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curation import checkpoints
from curation.catalog import Catalog
from tests.merging_models import adapter_of, moved, state
from trainers.merging.comparing import compare

torch = pytest.importorskip("torch")


@pytest.fixture
def lake(catalog: Catalog, tiny_model: Path) -> Catalog:
    """`one@1` and `other@1`, trained from `base-tiny@0`; the other one in several shards."""
    models = catalog.project.root / "models"
    shutil.copytree(tiny_model, models / "tiny")
    checkpoints.register_base(catalog, "models/tiny")
    moved(tiny_model, models / "one", seed=1)
    moved(tiny_model, models / "other", seed=2, shard="100KB")
    for name in ("one", "other"):
        enter(catalog, name)
    return catalog


def enter(catalog: Catalog, name: str, **more) -> checkpoints.Checkpoint:
    kind, digest = checkpoints.weights_of(catalog.project.root / "models" / name)
    record = {"run": name, "step": 1, "path": f"models/{name}", "weights": kind, "weights_hash": digest}
    return checkpoints.register(catalog, checkpoints.Checkpoint(parent="base-tiny@0", **record, **more))


def flat(folder: Path, part: str = "") -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for name, tensor in sorted(state(folder).items()) if part in name])


def test_distances_and_cosines_are_those_of_the_whole_vectors(lake: Catalog):
    found = compare("one", "other")
    models = lake.project.root / "models"
    assert found.ancestor == "base-tiny@0" and not found.structure and not found.beside and not found.same_weights
    groups = {item.group: item for item in found.distances}
    assert list(groups) == ["embed", "attention", "mlp", "norm", "all"]
    for group, part in (("all", ""), ("attention", "self_attn"), ("mlp", "mlp"), ("embed", "embed")):
        a, b, root = (flat(models / name, part) for name in ("one", "other", "tiny"))
        assert groups[group].relative_distance == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-9)
        cosine = torch.nn.functional.cosine_similarity(a - root, b - root, dim=0)
        assert groups[group].delta_cosine == pytest.approx(float(cosine), abs=1e-9)
    assert groups["all"].num_different == groups["all"].num_tensors == len(state(models / "one"))
    assert abs(groups["all"].delta_cosine) < 0.05, "independent noise"


def test_a_step_further_in_the_same_direction_has_a_cosine_of_one(lake: Catalog, kedge):
    code, _, err = kedge("checkpoint", "merge", "base-tiny@0", "one", "--weight", "0.5", "--run", "half")
    assert code == 0, err
    code, out, err = kedge("checkpoint", "compare", "half", "one", "--json")
    assert code == 0, err
    total = json.loads(out)["distances"][-1]
    assert total["delta_cosine"] == pytest.approx(1, abs=1e-6)
    code, out, _ = kedge("checkpoint", "compare", "half", "one")
    assert "cosine of deltas to base-tiny@0" in out and "the same architecture" in out


def test_an_ancestor_itself_has_distances_and_no_cosine(lake: Catalog):
    found = compare("base-tiny@0", "one")
    assert found.ancestor is None and all(item.delta_cosine is None for item in found.distances)
    assert found.distances[-1].relative_distance > 0


def test_other_shapes_settings_templates_and_stop_tokens_are_named(lake: Catalog, kedge):
    from curation.quickstart.tiny_model import make_model

    models = lake.project.root / "models"
    shutil.copytree(models / "one", models / "wide")
    make_model(models / "wide", hidden=32, layers=1, positions=64)
    (models / "wide" / "chat_template.jinja").write_text("{{ messages }}")
    (models / "wide" / "generation_config.json").write_text('{"eos_token_id": 0}')
    enter(lake, "wide")
    code, out, err = kedge("checkpoint", "compare", "one", "wide")
    assert code == 0, err
    for part in ("not the same architecture", "hidden_size = 32, not 64", "lacks the tensor model.layers.1",
                 "has another chat template", "has eos_token_id = 0"):  # fmt: skip
        assert part in out


def test_one_changed_tensor_is_found(lake: Catalog):
    from safetensors.torch import save_file

    models = lake.project.root / "models"
    shutil.copytree(models / "one", models / "near")
    tensors = state(models / "one")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.01
    save_file(tensors, models / "near" / "model.safetensors", metadata={"format": "pt"})
    enter(lake, "near")
    found = compare("one", "near")
    assert [item["name"] for item in found.farthest] == ["model.norm.weight"]
    groups = {item.group: item for item in found.distances}
    assert groups["mlp"].relative_distance == 0 and groups["mlp"].num_different == 0
    assert groups["norm"].num_different == groups["all"].num_different == 1


def test_adapters_on_one_base_are_compared_and_others_are_refused(lake: Catalog, kedge):
    models = lake.project.root / "models"
    base = checkpoints.find(lake, "base-tiny@0")
    for name, seed in (("lora", 1), ("second", 2)):
        adapter_of(models / "tiny", models / name, seed=seed)
        enter(lake, name, base_path=base.path, base_hash=base.weights_hash)
    found = compare("lora", "second")
    assert not found.structure and found.distances[-1].relative_distance > 0.1
    code, _, err = kedge("checkpoint", "compare", "lora", "one")
    assert code == 2 and "first: kedge checkpoint merge lora@1" in err
    for pair, expected in ((("one", "one@1"), "the same checkpoint"), (("one", "oter"), "did you mean 'other'")):
        code, _, err = kedge("checkpoint", "compare", *pair)
        assert code == 2 and expected in err
    shutil.rmtree(models / "other")
    code, _, err = kedge("checkpoint", "compare", "one", "other")
    assert code == 2 and "is no folder" in err
