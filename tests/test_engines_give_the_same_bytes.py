"""A signal part is the same file whatever measured it: this process, two processes, datatrove, Ray, a Slurm script."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar, Literal

import pyarrow as pa
import pytest

from curation import cli, engines
from curation.catalog import Catalog
from curation.config import find_project
from curation.engine import PartJob, run_tasks
from curation.engines import measure_ahead, share
from curation.errors import LockHeld, UserError
from curation.measures import JoinMeasure, PartMeasure
from curation.measuring import ensure, named, part_jobs, signal_parts
from curation.quickstart.journey import inside
from tests import REPOSITORY
from tests.lakes import lake_bytes, make_project, write_files

MEASURES = ("text_statistics", "shingles")  # polars; a numba kernel
SLURM = "engines: {slurm: {partition: cpu, tasks: 2, sbatch_args: {account: lab}}}\n"
RAY = "engines: {ray: {tasks: 2, mem_per_cpu_gb: 0.2}}\n"


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of three parts each, nothing measured."""
    root = make_project(tmp_path_factory.mktemp("ingested") / "project", rows=20)
    with inside(root):
        assert cli.run(["add", "one"]) == cli.run(["add", "two"]) == 0
    return root


@pytest.fixture(scope="module")
def one_process(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The signals as one process writes them."""
    root = tmp_path_factory.mktemp("one") / "project"
    shutil.copytree(ingested, root)
    catalog = Catalog(find_project(root))
    for name in MEASURES:
        ensure(catalog, named(name), workers=1)
    found = lake_bytes(root, "signals")
    assert len(found) == len(MEASURES) * 2 * 4, "three parts and a manifest per measure and source"
    return found


@pytest.fixture
def project(ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the ingested project to measure in; it is the working directory."""
    shutil.copytree(ingested, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def publish(root: Path) -> dict[str, str]:
    """Publish what an engine put in place, and measure nothing; the bytes of the signals."""
    before = {path: path.stat().st_mtime_ns for path in (root / "lake" / "signals").rglob("part-*.parquet")}
    assert len(before) == len(MEASURES) * 2 * 3
    catalog = Catalog(find_project(root))
    for name in MEASURES:
        assert ensure(catalog, named(name)) == ["one", "two"]
    after = {path: path.stat().st_mtime_ns for path in (root / "lake" / "signals").rglob("part-*.parquet")}
    assert after == before, "a part was measured again"
    return lake_bytes(root, "signals")


def all_tasks(root: Path, drafts: Path) -> list[tuple[PartMeasure, PartJob]]:
    catalog = Catalog(find_project(root))
    return [(named(name), job) for name in MEASURES for job in part_jobs(catalog, named(name), ["one", "two"], drafts)]


def test_two_processes_write_what_one_writes(project: Path, one_process: dict[str, str]):
    for name in MEASURES:
        ensure(Catalog(find_project(project)), named(name), workers=2)
    assert lake_bytes(project, "signals") == one_process


def test_datatrove_on_this_machine_writes_what_one_process_writes(project: Path, one_process: dict[str, str]):
    executor = pytest.importorskip("datatrove.executor", reason="needs the extra 'scale'")
    from curation.engines.step import MeasureStep

    tasks = all_tasks(project, project / "lake" / ".tmp-drafts")
    path = share.write_tasks(project / "tasks" / "tasks.pickle", tasks)
    done = executor.LocalPipelineExecutor([MeasureStep(path)], tasks=2, workers=2, logging_dir=str(project / "logs"),
                                          start_method="spawn")  # fmt: skip
    done.run()
    share.require_finished(path, tasks)
    assert publish(project) == one_process
    assert {path.name for path in (project / "logs" / "completions").iterdir()} == {"00000", "00001"}


def test_ray_writes_what_one_process_writes(project: Path, one_process: dict[str, str], kedge):
    pytest.importorskip("datatrove", reason="needs the extra 'scale'")
    pytest.importorskip("ray", reason="needs the extra 'scale'")
    (project / "kedge.yaml").write_text(RAY)
    measure_ahead(Catalog(find_project(project)), [named(name) for name in MEASURES], None, "ray")
    assert publish(project) == one_process
    code, out, err = kedge("measure", "--only", "text_statistics", "--engine", "ray", "--json")
    assert code == 0 and json.loads(out) == {"text_statistics": []} and "on ray" not in err


def test_the_slurm_script_asks_for_what_kedge_yaml_says_and_its_tasks_write_what_one_process_writes(
    project: Path, one_process: dict[str, str], monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    pytest.importorskip("datatrove", reason="needs the extra 'scale'")
    (project / "kedge.yaml").write_text(SLURM)
    monkeypatch.setenv("PATH", str(project / "nothing"))
    catalog, measures = Catalog(find_project(project)), [named(name) for name in MEASURES]
    with pytest.raises(UserError, match="there is no 'sbatch' on this machine's PATH; where Slurm is, run: ") as no:
        measure_ahead(catalog, measures, None, "slurm")
    assert no.value.exit_code == 2 and "run this command again" in str(no.value)
    assert not (project / "lake" / "signals").exists(), "nothing is half-visible"
    script = next((project / "lake" / ".engines").rglob("*.slurm"))
    assert str(script.relative_to(project)) in str(no.value)
    text = script.read_text()
    for asked in ("partition=cpu", "array=0-1", "cpus-per-task=1", "account=lab", "mem-per-cpu=4G", "time=04:00:00",
                  "nodes=1", "requeue"):  # fmt: skip
        assert f"#SBATCH --{asked}\n" in text
    assert "qos" not in text and "srun" not in text
    assert f"{sys.executable} -m datatrove.tools.launch_pickled_pipeline {script.with_name('executor.pik')}\n" in text
    for task in ("0", "1"):
        subprocess.run(["/bin/bash", str(script)], env={"SLURM_ARRAY_TASK_ID": task, "HOME": str(project)},
                       check=True, capture_output=True, text=True)  # fmt: skip
        parts = len(list((project / "lake" / "signals").rglob("part-*.parquet")))
        assert parts == len(MEASURES) * 6 // (1 if task == "1" else 2), "each task measures its share"
    measure_ahead(catalog, measures, None, "slurm")
    assert publish(project) == one_process
    assert not (project / "lake" / ".engines" / "slurm").exists()


SBATCH = """#!/bin/bash
echo called >> "$CLUSTER/calls"
script="$CLUSTER/script"
cat "${@: -1}" > "$script"
(for task in 0 1; do SLURM_ARRAY_TASK_ID=$task bash "$script"; done; touch "$CLUSTER/ended") > "$CLUSTER/log" 2>&1 &
echo Submitted batch job 77
"""
SQUEUE = """#!/bin/bash
if [ -e "$CLUSTER/ended" ]; then echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; fi
echo "77 cpu kedge-measure"
"""


def test_a_command_killed_while_slurm_measures_waits_for_the_same_job(project: Path, one_process, tmp_path: Path):
    pytest.importorskip("datatrove", reason="needs the extra 'scale'")
    (project / "kedge.yaml").write_text(SLURM)
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):  # this machine as a cluster of one node
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CLUSTER": str(tmp_path)}
    command = ("from curation import cli; import sys; from curation.engines import slurm; slurm.POLL_SECONDS = 0.1;"
               "sys.exit(cli.run(['measure', '--only', 'shingles', '--engine', 'slurm', '--json']))")  # fmt: skip
    line = [sys.executable, "-c", command]
    first = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (project / "lake" / ".engines" / "slurm" / "submitted.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    again = subprocess.run(line, env=environment, text=True, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr + (tmp_path / "log").read_text()
    assert "waiting for Slurm job 77" in again.stderr and json.loads(again.stdout) == {"shingles": ["one", "two"]}
    assert (tmp_path / "calls").read_text().count("called") == 1, "it was submitted twice"
    of_shingles = {path: digest for path, digest in one_process.items() if "/shingles/" in path}
    assert lake_bytes(project, "signals") == of_shingles and of_shingles


SBATCH_AND_END = """#!/bin/bash
echo called >> "$CLUSTER/calls"
for task in 0 1; do SLURM_ARRAY_TASK_ID=$task bash "${@: -1}" >> "$CLUSTER/log" 2>&1; done
echo Submitted batch job 78
"""
# Job 77 runs until it was asked for as often as `asks` says; then what `does` says is done, and it has ended.
SQUEUE_OF_77 = """#!/bin/bash
if [ "${@: -1}" = 77 ] && [ ! -e "$CLUSTER/ended" ]; then
    echo asked >> "$CLUSTER/asked"
    if [ $(wc -l < "$CLUSTER/asked") -ge $(cat "$CLUSTER/asks") ]; then sh "$CLUSTER/does"; touch "$CLUSTER/ended"; fi
    echo "77 cpu kedge-measure"; exit 0
fi
echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1
"""


@pytest.fixture
def cluster(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine as a cluster of one node, whose jobs have ended when they are submitted, but for 77."""
    pytest.importorskip("datatrove", reason="needs the extra 'scale'")
    from curation.engines import slurm

    (project / "kedge.yaml").write_text(SLURM)
    for name, text in (("sbatch", SBATCH_AND_END), ("squeue", SQUEUE_OF_77), ("asks", "1000000"), ("does", "")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CLUSTER", str(tmp_path))
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.01)
    return tmp_path


def running(project: Path, first: int) -> tuple[list[tuple[PartMeasure, PartJob]], Path]:
    """(all tasks, the file of the `first` of them, which job 77 runs); a job 12 of long ago was recorded too."""
    base = project / "lake" / ".engines" / "slurm"
    tasks = [
        (named(name), job)
        for name in MEASURES
        for job in part_jobs(Catalog(find_project(project)), named(name), ["one", "two"], base / "drafts" / name)
    ]
    path = share.write_tasks(base / "theirs" / "tasks.pickle", tasks[:first])
    (base / "submitted.json").write_text(json.dumps({"77": str(path), "12": str(base / "gone" / "tasks.pickle")}))
    return tasks, path


def test_an_array_of_other_tasks_that_still_runs_is_told_apart_by_its_job_and_left_alone(
    project: Path, one_process: dict[str, str], cluster: Path
):  # fmt: skip
    tasks, theirs = running(project, 6)  # those of the first measure
    catalog, base = Catalog(find_project(project)), project / "lake" / ".engines" / "slurm"
    measure_ahead(catalog, [named(MEASURES[1])], None, "slurm")
    assert (cluster / "calls").read_text().count("called") == 1, "its tasks are no array's"
    assert json.loads((base / "submitted.json").read_text()) == {"77": str(theirs)}, "the other array goes on"
    assert [job.target.exists() for _, job in tasks] == [False] * 6 + [True] * 6

    run_tasks([task for number, task in enumerate(tasks[:6]) if number != 3], 1, lambda: None)
    (cluster / "ended").touch()  # 77 has ended, and did but five of its parts
    measure_ahead(catalog, [named(MEASURES[0])], None, "slurm")
    assert (cluster / "calls").read_text().count("called") == 2
    assert publish(project) == one_process and not base.exists()


def test_what_a_running_array_lacks_is_submitted_and_both_are_waited_for(
    project: Path, one_process: dict[str, str], cluster: Path
):  # fmt: skip
    _, theirs = running(project, 8)
    (cluster / "asks").write_text("3")
    (cluster / "does").write_text(f"{sys.executable} -m curation.engines.share {theirs} 0 1 1")
    measure_ahead(Catalog(find_project(project)), [named(name) for name in MEASURES], None, "slurm")
    assert (cluster / "calls").read_text().count("called") == 1 and (cluster / "ended").exists()
    log = (cluster / "log").read_text()
    assert "Traceback" not in log
    assert publish(project) == one_process and not (project / "lake" / ".engines" / "slurm").exists()


def test_an_engine_that_kedge_yaml_does_not_describe_is_named_with_what_to_add(project: Path, kedge):
    pytest.importorskip("datatrove", reason="needs the extra 'scale'")
    (project / "kedge.yaml").write_text("tokenizers: {}\n")
    code, _, err = kedge("measure", "--only", "text_statistics", "--engine", "slurm")
    assert code == 2 and "kedge.yaml: engines: the engine 'slurm' needs to know the cluster; add engines:" in err
    (project / "kedge.yaml").write_text("engines: {slurm: {partition: cpu, tiem: '1'}}\n")
    code, _, err = kedge("measure", "--engine", "slurm")
    assert code == 2 and "kedge.yaml:1: engines.slurm.tiem: unknown key; did you mean 'time'?" in err


class Fragile(PartMeasure):
    """Its process dies over the third part, as for want of memory, as long as the file `deadly` exists."""

    version: ClassVar[int] = 1
    columns: ClassVar[pa.Schema] = pa.schema([("fragile_size", pa.int64())])
    deadly: str
    raises: Literal["", "ValueError", "UserError"] = ""

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        if Path(self.deadly).exists():
            if self.raises == "UserError":
                raise UserError("the model is gone", "put it back")
            if self.raises:
                raise ValueError("the kernel met a row it cannot take")
            done = list(Path(self.deadly).parent.rglob("fragile_done_*"))
            if len(done) >= 2:
                os.kill(os.getpid(), signal.SIGKILL)
            (Path(self.deadly).parent / f"fragile_done_{os.getpid()}_{len(done)}").touch()
        return pa.table({"fragile_size": pa.array([0] * rows.num_rows, pa.int64())})


def test_a_worker_that_is_killed_is_an_error_that_names_the_part_and_the_same_command_goes_on(project: Path):
    catalog, drafts = Catalog(find_project(project)), project / "lake" / ".tmp-drafts"
    measure = Fragile(deadly=str(project / "deadly"))
    jobs = part_jobs(catalog, measure, ["one", "two"], drafts)
    Path(measure.deadly).touch()
    with pytest.raises(UserError, match=r"a worker process was killed, .* while measuring") as seen:
        run_tasks([(measure, job) for job in jobs], 2, lambda: None)
    left = [job for job in jobs if not job.target.exists()]
    assert any(f"of {job.rows.parent.name}/{job.rows.name}" in str(seen.value) for job in left)
    assert f"run the same command again: {6 - len(left)} of 6 parts are finished and stay" in str(seen.value)
    assert 2 <= len(left) <= 5
    Path(measure.deadly).unlink()
    kept = {job.target: job.target.stat().st_mtime_ns for job in jobs if job.target.exists()}
    assert ensure(catalog, measure, workers=1) == ["one", "two"] and signal_parts(catalog, measure, "one")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_share_whose_process_dies_or_whose_measure_fails_says_so(project: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("datatrove", reason="needs the extra 'scale'")
    from curation.engines.step import MeasureStep

    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    catalog, measure = Catalog(find_project(project)), Fragile(deadly=str(project / "deadly"))
    Path(measure.deadly).touch()
    tasks = [(measure, job) for job in part_jobs(catalog, measure, ["one", "two"], project / "lake" / ".tmp-drafts")]
    path = share.write_tasks(project / "tasks" / "tasks.pickle", tasks)
    third = tasks[2][1].rows
    with pytest.raises(UserError, match=f"while measuring {__name__.split('.')[-1]} of one/{third.name};"):
        list(MeasureStep(path).run(None, 0, 1))
    with pytest.raises(UserError, match=f"while measuring {__name__.split('.')[-1]} of one/{third.name};"):
        share.require_finished(path, tasks)
    failing = [(measure.model_copy(update={"raises": "ValueError"}), job) for _, job in tasks]
    share.write_tasks(path, failing)
    with pytest.raises(RuntimeError, match="the kernel met a row it cannot take"):
        list(MeasureStep(path).run(None, 1, 2))
    with pytest.raises(RuntimeError, match="the kernel met a row it cannot take"):
        share.require_finished(path, failing)
    share.write_tasks(path, [(measure.model_copy(update={"raises": "UserError"}), job) for _, job in tasks])
    for workers in (1, 2):
        with pytest.raises(UserError, match=r"^the model is gone; put it back$"):
            list(MeasureStep(path, workers).run(None, 1, 2))
        with pytest.raises(UserError, match=r"^the model is gone; put it back$"):
            share.require_finished(path, tasks)
    Path(measure.deadly).unlink()
    list(MeasureStep(path, workers=2).run(None, 0, 1))
    share.require_finished(path, failing)


def test_a_command_with_nothing_to_measure_leaves_alone_what_another_has_running(project: Path):
    catalog = Catalog(find_project(project))
    ensure(catalog, named("text_statistics"))
    (project / "lake" / ".engines" / "slurm").mkdir(parents=True)
    measure_ahead(catalog, [named("text_statistics")], None, "slurm")
    assert (project / "lake" / ".engines" / "slurm").exists()
    with catalog.writing("engine", "slurm"), pytest.raises(LockHeld, match="engine 'slurm' is being written"):
        measure_ahead(catalog, [named("shingles")], None, "slurm")


class Joined(JoinMeasure):
    """Needs a part measure of all sources."""

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("text_statistics",)
    columns: ClassVar[pa.Schema] = pa.schema([("joined", pa.int32())])
    evidence: ClassVar[pa.Schema] = pa.schema([("row_id", pa.uuid())])
    evidence_kind: ClassVar[str] = "joins"

    def join(self, work) -> None:
        values = "SELECT row_id, chars AS joined FROM signals_text_statistics"
        work.connection.execute(f"CREATE TEMP VIEW measured AS {values}")
        work.connection.execute("CREATE TEMP VIEW found AS SELECT row_id FROM measured WHERE false")


def test_what_a_join_needs_of_all_sources_is_measured_ahead_and_only_what_is_missing(project: Path):
    catalog = Catalog(find_project(project))
    measures = [Joined(), named("text_statistics"), named("shingles")]
    found = {measure.plugin_name(): sources for measure, sources in engines._missing(catalog, measures, ["one"])}
    assert found == {"text_statistics": ["one", "two"], "shingles": ["one"]}
    ensure(catalog, named("text_statistics"), ["one"])
    assert [sources for measure, sources in engines._missing(catalog, measures[:2], ["one"])] == [["two"]]
    ensure(catalog, Joined())
    assert engines._missing(catalog, measures[:2], None) == []


def test_what_another_process_publishes_is_seen_at_once(project: Path, kedge_process):
    catalog = Catalog(find_project(project))
    before = catalog.source("one")[1]
    assert catalog.source("one")[1] is before, "parsed once"
    write_files(project / "data", "one", 4, 20)
    assert kedge_process("add", "one", cwd=project).returncode == 0
    assert catalog.source("one")[1].num_rows == before.num_rows * 4 // 3
    shutil.rmtree(project / "lake" / "rows" / "one")
    assert list(catalog.sources()) == ["two"] and catalog.manifest(project / "lake" / "rows" / "one") is None
