"""Fixtures: projects in temporary folders, a tiny real model, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import REAL_DATA

os.environ.update(
    HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="",
    PYTHONHASHSEED="0", COLUMNS="160",
)  # fmt: skip
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores


# The files that take longest, slowest first: two workers that take file after file end together only if no long one
# starts last. The first walks the quickstart, and the last needs it too: the other worker has all between to do
# meanwhile, instead of waiting.
LONG_FILES = (
    "test_docs",
    "test_verl_trains_for_real",
    "test_verl_runs_are_bundled_and_rehearsed",
    "test_annotation_goes_from_checkpoints_to_a_mixture",
    "test_evals_score_checkpoints_with_lighteval",
    "test_train_runs_behind_the_gate",
    "test_trl_trainers_run_for_real",
    "test_runs_are_rehearsed_and_bundled",
    "test_bundled_checkpoints_come_home",
    "test_real_journey",
    "test_engines_give_the_same_bytes",
    "test_parity_with_verl",
    "test_argilla_is_served_with_one_command",
    "test_items_are_pushed_despite_kills",
    "test_trl_trains_in_two_processes",
    "test_training_survives_faults",
    "test_verl_sees_the_rows_that_were_audited",
    "test_killed_commands_finish",
    "test_scale_benchmark_runs",
    "test_benchmarks_run",
    "test_benchmarks_are_sources",
    "test_tokens_lie_where_the_tokenizer_says",
    "test_prompts_for_rl_are_verifiable",
    "test_math_answers_are_verified_in_killable_workers",
    "test_templates_extend_their_parents",
    "test_project_commands",
)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # xdist would start the files of few tests last, however long they take


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files as LONG_FILES has them, then those of most tests first; the tests of a file stay in their order."""
    places = {name: place for place, name in enumerate(LONG_FILES)}
    num_tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (places.get(item.path.stem, len(places)), -num_tests[item.path], item.path))
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
    make_tokenizer(
        folder, [*texts, "system user assistant tool You are helpful."], vocabulary=512, special_thoughts=False
    )
    make_model(folder, hidden=64, layers=2, positions=1024)
    (folder / "chat_template.jinja").write_text((SHIPPED / "templates" / "chatml.jinja").read_text())
    return folder


@pytest.fixture(scope="session")
def special_thoughts_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model where the marks of a thought are special tokens, which most decoders leave out."""
    folder = tmp_path_factory.mktemp("special") / "model"
    shutil.copytree(tiny_model, folder)
    plan = json.loads((folder / "tokenizer.json").read_text())
    for token in plan["added_tokens"]:
        token["special"] = True
    (folder / "tokenizer.json").write_text(json.dumps(plan))
    return folder


@pytest.fixture(scope="module")
def verl_project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Path]:
    """A project with frozen sums to ask and to learn, while verl's processes find the platform of the tests."""
    from tests.verl_cpu import kedge_project

    folder = tmp_path_factory.mktemp("verl") / "project"
    folder.mkdir()
    with kedge_project.without_accelerator():
        yield kedge_project.make_project(folder, tiny_model)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of the session have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def walked(shared_folder: Path) -> Path:
    """The project that the whole quickstart made, walked once for the session, whatever the number of its workers."""
    from filelock import FileLock

    from curation import cli
    from curation.quickstart import journey

    folder, done = shared_folder / "quickstart" / "project", shared_folder / "quickstart.walked"
    with FileLock(shared_folder / "quickstart.lock"):
        if not done.exists():
            folder.parent.mkdir()
            journey.prepare(folder)
            journey.walk(folder, cli.run)
            done.touch()
    return folder


@pytest.fixture
def quickstart(walked: Path, shared_folder: Path) -> Iterator[Path]:
    """The quickstart's project for one test at a time: two workers share it, and some tests rebuild its index."""
    from filelock import FileLock

    with FileLock(shared_folder / "quickstart.lock"):
        yield walked


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
