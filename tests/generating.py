"""A project with a few prompts, generation jobs, and what they published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curation import cli
from curation.catalog import Catalog
from curation.config import SHIPPED, find_project
from curation.quickstart.journey import inside

QUESTIONS = ("What is 2 plus 3?", "What is 10 plus 7?", "What is 1 plus 1? Say why, in one sentence.")


def make_project(root: Path, records: list[dict[str, Any]] | None = None) -> Path:
    """A project with the preference source `asked`, ingested: QUESTIONS, the first of them twice. No shipped rule is
    adopted, so that nothing needs to be measured."""
    for name in ("sources", "generations", "mixtures"):
        (root / "catalogs" / name).mkdir(parents=True, exist_ok=True)
    rules = sorted(path.stem for path in (SHIPPED / "rules").glob("*.sql"))
    (root / "kedge.yaml").write_text(json.dumps({"skip_rules": rules}))
    if records is None:
        records = [pair(question) for question in QUESTIONS] + [pair(QUESTIONS[0], "Five.")]
    (root / "asked.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    source = {"reader": "jsonl", "path": "asked.jsonl", "stage": "preference", "shape": "preference"}
    (root / "catalogs" / "sources" / "asked.yaml").write_text(json.dumps(source))
    with inside(root):
        assert cli.run(["add", "asked"]) == 0
    return root


def pair(question: str, chosen: str = "I add them.", **more: Any) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": question}], "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": "No."}]} | more  # fmt: skip


def write_job(root: Path, name: str = "answers", **values: Any) -> Path:
    """A job over the source `asked`, two answers of 12 tokens each unless `values` say otherwise."""
    path = root / "catalogs" / "generations" / f"{name}.yaml"
    path.write_text(json.dumps({"prompts": {"source": "asked"}, "n": 2, "max_tokens": 12} | values, indent=1))
    return path


def local(model: Path | str, **options: Any) -> dict[str, Any]:
    """The generator that has a model in process."""
    return {"name": "transformers_local", "model": str(model)} | options


def run(kedge: Any, name: str = "answers", code: int = 0) -> dict[str, Any]:
    """What `kedge generate NAME --json` prints."""
    found, out, err = kedge("generate", name, "--json")
    assert found == code, err
    return dict(json.loads(out))


def answers(root: Path, job: str = "answers") -> list[dict[str, Any]]:
    """The published rows of a job."""
    catalog = Catalog(find_project(root))
    ((folder, manifest),) = [item for item in catalog.manifests("evidence", "generation")
                             if item[1].parameters["plugin"] == job]  # fmt: skip
    return list(pq.read_table(folder / manifest.parts[0].name).to_pylist())


def texts(root: Path, job: str = "answers") -> dict[tuple[str, float, int], str]:
    """(question, temperature, sample) -> answer."""
    return {(row["prompt"][0]["content"], row["temperature"], row["sample"]): row["text"] for row in answers(root, job)}
