"""The process that keeps watch over verl: `python -m trainers.process.verl_process JOB.json`.

It starts verl in verl's environment, writes verl's metrics to the run's log, merges and registers every checkpoint that
verl completes, and ends verl with every process below it when the time of the run is over, when it is told to stop, and
when the command that started it is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from curation import environments
from curation.launching import COMMAND_PID
from trainers.process import verl_checkpoints, verl_rehearsal, verl_settings
from trainers.process.recording import write_line

Job = dict[str, Any]

POLL_SECONDS = 0.5
CLOSE_SECONDS = 0.05  # how often a rehearsal, which times the steps, looks for the metrics of the next
END_SECONDS = 10.0
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass
class Watch:
    """What is kept in mind over a run: verl and the merge that run now, the file that verl writes its metrics to and
    how far it is read, the last step told, and why verl was ended (empty where it ended by itself). `times` are the
    seconds from the start to the metrics of each step, `peak_bytes` the most that one process below this one held in
    memory; both are looked at often in a rehearsal alone."""

    job: Job
    launch: dict[str, Any]
    metrics: Path
    verl: subprocess.Popen[bytes] | None = None
    merge: verl_checkpoints.Merge | None = None
    read: int = 0
    step: int = 0
    reason: str = ""
    failed: set[int] = field(default_factory=set)
    parent: int = field(default_factory=os.getppid)
    started: float = field(default_factory=time.monotonic)
    times: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    looked: float = 0.0


def main(job_path: str) -> int:
    """Run one job to its end; 0 where all its steps are trained and all checkpoints registered, or it was told to
    stop."""
    job: Job = json.loads(Path(job_path).read_text())
    folder = verl_settings.folder_of(job)
    launch = json.loads((folder / "launch.json").read_text())
    _own_all_descendants()
    signal.signal(signal.SIGTERM, _interrupted)
    number = len(list(folder.glob("metrics-*.jsonl"))) + 1
    watch = Watch(job, launch, folder / f"metrics-{number}.jsonl")
    verl_checkpoints.go_back(job)
    try:
        if verl_checkpoints.last_step(job) < launch["max_steps"]:
            if (problem := _cluster(job, launch)) is not None:
                print(problem, flush=True)
                return 1
            watch.verl = _started(watch, folder)
        code = _watched(watch)
        if "rehearsal" in job and not code:
            verl_rehearsal.report(job, launch, watch.times, watch.peak_bytes)
        return code
    finally:
        _end_descendants()


def _watched(watch: Watch) -> int:
    while True:
        time.sleep(CLOSE_SECONDS if "rehearsal" in watch.job else POLL_SECONDS)
        _follow(watch)
        _weigh(watch)
        watch.merge = verl_checkpoints.advanced(watch.job, watch.launch, watch.merge, watch.failed)
        ended = watch.verl is None or watch.verl.poll() is not None
        if not ended and (reason := _reason_to_end(watch)):
            watch.reason = reason
            _end_descendants(of=watch.verl)
            watch.merge = None  # it went with the others; what verl has saved is merged now
        elif ended and watch.merge is None:
            break
        if _orphaned(watch):
            return 1
    return _told(watch)


def _told(watch: Watch) -> int:
    """The exit code; the last line printed says what went wrong."""
    code = watch.verl.returncode if watch.verl is not None else 0
    last = verl_checkpoints.last_step(watch.job)
    if watch.failed:
        print(f"kedge: the checkpoints of steps {sorted(watch.failed)} could not be merged", flush=True)
        return 1
    if watch.reason:
        print(f"kedge: verl was ended: {watch.reason}; its last checkpoint is that of step {last}", flush=True)
        return 0 if watch.reason == STOPPED else 1
    if code:
        said = _last_error(watch)
        print(f"kedge: verl ended with {code} after step {watch.step}: {said}", flush=True)
        return 1
    return 0


STOPPED = "it was told to stop"


def _reason_to_end(watch: Watch) -> str:
    hours = watch.job.get("max_hours")
    if hours is not None and time.monotonic() - watch.started > hours * 3600:
        return f"max_hours {hours:g} are over"
    # verl cannot be asked to save: it is ended once it has saved what it last trained.
    if Path(watch.job["stop"]).exists() and 0 < watch.step <= verl_checkpoints.last_step(watch.job):
        return STOPPED
    return ""


def _started(watch: Watch, folder: Path) -> subprocess.Popen[bytes]:
    python = environments.python("verl")
    environment = os.environ | watch.launch["environment"] | {
        "VERL_FILE_LOGGER_PATH": str(watch.metrics), "HF_DATASETS_CACHE": str(folder / "cache"),
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}  # fmt: skip
    environment.pop("VIRTUAL_ENV", None)
    return subprocess.Popen(watch.launch["command"], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                            stderr=subprocess.STDOUT, preexec_fn=_die_with_parent)  # fmt: skip


def _cluster(job: Job, launch: dict[str, Any]) -> str | None:
    """Why a run over several nodes cannot start; None where it can."""
    if launch["nodes"] == 1 or launch["entry"] == "sft":
        return None
    from trainers.process.verl_prepare import ask

    folder = verl_settings.folder_of(job)
    found = ask(environments.python("verl"), {"run": {"entry": "cluster"}}, folder)["run"]
    needed = {"CPU": launch["cpus"], "GPU": launch["nodes"] * launch["gpus"]}
    for name, count in needed.items():
        if found["resources"].get(name, 0) < count:
            return (f"kedge: verl reserves {count} {name}s of Ray and would wait for ever: the cluster has "
                    f"{found['resources'].get(name, 0):g} ({found['problem'] or 'start more nodes'}; see "
                    f"{folder / 'nodes.txt'})")  # fmt: skip
    return None


def _follow(watch: Watch) -> None:
    """Write verl's new metrics to the run's log, under verl's own names."""
    if not watch.metrics.exists():
        return
    with watch.metrics.open("rb") as stream:
        stream.seek(watch.read)
        for line in stream:
            if not line.endswith(b"\n"):
                break
            watch.read += len(line)
            entry = json.loads(line)
            if int(entry["step"]) > watch.step:
                watch.step = int(entry["step"])
                watch.times.append(time.monotonic() - watch.started)
            write_line(watch.job, int(entry["step"]), watch.launch["max_steps"], entry["data"])


def _weigh(watch: Watch) -> None:
    """In a rehearsal, look every second at what the processes hold in memory."""
    if "rehearsal" not in watch.job or time.monotonic() - watch.looked < 1:
        return
    watch.looked = time.monotonic()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            watch.peak_bytes = max(watch.peak_bytes, process.memory_info().rss)


def _last_error(watch: Watch) -> str:
    """The last line of the log of this process that names an exception."""
    log = Path(watch.job["progress"]).with_name("process.log")
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    named = [line.strip() for line in lines if line.partition(":")[0].rstrip().endswith(("Error", "Exception"))]
    return named[-1][:300] if named else "see its log"


def _own_all_descendants() -> None:
    """Make this process the parent of processes below it whose own parent ends (Ray starts several)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end_descendants(of: subprocess.Popen[bytes] | None = None) -> None:
    """End everything below this process: first verl, asked, then all that is left, not asked."""
    if of is not None and of.poll() is None:
        of.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            of.wait(END_SECONDS)
    deadline = time.monotonic() + END_SECONDS
    while left := _alive():
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if of is not None:
        of.wait()


def _alive() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _orphaned(watch: Watch) -> bool:
    command = int(os.environ.get(COMMAND_PID, "0"))
    return os.getppid() != watch.parent or bool(command and not psutil.pid_exists(command))


def _interrupted(*_: Any) -> None:
    raise SystemExit(130)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
