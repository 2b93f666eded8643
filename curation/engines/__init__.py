"""Part measures beyond one process pool: a datatrove step on its Local, Ray and Slurm executors.

All parts that are missing, of all measures, are one list of tasks. Every engine puts finished parts in place by rename
and publishes nothing: `measuring.ensure` then finds them and writes the manifests, on this machine. So a killed
command, run again, goes on; and which engine made a part leaves no trace in its bytes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from curation import measuring
from curation.catalog import Catalog
from curation.console import progress, say
from curation.engine import Task
from curation.errors import UserError
from curation.measures import JoinMeasure, PartMeasure

Engine = Literal["local", "ray", "slurm"]
POLL_SECONDS = 0.5
SUBMITTED = "submitted.json"  # in the folder of an engine whose work goes on without the command


def measure_ahead(catalog: Catalog, measures: Sequence[measuring.Measure], sources: list[str] | None,
                  engine: Engine) -> None:  # fmt: skip
    """Measure on `engine` every part that part measures, and those which join measures need, are missing. The local
    engine has nothing to do ahead. Raises UserError where the engine is not installed or parts stay missing."""
    if engine == "local":
        return
    missing = _missing(catalog, measures, sources)
    if not missing:
        return
    with contextlib.ExitStack() as locks:
        locks.enter_context(catalog.writing("engine", engine))  # its folder is removed at the end
        for measure, _ in missing:
            locks.enter_context(catalog.writing(*measuring.lock_of(catalog, measure)))
        drafts = catalog.lake / ".engines" / engine / "drafts"
        tasks = [(measure, job) for measure, names in missing
                 for job in measuring.part_jobs(catalog, measure, names, drafts / measure.plugin_name())]  # fmt: skip
        if tasks:
            _require(engine)
            say(f"measuring {len(tasks):,} parts of {', '.join(m.plugin_name() for m, _ in missing)} on {engine}")
            importlib.import_module(f"curation.engines.{engine}").run(catalog, tasks)
        base = catalog.lake / ".engines" / engine
        if not (base / SUBMITTED).exists():  # else another command's work still runs there
            shutil.rmtree(base, ignore_errors=True)


def _missing(catalog: Catalog, measures: Sequence[measuring.Measure], sources: list[str] | None
             ) -> list[tuple[PartMeasure, list[str]]]:  # fmt: skip
    """Part measures, each once, with the sources that they are not measured for."""
    wanted: dict[str, tuple[PartMeasure, list[str] | None]] = {}
    for measure in measures:
        for item in [measuring.named(name) for name in measure.needs] if isinstance(measure, JoinMeasure) else []:
            assert isinstance(item, PartMeasure)
            wanted[item.fingerprint()] = (item, None)
        if isinstance(measure, PartMeasure):
            wanted.setdefault(measure.fingerprint(), (measure, sources))
    found = []
    for item, of in wanted.values():
        names = [name for name in measuring.applicable(catalog, item, of)
                 if measuring.signal_parts(catalog, item, name) is None]  # fmt: skip
        if names:
            found.append((item, names))
    return found


def _require(engine: Engine) -> None:
    lacking = [name for name in ("datatrove", *(("ray",) if engine == "ray" else ()))
               if importlib.util.find_spec(name) is None]  # fmt: skip
    if lacking:
        raise UserError(f"the engine '{engine}' needs {' and '.join(lacking)}", 'run: pip install "kedge[scale]"')


@contextlib.contextmanager
def watching(tasks: Sequence[Task], label: str) -> Iterator[Callable[[], int]]:
    """A progress bar that follows the parts as they appear in place; yields a function that counts them."""
    waiting = {job.target for _, job in tasks}
    ended = threading.Event()

    def count() -> int:
        for target in [path for path in waiting if path.exists()]:
            waiting.discard(target)
            advance(1)
        return len(tasks) - len(waiting)

    def follow() -> None:
        while not ended.wait(POLL_SECONDS):
            count()

    with progress(label, len(tasks)) as advance:
        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield lambda: sum(job.target.exists() for _, job in tasks)
        finally:
            ended.set()
            thread.join()
            count()
