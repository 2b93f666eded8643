"""Checkpoints of a bundled run are registered as if they had been trained here, or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from curation import checkpoints, cli, registry
from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import UserError
from curation.fingerprint import fingerprint
from curation.quickstart.journey import inside
from tests.bundled import without_kedge
from tests.trl_runs import REWARDS, RL, make_project, train_here, write_run
from trainers.bundling import rewards as reward_files

STEPS = {"max_steps": 2, "save_steps": 1, "eval_strategy": "no"}
LORA = {"r": 2, "target_modules": ["q_proj"]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A project with a DPO run, one under LoRA and a GRPO run, audited, the LoRA one trained; each is bundled."""
    root = make_project(tmp_path_factory.mktemp("home"), tiny_model)
    write_run(root, "full", tiny_model, "trl_dpo", "pairs", STEPS, {})
    write_run(root, "lora", tiny_model, "trl_dpo", "pairs", {**STEPS, "lora": LORA}, {})
    write_run(root, "asked", tiny_model, "trl_grpo", "prompts", {**RL, **STEPS}, {"rewards": REWARDS})
    with inside(root), pytest.MonkeyPatch.context() as patch:
        train_here(patch)
        for name in ("full", "lora", "asked"):
            assert cli.run(["audit", name]) == 0
            assert cli.run(["train", name, "--bundle", str(root / "bundles" / name)]) == 0
        assert cli.run(["train", "lora"]) == 0
    return root


@pytest.fixture
def project(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, and the working directory inside it."""
    shutil.copytree(home, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def saved(project: Path, name: str, step: int, weights: Path) -> Path:
    """A checkpoint as the bundle's script leaves it: weights with the bundle's record beside."""
    folder = project / "bundles" / name / "out" / f"checkpoint-{step}"
    shutil.copytree(weights, folder)
    shutil.copyfile(project / "bundles" / name / "kedge.json", folder / "kedge.json")
    return folder


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def sealed(path: Path, **changes: Any) -> None:
    """Another record, whole in itself: one of a bundle of another project."""
    said = {name: value for name, value in json.loads(path.read_text()).items() if name != "fingerprint"} | changes
    path.write_text(json.dumps(said | {"fingerprint": fingerprint(said)}))


def test_its_record_is_the_one_that_training_here_writes(project: Path, kedge):
    catalog = Catalog(find_project())
    here = checkpoints.find(catalog, "lora@2")
    folder = saved(project, "lora", 2, here.folder(catalog))
    code, out, err = kedge("checkpoint", "add", folder, "--run", "lora_there")
    assert code == 0, err
    assert "lora_there@2: adapter weights" in out and f"trained on {here.mixture} from {here.parent}" in out
    there = checkpoints.find(catalog, "lora_there@2")
    own = {"run", "path"}
    assert there.model_dump(exclude=own) == here.model_dump(exclude=own)
    assert there.folder(catalog) == folder and there.base_folder(catalog) == here.base_folder(catalog)


def test_it_has_ancestors_is_shown_and_scored_like_any_other(project: Path, kedge, tiny_model: Path):
    folder = saved(project, "full", 1, tiny_model)
    for _ in range(2):  # the second time changes nothing
        code, out, err = kedge("checkpoint", "add", folder, "--run", "full")
        assert code == 0 and "has changed" not in err, err
    catalog = Catalog(find_project())
    item = checkpoints.find(catalog, "full")
    assert (item.id, item.base_hash, item.base_path) == ("full@1", None, None)
    assert [link.id for link in checkpoints.lineage(catalog, item)] == ["base-model@0", "full@1"]
    code, out, err = kedge("show", "full@1", "--json")
    assert code == 0 and item.mixture in out, err
    samples = project / "samples.jsonl"
    samples.write_text(
        json.dumps({"checkpoint": "full@1", "benchmark": "b", "sample_id": "s", "state": "right"}) + "\n"
    )
    assert kedge("scores", "add", samples)[0] == 0
    code, out, _ = kedge("checkpoint", "list", "full", "--json")
    (listed,) = json.loads(out)
    assert (listed["mixture"], listed["parent"]) == (item.mixture, "base-model@0")


def test_the_record_of_the_bundle_itself_is_enough(project: Path, kedge, tiny_model: Path):
    folder = saved(project, "full", 1, tiny_model)
    (folder / "kedge.json").unlink()
    shutil.copytree(tiny_model, project / "bundles" / "full" / "weights")
    code, _, err = kedge("checkpoint", "add", folder, project / "bundles" / "full" / "weights", "--run", "full")
    assert code == 0, err
    catalog = Catalog(find_project())
    assert str(checkpoints.find(catalog, "full@1").mixture).startswith("pairs@")
    assert checkpoints.find(catalog, "full@2").mixture is None, "weights beside a record are not what was trained"


def test_an_edited_record_is_refused(project: Path, kedge, tiny_model: Path):
    folder = saved(project, "full", 1, tiny_model)
    edited(folder / "kedge.json", mixture="pairs@" + "0" * 32)
    other = saved(project, "full", 2, tiny_model)
    (other / "kedge.json").write_text("{}")
    code, _, err = kedge("checkpoint", "add", folder, other, "--run", "full")
    assert code == 2 and "was edited" in err and "is no record of a bundle" in err
    assert "or remove kedge.json to register it as foreign" in err
    assert not checkpoints.every(Catalog(find_project()), "full")


def test_what_this_lake_does_not_hold_is_refused_all_at_once(project: Path, kedge, tiny_model: Path):
    one, two = saved(project, "full", 1, tiny_model), saved(project, "full", 2, tiny_model)
    sealed(one / "kedge.json", mixture="others@" + "0" * 32, parent="sft@9")
    sealed(two / "kedge.json", base_hash="0" * 32)
    code, _, err = kedge("checkpoint", "add", one, two, "--run", "full")
    assert code == 2
    assert "the mixture others@000000000000, which this lake does not hold" in err
    assert "trained from sft@9, which is not registered here" in err
    assert "trained from base-model@0 with the weights 000000000000" in err
    assert not checkpoints.every(Catalog(find_project()), "full")


@pytest.mark.parametrize(("more", "expected"), [
    (("--run", "asked"), "was trained as full, and asked is another run of this project"),
    (("--run", "full", "--base", "."), "leave --base out"),
])  # fmt: skip
def test_what_contradicts_the_record_is_refused(project: Path, kedge, tiny_model: Path, more, expected: str):
    code, _, err = kedge("checkpoint", "add", saved(project, "full", 1, tiny_model), *more)
    assert code == 2 and expected in err and "Traceback" not in err


def test_a_run_whose_file_has_changed_since_is_told(project: Path, kedge, tiny_model: Path):
    write_run(project, "full", tiny_model, "trl_dpo", "pairs", {**STEPS, "beta": 0.3}, {})
    code, _, err = kedge("checkpoint", "add", saved(project, "full", 1, tiny_model), "--run", "full")
    assert code == 0 and "the file of full has changed since it was bundled" in err


def test_rewards_are_bundled_and_their_rollouts_come_home(project: Path, kedge, tiny_model: Path, tmp_path: Path):
    bundle = project / "bundles" / "asked"
    assert (bundle / "functions" / "distinct.py").read_bytes() == (project / "distinct.py").read_bytes()
    bundle = bundle.rename(tmp_path / "elsewhere")
    python = without_kedge(sys.executable, tmp_path / "environment")
    done = subprocess.run([str(python), "train.py", "--model", str(tiny_model)], cwd=bundle, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    made = [bundle / "out" / f"checkpoint-{step}" for step in (1, 2)]
    code, out, err = kedge("checkpoint", "add", *made, "--run", "asked")
    assert code == 0, err
    assert "8 rollouts of " in out
    rewarded = "SELECT count(*) AS n FROM rollouts WHERE run = 'asked' AND reward IS NOT NULL"
    code, out, err = kedge("sql", rewarded, "--json")
    assert code == 0 and json.loads(out) == [{"n": 8}], out + err


def test_what_components_read_is_in_the_bundle_or_asked_for(home: Path, tmp_path: Path, tiny_model: Path):
    (home / "other").mkdir()
    (home / "other" / "distinct.py").write_text("def distinct(samples):\n    return [0.0 for _ in samples]\n")
    model = str(tiny_model)
    uses = [{"name": "function", "path": "distinct.py:distinct", "options": {"path": "words.txt"}},
            {"name": "function", "path": "other/distinct.py:distinct"},
            {"name": "reward_model", "path": [model, model]},
            {"name": "steps", "scorer": {"name": "reward_model", "path": model}},
            {"name": "judge", "endpoint": {"url": "http://127.0.0.1:1/v1"}}]  # fmt: skip
    found, weights = reward_files.write({"project": str(home), "rewards": uses}, tmp_path)
    assert [use.get("path") for use in found] == [
        "functions/distinct.py:distinct", "functions/distinct_2.py:distinct", ["{reward_model}", "{reward_model_2}"],
        None, None]  # fmt: skip
    assert found[0]["options"] == {"path": "words.txt"} and found[3]["scorer"]["path"] == "{reward_model_3}"
    assert list(weights) == ["reward_model", "reward_model_2", "reward_model_3"]
    assert all(checkpoints.weights_of(tiny_model)[1][:12] in what for what in weights.values())
    assert found[4]["judge"] == "judges/score.yaml" and (tmp_path / "judges" / "score.yaml").is_file()
    wanted = reward_files.requirements(uses)
    assert {"httpx", "torch", "math-verify", "pydantic"} <= set(wanted)


def test_a_reward_that_another_package_brought_is_refused(home: Path, tmp_path: Path):
    known = registry.entries("rewards")
    brought = registry.Entry("rewards", "style", "their-rewards", "their.style", EntryPoint("style", "their", "x"))
    job = {"project": str(home), "rewards": [{"name": "answer"}, {"name": "style"}], "where": "catalogs/runs/a.yaml"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entries", lambda kind: known | {"style": brought})
        with pytest.raises(UserError, match="'style' is a plug-in of their-rewards") as told:
            reward_files.write(job, tmp_path)
    assert "{name: function, path: FILE.py:NAME}" in str(told.value) and not list(tmp_path.iterdir())
