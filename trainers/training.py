"""`kedge train`: a passing audit, a job file, the training process, its checkpoints."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any, cast

from curation import checkpoints, registry
from curation.auditing.gate import require_passing, run_subject
from curation.catalog import Catalog
from curation.config import find_project, shown
from curation.console import out, print_json, progress, say
from curation.errors import EXIT_INSTRUMENT, EXIT_OK, InstrumentError
from curation.fingerprint import hash_bytes
from curation.outputs import Manifest, write_atomically
from curation.runs import Run
from trainers import Launch, Trainer


def train(name: str) -> dict[str, Any]:
    """Train a run, or go on with it; returns its name, folder and checkpoints. Raises GateFailed without a passing
    audit, InstrumentError where the trainer's rows are not those of the audit or its process fails."""
    catalog = Catalog(find_project())
    run = Run(catalog, name)
    trainer = cast(Trainer, registry.make("trainers", run.trainer_name, run.options, where=run.where))
    audit = require_passing(catalog, run)
    subject = run_subject(catalog, run)
    digest = run.fingerprint(subject.mixture.fingerprint)
    folder = catalog.folder("runs", run.name, digest[:16])
    if catalog.manifest(folder) is None:
        with catalog.writing("runs", run.name):
            _set_aside(catalog, run.name, digest)
            job = _job(catalog, run, trainer, folder, digest, audit.folder, subject)
            _run(catalog, run, trainer, folder, job)
            _finish(catalog, run, folder, digest, audit.key, subject)
    else:
        say(f"{name} is trained as its file is now; nothing to do")
    found = [item.model_dump() for item in checkpoints.every(catalog, run.name)]
    return {"run": run.name, "folder": shown(folder), "checkpoints": found}


def _set_aside(catalog: Catalog, run: str, digest: str) -> None:
    """Records of an earlier version of the run go to checkpoints/superseded/; its weights stay where they are."""
    for item in checkpoints.every(catalog, run):
        if item.run_fingerprint != digest:
            base = catalog.folder("runs", run, "checkpoints")
            target = base / "superseded" / str(item.run_fingerprint)[:16]
            target.mkdir(parents=True, exist_ok=True)
            record = base / f"step-{item.step:08d}.json"
            record.replace(target / record.name)


def _job(catalog: Catalog, run: Run, trainer: Trainer, folder: Path, digest: str, audit: Path | None,
         subject: Any) -> dict[str, Any]:  # fmt: skip
    start = run.start()
    weights = folder / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    registered = {item.step: item for item in checkpoints.every(catalog, run.name) if item.run_fingerprint == digest}
    for path in weights.glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) not in registered:
            shutil.rmtree(path)  # half-written: it was never registered
    last = max(registered, default=None)
    template = subject.anatomy.template_text
    base = start.base_folder(catalog)
    options = cast(Any, trainer)
    return {
        "project": str(catalog.project.root), "model": str(base or start.folder(catalog)),
        "adapter": str(start.folder(catalog)) if base is not None else None,
        "tokenizer": subject.anatomy.tokenizer, "template": template, "path": subject.anatomy.path,
        "kwargs": subject.anatomy.kwargs, "stage": subject.mixture.stage, "dtype": options.dtype, "lora": options.lora,
        "config": options.config(), "output": str(weights), "trust_remote_code": run.file.trust_remote_code,
        "parts": [str(part) for part in subject.mixture.train], "fates": str((audit or folder) / "fates.parquet"),
        "resume": None if last is None else str(weights / f"checkpoint-{last}"),
        "progress": str(folder / "log.jsonl"), "failure": str(folder / "failure.txt"),
        "record": {
            "run": run.name, "run_fingerprint": digest, "parent": start.id, "audit": subject.key,
            "mixture": f"{subject.mixture.name}@{subject.mixture.fingerprint}",
            "tokenizer": subject.anatomy.tokenizer_fingerprint,
            "template": None if template is None else hash_bytes(template.encode()),
            "base_path": catalog.project.relative(start.folder(catalog)), "base_hash": start.weights_hash,
        },
    }  # fmt: skip


def _run(catalog: Catalog, run: Run, trainer: Trainer, folder: Path, job: dict[str, Any]) -> None:
    path = folder / "job.json"
    write_atomically(path, json.dumps(job, indent=1, sort_keys=True).encode())
    (folder / "failure.txt").unlink(missing_ok=True)
    launch = Launch(path, folder / "process.log", run.file.num_processes)
    say(f"training {run.name}: {' '.join(trainer.command(launch))}")
    if job["resume"] is not None:
        say(f"going on from {shown(Path(job['resume']))}")
    stop = threading.Event()
    known = job["config"].get("max_steps", -1)
    total = known if known > 0 else None
    watcher = threading.Thread(target=_watch, args=(Path(job["progress"]), run.name, total, stop), daemon=True)
    watcher.start()
    try:
        code = trainer.launch(launch)
    finally:
        stop.set()
        watcher.join()
    if code == EXIT_INSTRUMENT and (folder / "failure.txt").is_file():
        raise InstrumentError(f"the trainer's rows are not those of the audit: {(folder / 'failure.txt').read_text()}",
                              f"run: kedge audit {run.name}, and report it if it stays")  # fmt: skip
    if code != EXIT_OK:
        lines = (folder / "process.log").read_text(errors="replace").strip().splitlines()
        raise InstrumentError(f"the training process ended with {code}: {lines[-1] if lines else 'no message'}",
                              f"see {shown(folder / 'process.log')}; the same command goes on")  # fmt: skip


def _watch(path: Path, name: str, total: int | None, stop: threading.Event) -> None:
    """Follow the process's log with a progress bar over its steps."""
    with progress(name, total) as advance:
        step = 0
        while not stop.wait(0.5):
            if path.is_file():
                lines = path.read_text().splitlines()
                if lines and lines[-1].endswith("}"):
                    now = int(json.loads(lines[-1])["step"])
                    advance(now - step)
                    step = now


def _finish(catalog: Catalog, run: Run, folder: Path, digest: str, audit: str, subject: Any) -> None:
    start = run.start()
    steps = {str(item.step): item.weights_hash for item in checkpoints.every(catalog, run.name)}
    manifest = Manifest(
        kind="runs", name=run.name, fingerprint=digest, stage=subject.mixture.stage,
        inputs={"mixture": f"{subject.mixture.name}@{subject.mixture.fingerprint}", "start": start.id,
                "start_weights": start.weights_hash, "audit": audit, "template": subject.anatomy.template,
                "tokenizer": subject.anatomy.tokenizer_fingerprint,
                "waivers": [item.model_dump() for item in run.file.waivers]},
        parameters={"trainer": run.file.trainer}, counts={"checkpoints": steps},
    )  # fmt: skip
    catalog.replace_manifest(folder, manifest, {})


def print_run(result: dict[str, Any], as_json: bool) -> None:
    """The checkpoints of a run, and what to type next."""
    if as_json:
        print_json(result)
        return
    for item in result["checkpoints"]:
        out.print(f"{item['run']}@{item['step']}: {item['weights']} weights {item['weights_hash'][:12]}", markup=False)
    out.print(f"next: kedge eval {result['run']}", markup=False)
