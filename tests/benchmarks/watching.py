"""A command run and watched: wall seconds, CPU seconds and peak memory of its whole process tree."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere


@dataclass(frozen=True)
class Cost:
    """What a command took, it and every process it started and waited for. `peak_bytes` is the largest sum of resident
    memory over its process tree, sampled every 50 ms (pages that are shared count in each process), and at least the
    peak of its largest single process as the kernel saw it, which falls between no two samples."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def watch(command: list[str], cwd: Path) -> Cost:
    """Run a command to its end. Raises RuntimeError with its last lines where it fails."""
    began = time.perf_counter()
    with (cwd / "output.txt").open("w+") as output:
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
        peak, ended = [0], threading.Event()
        watcher = threading.Thread(target=_sample, args=(process.pid, peak, ended), daemon=True)
        watcher.start()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        watcher.join()
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output.read()[-2000:]}")
    return Cost(seconds, used.ru_utime + used.ru_stime, max(peak[0], used.ru_maxrss * MAXRSS_UNIT))


def _sample(pid: int, peak: list[int], ended: threading.Event) -> None:
    while not ended.is_set():
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for item in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    total += item.memory_info().rss
        peak[0] = max(peak[0], total)
        ended.wait(0.05)


def kedge(*arguments: str) -> list[str]:
    """A kedge command line of this interpreter."""
    return [sys.executable, "-m", "curation.cli", *arguments]
