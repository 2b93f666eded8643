"""kill -9 in the middle of add, measure and mix, then the same command again: the bytes of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from curation import cli
from curation.quickstart.journey import inside
from tests.lakes import SFT, lake_bytes, make_project

MIXTURE = SFT + "SELECT * FROM take_weighted(MAP {'one': 0.6, 'two': 0.4}, rows := 9000, seed := 3)\n"
COMMANDS = (("add", "one"), ("add", "two"), ("measure",), ("mix", "build", "both"))
FILES, ROWS = 6, 1_500


def kill_when(root: Path, command: tuple[str, ...], ready: Callable[[], bool]) -> bool:
    """Run a command and kill it as soon as `ready`; whether the kill came before its end."""
    process = subprocess.Popen([sys.executable, "-m", "curation.cli", *command], cwd=root,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 300
    while process.poll() is None and not ready() and time.monotonic() < deadline:
        time.sleep(0.001)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def drafts(root: Path, label: str, pattern: str = "*") -> bool:
    return any(True for folder in (root / "lake").glob(f".tmp-*{label}*") for _ in folder.rglob(pattern))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("undisturbed") / "project", files=FILES, rows=ROWS, mixture=MIXTURE)
    with inside(root):
        for command in COMMANDS:
            assert cli.run(list(command)) == 0
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", files=FILES, rows=ROWS, mixture=MIXTURE)


@pytest.mark.parametrize("moment", ["first draft", "several drafts", "rejects in place"])
def test_an_add_that_is_killed_shows_nothing_and_finishes_later(project: Path, undisturbed: Path, moment: str):
    ready = {
        "first draft": lambda: drafts(project, "rows-one", "*.parquet"),
        "several drafts": lambda: drafts(project, "rows-one", "file-00003/*.parquet"),
        "rejects in place": lambda: (project / "lake/rejects/one/manifest.json").exists(),
    }[moment]
    assert kill_when(project, ("add", "one"), ready), "the kill came too late to prove anything"
    assert not (project / "lake" / "rows" / "one" / "manifest.json").exists()
    finish(project)
    assert lake_bytes(project) == lake_bytes(undisturbed)


def test_a_measure_that_is_killed_keeps_what_is_whole_and_finishes_later(project: Path, undisturbed: Path):
    with inside(project):
        assert cli.run(["add", "one"]) == cli.run(["add", "two"]) == 0
    signals = project / "lake" / "signals"
    assert kill_when(project, ("measure",), lambda: len(list(signals.rglob("*.parquet"))) >= 2)
    assert len(list(signals.rglob("manifest.json"))) < 4
    finish(project)
    assert lake_bytes(project) == lake_bytes(undisturbed)


@pytest.mark.parametrize("moment", ["judging", "freezing"])
def test_a_mixture_build_that_is_killed_freezes_nothing_and_finishes_later(
    project: Path, undisturbed: Path, moment: str
):  # fmt: skip
    with inside(project):
        for command in COMMANDS[:-1]:
            assert cli.run(list(command)) == 0
    mixture = next((undisturbed / "lake" / "mixtures" / "both").iterdir()).name
    ready = {
        "judging": lambda: any((project / "lake").glob("verdicts/*/*/manifest.json")),
        "freezing": lambda: drafts(project, mixture),
    }[moment]
    assert kill_when(project, ("mix", "build", "both"), ready), "the kill came too late to prove anything"
    assert not list((project / "lake").glob("mixtures/both/*/manifest.json"))
    finish(project)
    assert lake_bytes(project) == lake_bytes(undisturbed)


def finish(project: Path) -> None:
    """Look around in what the kill left, then run the same commands again."""
    with inside(project):
        assert cli.run(["doctor"]) == 0
        assert cli.run(["show", "sources"]) == 0
        for command in COMMANDS:
            assert cli.run(list(command)) == 0
    assert not list((project / "lake").glob(".tmp-*-rows*"))


# Kills itself with signal 9 right before the n-th rename or removal below the lake, then does what the command does.
KILLED_AT = """
import os, signal, sys
seen = 0
def hook(event, args):
    global seen
    if event in ("os.rename", "os.remove", "shutil.rmtree") and sys.argv[2] in os.fsdecode(args[0]):
        seen += 1
        if seen == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from curation import cli
sys.exit(cli.run(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("small") / "project")
    with inside(root):
        for command in COMMANDS:
            assert cli.run(list(command)) == 0
    return root


@pytest.mark.parametrize(("step", "moment"), [
    (0, 1), (0, 4), (0, 5), (0, 6), (0, 9), (0, 10), (2, 4), (2, 8), (2, 9), (2, 19), (2, 20), (3, 8), (3, 16), (3, 22),
])  # fmt: skip
def test_a_command_killed_at_a_rename_leaves_no_trace_once_it_is_run_again(
    tmp_path: Path, small: Path, step: int, moment: int
):  # fmt: skip
    root = make_project(tmp_path / "project")
    with inside(root):
        for command in COMMANDS[:step]:
            assert cli.run(list(command)) == 0
    command = [sys.executable, "-c", KILLED_AT, str(moment), str(root / "lake"), *COMMANDS[step]]
    process = subprocess.run(command, cwd=root, capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, "the command ended before the moment"
    finish(root)
    assert lake_bytes(root) == lake_bytes(small)


def test_an_add_killed_again_and_again_goes_on(project: Path, undisturbed: Path):
    rng, killed = random.Random(0), 0
    for delay in sorted(rng.uniform(0.1, 1.5) for _ in range(4)):
        started = time.monotonic()
        killed += kill_when(project, ("add", "one"), lambda: time.monotonic() - started > delay)  # noqa: B023
    assert killed >= 2
    finish(project)
    assert lake_bytes(project) == lake_bytes(undisturbed)


def test_a_second_writer_is_told_which_command_writes(project: Path, kedge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(project)
    process = subprocess.Popen([sys.executable, "-m", "curation.cli", "add", "one"], cwd=project,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not drafts(project, "rows-one") and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGSTOP)
        code, _, err = kedge("add", "one")
        assert code == 75
        assert "rows 'one' is being written by" in err and "add one" in err and str(process.pid) in err
        assert kedge("add", "two")[0] == 0, "another source can be written meanwhile"
    finally:
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(timeout=60) == 0
