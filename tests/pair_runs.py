"""A project with frozen pairs, a policy trained on them by TRL's DPO, and benchmarks of pairs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation import checkpoints
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint, weights_of
from curation.config import find_project

TAKE_ALL = "/* ---\nstage: preference\n--- */\nSELECT row_id FROM kept"
NUM_PAIRS = 60


def turn(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def records(number: int = NUM_PAIRS) -> list[dict[str, Any]]:
    """Pairs whose chosen side is sure of itself; the sources alternate, and the policy step grows."""
    return [
        {
            "prompt": turn("user", f"{n} plus 3?"),
            "chosen": turn("assistant", f"The answer is {n + 3}." + " Sure." * (n % 3)),
            "rejected": turn("assistant", f"It may be {n + 4}, or not." + " Maybe." * (n % 4)),
            "policy_step": 100 * (n * 3 // number),
            "origin": "ab"[n % 2],
        }
        for n in range(number)
    ]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_yaml(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value))


def make_project(root: Path, model: Path) -> Catalog:
    """The pairs are ingested and frozen as the mixture `pairs`, two fifths of them held out; the model is a base."""
    from curation import cli
    from curation.quickstart.journey import inside

    catalogs = root / "catalogs"
    (catalogs / "mixtures").mkdir(parents=True)
    (root / "kedge.yaml").write_text("tokenizers: {}\n")
    write_lines(root / "pairs.jsonl", records())
    write_yaml(catalogs / "sources" / "pairs.yaml", {"reader": "jsonl", "path": "pairs.jsonl", "stage": "preference",
                                                     "shape": "preference", "held_out": 0.4})  # fmt: skip
    (catalogs / "mixtures" / "pairs.sql").write_text(TAKE_ALL)
    write_yaml(catalogs / "benchmarks" / "held.yaml", {"kind": "pairs", "mixture": "pairs", "source": "origin"})
    write_yaml(catalogs / "suites" / "one.yaml", {"benchmarks": [{"name": "held", "margin": 0.2}]})
    shutil.copytree(model, root / "model")
    with inside(root):
        assert cli.run(["add", "pairs"]) == cli.run(["mix", "build", "pairs"]) == 0
    catalog = Catalog(find_project(root))
    checkpoints.register_base(catalog, "model")
    return catalog


def enter(catalog: Catalog, run: str, step: int, folder: str, **more: Any) -> Checkpoint:
    kind, digest = weights_of(catalog.project.root / folder)
    return checkpoints.register(catalog, Checkpoint(run=run, step=step, path=folder, weights=kind, weights_hash=digest,
                                                    parent="base-model@0", **more))  # fmt: skip


def rows_of(paths: list[Path]) -> list[dict[str, Any]]:
    """Frozen rows as a trainer takes them: prompt, chosen, rejected."""
    from curation.rendering import template_messages
    from evals.records import read_records

    return [{name: template_messages(row[name]) for name in ("prompt", "chosen", "rejected")}
            for _, row in read_records(paths)]  # fmt: skip


def score_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let answers be scored by this process, which has torch loaded; returns the names of the parts that it writes."""
    import torch

    from evals import scoring, scoring_process

    written: list[str] = []
    write = scoring_process.write_atomically

    def record(path: Path, data: bytes) -> None:
        written.append(path.name)
        write(path, data)

    def run(job: Path, num_parts: Any, advance: Any) -> None:
        before = torch.are_deterministic_algorithms_enabled()
        try:
            scoring_process.main(job)
        finally:
            torch.use_deterministic_algorithms(before)
        advance(num_parts())

    monkeypatch.setattr(scoring_process, "die_with_command", lambda: None)
    monkeypatch.setattr(scoring_process, "write_atomically", record)
    monkeypatch.setattr(scoring, "run_process", run)
    return written
