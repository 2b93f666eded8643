"""What verl would take in silence is refused before it starts: every name against verl's own registries."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from curation import environments
from curation.errors import Problem, UserError
from tests.verl_cpu import kedge_project
from trainers.process import verl_prepare, verl_settings
from trainers.verl_rl import PRESETS, VerlRLTrainer
from trainers.verl_sft import VerlSFTTrainer

try:
    PYTHON = environments.python("verl")
except UserError as absent:
    pytest.skip(str(absent), allow_module_level=True)

pytestmark = pytest.mark.verl

ACTOR, ROLLOUT, CORRECTION = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm.rollout_correction"
STORAGE = "transfer_queue.backend.SimpleStorage"
# option, what is written, the key that the problem is told under, what the problem says
RL_MISTAKES: list[tuple[str, Any, str, str]] = [
    (f"{ACTOR}.policy_loss.loss_mode", "banana", "", "known: bypass_mode, cispo, clip_cov"),
    (f"{ACTOR}.policy_loss.loss_mode", "clip-cov", "", "did you mean 'clip_cov'?"),
    (f"{ACTOR}.loss_agg_mode", "token_mean", "", "did you mean 'token-mean'?"),
    ("algorithm.adv_estimator", "grop", "", "did you mean 'grpo'?"),
    ("algorithm.adv_estimator", "banana", "", "gae"),
    (f"{CORRECTION}.rollout_is", "banana", "", "sequence, token"),
    (f"{CORRECTION}.rollout_rs", "seq_mean_k4", "", "did you mean 'seq_mean_k"),
    (f"{CORRECTION}.rollout_rs", "token_k1", "rollout_correction.rollout_rs_threshold", "must be provided"),
    (f"{CORRECTION}.loss_type", "banana", "", "ppo_clip, reinforce"),
    ("reward.reward_manager.name", "daop", "", "did you mean 'dapo'?"),
    ("reward.reward_manager.source", "banana", "", "importlib, register"),
    ("reward.custom_reward_function.path", "/nowhere/reward.py", "reward.custom_reward_function", "cannot be loaded"),
    ("reward.custom_reward_function.name", "nothing", "reward.custom_reward_function", "cannot be loaded"),
    ("trainer.logger", ["tensorbord"], "", "did you mean 'tensorboard'?"),
    ("trainer.v1.trainer_mode", "synch", "", "did you mean 'sync'?"),
    (f"{ROLLOUT}.name", "hf", "", "has no rollout 'hf' any more; use vllm or sglang"),
    (f"{ROLLOUT}.name", "vlm", "", "did you mean 'vllm'?"),
    (f"{ROLLOUT}.name", "vllm", "", "is not installed in verl's environment"),
    (f"{ACTOR}.strategy", "fdsp", "", "did you mean 'fsdp"),
    (f"{ACTOR}.kl_loss_type", "low_var", "", "did you mean 'low_var_kl'?"),
    ("algorithm.kl_ctrl.type", "banana", "algorithm.kl_ctrl", "'banana'"),
    (f"{ACTOR}.ppo_mini_batch_size", 3, "", "no multiple of 3"),
    (f"{ACTOR}.ppo_mini_batch_size", 16, "", "no multiple of 16"),
    (f"{ACTOR}.ppo_micro_batch_size_per_gpu", None, "verl", "ppo_micro_batch_size_per_gpu"),
    (f"{ROLLOUT}.n", 1, "", "set it to 2 or more"),
    ("max_prompt_length", "banana", "", "'banana' is no int"),
    ("train_batch_size", 64, "", "20 rows are less than one batch of 64"),
    ("trainer.total_training_steps", 6, "", "after 1 epochs, which are 5 steps"),
    ("data.truncation", "banana", "truncation", "is dead"),
    ("custom_reward_function.path", "reward.py", "", "write reward.custom_reward_function.path"),
    ("reward_model.enable", True, "", "write reward.reward_model.enable"),
    (f"{ROLLOUT}.temprature", 0.5, "", f"did you mean '{ROLLOUT}.temperature'?"),
    ("algorithm.filter_group.enable", True, "", "did you mean 'algorithm.filter_groups.enable'?"),
    ("ray_kwargs.ray_init.num_cpus", 4, "", "would wait for ever with 4"),
    (f"{STORAGE}.num_data_storage_units", 40, "ray_kwargs.ray_init.num_cpus", "verl reserves 45 logical CPUs"),
    (f"{STORAGE}.total_storage_size", 10, "", "and 10 fit"),
]  # fmt: skip
SFT_MISTAKES: list[tuple[str, Any, str, str]] = [
    ("data.truncation", "banana", "truncation", "known: error, left, right"),
    ("data.truncation", "left", "truncation", "'left' is dead without padding"),
    ("data.pad_mode", "rigth", "pad_mode", "did you mean 'right'?"),
    ("engine.strategy", "fdsp", "", "did you mean 'fsdp"),
    ("trainer.total_epoch", 1, "", "did you mean 'trainer.total_epochs'?"),
    ("trainer.logger", "banana", "", "console"),
    ("optim.lr", "fast", "", "is no float"),
]
LENGTHS = {"train": 20, "val": 5}


ANSWER = ({"name": "answer"},)


def settings(
    folder: Path, entry: str, options: dict[str, Any], model: Path = Path("model"), rewards: tuple[Any, ...] = ANSWER
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(job, settings) as the wrapper makes them of a run's options."""
    cls = VerlRLTrainer if entry == "rl" else VerlSFTTrainer
    given = {name: value for name, value in options.items() if name != "name"}
    job = {"config": cls(**given).config(), "output": str(folder / "weights"), "kwargs": {}, "record": {"run": "r"},
           "trust_remote_code": False, "model": str(model), "rewards": rewards, "evidence": str(folder)}  # fmt: skip
    return job, verl_settings.settings(job, entry, LENGTHS)


def question(
    folder: Path, model: Path, entry: str, options: dict[str, Any], wrong: dict[str, Any],
    rewards: tuple[Any, ...] = ANSWER,
) -> dict[str, Any]:  # fmt: skip
    _, given = settings(folder, entry, options, model, rewards)
    given |= {name if "." in name else f"data.{name}": value for name, value in wrong.items()}
    size = f"{STORAGE}.total_storage_size"
    if entry == "rl" and size not in given:
        given[size] = 100_000
    return verl_prepare.case_of(entry, given, LENGTHS)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    """The problems of every case, from one process in verl's environment."""
    folder = tmp_path_factory.mktemp("verl")
    shutil.copytree(tiny_model, folder / "verl" / "tokenizer")
    ask = partial(question, folder, tiny_model)
    rl, sft = kedge_project.RL | {"preset": "gspo"}, kedge_project.SFT
    cases = {f"preset {name}": ask("rl", rl | kedge_project.CRITIC | {"preset": name}, {})
             for name in PRESETS}  # fmt: skip
    cases["sft"] = ask("sft", sft, {})
    cases["no reward"] = ask("rl", rl, {}, ())
    cases["all at once"] = ask("rl", rl, {RL_MISTAKES[at][0]: RL_MISTAKES[at][1] for at in (0, 3, 9, 34)})
    for number, (name, value, _, _) in enumerate(RL_MISTAKES):
        cases[f"rl {number}"] = ask("rl", rl, {name: value})
    for number, (name, value, _, _) in enumerate(SFT_MISTAKES):
        cases[f"sft {number}"] = ask("sft", sft, {name: value})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in kedge_project.environment().items():
            patch.setenv(name, value)
        return verl_prepare.ask(PYTHON, cases, folder)


def told(answer: dict[str, Any]) -> list[Problem]:
    return [verl_prepare.problem(item) for item in answer["problems"]]


@pytest.mark.parametrize("name", [f"preset {name}" for name in PRESETS] + ["sft"])
def test_presets_and_everything_that_kedge_sets_are_options_of_verl_which_it_validates(answers: dict, name: str):
    assert told(answers[name]) == []


@pytest.mark.parametrize(
    "number", range(len(RL_MISTAKES)), ids=[f"{name}={value}" for name, value, _, _ in RL_MISTAKES]
)
def test_a_mistake_in_reinforcement_learning_is_one_problem_that_says_what_to_write(answers: dict, number: int):
    name, _, key, expected = RL_MISTAKES[number]
    (problem,) = told(answers[f"rl {number}"])
    assert problem.key.endswith(key or name) and problem.key.startswith("trainer.")
    assert expected in str(problem)


@pytest.mark.parametrize("number", range(len(SFT_MISTAKES)), ids=[f"{n}={v}" for n, v, _, _ in SFT_MISTAKES])
def test_a_mistake_in_supervised_fine_tuning_is_one_problem_that_says_what_to_write(answers: dict, number: int):
    name, _, key, expected = SFT_MISTAKES[number]
    (problem,) = told(answers[f"sft {number}"])
    assert problem.key.endswith(key or name)
    assert expected in str(problem)


def test_all_mistakes_of_a_run_are_told_at_once(answers: dict):
    assert len(told(answers["all at once"])) == 4


def test_a_run_that_nothing_scores_is_refused(answers: dict):
    (problem,) = told(answers["no reward"])
    assert "add rewards to the run" in problem.next


@pytest.mark.parametrize(("options", "expected"), [
    ({"preset": "gpso"}, "did you mean 'gspo'"),
    ({"preset": "banana"}, "there is no preset 'banana'"),
    ({"max_promt_length": 5}, "did you mean 'max_prompt_length'"),
    ({"truncation": "left"}, "is dead"),
    ({"filter_overlong_prompts": False}, "is set by kedge"),
    ({"train_files": "x.parquet"}, "see the run's mixture"),
    ({"trainer.resume_mode": "disable"}, "is set by kedge"),
    ({"trainer.n_gpus_per_node": 8}, "see the run's num_processes"),
    ({"actor_rollout_ref.model.path": "x"}, "see the run's base or parent"),
    ({"apply_chat_template_kwargs": {}}, "see the run's template_kwargs"),
    ({"custom_reward_function.path": "x"}, "write reward.custom_reward_function.path"),
    ({"reward_model.enable": True}, "write reward.reward_model.enable"),
    ({"data.train_batch_size": 4}, "write train_batch_size"),
])  # fmt: skip
def test_a_mistake_that_needs_no_verl_is_told_when_the_run_file_is_read(options: dict, expected: str):
    with pytest.raises(ValidationError, match=expected):
        VerlRLTrainer(**options)


def test_what_the_run_says_wins_over_its_preset():
    config = VerlRLTrainer(preset="gspo", **{f"{ACTOR}.clip_ratio_low": 0.1, "max_prompt_length": 64}).config()
    assert config[f"{ACTOR}.clip_ratio_low"] == 0.1
    assert config[f"{ACTOR}.clip_ratio_high"] == 4e-4
    assert config[f"{ACTOR}.policy_loss.loss_mode"] == "gspo"
    assert config["data.max_prompt_length"] == 64
    assert "preset" not in config


def test_the_penalty_of_dapo_follows_the_length_of_responses():
    key = "reward.reward_kwargs"
    config = VerlRLTrainer(preset="dapo", max_response_length=20480).config()
    assert (config[f"{key}.max_resp_len"], config[f"{key}.overlong_buffer_cfg.len"]) == (20480, 4096)
    assert VerlRLTrainer(preset="dapo", **{f"{key}.max_resp_len": 7}).config()[f"{key}.max_resp_len"] == 7


def test_several_nodes_share_a_ray_cluster_and_are_told_how_to_start(tmp_path: Path):
    job, given = settings(tmp_path, "rl", kedge_project.RL | {"trainer.nnodes": 2})
    assert given["ray_kwargs.ray_init.address"] == "auto"
    assert given["ray_kwargs.ray_init.num_cpus"] is None, "Ray refuses it for a cluster that runs"
    assert given[f"{STORAGE}.num_data_storage_units"] == 4
    text = verl_settings.on_other_nodes(PYTHON, "rl", given)
    assert "ray start --head --port=6379" in text and "ray start --address=" in text
    _, given = settings(tmp_path, "sft", kedge_project.SFT | {"trainer.nnodes": 2})
    assert "--node_rank=0" in verl_settings.command(PYTHON, "sft", given)
    assert "--node_rank=1" in verl_settings.on_other_nodes(PYTHON, "sft", given)
    assert job["config"]["trainer.nnodes"] == 2


HARD = ["", "a", "it's", "\\", "\\'", "a\\\\'b\\", "[x]{y}: 1, 2 = ${z}", "0.5_5.0", "1e-6", "null", "True", "naïve\n",
        "東京", "/a/b-c.parquet", "seq_mean_k1,token_k2", " spaced ", "a'", "''"]  # fmt: skip


def test_settings_reach_verl_as_they_are_written():
    values = [None, True, False, 0, -3, 1e-6, 3e-4, 0.1 + 0.2, *HARD, HARD, [1, [2.5, None]],
              {"enable_thinking": False, "note": "it's", "deep": {"a": [1]}}]  # fmt: skip
    lines = [f"++x={verl_settings.text(value)}" for value in values]
    program = ("import json, sys\nfrom hydra.core.override_parser.overrides_parser import OverridesParser as P\n"
               "parse = P.create().parse_override\n"
               "print(json.dumps([parse(line).value() for line in json.load(sys.stdin)]))")  # fmt: skip
    done = subprocess.run([str(PYTHON), "-c", program], input=json.dumps(lines), text=True, capture_output=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == values
    with pytest.raises(ValueError, match="is no setting"):
        verl_settings.text(float("nan"))
