"""The last act of a rehearsal of verl: what its steps took, whether the merged checkpoint is the model, whether answers
end. Runs in the project's environment, once verl has ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainers.process import rehearsal, verl_checkpoints

Job = dict[str, Any]

CHECKPOINT = {"rl": "actor_rollout_ref.actor.checkpoint", "sft": "checkpoint"}
BATCH = {"rl": 1024, "sft": 256}  # verl's own defaults
EPOCHS = 100  # more than the few steps can take
LOSSES = ("actor/pg_loss", "train/loss")
PEAK, SAVING = "perf/max_memory_allocated_gb", "timing_s/save_checkpoint"


def settings(config: dict[str, Any], entry: str, steps: int) -> dict[str, Any]:
    """verl's options for a few steps of a run, saved at their end and judged by nothing. Weights that verl keeps in
    shards it also writes as a model of its own, to compare the merged ones with."""
    name = f"{CHECKPOINT[entry]}.save_contents"
    found = config | {"trainer.total_training_steps": steps, "trainer.total_epochs": EPOCHS, "trainer.save_freq": steps,
                      "trainer.test_freq": -1, name: config.get(name) or ["model", "optimizer", "extra"]}  # fmt: skip
    if entry == "rl":
        found["trainer.val_before_train"] = False
    if not lora(config):
        found[name] = list(dict.fromkeys([*found[name], "hf_model"]))
    return found


def lora(config: dict[str, Any]) -> bool:
    """Whether verl trains an adapter."""
    names = ("model.lora_rank", "model.lora.rank", "model.lora_adapter_path")
    return any(config.get(f"{before}{name}") for name in names for before in ("", "actor_rollout_ref."))


def report(job: Job, launch: dict[str, Any], times: list[float], peak_bytes: int) -> None:
    """Write rehearsal.json: seconds of each step (for SFT the first counts from verl's start), peak memory in bytes of
    a process of the trainer (on a device as verl tells it, without the rollout engine's share), the largest difference
    between logits of the merged checkpoint and of the model that verl wrote itself as a share of the largest, None
    for an adapter, and how the merged checkpoint answers."""
    import pyarrow.parquet as pq
    from transformers import AutoModelForCausalLM

    lines = [json.loads(line) for line in Path(job["progress"]).read_text().splitlines()]
    seconds = [line["timing_s/step"] - line.get(SAVING, 0.0) for line in lines if "timing_s/step" in line]
    on_device = max((value for line in lines for name, value in line.items() if name.endswith(PEAK)), default=0.0)
    state = verl_checkpoints.state_of(job)
    step = verl_checkpoints.last_step(job)
    rows = [pq.ParquetFile(path).metadata.num_rows for path in state.parent.glob("train*.parquet")]
    found: dict[str, Any] = {
        "seconds": seconds or [end - start for start, end in zip([0.0, *times], times, strict=False)],
        "peak_memory_bytes": int(on_device * 2**30) or peak_bytes, "device": "cuda" if on_device else "cpu",
        "losses": [line[name] for line in lines for name in LOSSES if name in line],
        "num_processes": launch["gpus"] * launch["nodes"], "num_rows": sum(rows), "checkpoint_difference": None,
    }  # fmt: skip
    asked = job | {"dtype": "auto", "kwargs": {name: item for name, item in job["kwargs"].items() if name != "verl"}}
    model = rehearsal.reloaded(verl_checkpoints.merged(job, step), asked)
    saved = state / f"global_step_{step}"
    written = (saved / "actor" if launch["entry"] == "rl" else saved) / "huggingface"
    if any(written.glob("*.safetensors")):
        other = AutoModelForCausalLM.from_pretrained(written, dtype=model.dtype, use_safetensors=True).eval()
        found["checkpoint_difference"] = rehearsal.difference(other, model, asked)
    found["checkpoint_same"] = (found["checkpoint_difference"] or 0.0) <= rehearsal.TOLERANCE
    found["answers"] = rehearsal.answers(model, asked)
    Path(job["rehearsal"]["report"]).write_text(json.dumps(found, indent=1, sort_keys=True))
