"""Fixtures: projects in temporary folders, a tiny real model, and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import REAL_DATA

os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="",
    PYTHONHASHSEED="0", COLUMNS="160",
)  # fmt: skip
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("real_data") and not REAL_DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"the real data is not at {REAL_DATA}"))


@pytest.fixture
def project_folder(tmp_path: Path) -> Path:
    """An empty project: kedge.yaml and catalogs/."""
    (tmp_path / "kedge.yaml").write_text("tokenizers: {}\n")
    (tmp_path / "catalogs").mkdir()
    return tmp_path


@pytest.fixture
def catalog(project_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The Catalog of an empty project, with the working directory inside it."""
    from curation.catalog import Catalog
    from curation.config import find_project

    monkeypatch.chdir(project_folder)
    return Catalog(find_project(project_folder))


@pytest.fixture
def kedge(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process: `kedge("mix", "show", "x")` -> (exit code, stdout, stderr)."""
    from curation import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def kedge_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line in a process of its own."""

    def call(*arguments: str, cwd: Path, **kwargs) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "curation.cli", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False, **kwargs)

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of 2 layers, its byte-level tokenizer and the shipped ChatML template."""
    from curation.config import SHIPPED
    from curation.quickstart.tiny_model import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("tiny") / "model"
    texts = [
        f"What is {a} plus {b}? <think>{a}+{b}</think>The answer is {a + b}." for a in range(40) for b in range(20)
    ]
    make_tokenizer(folder, [*texts, "system user assistant tool You are helpful."], vocabulary=512)
    make_model(folder, hidden=64, layers=2, positions=1024)
    (folder / "chat_template.jinja").write_text((SHIPPED / "templates" / "chatml.jinja").read_text())
    return folder


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that the whole quickstart made, walked once for the session, whatever the number of its workers."""
    from filelock import FileLock

    from curation import cli
    from curation.quickstart import journey

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, walked = base / "quickstart" / "project", base / "quickstart.walked"
    with FileLock(base / "quickstart.lock"):
        if not walked.exists():
            folder.parent.mkdir()
            journey.prepare(folder)
            journey.walk(folder, cli.run)
            walked.touch()
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model folder and one small dataset of every kind."""
    import json

    from tests.launches import ALPACA, CHAT, PAIR, PROMPT

    monkeypatch.chdir(tmp_path)
    for name, record in (("chat", CHAT), ("alpaca", ALPACA), ("pairs", PAIR), ("prompts", PROMPT),
                         ("texts", {"text": "One plus one is two."})):  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(record)}\n" * 3)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    return tmp_path
