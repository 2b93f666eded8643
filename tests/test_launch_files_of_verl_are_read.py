"""Configurations and scripts of verl, as its examples are written: what each would do."""

from __future__ import annotations

import pytest

from tests.launches import read, told, usable

VERL_RL = """
    # Data preparation scripts are in examples/data_preprocess: data.truncation=left
    set -x
    DATA=${DATA_DIR:-.}
    train_path="$DATA/prompts.jsonl"

    python3 -m verl.trainer.main_ppo \\
        algorithm.adv_estimator=grpo \\
        data.train_files="['$train_path']" \\
        data.val_files=$train_path \\
        data.train_batch_size=16 \\
        data.max_prompt_length=8192 \\
        data.max_response_length=1024 \\
        data.filter_overlong_prompts={filter} \\
        data.truncation='error' \\
        +data.apply_chat_template_kwargs.enable_thinking=False \\
        actor_rollout_ref.model.path=model \\
        actor_rollout_ref.rollout.name=vllm \\
        actor_rollout_ref.rollout.n=5 $@
"""


def test_verls_reinforcement_learning_from_a_script(here):
    launch = read(here, "run.sh", VERL_RL.replace("{filter}", "True"))
    assert (launch.framework, launch.stage, launch.trainer) == ("verl", "rlvr", "verl_rl")
    for name, value in {
        "max_prompt_length": 8192,
        "max_response_length": 1024,
        "filter_overlong_prompts": True,
    }.items():
        assert launch.options[name] == value
    assert launch.dataset == here / "prompts.jsonl"
    assert (launch.model, launch.tokenizer, launch.template) == (str(here / "model"), str(here / "model"), "tokenizer")
    assert launch.template_kwargs == {"enable_thinking": False}
    assert launch.given["actor_rollout_ref"]["rollout"] == {"name": "vllm", "n": 5}
    assert launch.problems == [], "the filter leaves truncation nothing to do"
    usable(launch)


def test_verls_truncation_is_dead_without_the_filter(here):
    launch = read(here, "run.sh", VERL_RL.replace("{filter}", "False"))
    assert told(launch) == [("run.sh:14", "data.truncation")]
    assert "dead" in launch.problems[0].what


@pytest.mark.parametrize("dotted", [False, True], ids=["nested", "dotted"])
def test_verls_settings_as_yaml(here, dotted):
    nested = """
        data:
          train_files: prompts.jsonl
          prompt_key: prompt
          max_prompt_length: 512
          truncation: left
        custom_reward_function:
          path: reward.py
        actor_rollout_ref:
          model:
            path: model
          actor:
            policy_loss:
              loss_mode: clip-cov
          rollout:
            name: hf
    """
    flat = """
        data.train_files: prompts.jsonl
        data.prompt_key: prompt
        +data.max_prompt_length: 512
        data.truncation: left
        custom_reward_function.path: reward.py
        actor_rollout_ref.model.path: model
        actor_rollout_ref.actor.policy_loss.loss_mode: clip-cov
        actor_rollout_ref.rollout.name: hf
    """
    launch = read(here, "ppo.yaml", flat if dotted else nested)
    lines = (4, 5, 7, 8) if dotted else (5, 7, 13, 15)
    keys = ("data.truncation", "custom_reward_function.path", "actor_rollout_ref.actor.policy_loss.loss_mode",
            "actor_rollout_ref.rollout.name")  # fmt: skip
    assert set(told(launch)) == {(f"ppo.yaml:{line}", key) for line, key in zip(lines, keys, strict=True)}
    assert launch.options["max_prompt_length"] == 512
    assert launch.dataset_format == {"prompt_key": "prompt"}
    assert launch.trainer == "verl_rl"


def test_verls_supervised_fine_tuning(here):
    launch = read(here, "sft.sh", """
        NPROC=2 torchrun --standalone -m verl.trainer.sft_trainer data.train_files=chat.jsonl data.max_length=2048 \\
            data.truncation=left data.messages_key=messages data.pad_mode=no_padding \\
            data.ignore_input_ids_mismatch=True model.path=model trainer.total_epochs=1
    """)  # fmt: skip
    assert (launch.stage, launch.trainer, launch.model) == ("sft", "verl_sft", str(here / "model"))
    for name, value in {"max_length": 2048, "truncation": "left", "ignore_input_ids_mismatch": True}.items():
        assert launch.options[name] == value
    assert launch.dataset_format == {"messages_key": "messages"}
    assert told(launch) == [("sft.sh:2", "data.truncation")], "left cuts on the right without padding"
