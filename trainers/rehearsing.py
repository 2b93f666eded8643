"""`kedge train RUN --rehearse`: three optimiser steps on the longest rows at the run's own settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from curation.catalog import Catalog
from curation.config import find_project, shown
from curation.console import out, print_json, say
from curation.errors import EXIT_OK, InstrumentError, UserError
from curation.outputs import write_atomically
from trainers import Launch
from trainers._trl import TRLTrainer
from trainers._verl import VerlTrainer
from trainers.process import verl_data, verl_rehearsal
from trainers.training import Training, job_of, prepared, why_it_failed

STEPS = 3
REPORT = "rehearsal.json"


def rehearse(name: str, as_json: bool) -> dict[str, Any]:
    """Rehearse a run and print what it took: seconds per step, peak memory, whether the checkpoint is the model and
    whether answers end. The figures lie beside the run as rehearsal.json, where `kedge plan` takes them. Nothing is
    registered. Raises InstrumentError where a step fails or the saved checkpoint is not the model."""
    training = prepared(Catalog(find_project()), name)
    if not isinstance(training.trainer, TRLTrainer | VerlTrainer):
        raise UserError(f"{training.run.trainer_name} has no rehearsal", "give it max_steps in a run of its own",
                        where=training.run.where)  # fmt: skip
    folder = training.folder / "rehearsal"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with training.catalog.writing("runs", training.run.name):
        job = _job(training, folder)
        launch = Launch(folder / "job.json", folder / "process.log", training.run.file.num_processes,
                        training.run.file.launcher)  # fmt: skip
        say(f"rehearsing {STEPS} steps of {name} on its {len(job['rehearsal']['only']):,} longest rows")
        code = training.trainer.launch(launch)
    report = folder / REPORT
    if code != EXIT_OK or not report.is_file():
        raise InstrumentError(f"the rehearsal ended with {code}: {why_it_failed(job, launch.log)}",
                              f"see {shown(launch.log)}")  # fmt: skip
    found: dict[str, Any] = json.loads(report.read_text())
    found["seconds_per_step"] = float(np.median(found["seconds"][1:] or found["seconds"]))
    write_atomically(training.folder / REPORT, json.dumps(found, indent=1, sort_keys=True).encode())
    for path in (folder / "weights", folder / "verl" / "state"):
        shutil.rmtree(path, ignore_errors=True)
    if not found["checkpoint_same"]:
        share = found["checkpoint_difference"]
        raise InstrumentError(f"the saved checkpoint is not the trained model: logits differ by {share:.2g} of the "
                              "largest", "look at dtype and sharding")  # fmt: skip
    print_rehearsal(found, as_json)
    return found


def _job(training: Training, folder: Path) -> dict[str, Any]:
    job = job_of(training)
    (folder / "weights").mkdir()
    job |= {name: str(folder / Path(job[name]).name) for name in ("progress", "failure", "stop", "evidence")}
    job |= {"output": str(folder / "weights"), "resume": None}
    config = job["config"]
    if isinstance(training.trainer, VerlTrainer):
        entry = training.trainer.entry
        batch = config.get("data.train_batch_size", verl_rehearsal.BATCH[entry])
        job["config"] = verl_rehearsal.settings(config, entry, STEPS)
        only = longest_rows(training.fates, STEPS * batch, verl_data.taken(job, entry))
    else:
        batch = config.get("per_device_train_batch_size", 8) * config.get("gradient_accumulation_steps", 1)
        job["config"] = config | {"max_steps": STEPS, "save_steps": STEPS, "logging_steps": 1, "eval_strategy": "no"}
        only = longest_rows(training.fates, STEPS * batch * training.run.file.num_processes)
    job["rehearsal"] = {"only": only, "report": str(folder / REPORT)}
    training.trainer.prepare(job)
    write_atomically(folder / "job.json", json.dumps(job, indent=1, sort_keys=True).encode())
    return job


def longest_rows(fates: Path, number: int, among: Collection[int] | None = None) -> list[int]:
    """Positions of the rows (of those `among`, where given) that the trainer keeps most tokens of, ascending; ties go
    to the earlier row."""
    import pyarrow.parquet as pq

    table = pq.read_table(fates, columns=["position", "kept_tokens"])
    tokens = table.group_by("position").aggregate([("kept_tokens", "max")]).to_pydict()
    ranked = sorted(
        zip(tokens["kept_tokens_max"], tokens["position"], strict=True), key=lambda item: (-item[0], item[1])
    )
    allowed = None if among is None else set(among)
    found = [position for kept, position in ranked if kept and (allowed is None or position in allowed)]
    return sorted(found[:number])


def print_rehearsal(found: dict[str, Any], as_json: bool) -> None:
    """The figures, one line each."""
    if as_json:
        print_json(found)
        return
    ended = sum(item["ended"] for item in found["answers"])
    out.print(f"seconds per step: {found['seconds_per_step']:.2f} (of {len(found['seconds'])} steps)", markup=False)
    out.print(
        f"peak memory: {found['peak_memory_bytes'] / 2**30:.2f} GiB on {found['device']}, a process", markup=False
    )
    difference = found["checkpoint_difference"]
    same = "loaded" if difference is None else f"loaded, the same logits (difference {difference:.1e})"
    out.print(f"checkpoint: saved, {same}", markup=False)
    if found["answers"]:
        out.print(f"answers: {ended} of {len(found['answers'])} end by themselves", markup=False)
