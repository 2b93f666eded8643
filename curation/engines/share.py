"""The share of one rank: the tasks r, r + w, r + 2w, ... of a file, measured in a process of its own.

`python -m curation.engines.share TASKS RANK RANKS WORKERS` is what every node runs.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from curation.engine import Task, killed, run_tasks
from curation.errors import KedgeError, UserError


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
    """Where a rank that failed leaves its error."""
    return tasks.with_name(f"failed-{rank:05d}.pickle")


def write_report(path: Path, error: KedgeError | RuntimeError) -> None:
    """Leave an error for the command that waits."""
    path.write_bytes(pickle.dumps(error))


def reported(path: Path) -> KedgeError | RuntimeError:
    """The error of a report."""
    error: KedgeError | RuntimeError = pickle.loads(path.read_bytes())
    return error


def require_finished(path: Path, tasks: Sequence[Task]) -> None:
    """Raises the error that a rank reported (a measure's UserError, or RuntimeError with its traceback), else UserError
    with the parts whose process was killed, unless every part of `tasks` (written to `path`) is in place."""
    if all(job.target.exists() for _, job in tasks):
        return
    for failed in sorted(path.parent.glob("failed-*.pickle")):
        raise reported(failed)
    raise UserError(*killed(tasks))


def main(path: str, rank: str, ranks: str, workers: str) -> None:
    """Measure what is missing of one share. Where that fails, `report` has the error, and the exit code is 1."""
    tasks = [item for item in read_share(Path(path), int(rank), int(ranks)) if not item[1].target.exists()]
    try:
        run_tasks(tasks, int(workers), lambda: None)
    except Exception as failure:
        error = failure if isinstance(failure, KedgeError) else RuntimeError(traceback.format_exc()[-4_000:])
        write_report(report(Path(path), int(rank)), error)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
