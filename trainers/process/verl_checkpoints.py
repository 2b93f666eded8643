"""verl's checkpoints: which are complete, merged by verl's own merger into Hugging Face's format, and registered."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation import environments
from trainers.process import verl_settings
from trainers.process.recording import complete

Job = dict[str, Any]

TRACKER = "latest_checkpointed_iteration.txt"


@dataclass(frozen=True)
class Merge:
    """A merge that runs: its step, its process, the folder that it writes."""

    step: int
    process: subprocess.Popen[bytes]
    draft: Path


def state_of(job: Job) -> Path:
    """Where verl keeps its own checkpoints, which it resumes from."""
    return verl_settings.folder_of(job) / "state"


def last_step(job: Job) -> int:
    """The last step that verl has saved completely: verl writes it down when all files of a step are there. 0 where it
    has saved none."""
    tracker = state_of(job) / TRACKER
    return int(tracker.read_text()) if tracker.is_file() else 0


def complete_steps(job: Job) -> list[int]:
    """Steps of whole checkpoints of verl that are there, ascending."""
    found = [int(match[1]) for path in state_of(job).glob("global_step_*")
             if (match := re.fullmatch(r"global_step_(\d+)", path.name))]  # fmt: skip
    return sorted(step for step in found if step <= last_step(job))


def go_back(job: Job) -> None:
    """Take back what verl saved after a step that the run was rolled back to, and drafts of merges that were cut
    off. A run is rolled back where a later step is among its superseded records and no longer registered."""
    weights, record = Path(job["output"]), job["record"]
    for draft in weights.glob(".merging-*"):
        shutil.rmtree(draft)
    base = weights.parent.parent / "checkpoints"
    superseded = base / "superseded" / str(record["run_fingerprint"])[:16]
    taken_back = [step for step in complete_steps(job) if (superseded / f"step-{step:08d}.json").is_file()
                  and not (base / f"step-{step:08d}.json").is_file()]  # fmt: skip
    if not taken_back:
        return
    kept = [step for step in complete_steps(job) if step < min(taken_back)]
    for path in state_of(job).glob("global_step_*"):
        if int(path.name.rpartition("_")[2]) >= min(taken_back):
            shutil.rmtree(path)
    tracker = state_of(job) / TRACKER
    if kept:
        tracker.write_text(str(kept[-1]))
    else:
        tracker.unlink(missing_ok=True)


def advanced(job: Job, launch: dict[str, Any], running: Merge | None, failed: set[int]) -> Merge | None:
    """Go on with merging, without waiting: publish the merge that has ended (a step whose merge failed is added to
    `failed`), start the next. Returns the merge that runs then."""
    if running is not None:
        code = running.process.poll()
        if code is None:
            return running
        if code == 0:
            publish(job, running.step, running.draft)
        else:
            failed.add(running.step)
            shutil.rmtree(running.draft, ignore_errors=True)
    waiting = [step for step in complete_steps(job) if step not in failed and not merged(job, step).is_dir()]
    return _start(job, launch, waiting[0]) if waiting else None


def merged(job: Job, step: int) -> Path:
    """Where the merged weights of a step lie."""
    return Path(job["output"]) / f"checkpoint-{step}"


def _start(job: Job, launch: dict[str, Any], step: int) -> Merge:
    saved = state_of(job) / f"global_step_{step}"
    draft = Path(job["output"]) / f".merging-{step}"
    shutil.rmtree(draft, ignore_errors=True)
    remote = ["--trust-remote-code"] if job["trust_remote_code"] else []
    command = [str(environments.python("verl")), "-m", "verl.model_merger", "merge", "--backend", launch["backend"],
               "--local_dir", str(saved / "actor" if launch["entry"] == "rl" else saved), "--target_dir", str(draft),
               *remote]  # fmt: skip
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}  # the GPUs are verl's
    return Merge(step, subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT),
                 draft)  # fmt: skip


def publish(job: Job, step: int, draft: Path) -> None:
    """Put the audited tokenizer and template beside merged weights, move them to their place and register them, but for
    those of a rehearsal. What verl trained as LoRA becomes an adapter of the weights that training started from."""
    adapter = draft / "lora_adapter"
    if adapter.is_dir():
        for path in [*draft.glob("*.safetensors*"), draft / "config.json", draft / "generation_config.json"]:
            path.unlink(missing_ok=True)
        for path in adapter.iterdir():
            shutil.move(path, draft / path.name)
        adapter.rmdir()
        _named_base(job, draft / "adapter_config.json")
    for path in (verl_settings.folder_of(job) / "tokenizer").iterdir():
        shutil.copyfile(path, draft / path.name)
    target = merged(job, step)
    draft.rename(target)
    if "rehearsal" not in job:
        complete(target, step, job)


def _named_base(job: Job, path: Path) -> None:
    given = json.loads(path.read_text())
    path.write_text(json.dumps(given | {"base_model_name_or_path": job["model"]}, indent=1, sort_keys=True))
