"""What kedge's training process costs beside TRL's SFTTrainer called directly, and what its monitors cost.

The quickstart's tiny model, rows and options. Both sides train the same rows in the same order to the same losses, each
in a process of its own under the same environment. They take turns step by step (one waits, at no cost of CPU time,
while the other takes a step), so that what else the machine does falls on both alike.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.launching import model_environment

SIDES = ("kedge", "TRL")
LOGGING_STEPS = 10
# One thread: several wait for each other by spinning, which counts as CPU time where the machine is busy elsewhere.
ALONE = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
CLOCK = """
import json, os, sys, time
from transformers import TrainerCallback

mine, others = int(sys.argv[2]), int(sys.argv[3])


class Clock(TrainerCallback):
    steps, losses, began = [], [], None

    def on_step_begin(self, *args, **kwargs):
        self.over()
        if Clock.began is not None:
            os.write(others, b"x")
        os.read(mine, 1)
        Clock.began = time.process_time()

    def over(self):
        if Clock.began is not None:
            Clock.steps.append(time.process_time() - Clock.began)

    def on_log(self, args, state, control, logs=None, **kwargs):
        Clock.losses += [logs["loss"]] if "loss" in logs else []

    def on_train_end(self, *args, **kwargs):
        self.over()
        os.write(others, b"x")
        print(json.dumps({"steps": Clock.steps, "process": time.process_time(), "losses": Clock.losses}), flush=True)


"""
OURS = """
import sys
from trainers.process import trl
own = trl.callbacks
trl.callbacks = lambda job: [*own(job), Clock()]
sys.exit(trl.main(sys.argv[1]))
"""
DIRECT = """
import json, sys
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
given = json.load(open(sys.argv[1]))
rows = [json.loads(line) for line in open(given["rows"])]
tokenizer = AutoTokenizer.from_pretrained(given["model"])
model = AutoModelForCausalLM.from_pretrained(given["model"], dtype="float32")
SFTTrainer(model, args=SFTConfig(**given["config"]), train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
           callbacks=[Clock()]).train()
"""


@dataclass(frozen=True)
class Run:
    """CPU-seconds of each step (with what follows it up to the next: logs, checkpoints) and of the whole process."""

    steps: list[float]
    process: float
    losses: list[float]


def overhead(num_steps: int, rounds: int) -> tuple[dict[str, list[Run]], dict[str, float]]:
    """The runs of both sides, and the figures of the JSON line."""
    root = Path(tempfile.mkdtemp(prefix="overhead-")).resolve()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            job = prepare(root, num_steps)
        runs: dict[str, list[Run]] = {"kedge": [], "TRL": []}
        for turn in range(rounds):
            for side, run in together(root, job, first=SIDES[turn % 2]).items():
                runs[side].append(run)
        losses = [run.losses for side in runs.values() for run in side]
        if any(item != losses[0] for item in losses):
            raise RuntimeError(f"the sides trained other things: {losses}")
        return runs, figures(runs, watching(job, num_steps), num_steps)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def prepare(root: Path, num_steps: int) -> dict[str, Any]:
    """The quickstart's project with its mixture for mid-training frozen and audited, and the job of a run of it."""
    import yaml

    from curation import cli
    from curation.catalog import Catalog
    from curation.config import find_project
    from curation.quickstart import journey
    from trainers.training import prepared, write_job

    journey.prepare(root, rows=10_000, items=100)
    path = root / "catalogs" / "runs" / "mid.yaml"
    value = yaml.safe_load(path.read_text())
    value["trainer"] |= {"max_steps": num_steps, "save_steps": num_steps, "logging_steps": LOGGING_STEPS}
    path.write_text(yaml.safe_dump(value))
    with journey.inside(root):
        for command in (["add", "data/skills.jsonl", "--stage", "midtrain"], ["mix", "build", "mid"], ["audit", "mid"]):
            if code := cli.run(command):
                raise RuntimeError(f"kedge {' '.join(command)} ended with {code}")
        return write_job(prepared(Catalog(find_project()), "mid"))


def together(root: Path, job: dict[str, Any], first: str) -> dict[str, Run]:
    """One run of each side, a process each, that take turns step by step."""
    commands = {"kedge": ours(root, job), "TRL": direct(root, job)}
    pipes = {side: os.pipe() for side in SIDES}
    started: dict[str, subprocess.Popen[str]] = {}
    try:
        for side, other in (SIDES, SIDES[::-1]):
            mine, others = pipes[side][0], pipes[other][1]
            with (root / side).open("w") as log:
                started[side] = subprocess.Popen(
                    [sys.executable, "-c", *commands[side], str(mine), str(others)], text=True, stderr=log,
                    stdout=subprocess.PIPE, env=model_environment(ALONE), pass_fds=(mine, others))  # fmt: skip
        os.write(pipes[first][1], b"x")
        return wait(root, started)
    finally:
        for process in started.values():
            process.kill()
        for ends in pipes.values():
            for end in ends:
                os.close(end)


def ours(root: Path, job: dict[str, Any]) -> list[str]:
    """Program and first argument of kedge's process, everything of an earlier run removed."""
    for path in (Path(job["output"]), root / "lake" / "runs" / "mid" / "checkpoints"):
        shutil.rmtree(path, ignore_errors=True)
    Path(job["progress"]).unlink(missing_ok=True)
    return [CLOCK + OURS, str(Path(job["progress"]).with_name("job.json"))]


def direct(root: Path, job: dict[str, Any]) -> list[str]:
    """Program and first argument of a process that calls SFTTrainer itself."""
    from trainers.process.rows import conversations
    from trainers.process.trl import arguments

    rows, given = root / "rows.jsonl", root / "direct.json"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in conversations(job, job["parts"])))
    config = arguments(job) | {"output_dir": str(root / "direct")}
    given.write_text(json.dumps({"rows": str(rows), "model": job["model"], "config": config}))
    return [CLOCK + DIRECT, str(given)]


def wait(root: Path, started: dict[str, subprocess.Popen[str]]) -> dict[str, Run]:
    """What the sides did. Raises RuntimeError where one fails: the other would wait for its turn for ever."""
    while any(process.poll() is None for process in started.values()):
        for side, process in started.items():
            if process.poll():
                raise RuntimeError(f"{side} ended with {process.returncode}:\n{(root / side).read_text()[-2000:]}")
        time.sleep(0.2)
    found = {}
    for side, process in started.items():
        lines = process.communicate()[0].splitlines()
        found[side] = Run(**next(json.loads(line) for line in lines if line.startswith('{"steps"')))
    return found


def watching(job: dict[str, Any], num_steps: int) -> float:
    """CPU-seconds of the command's monitors over a log of a line per step, looked at after every line: at the most
    what a run pays, which looks twice a second and less often where a look takes long."""
    from trainers.monitors.following import look, start
    from trainers.monitors.rules import rules_for

    log = Path(job["progress"])
    log.unlink(missing_ok=True)
    watch, spent = start(job, rules_for(job["stage"])), 0.0
    with redirect_stderr(io.StringIO()):
        for step in range(1, num_steps + 1):
            line = {"step": step, "max_steps": num_steps, "loss": 2 / step, "grad_norm": 1.0, "learning_rate": 1e-3,
                    "entropy": 1.0, "mean_token_accuracy": 0.5, "num_tokens": 100 * step, "epoch": 0.1}  # fmt: skip
            with log.open("a") as stream:
                stream.write(json.dumps(line) + os.linesep)
            before = time.process_time()
            look(watch)
            spent += time.process_time() - before
    return spent


def figures(runs: dict[str, list[Run]], monitors: float, num_steps: int) -> dict[str, float]:
    """The keys of the JSON line. `wrapper_overhead` is (ours - direct) / direct of the CPU-seconds of all steps, their
    logs and the checkpoint included, with the 95 % interval of a bootstrap over pairs of steps (not over processes: two
    equal sides of 80 steps came out 0.017 apart); `wrapper_overhead_step` is the median over pairs of a step,
    `wrapper_overhead_process` that of everything up to the end of training, the comparison of the rows with the audit
    too. `monitors_share` is a look at the log after every step over a step."""
    import numpy as np

    own, other = (np.array([run.steps for run in runs[side]]).ravel() for side in SIDES)
    drawn = np.random.default_rng(0).integers(0, len(own), (2000, len(own)))
    low, high = np.quantile(own[drawn].sum(1) / other[drawn].sum(1) - 1, [0.025, 0.975])
    process = {side: sum(run.process for run in runs[side]) for side in SIDES}
    return {
        "wrapper_overhead": round(float(own.sum() / other.sum() - 1), 4),
        "wrapper_overhead_low": round(float(low), 4),
        "wrapper_overhead_high": round(float(high), 4),
        "wrapper_overhead_step": round(float(np.median(own / other)) - 1, 4),
        "wrapper_overhead_process": round(process["kedge"] / process["TRL"] - 1, 4),
        "wrapper_cpu_seconds_per_step": round(float(own.mean()), 5),
        "wrapper_extra_cpu_seconds_process": round((process["kedge"] - process["TRL"]) / len(runs["TRL"]), 2),
        "monitors_share": round(monitors / num_steps / float(other.mean()), 5),
        "monitors_cpu_seconds_per_look": round(monitors / num_steps, 6),
    }
