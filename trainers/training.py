"""`kedge train`: a passing audit, a job file, the training process, its checkpoints."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq

from curation import checkpoints, registry
from curation.auditing.gate import Subject, require_passing, run_subject
from curation.catalog import Catalog
from curation.config import find_project, shown
from curation.console import out, print_json, progress, say
from curation.errors import EXIT_OK, GateFailed, InstrumentError, Problem, UserError
from curation.fingerprint import hash_bytes
from curation.mixtures import FrozenMixture
from curation.outputs import Manifest, write_atomically
from curation.runs import Run
from trainers import EXTRAS, Launch, Trainer, monitor_report, retention
from trainers.inheritance import require_inherited
from trainers.monitors.following import watched
from trainers.monitors.readings import complete_lines
from trainers.monitors.rules import Rule, rules_for
from trainers.process.comparing import DIFFERENT
from trainers.rewards import evidence


@dataclass(frozen=True)
class Training:
    """A run that may start: its trainer with checked options, what was audited, and its folder in the lake."""

    catalog: Catalog
    run: Run
    trainer: Trainer
    subject: Subject
    audit: str
    fates: Path
    digest: str
    folder: Path
    rules: list[Rule]


def train(name: str, origin: str | None = None) -> dict[str, Any]:
    """Train a run, or go on with it; returns its name, folder and checkpoints. With `origin` it starts from that
    checkpoint: one of the run itself (what came after is set aside) or another in the place of its parent. Raises
    GateFailed without a passing audit, InstrumentError where the trainer's rows are not those of the audit or its
    process fails."""
    catalog = Catalog(find_project())
    training = prepared(catalog, name, origin)
    if origin is not None and checkpoints.find(catalog, origin).run == training.run.name:
        roll_back(training, checkpoints.find(catalog, origin))
    if catalog.manifest(training.folder) is None:
        with catalog.writing("runs", training.run.name):
            set_aside(training)
            run_process(training, write_job(training))
            finish(training)
    else:
        say(f"{name} is trained as its file is now; nothing to do")
    retention.apply(catalog, training.run)  # also then: scores that came since may say which is best
    found = [item.model_dump() for item in checkpoints.every(catalog, training.run.name)]
    return {"run": training.run.name, "folder": shown(training.folder), "checkpoints": found}


def prepared(catalog: Catalog, name: str, origin: str | None = None) -> Training:
    """A run with everything that can be checked before it starts."""
    run = Run(catalog, name)
    if origin is not None and checkpoints.find(catalog, origin).run != run.name:
        run = Run(catalog, name, origin)
    trainer = cast(Trainer, registry.make("trainers", run.trainer_name, run.options, where=run.where))
    check_roles(run, trainer)
    audit = require_passing(catalog, run)
    subject = run_subject(catalog, run)
    require_inherited(catalog, run, subject)
    if trainer.config().get("eval_strategy", "no") != "no" and not subject.mixture.held_out:
        raise UserError("the mixture has no held-out rows to evaluate on", "give a source of it a share (held_out: "
                        "0.05), or remove the option", where=run.where, key="trainer.eval_strategy")  # fmt: skip
    check_tools(subject.mixture, run.where)
    digest = run.fingerprint(subject.mixture.content)
    fates = (audit.folder or subject.folder(catalog)) / "fates.parquet"
    return Training(catalog, run, trainer, subject, audit.key, fates, digest,
                    catalog.folder("runs", run.name, digest[:16]),
                    rules_for(subject.mixture.stage, run.file.monitors, run.where))  # fmt: skip


def check_tools(mixture: FrozenMixture, where: str) -> None:
    """Raises UserError for prompts with `tools`: the audit renders them, and neither TRL's nor verl's RL trainer would
    show them to the model."""
    if mixture.stage != "rlvr":
        return
    tables = [pq.read_table(path, columns=["tools"]) for path in [*mixture.train, *mixture.held_out]]
    count = sum(table.num_rows - table["tools"].null_count for table in tables)
    if count:
        raise UserError(f"{count:,} prompts come with tools, which no RL trainer here shows to the model",
                        "leave them out of the mixture: WHERE tools IS NULL", where=where, key="mixture")  # fmt: skip


def check_roles(run: Run, trainer: Trainer) -> None:
    """Raises UserError where the trainer needs a model or a reward that the run file does not name, the file names one
    that nothing uses, or a reward is wrong."""
    if run.file.rewards:
        from trainers.rewards.combining import components

        with contextlib.chdir(run.catalog.project.root):
            components(rewards_of(run), run.where)
    given = {name for name in EXTRAS if getattr(run.file, name)}
    problems = [Problem(f"{run.trainer_name} needs it", EXTRAS[name], run.where, name)
                for name in sorted(trainer.needs - given)]  # fmt: skip
    problems += [Problem(f"{run.trainer_name} does nothing with it", "remove it", run.where, name)
                 for name in sorted(given - trainer.uses)]  # fmt: skip
    asked = any(item.name == "reward_model" and "path" not in item.options for item in run.file.rewards)
    if "reward_model" in given & trainer.uses and not asked:
        problems.append(Problem("none of the rewards asks it", "add {name: reward_model} to them, or remove it",
                                run.where, "reward_model"))  # fmt: skip
    if problems:
        raise UserError(problems)


def rewards_of(run: Run) -> list[dict[str, Any]]:
    """The components of the run's reward; a reward model without a path is the run's own, or all of them. Raises
    UserError where one of these is an adapter."""
    found = [item.model_dump() for item in run.file.rewards]
    if all(item["name"] != "reward_model" or "path" in item for item in found):
        return found
    given = run.reward_models()
    for item in given:
        if item.weights == "adapter":
            raise UserError(f"{item.id} is an adapter", f"merge it first: kedge checkpoint merge {item.id}, and name "
                            "what that makes", where=run.where, key="reward_model")  # fmt: skip
    paths = [str(item.folder(run.catalog)) for item in given]
    own = {"path": paths[0] if len(paths) == 1 else paths} if paths else {}
    return [own | item if item["name"] == "reward_model" else item for item in found]


def set_aside(training: Training, above: int | None = None) -> None:
    """Records of an earlier version of the run, and those above a step, go to checkpoints/superseded/; weights of an
    earlier version stay where they are."""
    for item in checkpoints.every(training.catalog, training.run.name):
        if item.run_fingerprint != training.digest or (above is not None and item.step > above):
            base = training.catalog.folder("runs", training.run.name, "checkpoints")
            target = base / "superseded" / str(item.run_fingerprint)[:16]
            target.mkdir(parents=True, exist_ok=True)
            record = base / f"step-{item.step:08d}.json"
            record.replace(target / record.name)


def roll_back(training: Training, to: checkpoints.Checkpoint) -> None:
    """Make the run unfinished as of one of its checkpoints. Raises UserError where that is of an earlier version."""
    if to.run_fingerprint != training.digest:
        raise UserError(f"{to.id} was trained by an earlier version of the run", "undo the change of its file, or name "
                        "the checkpoint as the parent of a new run", where=training.run.where)  # fmt: skip
    with training.catalog.writing("runs", training.run.name):
        (training.folder / "manifest.json").unlink(missing_ok=True)
        set_aside(training, above=to.step)
    say(f"{training.run.name} goes back to step {to.step}")


def write_job(training: Training) -> dict[str, Any]:
    """The job of the training process, written to job.json in the run's folder."""
    job = job_of(training)
    for name in ("failure", "stop"):
        Path(job[name]).unlink(missing_ok=True)
    training.trainer.prepare(job)
    write_atomically(training.folder / "job.json", json.dumps(job, indent=1, sort_keys=True).encode())
    return job


def job_of(training: Training) -> dict[str, Any]:
    """What the training process is told."""
    catalog, run, subject, folder = training.catalog, training.run, training.subject, training.folder
    start = run.start()
    weights = folder / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    policy, policy_hash = starting_weights(training, start)
    template = subject.anatomy.template_text
    options = cast(Any, training.trainer)
    return {
        "project": str(catalog.project.root), "trainer": run.trainer_name, "model": str(policy),
        "roles": {role: str(item.folder(catalog)) for role, item in run.roles().items()},
        "tokenizer": subject.anatomy.tokenizer, "template": template, "path": subject.anatomy.path,
        "kwargs": subject.anatomy.kwargs, "stage": subject.mixture.stage, "dtype": getattr(options, "dtype", None),
        "lora": getattr(options, "lora", None), "config": options.config(), "output": str(weights),
        "trust_remote_code": run.file.trust_remote_code, "parts": [str(part) for part in subject.mixture.train],
        "held_out": [str(part) for part in subject.mixture.held_out], "fates": str(training.fates),
        "resume": _resume(training, weights, start), "progress": str(folder / "log.jsonl"),
        "failure": str(folder / "failure.txt"), "stop": str(folder / "stop"), "evidence": str(folder / "rollouts"),
        "rewards": rewards_of(run), **run.file.reward_failures.settings(),
        "max_hours": run.file.max_hours, "num_processes": run.file.num_processes,
        "record": {
            "run": run.name, "run_fingerprint": training.digest, "parent": start.id, "audit": subject.key,
            "mixture": f"{subject.mixture.name}@{subject.mixture.fingerprint}",
            "tokenizer": subject.anatomy.tokenizer_fingerprint,
            "template": None if template is None else hash_bytes(template.encode()),
            "base_path": catalog.project.relative(policy), "base_hash": policy_hash,
        },
    }  # fmt: skip


def starting_weights(training: Training, start: checkpoints.Checkpoint) -> tuple[Path, str]:
    """Folder and hash of the full weights that training starts from; an adapter is merged onto its base once, verified,
    into the run's folder. Raises UserError where the base is not the adapter's."""
    base = start.base_folder(training.catalog)
    if base is None:
        return start.folder(training.catalog), start.weights_hash
    if training.run.file.extends is not None:  # the adapter itself is trained on
        digest = checkpoints.weights_of(base)[1]
        if digest != start.base_hash:
            raise UserError(f"is another base than that of the adapter {start.id}: its weights are {digest[:12]}, the "
                            f"adapter was trained on {str(start.base_hash)[:12]}", "put the right weights there",
                            where=shown(base), key="extends")  # fmt: skip
        return base, digest
    merged = training.folder / "start"
    if merged.is_dir():
        return merged, checkpoints.weights_of(merged)[1]
    from trainers.merging.adapters import merge_adapter

    say(f"merging {start.id} onto its base")
    _, digest, agreement = merge_adapter(base, start.folder(training.catalog), merged, base_hash=start.base_hash)
    say(f"its logits agree within {agreement.difference:.1e} (allowed {agreement.tolerance:.1e})")
    return merged, digest


def _resume(training: Training, weights: Path, start: checkpoints.Checkpoint) -> str | None:
    """The folder that training goes on from, with the optimiser's state; half-written ones are removed."""
    known = [item for item in checkpoints.every(training.catalog, training.run.name)
             if item.run_fingerprint == training.digest]  # fmt: skip
    registered = {item.step for item in known}
    for path in weights.glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) not in registered:
            shutil.rmtree(path)  # half-written, or set aside
    if known:  # in the run's own folder, or in a bundle's
        return str(max(known, key=lambda item: item.step).place(training.catalog))
    return str(start.folder(training.catalog)) if training.run.file.extends is not None else None


def run_process(training: Training, job: dict[str, Any]) -> None:
    """Run the training process to its end, its steps on a progress bar."""
    run, folder = training.run, training.folder
    launch = Launch(folder / "job.json", folder / "process.log", run.file.num_processes, run.file.launcher)
    say(f"training {run.name}: {' '.join(training.trainer.command(launch))}")
    if job["resume"] is not None:
        say(f"going on from {shown(Path(job['resume']))}")
    stop = threading.Event()
    known = job["config"].get("max_steps", -1)
    followed = (Path(job["progress"]), run.name, known if known > 0 else None, stop)
    watcher = threading.Thread(target=_watch, args=followed, daemon=True)
    watcher.start()
    try:
        with watched(job, training.rules):
            code = training.trainer.launch(launch)
    finally:
        stop.set()
        watcher.join()
        monitor_report.write(job, training.rules)
        if job["rewards"]:
            evidence.publish(training.catalog, run.name, Path(job["evidence"]))
    if Path(job["stop"]).exists():
        raise GateFailed(f"a monitor stopped {run.name}", f"see {shown(folder / 'report.html')}; the same command goes "
                         "on from where it stopped, --from RUN@STEP goes back", where=run.where)  # fmt: skip
    if code != EXIT_OK:  # a launcher of several processes has an exit code of its own
        said = why_it_failed(job, launch.log)
        if said.startswith(DIFFERENT):
            raise InstrumentError(said, f"run: kedge audit {run.name}, and report it if it stays")
        raise InstrumentError(f"the training process ended with {code}: {said}",
                              f"see {shown(launch.log)}; the same command goes on")  # fmt: skip


def why_it_failed(job: dict[str, Any], log: Path) -> str:
    """What the process wrote down as its failure, else the last line of its log."""
    failure = Path(job["failure"])
    if failure.is_file():
        return failure.read_text(errors="replace").strip()[:1000]
    return (log.read_text(errors="replace").strip().splitlines() or ["no message"])[-1][:1000]


def _watch(path: Path, name: str, total: int | None, stop: threading.Event) -> None:
    """Follow the process's log with a progress bar over its steps."""
    with progress(name, total) as advance:
        step = offset = 0
        while not stop.wait(0.5):
            lines, offset = complete_lines(path, offset)
            if lines:
                advance(int(lines[-1]["step"]) - step)
                step = int(lines[-1]["step"])


def finish(training: Training) -> None:
    """Publish the run's manifest: with it the run is trained."""
    run, subject = training.run, training.subject
    start = run.start()
    steps = {str(item.step): item.weights_hash for item in checkpoints.every(training.catalog, run.name)}
    manifest = Manifest(
        kind="runs", name=run.name, fingerprint=training.digest, stage=subject.mixture.stage,
        inputs={"mixture": f"{subject.mixture.name}@{subject.mixture.fingerprint}", "start": start.id,
                "start_weights": start.weights_hash, "audit": training.audit, "template": subject.anatomy.template,
                "tokenizer": subject.anatomy.tokenizer_fingerprint,
                "roles": {role: item.weights_hash for role, item in run.roles().items()},
                **({"reward_bytes": run.reward_bytes} if run.reward_bytes else {}),
                "waivers": [item.model_dump() for item in run.file.waivers]},
        parameters={"trainer": run.file.trainer, "rewards": [item.model_dump() for item in run.file.rewards]},
        counts={"checkpoints": steps},
    )  # fmt: skip
    training.catalog.replace_manifest(training.folder, manifest, {})


def print_run(result: dict[str, Any], as_json: bool) -> None:
    """The checkpoints of a run, and what to type next."""
    if as_json:
        print_json(result)
        return
    for item in result["checkpoints"]:
        out.print(f"{item['run']}@{item['step']}: {item['weights']} weights {item['weights_hash'][:12]}", markup=False)
    out.print(f"next: kedge eval {result['run']}", markup=False)
