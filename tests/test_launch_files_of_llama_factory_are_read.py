"""Configurations of LLaMA-Factory, as its examples are written: what each would do."""

from __future__ import annotations

import json

import pytest

from curation.auditing.audit import mirror_for
from curation.auditing.launch_files import read_launch
from curation.errors import UserError
from tests.launches import read, told, usable, write

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
