"""What a training process tells: its log, its checkpoints, why it failed, and that it was asked to stop."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from trainers.process import Job


def callbacks(job: Job) -> list[Any]:
    """The callbacks of a job, for `transformers.Trainer`."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):  # type: ignore[misc]
        """Writes metrics as JSON lines, registers every checkpoint once its files are complete, and saves and ends
        where the job's `stop` file appears or its hours are over."""

        def __init__(self) -> None:
            self.began = time.monotonic()

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            if state.is_world_process_zero:
                write_line(job, state.global_step, state.max_steps, logs or {})

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if args.world_size > 1 and not (control.should_log or control.should_save):
                return
            over = time.monotonic() - self.began > 3600 * (job.get("max_hours") or float("inf"))
            if anywhere(over or Path(job["stop"]).exists(), args):
                control.should_save = control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            anywhere(False, args)  # every process has written its part of the checkpoint
            if state.is_world_process_zero and "rehearsal" not in job:
                complete(Path(job["output"]) / f"checkpoint-{state.global_step}", state.global_step, job)

    return [Recorder()]


def anywhere(asked: bool, args: Any) -> bool:
    """Whether any process of the run was asked. All of them must call it at the same step, and wait for each other: one
    that ended alone would leave the others waiting for its gradients."""
    if args.world_size == 1:
        return asked
    import torch

    flag = torch.tensor(float(asked), device=args.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


def tell_failure(job: Job, text: str) -> None:
    """Write down why this process fails, whole or not at all. The first of several processes is believed: the others
    fail because it did."""
    path = Path(job["failure"])
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def write_line(job: Job, step: int, max_steps: int, metrics: dict[str, Any]) -> None:
    """Add one line to the run's log: the numbers among `metrics`, under their own names."""
    line = {"step": step, "max_steps": max_steps} | {
        name: value for name, value in metrics.items() if isinstance(value, int | float)}  # fmt: skip
    with Path(job["progress"]).open("a") as stream:
        stream.write(json.dumps(line) + "\n")


def complete(folder: Path, step: int, job: Job) -> None:
    """Put beside the weights what generation needs, and enter the checkpoint."""
    from curation import checkpoints
    from curation.catalog import Catalog
    from curation.config import find_project

    catalog = Catalog(find_project(Path(job["project"])))
    generation = Path(job["model"]) / "generation_config.json"
    if generation.is_file() and not (folder / generation.name).exists():
        shutil.copyfile(generation, folder / generation.name)
    kind, digest = checkpoints.weights_of(folder)
    record = job["record"] | {"step": step, "path": catalog.project.relative(folder), "weights": kind,
                              "weights_hash": digest}  # fmt: skip
    if kind == "full":
        record |= {"base_path": None, "base_hash": None}
    checkpoints.register(catalog, checkpoints.Checkpoint(**record))
