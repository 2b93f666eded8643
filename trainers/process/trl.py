"""The training process of every trl_* trainer: load, let TRL prepare the rows, compare with the audit, train."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.errors import EXIT_FAILED, EXIT_INSTRUMENT
from curation.launching import compute_deterministically, die_with_command
from trainers.process import Job, comparing, models, rehearsal, rows
from trainers.process.recording import callbacks, tell_failure


@dataclass(frozen=True)
class Kind:
    """How one trainer of TRL is called. `rows` are a frozen row's records as it takes them, `model` loads what it
    trains, `compare` tells where its prepared rows differ from the audit, `more` are its further arguments."""

    name: str
    rows: Callable[[Job, list[str]], Any]
    model: Callable[[Job], Any] = models.causal
    compare: Callable[[Any, Job], list[str]] = comparing.documents
    more: Callable[[Job], dict[str, Any]] = lambda job: {}


def _reference(job: Job) -> dict[str, Any]:
    folder = job["roles"].get("reference")
    return {} if folder is None else {"ref_model": models.other(job, folder)}


def _rewards(job: Job) -> dict[str, Any]:
    from trainers.rewards.for_trl import trl_function

    return {"reward_funcs": [trl_function(job, models.tokenizer(job))]}


KINDS = {
    "trl_sft": Kind("SFT", rows.conversations),
    "trl_dpo": Kind("DPO", rows.pairs, compare=comparing.pairs, more=_reference),
    "trl_kto": Kind("KTO", rows.sides, compare=comparing.sides, more=_reference),
    "trl_reward": Kind("Reward", rows.pairs, models.scoring, comparing.whole_pairs),
    "trl_grpo": Kind("GRPO", rows.prompts, compare=comparing.prompts, more=_rewards),
    "trl_rloo": Kind("RLOO", rows.prompts, compare=comparing.prompts, more=_rewards),
    "trl_distillation": Kind("Distillation", rows.prompts, compare=comparing.prompts,
                             more=lambda job: {"teacher_model": models.other(job, job["roles"]["teacher"])}),
}  # fmt: skip


def main(job_path: str) -> int:
    """Run one job file. Exit code 4 where TRL's rows are not those of the audit; the job's `failure` says why a process
    that ended otherwise than with 0 did so."""
    job: Job = json.loads(Path(job_path).read_text())
    die_with_command()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    try:
        return run(job)
    except Exception as error:
        tell_failure(job, f"{type(error).__name__}: {error}")
        raise


def run(job: Job) -> int:
    """Train a job; its exit code."""
    trainer = make(job)
    if "rehearsal" in job:
        return rehearse(trainer, job)
    problems = KINDS[job["trainer"]].compare(trainer.train_dataset, job)
    if problems:
        tell_failure(job, comparing.DIFFERENT + "\n".join(problems))
        return EXIT_INSTRUMENT
    trainer.train(resume_from_checkpoint=job["resume"])
    if trainer.state.global_step < trainer.state.max_steps and not Path(job["stop"]).exists():
        tell_failure(job, f"max_hours {job['max_hours']:g} are over after step {trainer.state.global_step}")
        return EXIT_FAILED
    return 0


def rehearse(trainer: Any, job: Job) -> int:
    """Train the few steps, then tell what they took; nothing is registered."""
    watch = rehearsal.clock()
    trainer.add_callback(watch)
    trainer.train()
    if trainer.is_world_process_zero():
        rehearsal.report(trainer, watch.times, job)
    return 0


def make(job: Job) -> Any:
    """TRL's own trainer of a job, with its rows prepared."""
    import trl

    compute_deterministically()
    kind = KINDS[job["trainer"]]
    args = getattr(trl, f"{kind.name}Config")(**arguments(job))
    held_out = kind.rows(job, job["held_out"]) if str(args.eval_strategy) not in ("no", "IntervalStrategy.NO") else None
    return getattr(trl, f"{kind.name}Trainer")(
        model=kind.model(job), args=args, train_dataset=kind.rows(job, job["parts"]), eval_dataset=held_out,
        processing_class=models.tokenizer(job), peft_config=models.lora(job), callbacks=callbacks(job),
        **kind.more(job))  # fmt: skip


def arguments(job: Job) -> dict[str, Any]:
    """The arguments of TRL's configuration: the run's options, and where and how the process runs."""
    import torch

    device = {} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}
    return options(job) | device | {"output_dir": job["output"], "disable_tqdm": True, "save_strategy": "steps"}


def options(job: Job) -> dict[str, Any]:
    """The run's options over kedge's defaults, wherever it is trained."""
    # transformers would show the mean of the last losses in the place of one that is no number
    defaults = {"gradient_checkpointing": False, "report_to": "none", "logging_nan_inf_filter": False}
    more = {"chat_template_kwargs": job["kwargs"]} if job["kwargs"] and job["stage"] == "rlvr" else {}
    return defaults | job["config"] | more
