"""Reward models of disjoint pairs as one reward of a run, and the bytes that a run's rewards read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from curation import checkpoints, registry
from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import UserError
from curation.mixtures import find_frozen
from curation.runs import Run
from evals.reward_models import annotation_query
from tests.trl_runs import RL, make_project, train_here, write_run
from trainers import chain, retention
from trainers.training import check_roles, rewards_of

HALF = "/* ---\nstage: preference\ntokenizer: tiny\ntemplate: chatml\n--- */\n"
HALF += "SELECT row_id FROM kept WHERE fold(prompt_hash, 2) = {}"
REWARDS = [{"name": "reward_model", "combine": "min", "std": [1.0, 2.0]},
           {"name": "function", "path": "distinct.py:distinct", "weight": 0.5}]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Reward models `rm_0` and `rm_1`, each trained on the pairs of one half of the prompts, and the run `policy` that
    both reward; nothing is trained of it yet."""
    from curation import cli
    from curation.quickstart.journey import inside

    root = make_project(tmp_path_factory.mktemp("rewarding"), tiny_model)
    with inside(root), pytest.MonkeyPatch.context() as patched:
        train_here(patched)
        for half in (0, 1):
            name = f"rm_{half}"
            (root / "catalogs" / "mixtures" / f"half_{half}.sql").write_text(HALF.format(half))
            write_run(root, name, tiny_model, "trl_reward", f"half_{half}", {"learning_rate": 1e-2}, {})
            for command in (["mix", "build", f"half_{half}"], ["audit", name], ["train", name]):
                assert cli.run(command) == 0
        write_run(root, "policy", tiny_model, "trl_grpo", "prompts", RL,
                  {"rewards": REWARDS, "reward_model": ["rm_0", "rm_1@2"]})  # fmt: skip
        assert cli.run(["audit", "policy"]) == 0
    return root


def prompts(root: Path, mixture: str) -> set[str]:
    parts = find_frozen(Catalog(find_project(root)), mixture).train
    return {row["prompt"][0]["content"] for part in parts for row in pq.read_table(part).to_pylist()}


def edited(root: Path, name: str, **changes: object) -> Run:
    """The run with other keys, under another name."""
    path = root / "catalogs" / "runs" / "policy.yaml"
    path.with_stem(name).write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    return Run(Catalog(find_project(root)), name)


def test_the_members_of_an_ensemble_learn_from_answers_to_other_prompts(project: Path):
    halves = [prompts(project, f"half_{half}") for half in (0, 1)]
    assert all(halves) and not halves[0] & halves[1]
    assert halves[0] | halves[1] == prompts(project, "pairs")
    catalog = Catalog(find_project(project))
    one, other = (checkpoints.find(catalog, f"rm_{half}").weights_hash for half in (0, 1))
    assert one != other


def test_grpo_trains_on_the_least_of_two_reward_models_and_keeps_what_each_says(project: Path, kedge, monkeypatch):
    monkeypatch.chdir(project)
    train_here(monkeypatch)
    code, _, err = kedge("train", "policy")
    assert code == 0, err
    catalog = Catalog(find_project(project))
    folder = checkpoints.find(catalog, "policy@2").folder(catalog).parent.parent
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {"rewards/reward_model", "rewards/reward_model.1", "rewards/reward_model.2"} <= set(log[0])
    code, out, _ = kedge("sql", "SELECT row_id, reward, components FROM rollouts WHERE run = 'policy'", "--json")
    rollouts = json.loads(out)
    assert code == 0 and len(rollouts) == 8
    for item in rollouts:
        said = json.loads(item["components"])
        one, other = said["reward_model.1"], said["reward_model.2"]
        assert said["reward_model"] == min(one, other) and one != other
        assert item["reward"] == pytest.approx(min(one, other) + 0.5 * said["function"])
    for policies in ([], ["policy"]):  # what the model's page proposes for annotation where its accuracy falls
        code, out, _ = kedge("sql", annotation_query(0, 3, policies), "--json")
        assert code == 0 and len(json.loads(out)) == min(3, len({item["row_id"] for item in rollouts}))
    inputs = json.loads((folder / "manifest.json").read_text())["inputs"]
    expected = {f"reward_model_{half + 1}": checkpoints.find(catalog, f"rm_{half}").weights_hash for half in (0, 1)}
    assert inputs["roles"] == expected and set(inputs["reward_bytes"]) == {"function_2"}
    assert "policy" in kedge("train", "policy")[2] and "nothing to do" in kedge("train", "policy")[2]

    function = project / "distinct.py"
    before = function.read_text()
    function.write_text(before.replace("/ 10", "/ 20"))
    code, _, err = kedge("train", "policy")
    assert code == 0 and "nothing to do" not in err, "the reward is another one"
    again = checkpoints.find(catalog, "policy@2")
    assert again.folder(catalog).parent.parent != folder
    lineage = json.loads((again.folder(catalog).parent.parent / "manifest.json").read_text())["inputs"]
    assert lineage["reward_bytes"] != inputs["reward_bytes"]
    function.write_text(before)
    assert "nothing to do" in kedge("train", "policy")[2], "its bytes are those of the first time"


def test_verl_is_told_the_value_of_an_ensemble_and_of_each_of_its_models(project: Path, tmp_path: Path):
    from trainers.rewards.verl_shim import compute_score

    catalog = Catalog(find_project(project))
    rewards = rewards_of(Run(catalog, "policy"))[:1]
    settings = tmp_path / "rewards.json"
    settings.write_text(json.dumps({"rewards": rewards, "project": str(project), "python": sys.executable}))
    asked = {"prompt": [{"role": "user", "content": "1 plus 3?"}], "row_id": "0" * 32}
    found = compute_score("numeric", "The answer is 4.", "4", asked, config=str(settings))
    models = [found["reward_model.1"], found["reward_model.2"]]
    assert found["score"] == found["reward_model"] == min(models) and models[0] != models[1]
    nothing = compute_score("numeric", "4", "4", {}, config=str(settings))
    assert set(nothing) == set(found), "verl stacks what it is told by name"


def test_a_function_that_is_not_there_is_one_clear_error_and_its_bytes_are_part_of_the_run(project: Path, kedge,
                                                                                          monkeypatch):  # fmt: skip
    monkeypatch.chdir(project)
    function, digests = project / "mine.py", []
    for text in ("def f(samples): return [1] * len(samples)\n", "def f(samples): return [2] * len(samples)\n") * 2:
        function.write_text(text)
        digests.append(edited(project, "mine", rewards=[{"name": "function", "path": "mine.py:f"}]).fingerprint("data"))
    assert digests[:2] == digests[2:] and digests[0] != digests[1]
    function.unlink()
    with pytest.raises(UserError, match=r"there is no file mine\.py; give its path from the project's folder"):
        Run(Catalog(find_project(project)), "mine").fingerprint("data")
    code, _, err = kedge("train", "mine")
    assert code == 2 and "mine.yaml: function.path: there is no file mine.py" in err.replace("\n", " ")
    code, _, err = kedge("plan", "mine")
    assert code == 0, err


def test_a_model_by_path_is_covered_by_its_weights(project: Path, monkeypatch):
    monkeypatch.chdir(project / "catalogs")  # paths of rewards begin at the project, wherever the command is given
    catalog = Catalog(find_project(project))
    folders = [catalog.project.relative(checkpoints.find(catalog, f"rm_{half}").folder(catalog)) for half in (0, 1)]
    by_path = edited(project, "by_path", reward_model=None, rewards=[{"name": "reward_model", "path": folders}])
    (read,) = by_path.reward_bytes.values()
    assert len(set(read["weights"])) == 2 and rewards_of(by_path)[0]["path"] == folders
    check(by_path)
    swapped = edited(project, "by_path", reward_model=None, rewards=[{"name": "reward_model", "path": folders[::-1]}])
    assert swapped.fingerprint("data") != by_path.fingerprint("data")


def test_an_ensembles_members_are_stages_of_a_chain_and_keep_their_weights(project: Path, monkeypatch):
    monkeypatch.chdir(project)
    catalog = Catalog(find_project(project))
    assert chain.needed(catalog, Run(catalog, "policy")) == ["rm_0", "rm_1"]
    member = checkpoints.find(catalog, "rm_1@2")
    assert "names it" in retention.needed_by_others(catalog, [member])["rm_1@2"]


def check(run: Run) -> None:
    check_roles(run, registry.make("trainers", run.trainer_name, run.options))


@pytest.mark.parametrize("more, told", [
    ({"rewards": [{"name": "answer"}]}, "reward_model: none of the rewards asks it"),
    ({"rewards": []}, r"(?s)rewards: trl_grpo needs it; add at least.*reward_model: none of the rewards asks it"),
    ({"reference": "rm_0"}, "reference: trl_grpo does nothing with it; remove it"),
    ({"trainer": {"name": "verl_rl"}, "reference": "rm_0"}, "reference: verl_rl does nothing with it; remove it"),
    ({"trainer": {"name": "trl_sft"}}, r"(?s)reward_model: trl_sft does nothing.*rewards: trl_sft does nothing"),
])  # fmt: skip
def test_what_a_run_names_and_nothing_uses_is_told(project: Path, monkeypatch, more: dict[str, Any], told: str):
    monkeypatch.chdir(project)
    with pytest.raises(UserError, match=told):
        check(edited(project, "idle", **more))


def test_reward_models_that_cannot_be_used_are_told(project: Path, monkeypatch):
    monkeypatch.chdir(project)
    catalog = Catalog(find_project(project))
    with pytest.raises(UserError, match="std has 2 numbers for 1 models; give one for each"):
        check(edited(project, "alone", reward_model="rm_0"))
    record = checkpoints.find(catalog, "rm_0@2").model_copy(update={"run": "lora", "weights": "adapter"})
    checkpoints.register(catalog, record)
    with pytest.raises(UserError, match="lora@2 is an adapter; merge it first: kedge checkpoint merge lora@2"):
        check(edited(project, "adapted", reward_model=["rm_1", "lora"]))
    with pytest.raises(UserError, match="reward_model"):
        edited(project, "none", reward_model=[])
