"""Configurations of TRL, as its examples are written: what each would do."""

from __future__ import annotations

import dataclasses

import pytest

from curation.auditing.launch_files.trl import SCRIPT
from tests.launches import read, told, usable

TRL_SFT = """
    # Model arguments
    model_name_or_path: model
    dtype: bfloat16
    attn_implementation: sdpa

    # Data training arguments: trl sft --config FILE
    chat_template_path: chat.jinja
    datasets:
      - path: json
        data_files: chat.jsonl
        split: train
      - path: alpaca.jsonl
        fraction: 0.5
    max_length: 32768
    packing: true
    packing_strategy: bfd_split
    assistant_only_loss: true
    eos_token: <|im_end|>
    learning_rate: 4.0e-05
    num_train_epochs: 5
    per_device_train_batch_size: 2
    lr_scheduler_kwargs:
      min_lr_rate: 0.1
    use_liger_kernel: true
"""


def test_trl_supervised_fine_tuning(here):
    (here / "chat.jinja").write_text("{{ messages }}")
    launch = read(here, "config.yaml", TRL_SFT)
    assert (launch.framework, launch.stage, launch.trainer) == ("trl", "sft", "trl_sft")
    assert launch.options["max_length"] == 32768 and launch.options["packing"] is True
    assert launch.options["packing_strategy"] == "bfd_split" and launch.options["assistant_only_loss"] is True
    assert launch.datasets == (here / "chat.jsonl", here / "alpaca.jsonl")
    assert launch.template == str(here / "chat.jinja")
    assert (launch.model, launch.tokenizer) == (str(here / "model"),) * 2
    assert any("fraction 0.5" in note for note in launch.notes) and any("<|im_end|>" in note for note in launch.notes)
    assert launch.problems == []
    usable(launch)


@pytest.mark.parametrize(("name", "text", "trainer", "data"), [
    ("dpo_config.yaml", "max_length: 2048\nbeta: 0.1\n", "trl_dpo", "pairs"),
    ("a.yaml", "# trl dpo --config a.yaml\nmax_length: 2048\n", "trl_dpo", "pairs"),
    ("a.yaml", "desirable_weight: 1.0\nmax_length: 512\n", "trl_kto", "pairs"),
    ("recipe.rm.yaml", "max_length: 512\n", "trl_reward", "pairs"),
    ("a.yaml", "center_rewards_coefficient: 0.01\nmax_length: 512\n", "trl_reward", "pairs"),
    ("a.yaml", "scale_rewards: group\nmax_completion_length: 1024\nnum_generations: 16\n", "trl_grpo", "prompts"),
    ("a.yaml", "packing: true\nmax_length: 512\n", "trl_sft", "chat"),
])  # fmt: skip
def test_the_command_of_trl_is_told_from_comment_name_or_keys(here, name, text, trainer, data):
    launch = read(here, name, f"model_name_or_path: model\ndataset_name: {data}.jsonl\n{text}")
    assert launch.trainer == trainer
    assert launch.problems == []
    wanted = {"max_length": 2048 if "2048" in text else 512} if "max_length" in text else \
        {"max_completion_length": 1024, "num_generations": 16}  # fmt: skip
    assert {name: launch.options[name] for name in wanted} == wanted
    usable(launch)


def test_a_configuration_for_several_commands_asks_for_a_comment(here):
    launch = read(here, "config.yaml", "model_name_or_path: model\ndataset_name: chat.jsonl\nmax_length: null\n")
    assert launch.trainer == "trl_sft" and launch.options == {"max_length": None}
    problem = launch.problems[0]
    assert "dpo, kto, reward, sft would take it" in problem.what and "# trl dpo" in problem.next


def test_trls_dead_and_unknown_options_are_problems_with_their_lines(here):
    launch = read(here, "sft.yaml", """
        model_name_or_path: model
        dataset_name: chat.jsonl
        max_seq_length: 4096
        packing: true
        packing_strategy: ffd
        chat_template: "{{ messages }}"
        dataset_num_proc: 12
        completion_only_los: true
    """)  # fmt: skip
    assert told(launch) == [("sft.yaml:3", "max_seq_length"), ("sft.yaml:5", "packing_strategy"),
                            ("sft.yaml:6", "chat_template"), ("sft.yaml:7", "dataset_num_proc"),
                            ("sft.yaml:8", "completion_only_los")]  # fmt: skip
    assert launch.problems[0].next == "use max_length"
    assert "ffd" in launch.problems[1].what
    assert launch.problems[4].next == "did you mean 'completion_only_loss'?"
    assert launch.options == {"packing": True}
    assert any("max_length is not given: TRL takes 1024" in note for note in launch.notes)


def test_dpos_padding_free_is_a_problem_where_it_is_on(here):
    text = "model_name_or_path: model\ndataset_name: pairs.jsonl\npadding_free: {}\nmax_prompt_length: 512\n"
    on, off = (read(here, "apo_dpo.yaml", text.format(value)) for value in ("true", "false"))
    assert told(on) == [("apo_dpo.yaml:3", "padding_free"), ("apo_dpo.yaml:4", "max_prompt_length")]
    assert told(off) == [("apo_dpo.yaml:4", "max_prompt_length")]


def test_the_mixture_of_the_alignment_handbook_is_refused_by_trl_but_read(here):
    launch = read(here, "sft.yaml", """
        model_name_or_path: model
        dataset_mixture:
          datasets:
            - id: chat.jsonl
              weight: 0.5
        max_length: 65536
    """)  # fmt: skip
    assert told(launch) == [("sft.yaml:2", "dataset_mixture")]
    assert launch.dataset == here / "chat.jsonl"
    assert any("weight 0.5" in note for note in launch.notes)


def test_keys_beside_the_options_are_those_of_the_installed_trl():
    trl = pytest.importorskip("trl")
    from trl.scripts.grpo import GRPOScriptArguments
    from trl.scripts.utils import DatasetMixtureConfig

    fields = {item.name for cls in (GRPOScriptArguments, DatasetMixtureConfig, trl.ModelConfig)
              for item in dataclasses.fields(cls)}  # fmt: skip
    assert fields | {"env"} == SCRIPT
