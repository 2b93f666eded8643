"""Instead of cutting: memory at each length, what fits a longer one, and what dropping or splitting would cost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curation.auditing.setting import Setting
from curation.auditing.what_if import memory_setting

SEVEN = {"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064,
         "max_position_embeddings": 32768, "tie_word_embeddings": False}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """The tiny tokenizer beside the configuration of a model of seven billion parameters."""
    folder = tmp_path / "seven"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tiny_model / name).exists():
            shutil.copyfile(tiny_model / name, folder / name)
    (folder / "config.json").write_text(json.dumps(SEVEN))
    return folder


@pytest.fixture
def rows(tmp_path: Path, monkeypatch) -> Path:
    """Thirty short rows and ten long ones that think."""
    monkeypatch.chdir(tmp_path)
    lines = []
    for n in range(40):
        thought = f"<think>{'12+3 ' * 300}</think>" if n < 10 else ""
        lines.append({"messages": [{"role": "user", "content": f"{n}?"},
                                   {"role": "assistant", "content": f"{thought}The answer is {n}."}]})  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_sweep_says_what_every_length_needs_and_what_fits(rows, model, tiny_model, kedge):
    code, out, err = kedge("audit", rows, "--tokenizer", model, "--json")
    assert code == 0, err
    swept = json.loads(out)
    totals = [entry["memory"]["total"] for entry in swept["lengths"]]
    assert totals == sorted(totals) and totals[0] > 7.6e9 * 16 / 8, "weights, gradients and moments over eight devices"
    assert 0 < swept["longest"]["8x40GB"] < swept["longest"]["8x80GB"]
    assert all(entry["memory"]["fits"]["8x80GB"] for entry in swept["lengths"])
    assert {item["trainer"] for item in swept["trainers"]} >= {"TRL SFT", "TRL SFT, wrapped", "axolotl SFT, drop"}
    (dropping,) = [item for item in swept["trainers"] if item["trainer"] == "axolotl SFT, drop"]
    assert dropping["lengths"][0]["rows_dropped"] == 10 and dropping["read_not_run"]


def test_without_a_model_the_memory_is_unknown_and_said_to_be(rows, model, kedge):
    (model / "config.json").unlink()
    swept = json.loads(kedge("audit", rows, "--tokenizer", model, "--json")[1])
    assert swept["longest"] == {} and all(entry["memory"] is None for entry in swept["lengths"])


def test_ways_that_keep_training_as_it_is_come_first_and_data_last(rows, model, kedge):
    code, out, err = kedge("audit", rows, "--tokenizer", model, "--max-length", "64", "--json")
    assert code == 1, err
    ways = json.loads(out)["details"]["ways"]
    changes = [way["change"] for way in ways]
    order = ["nothing", "identical", "rounding", "optimizer", "objective", "method", "data"]
    assert [order.index(change) for change in changes] == sorted(order.index(change) for change in changes)
    assert changes[0] == "nothing" and changes[-3:] == ["data"] * 3
    split, drop, cut = ways[-3:]
    assert split["split"] == 0.25 and drop["total_variation"] > cut["total_variation"]
    assert drop["worst"] == "thought" and drop["worst_loss"] == 1.0
    _, out, _ = kedge("audit", rows, "--tokenizer", model, "--max-length", "64")
    assert "instead of cutting: " in out and "fit on 8x80GB" in out and "apart from their question" in out


def test_the_options_of_a_run_are_what_memory_is_counted_for():
    full = memory_setting("sft", Setting(), 1024)
    assert (full.zero, full.num_devices, full.micro_batch, full.precision) == (3, 8, 1, "mixed")
    run = memory_setting("preference", Setting(None, {"per_device_train_batch_size": 2, "lora": {"r": 16},
                                                      "gradient_checkpointing": True}, 4), 2048)  # fmt: skip
    assert (run.micro_batch, run.sequences, run.lora_rank, run.num_devices) == (2, 2, 16, 4)
    assert run.reference == "adapter_off" and run.checkpointing and run.precision == "autocast"
