"""Which of verl's checkpoints count, what a rollback takes back, and how merged weights are registered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from trainers.process import verl_checkpoints, verl_process

DIGEST = "f" * 32


@pytest.fixture
def job(project_folder: Path, tiny_model: Path) -> dict[str, Any]:
    """A run whose verl has saved steps 2, 4 and 6 and begun with 8."""
    folder = project_folder / "lake" / "runs" / "r" / DIGEST[:16]
    (folder / "weights").mkdir(parents=True)
    for step in (2, 4, 6, 8):
        (folder / "verl" / "state" / f"global_step_{step}").mkdir(parents=True)
    (folder / "verl" / "state" / "latest_checkpointed_iteration.txt").write_text("6")
    shutil.copytree(
        tiny_model, folder / "verl" / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors", "config*")
    )
    record = {"run": "r", "run_fingerprint": DIGEST, "parent": None, "audit": None, "mixture": None, "tokenizer": None,
              "template": None, "base_path": str(tiny_model),
              "base_hash": checkpoints.weights_of(tiny_model)[1]}  # fmt: skip
    return {"project": str(project_folder), "output": str(folder / "weights"), "model": str(tiny_model),
            "record": record, "progress": str(folder / "log.jsonl"), "stop": str(folder / "stop")}  # fmt: skip


def superseded(job: dict[str, Any], step: int) -> Path:
    base = Path(job["output"]).parent.parent / "checkpoints" / "superseded" / DIGEST[:16]
    base.mkdir(parents=True, exist_ok=True)
    path = base / f"step-{step:08d}.json"
    path.touch()
    return path


def test_a_step_counts_once_verl_has_written_it_down(job: dict[str, Any]):
    assert verl_checkpoints.last_step(job) == 6
    assert verl_checkpoints.complete_steps(job) == [2, 4, 6]
    (verl_checkpoints.state_of(job) / "latest_checkpointed_iteration.txt").unlink()
    assert verl_checkpoints.last_step(job) == 0
    assert verl_checkpoints.complete_steps(job) == []


def test_a_run_that_was_killed_keeps_what_verl_saved_and_loses_drafts_of_merges(job: dict[str, Any]):
    draft = Path(job["output"]) / ".merging-4"
    draft.mkdir()
    verl_checkpoints.go_back(job)
    assert not draft.exists()
    assert verl_checkpoints.complete_steps(job) == [2, 4, 6]


def test_a_rollback_takes_back_what_verl_saved_after_it(job: dict[str, Any]):
    for step in (4, 6):
        superseded(job, step)
    verl_checkpoints.go_back(job)
    assert verl_checkpoints.complete_steps(job) == [2]
    assert verl_checkpoints.last_step(job) == 2, "verl goes on from here"
    assert not (verl_checkpoints.state_of(job) / "global_step_8").exists()
    superseded(job, 2)
    verl_checkpoints.go_back(job)
    assert verl_checkpoints.last_step(job) == 0


def test_a_step_that_was_trained_again_after_a_rollback_stays(job: dict[str, Any]):
    record = superseded(job, 6)
    shutil.copyfile(record, record.parents[2] / record.name)
    verl_checkpoints.go_back(job)
    assert verl_checkpoints.complete_steps(job) == [2, 4, 6]


def test_merged_weights_are_registered_with_the_audited_tokenizer(job: dict[str, Any], tiny_model: Path):
    draft = Path(job["output"]) / ".merging-2"
    draft.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copyfile(tiny_model / name, draft / name)
    (draft / "tokenizer.json").write_text("what verl saved")
    verl_checkpoints.publish(job, 2, draft)
    (found,) = checkpoints.every(Catalog(find_project(Path(job["project"]))))
    assert (found.id, found.weights, found.base_path) == ("r@2", "full", None)
    target = Path(job["output"]) / "checkpoint-2"
    assert (target / "tokenizer.json").read_bytes() == (tiny_model / "tokenizer.json").read_bytes()
    assert (target / "generation_config.json").is_file() and not draft.exists()


def test_weights_that_verl_trained_as_lora_are_registered_as_an_adapter(job: dict[str, Any], tiny_model: Path):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    draft = Path(job["output"]) / ".merging-2"
    draft.mkdir()
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(r=2, task_type="CAUSAL_LM"))
    model.save_pretrained(draft / "lora_adapter")
    for name in ("model.safetensors", "config.json", "generation_config.json"):
        shutil.copyfile(tiny_model / name, draft / name)
    verl_checkpoints.publish(job, 2, draft)
    catalog = Catalog(find_project(Path(job["project"])))
    (found,) = checkpoints.every(catalog)
    assert (found.weights, found.base_hash) == ("adapter", job["record"]["base_hash"])
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), found.folder(catalog))


def test_half_a_line_of_verls_metrics_waits_for_its_other_half(job: dict[str, Any], tmp_path: Path):
    metrics = tmp_path / "metrics-1.jsonl"
    watch = verl_process.Watch(job, {"max_steps": 9}, metrics)
    verl_process._follow(watch)
    metrics.write_text('{"step": 1, "data": {"actor/loss": 0.5, "note": "x", "nan": null}}\n{"step": 2, "da')
    verl_process._follow(watch)
    assert [json.loads(line) for line in Path(job["progress"]).read_text().splitlines()] == [
        {"step": 1, "max_steps": 9, "actor/loss": 0.5}]  # fmt: skip
    with metrics.open("a") as stream:
        stream.write('ta": {"actor/loss": 0.25}}\n')
    verl_process._follow(watch)
    assert json.loads(Path(job["progress"]).read_text().splitlines()[1])["actor/loss"] == 0.25
    assert watch.step == 2


def test_verl_is_told_to_stop_only_once_it_has_saved_what_it_trained(job: dict[str, Any], tmp_path: Path):
    watch = verl_process.Watch(job | {"max_hours": None}, {"max_steps": 9}, tmp_path / "none", step=6)
    assert verl_process._reason_to_end(watch) == ""
    Path(job["stop"]).touch()
    watch.step = 7
    assert verl_process._reason_to_end(watch) == "", "step 7 would be lost"
    watch.step = 6
    assert verl_process._reason_to_end(watch) == verl_process.STOPPED
