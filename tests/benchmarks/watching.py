"""A command run and watched: wall seconds, CPU seconds and peak memory of its whole process tree."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Cost:
    """What a command took. `peak_bytes` is the largest sum, over its process tree, of resident memory, sampled every
    50 ms, and at least the largest single process that the kernel saw."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def watch(command: list[str], cwd: Path) -> Cost:
    """Run a command to its end. Raises RuntimeError with its last lines where it fails."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (cwd / "output.txt").open("w+") as output:
        process = subprocess.Popen(command, cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
        peak = [0]
        watcher = threading.Thread(target=_sample, args=(process, peak), daemon=True)
        watcher.start()
        code = process.wait()
        seconds = time.perf_counter() - began
        watcher.join()
        if code:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{output.read()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, peak[0])


def _sample(process: subprocess.Popen[bytes], peak: list[int]) -> None:
    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        with contextlib.suppress(psutil.NoSuchProcess):
            for item in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    total += item.memory_info().rss
        peak[0] = max(peak[0], total)
        time.sleep(0.05)


def kedge(*arguments: str) -> list[str]:
    """A kedge command line of this interpreter."""
    return [sys.executable, "-m", "curation.cli", *arguments]
