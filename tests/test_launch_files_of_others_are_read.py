"""Configurations of axolotl, LLaMA-Factory, TRL and verl, as their examples are written: what each would do."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path

import pytest

from curation.auditing.audit import mirror_for
from curation.auditing.launch_files import Launch, read_launch
from curation.auditing.launch_files.trl import SCRIPT
from curation.errors import UserError
from curation.recognising import recognise_file

CHAT = {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}
ALPACA = {"instruction": "1 + 1?", "input": "", "output": "2"}
PAIR = {"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}
PROMPT = {
    "data_source": "gsm8k",
    "prompt": CHAT["messages"][:1],
    "reward_model": {"style": "rule", "ground_truth": "2"},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a model folder and one small dataset of every kind."""
    monkeypatch.chdir(tmp_path)
    for name, record in (("chat", CHAT), ("alpaca", ALPACA), ("pairs", PAIR), ("prompts", PROMPT),
                         ("texts", {"text": "One plus one is two."})):  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(record)}\n" * 3)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip())
    return path


def read(folder: Path, name: str, text: str, dataset: Path | None = None) -> Launch:
    launch = read_launch(write(folder, name, text), dataset)
    assert launch is not None
    return launch


def told(launch: Launch) -> list[tuple[str, str]]:
    """(file:line, key) of every problem."""
    return [(problem.where, problem.key) for problem in launch.problems]


def usable(launch: Launch) -> None:
    """The mirror takes the options, and the data has rows of the stage."""
    mirror = mirror_for(launch.trainer, launch.options)
    assert launch.stage in mirror.stages
    assert launch.dataset is not None
    assert recognise_file(launch.dataset, stage=launch.stage).stage == launch.stage


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


INFO = {
    "identity": {"file_name": "chat.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"},
                 "tags": {"role_tag": "role", "content_tag": "content", "assistant_tag": "assistant"}},
    "alpaca_en_demo": {"file_name": "alpaca.jsonl"},
    "dpo_en_demo": {"file_name": "pairs.jsonl", "ranking": True,
                    "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}},
    "c4_demo": {"file_name": "texts.jsonl", "columns": {"prompt": "text"}},
    "ultrachat_200k": {"hf_hub_url": "HuggingFaceH4/ultrachat_200k"},
}  # fmt: skip


@pytest.fixture
def factory(here):
    """The working directory with the data/ of LLaMA-Factory."""
    for path in here.glob("*.jsonl"):
        write(here, f"data/{path.name}", path.read_text())
    (here / "data" / "dataset_info.json").write_text(json.dumps(INFO))
    return here


LLAMA_FACTORY_SFT = """
    ### model
    model_name_or_path: Qwen/Qwen3-4B-Instruct-2507
    trust_remote_code: true

    ### method
    stage: sft
    do_train: true
    finetuning_type: lora
    lora_rank: 8
    lora_target: all

    ### dataset
    dataset: identity
    template: qwen3_nothink
    cutoff_len: 2048
    max_samples: 1000
    packing: true
    neat_packing: true
    mask_history: true
    train_on_prompt: false
    preprocessing_batch_size: 500
    preprocessing_num_workers: 16

    ### output
    output_dir: saves/qwen3-4b/lora/sft
    overwrite_output_dir: true
    report_to: none  # choices: [none, wandb]

    ### train
    per_device_train_batch_size: 1
    learning_rate: 1.0e-4
    resume_from_checkpoint: null

    ### eval
    # eval_dataset: alpaca_en_demo
    val_size: 0.1
"""


def test_llama_factory_supervised_fine_tuning(factory):
    launch = read(factory, "qwen3_lora_sft.yaml", LLAMA_FACTORY_SFT)
    assert (launch.framework, launch.stage, launch.trainer) == ("llama_factory", "sft", "llama_factory_sft")
    assert launch.options == {"stage": "sft", "template": "qwen3_nothink", "cutoff_len": 2048, "packing": True,
                              "neat_packing": True, "mask_history": True, "train_on_prompt": False,
                              "preprocessing_batch_size": 500}  # fmt: skip
    assert launch.dataset == factory / "data" / "chat.jsonl"
    assert launch.dataset_format["formatting"] == "sharegpt"
    assert launch.dataset_format["tags"]["role_tag"] == "role"
    assert (launch.model, launch.tokenizer) == ("Qwen/Qwen3-4B-Instruct-2507",) * 2
    assert launch.template == "tokenizer"
    assert any("formats 'qwen3_nothink' by its own code" in note for note in launch.notes)
    assert any("max_samples 1000" in note for note in launch.notes) and any("val_size" in note for note in launch.notes)
    assert launch.problems == []
    usable(launch)


@pytest.mark.parametrize("stage", ["dpo", "rm", "kto"])
def test_llama_factory_preference_training(factory, stage):
    launch = read(factory, "llama3_lora_dpo.yaml", f"""
        model_name_or_path: model
        stage: {stage}
        finetuning_type: lora
        pref_beta: 0.1
        pref_loss: sigmoid
        dataset: dpo_en_demo
        template: llama3
        cutoff_len: 1024
        packing: true
    """)  # fmt: skip
    assert (launch.stage, launch.trainer) == ("preference", "llama_factory_dpo")
    assert launch.options == {"stage": stage, "template": "llama3", "cutoff_len": 1024}
    assert launch.dataset_format == {"ranking": True, "columns": INFO["dpo_en_demo"]["columns"]}
    assert launch.tokenizer == str(factory / "model")
    assert told(launch) == [("llama3_lora_dpo.yaml:9", "packing")]
    usable(launch)


def test_llama_factory_pretraining_packs_by_itself(factory):
    launch = read(factory, "pretrain.yaml", """
        model_name_or_path: model
        stage: pt
        dataset: c4_demo
        cutoff_len: 256
    """)  # fmt: skip
    assert (launch.stage, launch.trainer, launch.template) == ("midtrain", "llama_factory_sft", None)
    assert launch.options == {"stage": "pt", "cutoff_len": 256}
    assert mirror_for(launch.trainer, launch.options).packs
    usable(launch)


def test_llama_factory_problems_and_notes(factory):
    launch = read(factory, "old.yaml", """
        model_name_or_path: model
        stage: sft
        dataset: identity, alpaca_en_demo
        template: glm4
        cutoff_length: 2048
        max_source_length: 1024
        mask_history: true
        train_on_prompt: true
        streaming: true
        enable_thinking: false
    """)  # fmt: skip
    assert set(told(launch)) == {("old.yaml:5", "cutoff_length"), ("old.yaml:6", "max_source_length"),
                                 ("old.yaml:7", "mask_history"), ("old.yaml:9", "streaming")}  # fmt: skip
    assert launch.datasets == (factory / "data" / "chat.jsonl", factory / "data" / "alpaca.jsonl")
    assert [layout.get("formatting") for layout in launch.dataset_formats] == ["sharegpt", None]
    assert any("appends the end of sequence after the cut" in note for note in launch.notes)
    assert any("enable_thinking false" in note for note in launch.notes)
    assert any("cutoff_len is not given" in note for note in launch.notes)


@pytest.mark.parametrize(("dataset", "said"), [
    ("ultrachat_200k", "HuggingFaceH4/ultrachat_200k"), ("identidy", "did you mean 'identity'?"),
])  # fmt: skip
def test_llama_factory_data_that_is_not_here_is_an_error(factory, dataset, said):
    path = write(factory, "x.yaml", f"model_name_or_path: model\nstage: sft\ndataset: {dataset}\ntemplate: qwen\n")
    with pytest.raises(UserError, match=said.replace("?", r"\?")) as caught:
        read_launch(path)
    assert caught.value.problems[0].where == "x.yaml:3"
    launch = read_launch(path, factory / "chat.jsonl")
    assert launch is not None and launch.dataset == factory / "chat.jsonl"


def test_llama_factory_without_a_dataset_info_says_so(here):
    path = write(here, "x.yaml", "model_name_or_path: model\nstage: sft\ndataset: identity\ntemplate: qwen\n")
    with pytest.raises(UserError, match=r"no data/dataset_info\.json.*kedge audit FILE DATASET"):
        read_launch(path)


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


def test_data_is_looked_for_here_and_then_beside_the_file(here):
    text = "base_model: model\ndatasets: [{path: mine.jsonl, type: chat_template}]\n"
    path = write(here, "configs/x.yml", text)
    with pytest.raises(UserError, match=r"'mine\.jsonl' is not on this machine.*kedge audit FILE DATASET"):
        read_launch(path)
    beside = write(here, "configs/mine.jsonl", json.dumps(CHAT) + "\n")
    launch = read_launch(path)
    assert launch is not None and launch.dataset == beside
    here_too = write(here, "mine.jsonl", json.dumps(CHAT) + "\n")
    launch = read_launch(path)
    assert launch is not None and launch.dataset == here_too


@pytest.mark.parametrize(("name", "text", "where"), [
    ("a.yml", "base_model: model\ndatasets:\n  - path: teknium/GPT4-LLM-Cleaned\n    type: alpaca\n", "a.yml:3"),
    ("sft.yaml", "model_name_or_path: model\ndataset_name: trl-lib/Capybara\npacking: true\n", "sft.yaml:2"),
    ("x.yaml", "data:\n  train_files: /none/train.parquet\nactor_rollout_ref: {model: {path: model}}\n", "x.yaml:2"),
])  # fmt: skip
def test_a_dataset_of_the_hub_is_an_error_that_asks_for_a_local_file(here, name, text, where):
    path = write(here, name, text)
    with pytest.raises(UserError, match="kedge audit FILE DATASET") as caught:
        read_launch(path)
    assert caught.value.problems[0].where == where
    launch = read_launch(path, here / "chat.jsonl")
    assert launch is not None and launch.datasets == (here / "chat.jsonl",)


@pytest.mark.parametrize(("text", "said"), [
    ("base_model: model\nrl: ppo\ndatasets: [{path: chat.jsonl}]\n", "no mirror"),
    ("base_model: model\nreward_model: true\ndatasets: [{path: pairs.jsonl}]\n", "no mirror"),
    ("model_name_or_path: model\nstage: ppo\ndataset: identity\n", "no mirror"),
    ("base_model: model\ndatasets: 3\n", "must be a list"),
    ("base_model: model\nbase_model: model\n", "stands here twice"),
])  # fmt: skip
def test_what_cannot_be_audited_is_an_error_with_its_line(here, text, said):
    with pytest.raises(UserError, match=said) as caught:
        read_launch(write(here, "x.yaml", text))
    assert caught.value.problems[0].where.startswith("x.yaml:")


@pytest.mark.parametrize(("name", "text"), [
    ("run.yaml", "trainer: {name: trl_sft}\nmixture: first\nbase: model\n"), ("list.yaml", "- a\n- b\n"),
    ("empty.yaml", ""), ("train.sh", "python train.py data.truncation=left\n"), ("notes.txt", "base_model: x\n"),
    ("rows.jsonl", "{}\n"), ("chat.yaml", "model_name_or_path: model\ntemplate: llama3\ninfer_backend: vllm\n"),
])  # fmt: skip
def test_other_files_are_no_launch_files(here, name, text):
    assert read_launch(write(here, name, text)) is None


def test_nothing_in_a_launch_file_is_executed(here):
    """A tag that would run code is no YAML here, and a script is text."""
    with pytest.raises(UserError, match="no valid YAML"):
        read_launch(write(here, "x.yaml", "base_model: !!python/object/apply:os.mkdir ['made']\ndatasets: []\n"))
    launch = read(here, "x.sh", """
        made=$(mkdir made)
        python -m verl.trainer.main_ppo data.train_files=prompts.jsonl actor_rollout_ref.model.path=`mkdir made`
    """)  # fmt: skip
    assert launch.trainer == "verl_rl"
    assert not (here / "made").exists()
