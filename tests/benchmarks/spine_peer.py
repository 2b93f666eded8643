"""The peers of the spine benchmark, each step in a process of its own: the same work with `datasets` alone, and its
first step with plain DuckDB."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=str(Path("peer").absolute()))
WEIGHTS = {"chat": 0.5, "code": 0.3, "math": 0.2}


def ingest() -> None:
    import datasets

    for source in WEIGHTS:
        files = sorted(str(path) for path in Path("data").glob(f"{source}-*.jsonl"))
        loaded = datasets.load_dataset("json", data_files=files, split="train", num_proc=2)
        loaded.to_parquet(f"peer/{source}.parquet")


def duckdb_ingest() -> None:
    import duckdb

    connection = duckdb.connect(":memory:", config={"memory_limit": "1GB", "temp_directory": "peer"})
    for source in WEIGHTS:
        connection.execute(f"COPY (SELECT * FROM read_json('data/{source}-*.jsonl')) TO 'peer/{source}-duckdb.parquet' "
                           "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3)")  # fmt: skip


def statistics(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    texts = ["\n".join(turn["content"] for turn in turns) for turns in batch["messages"]]
    hashes = [hashlib.md5(json.dumps(turns, sort_keys=True).encode()).hexdigest() for turns in batch["messages"]]
    return {"chars": [len(text) for text in texts], "words": [len(text.split()) for text in texts], "hash": hashes}


def measure() -> None:
    import datasets

    for source in WEIGHTS:
        loaded = datasets.load_dataset("parquet", data_files=f"peer/{source}.parquet", split="train")
        loaded.map(statistics, batched=True, num_proc=2).to_parquet(f"peer/{source}-measured.parquet")


def mix(rows: int) -> None:
    import datasets

    seen: set[str] = set()
    parts = []
    for source, weight in WEIGHTS.items():
        loaded = datasets.load_dataset("parquet", data_files=f"peer/{source}-measured.parquet", split="train")
        first = [index for index, digest in enumerate(loaded["hash"]) if not (digest in seen or seen.add(digest))]
        parts.append(loaded.select(first).shuffle(seed=7).select(range(min(len(first), round(rows * weight)))))
    datasets.concatenate_datasets(parts).shuffle(seed=7).to_parquet("peer/mixture.parquet")


STEPS = {"ingest": ingest, "duckdb_ingest": duckdb_ingest, "measure": measure, "mix": lambda: mix(int(sys.argv[2]))}

if __name__ == "__main__":
    Path("peer").mkdir(exist_ok=True)
    STEPS[sys.argv[1]]()
