"""Small projects with preference rows, generations and annotation jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.annotation import store
from curation.annotation.records import GENERATION_KIND
from curation.catalog import Catalog
from curation.generation._records import GENERATION
from curation.ingest import ingest

BETTER = "{name: better, kind: preference}"
GUIDELINES = "Read both answers."


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def pair(number: int, **more: Any) -> dict[str, Any]:
    """A preference record; its sides differ, and its margin grows with its number."""
    return {"prompt": [turn("user", f"Question {number}?")], "chosen": [turn("assistant", f"yes {number}")],
            "rejected": [turn("assistant", f"no {number}")], "margin": number / 100} | more  # fmt: skip


def add_source(catalog: Catalog, name: str, records: list[dict[str, Any]], stage: str = "preference") -> None:
    """Write and ingest a source of JSON lines."""
    root = catalog.project.root
    folder = root / "catalogs" / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    (root / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    shape = {"preference": "preference", "sft": "messages", "rlvr": "verifiable"}[stage]
    (folder / f"{name}.yaml").write_text(f"reader: jsonl\npath: {name}.jsonl\nstage: {stage}\nshape: {shape}\n")
    ingest(catalog, name)


def write_job(catalog: Catalog, name: str, query: str, questions: str = BETTER, guidelines: str = GUIDELINES,
              **header: Any) -> Path:  # fmt: skip
    """Write `catalogs/annotations/NAME.sql`; `header` values are written as JSON, which is YAML."""
    path = catalog.project.catalogs / "annotations" / f"{name}.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    more = "".join(f"{key}: {json.dumps(value)}\n" for key, value in header.items())
    path.write_text(f"/* ---\nguidelines: {json.dumps(guidelines)}\nquestions: [{questions}]\n{more}--- */\n{query}\n")
    return path


def add_generations(catalog: Catalog, records: list[dict[str, Any]], job: str = "drafts") -> None:
    """Publish generations: {generation_id, row_id, prompt, text, ...}; what is absent is null."""
    rows = []
    for record in records:
        answer = [turn("assistant", record["text"])] if record.get("text") is not None else None
        rows.append({name: None for name in GENERATION.names} | {"job": job, "finish_reason": "stop", "model": "tiny",
                    "messages": answer} | record)  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=GENERATION)
    store.replace(catalog, GENERATION_KIND, (job,), table, {"job": job})
