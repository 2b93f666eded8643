"""The share of one rank: the tasks r, r + w, r + 2w, ... of a file, measured in a process of its own.

`python -m curation.engines.share TASKS RANK RANKS WORKERS` is what every node runs.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

from curation.engine import Task, killed, run_tasks
from curation.errors import UserError


def write_tasks(path: Path, tasks: Sequence[Task]) -> Path:
    """Write the tasks of a run where every rank can read them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(pickle.dumps(list(tasks)))
    return draft.replace(path)


def read_share(path: Path, rank: int, ranks: int) -> list[Task]:
    """The tasks of one rank."""
    tasks: list[Task] = pickle.loads(path.read_bytes())
    return tasks[rank::ranks]


def report(tasks: Path, rank: int) -> Path:
    """Where a rank that failed says why."""
    return tasks.with_name(f"failed-{rank:05d}.txt")


def require_finished(path: Path, tasks: Sequence[Task]) -> None:
    """Raises RuntimeError with the traceback of a measure that failed, or UserError with the parts whose process was
    killed, unless every part of `tasks` (written to `path`) is in place."""
    if all(job.target.exists() for _, job in tasks):
        return
    for failed in sorted(path.parent.glob("failed-*.txt")):
        raise RuntimeError(failed.read_text())
    raise UserError(*killed(tasks))


def main(path: str, rank: str, ranks: str, workers: str) -> None:
    """Measure what is missing of one share."""
    tasks = [item for item in read_share(Path(path), int(rank), int(ranks)) if not item[1].target.exists()]
    run_tasks(tasks, int(workers), lambda: None)


if __name__ == "__main__":
    main(*sys.argv[1:])
