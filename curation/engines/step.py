"""Part measures as a datatrove step, for its Local, Ray and Slurm executors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from curation.engine import killed
from curation.engines.share import read_share, report, reported, write_report
from curation.errors import UserError


class MeasureStep(PipelineStep):  # type: ignore[misc]
    """Measures its rank's share of the tasks in a file (`share.write_tasks`); parts that are in place already stay.

    The share runs in a process of its own, with `workers` below it where that is more than one: datatrove's pools fork,
    and wait for ever for a child that was killed."""

    name = "measure"
    type = "kedge"

    def __init__(self, tasks: Path, workers: int = 1):
        super().__init__()
        self.tasks = str(tasks)
        self.workers = workers

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Measure the share of `rank`. Raises what its process reported, UserError naming the part where that was
        killed, RuntimeError with what it printed where it did not come as far as measuring."""
        command = [sys.executable, "-m", "curation.engines.share", self.tasks, str(rank), str(world_size)]
        threads = {"POLARS_MAX_THREADS": "1"}
        failed = report(Path(self.tasks), rank)
        failed.unlink(missing_ok=True)
        with self.track_time("share"):
            ended = subprocess.run([*command, str(self.workers)], env=os.environ | threads, text=True,
                                   capture_output=True, check=False)  # fmt: skip
        if ended.returncode < 0:
            raise UserError(*killed(read_share(Path(self.tasks), rank, world_size)))
        if ended.returncode:
            if not failed.exists():
                write_report(failed, RuntimeError(ended.stderr[-4_000:]))
            raise reported(failed)
        yield from data or ()
