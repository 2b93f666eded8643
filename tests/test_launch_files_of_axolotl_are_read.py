"""Configurations of axolotl, as its examples are written: what each would do."""

from __future__ import annotations

import json

import pytest

from tests.launches import CHAT, read, told, usable, write

AXOLOTL_SFT = """
    base_model: NousResearch/Llama-3.2-1B
    tokenizer_config: model
    chat_template: chatml
    datasets:
      - path: chat.jsonl
        ds_type: json
        type: chat_template
        field_messages: messages
        message_property_mappings:
          role: role
          content: content
        roles_to_train:
          - assistant
        train_on_eos: turn
    val_set_size: 0.1
    output_dir: ./outputs/lora-out
    adapter: lora
    lora_model_dir:
    sequence_len: 2048
    excess_length_strategy: truncate
    min_sample_len: 4
    sample_packing: true
    eval_sample_packing: true
    pad_to_sequence_len: true
    lora_r: 16
    gradient_accumulation_steps: 2
    micro_batch_size: 2
    num_epochs: 1
    learning_rate: 0.0002
    train_on_inputs: false
    bf16: auto
    fp16:
    gradient_checkpointing: true
    xformers_attention:
    flash_attention: true
    warmup_steps: 10
    special_tokens:
      pad_token: "<|end_of_text|>"
"""


def test_axolotl_supervised_fine_tuning(here):
    launch = read(here, "lora-1b.yml", AXOLOTL_SFT)
    assert (launch.framework, launch.stage, launch.trainer) == ("axolotl", "sft", "axolotl_sft")
    assert launch.options == {"sequence_len": 2048, "excess_length_strategy": "truncate", "min_sample_len": 4,
                              "sample_packing": True, "train_on_inputs": False, "flash_attention": True}  # fmt: skip
    assert launch.dataset == here / "chat.jsonl"
    assert launch.dataset_format == {
        "type": "chat_template", "ds_type": "json", "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
    }  # fmt: skip
    assert (launch.model, launch.tokenizer, launch.template) == (
        "NousResearch/Llama-3.2-1B",
        str(here / "model"),
        "chatml",
    )
    assert launch.given["micro_batch_size"] == 2
    assert any("val_set_size 0.1" in note for note in launch.notes)
    assert launch.problems == []
    usable(launch)


def test_axolotl_preference_training(here):
    launch = read(here, "dpo.yml", """
        base_model: model
        chat_template: llama3
        rl: dpo
        datasets:
          - path: pairs.jsonl
            type: chat_template.default
            field_messages: conversation
            field_chosen: chosen
            field_rejected: rejected
            roles:
              user: [user]
              assistant: [assistant]
        sequence_len: 4096
        sample_packing: false
        dpo_beta: 0.1
        rpo_alpha: 1.0
    """)  # fmt: skip
    assert (launch.stage, launch.trainer) == ("preference", "axolotl_dpo")
    assert launch.options == {"rl": "dpo", "sequence_len": 4096}
    assert launch.dataset_format["field_chosen"] == "chosen" and launch.dataset_format["roles"]["user"] == ["user"]
    assert (launch.model, launch.tokenizer, launch.template) == (str(here / "model"), str(here / "model"), "tokenizer")
    assert any("own copy of the template 'llama3'" in note for note in launch.notes)
    assert told(launch) == [("dpo.yml:15", "dpo_beta"), ("dpo.yml:16", "rpo_alpha")], "sample_packing: false is off"
    usable(launch)


@pytest.mark.parametrize(("entry", "kind", "packing"), [
    ("pretraining_dataset:\n  - path: texts.jsonl\n    type: pretrain\n    text_column: text\n", "pretrain", "true"),
    ("datasets:\n  - path: texts.jsonl\n    type: completion\n    field: text\n", "completion", "false"),
])  # fmt: skip
def test_axolotl_trains_text_in_windows_or_blocks(here, entry, kind, packing):
    launch = read(here, "cpt.yaml", f"base_model: model\n{entry}sequence_len: 64\nsample_packing: {packing}\n"
                  "pretrain_multipack_attn: false\nstreaming: true\nmax_steps: 10\n")  # fmt: skip
    assert (launch.stage, launch.trainer, launch.template) == ("midtrain", "axolotl_pretrain", None)
    assert launch.options == {"type": kind, "sequence_len": 64, "sample_packing": packing == "true",
                              "pretrain_multipack_attn": False}  # fmt: skip
    assert launch.problems == []
    usable(launch)


def test_axolotls_grpo_is_trls(here):
    launch = read(here, "grpo.yaml", """
        base_model: model
        rl: grpo
        datasets:
          - path: prompts.jsonl
            type: rewards.transform
        sequence_len: 4096
        trl:
          max_completion_length: 256
          num_generations: 4
          mask_truncated_completions: true
        vllm:
          max_model_len: 2048
    """)  # fmt: skip
    assert (launch.stage, launch.trainer) == ("rlvr", "trl_grpo")
    assert launch.options == {"max_completion_length": 256, "num_generations": 4, "mask_truncated_completions": True,
                              "vllm_max_model_length": 2048}  # fmt: skip
    usable(launch)


def test_axolotls_dead_and_unmirrored_options_are_problems_with_their_lines(here):
    launch = read(here, "old.yml", """
        base_model: model
        datasets:
          - path: chat.jsonl
            type: sharegpt.load_role
            conversation: chatml
            roles_to_train: [user]
          - path: alpaca.jsonl
            type: alpaca
        sequence_length: 2048
        max_packed_sequence_len: 2048
        excess_length_strategy: cut
        min_sample_len: none
    """)  # fmt: skip
    assert set(told(launch)) == {
        ("old.yml:4", "datasets.0.type"), ("old.yml:5", "datasets.0.conversation"), ("old.yml:7", "datasets.1"),
        ("old.yml:6", "datasets.0.roles_to_train"), ("old.yml:9", "sequence_length"),
        ("old.yml:10", "max_packed_sequence_len"), ("old.yml:11", "excess_length_strategy"),
        ("old.yml:12", "min_sample_len"),
    }  # fmt: skip
    assert launch.options == {}, "values that no option takes are left out"
    assert "did you mean 'sequence_len'?" in [problem.next for problem in launch.problems]
    assert launch.datasets == (here / "chat.jsonl", here / "alpaca.jsonl")
    assert any("sequence_len is not given" in note for note in launch.notes)
    assert any("type alpaca writes prompts of its own" in note for note in launch.notes)


@pytest.mark.parametrize(("lines", "template"), [
    ("", "tokenizer"), ("chat_template: tokenizer_default", "tokenizer"), ("chat_template: chatml", "chatml"),
    ("chat_template: tokenizer_default_fallback_chatml", "chatml"), ("chat_template_jinja: own.jinja", "own.jinja"),
    ("chat_template: jinja\nchat_template_jinja: own.jinja", "own.jinja"), ("chat_template: qwen3", "tokenizer"),
])  # fmt: skip
def test_axolotls_template_names_become_jinja_templates(here, lines, template):
    (here / "own.jinja").write_text("{{ messages }}")
    launch = read(here, "t.yml", f"base_model: model\ndatasets: [{{path: chat.jsonl, type: chat_template}}]\n{lines}\n")
    assert launch.template == (str(here / template) if template.endswith(".jinja") else template)
    assert launch.problems == []


def test_a_tokenizer_with_a_template_falls_back_to_none(here):
    (here / "model" / "chat_template.jinja").write_text("{{ messages }}")
    text = "base_model: model\ndatasets: [{path: chat.jsonl}]\nchat_template: tokenizer_default_fallback_chatml\n"
    assert read(here, "t.yml", text).template == "tokenizer"


def test_an_inline_template_is_a_problem(here):
    launch = read(here, "t.yml", """
        base_model: model
        datasets: [{path: chat.jsonl}]
        chat_template_jinja: "{% for m in messages %}{{ m.content }}{% endfor %}"
    """)  # fmt: skip
    assert (launch.template, told(launch)) == ("tokenizer", [("t.yml:3", "chat_template_jinja")])


def test_data_files_lie_inside_of_a_local_folder(here):
    write(here, "data/part.jsonl", json.dumps(CHAT) + "\n")
    for path, files in (("data", "part.jsonl"), ("json", "data/part.jsonl")):
        text = f"base_model: model\ndatasets:\n  - path: {path}\n    data_files: [{files}]\n    type: chat_template\n"
        assert read(here, "t.yml", text).dataset == here / "data" / "part.jsonl"
