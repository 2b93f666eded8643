"""The engine `ray`: datatrove's RayPipelineExecutor, on the cluster that kedge.yaml names or on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any

from curation.catalog import Catalog
from curation.config import RayCluster
from curation.engine import Task, unmark
from curation.engines import watching

OBJECT_STORE_BYTES = 128 << 20  # nothing but the executor goes through it
SHARES_PER_CPU, SHARE_BYTES = 4, 64 << 20  # an actor takes seconds to start: a small share is not worth one


def run(catalog: Catalog, tasks: Sequence[Task]) -> None:
    """Measure every task. The lake must lie on a file system that all nodes share. Raises as
    `share.require_finished`."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from datatrove.executor import RayPipelineExecutor
    from datatrove.utils.logging import logger

    from curation.engines.share import require_finished, write_tasks
    from curation.engines.step import MeasureStep

    cluster = catalog.project.file.engines.ray
    folder = catalog.temporary("ray")
    started = not ray.is_initialized()
    logger.disable("datatrove")
    try:
        if started:
            _start(ray, cluster)
        unmark(tasks)
        ranks = min(len(tasks), cluster.tasks or _shares(tasks, int(ray.cluster_resources().get("CPU", 1))))
        path = write_tasks(folder / "tasks.pickle", tasks)
        executor = RayPipelineExecutor([MeasureStep(path, cluster.cpus_per_task)], tasks=ranks,
                                       logging_dir=str(folder / "logs"), cpus_per_task=cluster.cpus_per_task,
                                       mem_per_cpu_gb=cluster.mem_per_cpu_gb)  # fmt: skip
        with watching(tasks, "measuring on ray"):
            executor.run()
        require_finished(path, tasks)
    finally:
        logger.enable("datatrove")
        if started:
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _shares(tasks: Sequence[Task], cpus: int) -> int:
    size = sum(job.rows.stat().st_size for _, job in tasks)
    return max(1, min(SHARES_PER_CPU * cpus, size // SHARE_BYTES))


def _start(ray: Any, cluster: RayCluster) -> None:
    """Connect to the cluster, or start one on this machine; no dashboard, no usage statistics, no log lines here."""
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, log_to_driver=False)
    else:
        ray.init(include_dashboard=False, log_to_driver=False, object_store_memory=OBJECT_STORE_BYTES)
