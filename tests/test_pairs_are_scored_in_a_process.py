"""Pairs are scored in a process of its own: what it gives, what it says when it fails, and kill -9 in its middle."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import find_project
from curation.errors import InstrumentError
from evals import scoring
from evals.evaluating import evaluate
from evals.pairs import PART
from evals.scores import read_beside, read_scores
from evals.scoring import SEQUENCES_PER_PART
from tests.pair_runs import records, score_here, write_lines, write_yaml


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Catalog:
    """110 pairs in a file, asked by the benchmarks `many` and `again`, each in a suite of its name."""
    root = tmp_path_factory.mktemp("process") / "project"
    root.mkdir()
    write_yaml(root / "kedge.yaml", {"tokenizers": {}})
    write_lines(root / "many.jsonl", records(110))
    for name in ("many", "again"):
        write_yaml(root / "catalogs" / "benchmarks" / f"{name}.yaml", {"kind": "pairs", "data": "many.jsonl"})
        write_yaml(root / "catalogs" / "suites" / f"{name}.yaml", {"benchmarks": [{"name": name}]})
    shutil.copytree(tiny_model, root / "model")
    catalog = Catalog(find_project(root))
    checkpoints.register_base(catalog, "model")
    return catalog


def pairs_of(catalog: Catalog, benchmark: str) -> list[dict[str, Any]]:
    base = checkpoints.find(catalog, "base-model")
    found = read_scores(catalog, base, benchmark)
    assert found is not None
    table = read_beside(catalog, base, benchmark, found[1], PART)
    assert table is not None
    return table.to_pylist()


# Kills itself with signal 9 right before the n-th part is put in place.
KILLED_AT = """
import os, signal, sys
from pathlib import Path
seen = 0
def hook(event, args):
    global seen
    if event == "os.rename" and "part-" in os.fsdecode(args[1]):
        seen += 1
        if seen == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from evals.scoring_process import main
main(Path(sys.argv[2]))
"""


def test_scoring_that_is_killed_goes_on_where_it_was_and_gives_the_same_scores(project: Catalog, monkeypatch):
    def killed(job: Path, *_: Any) -> None:
        done = subprocess.run([sys.executable, "-c", KILLED_AT, "3", str(job)], check=False)
        assert done.returncode == -9
        raise InstrumentError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(scoring, "run_process", killed)
        with pytest.raises(InstrumentError):
            evaluate(project, "base-model", "many")
    assert read_scores(project, checkpoints.find(project, "base-model"), "many") is None
    assert len(list((project.lake / ".scoring").rglob("part-*.json"))) == 2
    with monkeypatch.context() as patched:
        written = score_here(patched)
        evaluate(project, "base-model", "many")
    assert written == [f"part-{number:05d}.json" for number in range(2, -(-220 // SEQUENCES_PER_PART))]
    evaluate(project, "base-model", "again")  # in a process of its own, undisturbed
    assert pairs_of(project, "many") == pairs_of(project, "again")
    assert not list((project.lake / ".scoring").glob("*"))


def test_a_process_that_fails_says_why(tmp_path: Path):
    job = tmp_path / "job.json"
    job.write_text('{"device": "cpu"}')
    with pytest.raises(InstrumentError, match="KeyError: 'sets'"):
        scoring.run_process(job, lambda: 0, lambda _: None)
