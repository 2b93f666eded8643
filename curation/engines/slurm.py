"""The engine `slurm`: one job array of datatrove's SlurmPipelineExecutor, submitted where `sbatch` is."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datatrove.executor import SlurmPipelineExecutor
from datatrove.utils.logging import logger

from curation.catalog import Catalog
from curation.config import PROJECT_FILE, SlurmCluster, shown
from curation.console import say
from curation.engine import Task, unmark
from curation.engines import SUBMITTED, watching
from curation.engines.share import read_share, require_finished, write_tasks
from curation.engines.step import MeasureStep
from curation.errors import UserError
from curation.fingerprint import fingerprint
from curation.outputs import write_atomically

POLL_SECONDS = 10.0
SCRIPT = "launch_script.slurm"


class JobArray(SlurmPipelineExecutor):  # type: ignore[misc]
    """datatrove's executor without srun, scontrol and a second job that merges statistics: every task is one process
    tree on one node. The script starts this interpreter unless kedge.yaml has an `env_command`."""

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """The sbatch script."""
        python = "python" if self.env_command else shlex.quote(sys.executable)
        pickled = shlex.quote(str(self.logging_dir.resolve_paths("executor.pik")))
        command = f"{python} -m datatrove.tools.launch_pickled_pipeline {pickled}"
        return str(super().get_launch_file_contents(sbatch_args, command))

    def get_distributed_env(self, node_rank: int = -1) -> Any:
        """What datatrove puts into the environment of a task."""
        return {"datatrove_node_ips": os.environ.get("SLURM_NODELIST", ""), "datatrove_gpus_on_node": "0",
                "datatrove_cpus_per_task": str(self.cpus_per_task),
                "datatrove_mem_per_cpu": str(self.mem_per_cpu_gb), "datatrove_executor": "SLURM"}  # fmt: skip

    def launch_merge_stats(self) -> None:
        """Nothing: the parts themselves say what was done."""


def run(catalog: Catalog, tasks: Sequence[Task]) -> None:
    """Measure every task in a job array and wait for it. Run again after an interruption, it waits for the array that
    still runs with these tasks, and submits those that no running array has; an array of other tasks is left alone.
    Raises UserError naming the script where there is no `sbatch`, otherwise as `share.require_finished`. The lake and
    the environment must be seen by all nodes under the same path."""
    cluster = catalog.project.file.engines.slurm
    if cluster is None:
        raise UserError("the engine 'slurm' needs to know the cluster", "add engines: {slurm: {partition: NAME}}",
                        where=PROJECT_FILE, key="engines")  # fmt: skip
    base = catalog.lake / ".engines" / "slurm"
    arrays = {job: path for job, path in submitted(base).items() if _alive(job)}
    mine = {job: own for job, path in arrays.items() if (own := _shared(Path(path), tasks))}
    taken = {job.target for own in mine.values() for _, job in own}
    rest = [task for task in tasks if task[1].target not in taken]
    if rest:
        job, path = _submit(base / _name(catalog, rest), cluster, rest)
        arrays[job], mine[job] = path, rest
        _record(base, arrays)
    for job in mine:
        say(f"waiting for Slurm job {job} (follow it: squeue -j {job}); interrupt at will: the same command waits "
            "again")  # fmt: skip
    with watching(tasks, "measuring on slurm"):
        while any(_alive(job) for job in mine):
            time.sleep(POLL_SECONDS)
    _record(base, {job: path for job, path in arrays.items() if job not in mine})
    for job, own in mine.items():
        require_finished(Path(arrays[job]), own)


def submitted(base: Path) -> dict[str, str]:
    """The arrays that commands submitted and did not see the end of: job id -> the file of their tasks."""
    record = base / SUBMITTED
    return dict(json.loads(record.read_text())) if record.exists() else {}


def _record(base: Path, arrays: dict[str, str]) -> None:
    if arrays:
        write_atomically(base / SUBMITTED, json.dumps(arrays).encode())
    else:
        (base / SUBMITTED).unlink(missing_ok=True)


def _shared(path: Path, tasks: Sequence[Task]) -> list[Task]:
    """Those of `tasks` that stand in the file of an array."""
    theirs = {job.target for _, job in read_share(path, 0, 1)} if path.exists() else set()
    return [task for task in tasks if task[1].target in theirs]


def _name(catalog: Catalog, tasks: Sequence[Task]) -> str:
    return fingerprint([job.target.relative_to(catalog.lake).as_posix() for _, job in tasks])[:16]


def _submit(folder: Path, cluster: SlurmCluster, tasks: Sequence[Task]) -> tuple[str, str]:
    """(job id, file of its tasks)."""
    executor = prepare(folder, cluster, tasks)
    logger.disable("datatrove")
    try:
        executor.launch_job()
    except FileNotFoundError as error:  # the script is written before it is submitted
        script = shown(folder / "logs" / SCRIPT)
        raise UserError("there is no 'sbatch' on this machine's PATH", f"where Slurm is, run: sbatch {script}; when "
                        "the job has ended, run this command again") from error  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise UserError(f"sbatch refused the job (exit {error.returncode})", f"mend engines: slurm: in {PROJECT_FILE}; "
                        "sbatch says why above") from error  # fmt: skip
    finally:
        logger.enable("datatrove")
    return str(executor.job_id), str(folder / "tasks.pickle")


def prepare(folder: Path, cluster: SlurmCluster, tasks: Sequence[Task]) -> JobArray:
    """Write the tasks into `folder` and return the executor that submits them."""
    unmark(tasks)
    shutil.rmtree(folder / "logs" / "completions", ignore_errors=True)  # none of these parts is in place
    path = write_tasks(folder / "tasks.pickle", tasks)
    for failed in folder.glob("failed-*.pickle"):
        failed.unlink()
    return JobArray(
        [MeasureStep(path, cluster.cpus_per_task)], tasks=min(len(tasks), cluster.tasks), time=cluster.time,
        partition=cluster.partition, cpus_per_task=cluster.cpus_per_task, mem_per_cpu_gb=cluster.mem_per_cpu_gb,
        workers=cluster.workers or -1, job_name="kedge-measure", qos=None, env_command=cluster.env_command,
        sbatch_args=dict(cluster.sbatch_args), logging_dir=str(folder / "logs"), with_srun=False,
    )  # fmt: skip


def _alive(job: str) -> bool:
    """Whether Slurm still has tasks of a job to run; true where it does not answer."""
    asked = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    if asked.returncode:
        return "Invalid job id" not in asked.stderr
    return bool(asked.stdout.strip())
