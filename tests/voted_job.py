"""A project with ingested pairs, a frozen round of them, and votes: what resolving starts from, without a server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.annotation import store
from curation.annotation.records import ITEMS, ITEMS_KIND, VOTES, VOTES_KIND
from curation.catalog import Catalog
from curation.ingest import ingest

JOB = "helpful"
PEOPLE = ("annotator-aaaaaaaa", "annotator-bbbbbbbb", "annotator-cccccccc")


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def pair(number: int, **more: Any) -> dict[str, Any]:
    """A pair whose chosen side is the longer one."""
    return {"prompt": [turn("user", f"What is {number}?")], "chosen": [turn("assistant", f"It is {number}, I think.")],
            "rejected": [turn("assistant", f"{number + 1}!")]} | more  # fmt: skip


def add_source(catalog: Catalog, name: str, records: Sequence[Mapping[str, Any]], *, stage: str = "preference",
               shape: str = "preference", **more: Any) -> list[dict[str, Any]]:  # fmt: skip
    """Ingest records; returns the rows in the order of the file."""
    root = catalog.project.root
    (root / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (root / "catalogs" / "sources").mkdir(parents=True, exist_ok=True)
    spec = {"reader": "jsonl", "path": f"{name}.jsonl", "stage": stage, "shape": shape} | more
    (root / "catalogs" / "sources" / f"{name}.yaml").write_text(json.dumps(spec))
    ingest(catalog, name)
    return rows_of(catalog, name)


def rows_of(catalog: Catalog, name: str) -> list[dict[str, Any]]:
    folder, manifest = catalog.source(name)
    found = [row for part in manifest.parts for row in pq.read_table(folder / part.name).to_pylist()]
    return sorted(found, key=lambda row: row["line"])


def hex_id(*words: object) -> str:
    return hashlib.md5("|".join(map(str, words)).encode()).hexdigest()


def item(number: int, candidates: Mapping[str, Any], *, job: str = JOB, round_name: str = "main-1", **more: Any
         ) -> dict[str, Any]:  # fmt: skip
    """A row of ITEMS; `candidates` are texts (or messages) by key, in slot order."""
    said = [{"key": key, "messages": [turn("assistant", text)] if isinstance(text, str) else text}
            for key, text in candidates.items()]  # fmt: skip
    row = dict.fromkeys(ITEMS.names) | {
        "item_id": hex_id(job, round_name, more.get("role", "item"), number), "job": job, "round": round_name,
        "edition": "e" * 12, "role": "item", "position": number, "candidates": said,
        "prompt": [turn("user", f"What is {number}?")],
    }  # fmt: skip
    return row | more


def item_of(number: int, row: Mapping[str, Any], *, swapped: bool = False, **more: Any) -> dict[str, Any]:
    """The item of a preference row."""
    sides = {key: row[key] for key in (("rejected", "chosen") if swapped else ("chosen", "rejected"))}
    given = {"row_id": row["row_id"].bytes, "source": row["source"], "prompt": row["prompt"], "tools": row["tools"]}
    return item(number, sides, **given | more)


def vote(of: Mapping[str, Any], annotator: str, verdict: str | None, **more: Any) -> dict[str, Any]:
    """A row of VOTES on an item."""
    row = dict.fromkeys(VOTES.names) | {
        "item_id": of["item_id"], "job": of["job"], "round": of["round"], "edition": of["edition"],
        "row_id": of["row_id"], "annotator": annotator, "kind": "person", "status": "submitted", "verdict": verdict,
        "slots": [one["key"] for one in of["candidates"]], "answered_at": "2026-03-02T09:00:00+00:00", "values": "{}",
    }  # fmt: skip
    return row | more


def ballots(of: Mapping[str, Any], *verdicts: str | None) -> list[dict[str, Any]]:
    """One vote of each of the first annotators."""
    return [vote(of, name, verdict) for name, verdict in zip(PEOPLE, verdicts, strict=False)]


def tables(items: Sequence[Mapping[str, Any]], votes: Sequence[Mapping[str, Any]]) -> tuple[pa.Table, pa.Table]:
    """(ITEMS, VOTES)."""
    return pa.Table.from_pylist(list(items), schema=ITEMS), pa.Table.from_pylist(list(votes), schema=VOTES)


def freeze(catalog: Catalog, items: Sequence[Mapping[str, Any]], votes: Sequence[Mapping[str, Any]],
           **parameters: Any) -> None:  # fmt: skip
    """Put items and votes into the lake, by job and round. Votes of a round that are there already stay."""
    given = {"annotators_per_item": 3, "questions": [{"name": "better", "kind": "preference"}]} | parameters
    for job, name in dict.fromkeys((one["job"], one["round"]) for one in items):
        mine = [one for one in items if (one["job"], one["round"]) == (job, name)]
        with catalog.writing(ITEMS_KIND, job):
            store.replace(catalog, ITEMS_KIND, (job, name), pa.Table.from_pylist(mine, schema=ITEMS), given)
        cast = [one for one in votes if (one["job"], one["round"]) == (job, name)]
        with catalog.writing(VOTES_KIND, job):
            store.add_votes(catalog, job, name, pa.Table.from_pylist(cast, schema=VOTES))


def resolution_file(catalog: Catalog, name: str, text: str) -> Path:
    path = catalog.project.catalogs / "resolutions" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
