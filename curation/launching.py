"""Processes that run a model: their environment, and their end when the command that started them dies."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from curation.errors import InstrumentError

COMMAND_PID = "KEDGE_COMMAND_PID"
# glibc gives large blocks back to the kernel at every free and takes them again at every step; kept instead, a small
# model trains 1.8 times as fast on two cores (0.38 s a step became 0.21 s, of which the kernel had 0.17 s).
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def model_environment(settings: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that runs a model: this one's, what the user did not set about memory, `settings`,
    and the process that it must not outlive."""
    return KEEP_MEMORY | dict(os.environ) | (settings or {}) | {COMMAND_PID: str(os.getpid())}


def compute_deterministically() -> None:
    """Let torch take kernels whose results repeat. Filling memory that nobody wrote is left out: it costs an eighth of
    a small model's step, and nothing here reads such memory."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def die_with_command(every_seconds: float = 0.5) -> None:
    """End this process at once when its parent, or the command named in the environment, is gone: after `kill -9` of a
    command nothing of it may go on writing."""
    parent, command = os.getppid(), int(os.environ.get(COMMAND_PID, "0"))

    def watch() -> None:
        while os.getppid() == parent and (not command or _alive(command)):
            time.sleep(every_seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def run_followed(command: Sequence[str], log: Path, environment: dict[str, str], what: str, done: Callable[[], int],
                 advance: Callable[[int], None], cwd: Path | None = None) -> None:  # fmt: skip
    """Run a process to its end, all that it prints in `log`; `advance` gets what `done` (units finished so far) grew
    by. Raises InstrumentError with `what` and the last error of the log where it fails."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=stream,
                                   stderr=subprocess.STDOUT)  # fmt: skip
        try:
            known, ended = 0, False
            while not ended:
                ended = process.poll() is not None
                now = done()
                advance(now - known)
                known = now
                time.sleep(0 if ended else 0.1)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        raise InstrumentError(f"{what} ended with exit code {process.returncode}: {last_error(log)}",
                              "mend the cause, then run the same command again")  # fmt: skip


def last_error(log: Path) -> str:
    """The last line of a log that names an error, else its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error:" in line]
    return (errors or lines or ["it wrote nothing"])[-1][:500]
