"""kedge and its peers on the same texts, each as a function of its own process: what has a candidate, is flagged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq

BANDS, ROWS, SHINGLE_WORDS = 14, 8, 5


@dataclass(frozen=True)
class Answer:
    """What a system says of N documents: whether it has a candidate before any verification, whether it is flagged in
    the end, the CPU-seconds of that, those of the whole commands, and the peak memory of its process."""

    candidate_N: np.ndarray
    flagged_N: np.ndarray
    cpu_seconds: float
    command_seconds: float
    peak_memory_bytes: int


def cpu_seconds() -> float:
    """Of this process and its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _answer(candidate_N: np.ndarray, flagged_N: np.ndarray, spent: float, command: float = 0.0) -> Answer:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Answer(candidate_N, flagged_N, spent, command or spent, peak)


def shingles_of(text: str) -> list[str]:
    """The shingles of a text as strings, from the words that kedge sees."""
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - SHINGLE_WORDS + 1)]


def rensa(texts: list[str]) -> Answer:
    """Its fastest path: one matrix of sketches, one query for all flags."""
    import rensa

    began = cpu_seconds()
    matrix = rensa.RMinHash.digest_matrix_from_token_sets([shingles_of(text) for text in texts], BANDS * ROWS, 42)
    index = rensa.RMinHashLSH(0.72, BANDS * ROWS, BANDS)
    flags = np.array(index.query_duplicate_flags_matrix_one_shot(matrix), bool)
    return _answer(flags, flags, cpu_seconds() - began)


def datasketch(texts: list[str]) -> Answer:
    """A document is flagged where an earlier one shares a band."""
    import xxhash
    from datasketch import MinHash, MinHashLSH

    began = cpu_seconds()
    index = MinHashLSH(params=(BANDS, ROWS), num_perm=BANDS * ROWS)
    flags = np.zeros(len(texts), bool)
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=BANDS * ROWS, hashfunc=xxhash.xxh32_intdigest)
        sketch.update_batch([shingle.encode() for shingle in set(shingles_of(text))])
        flags[number] = bool(index.query(sketch))
        index.insert(number, sketch)
    return _answer(flags, flags, cpu_seconds() - began)


def datatrove(texts: list[str]) -> Answer:
    """Its four stages one after the other; a document that the filter leaves out is flagged. It makes every number 0,
    which is its default."""
    os.environ["DATATROVE_COLORIZE_LOGS"] = "0"
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    logger.remove()
    config = MinhashConfig(n_grams=SHINGLE_WORDS, num_buckets=BANDS, hashes_per_bucket=ROWS,
                           hash_config=HashConfig(precision=64))  # fmt: skip
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        signatures, buckets, clusters = (f"{folder}/{name}" for name in ("signatures", "buckets", "clusters"))
        began = cpu_seconds()
        MinhashDedupSignature(signatures, config=config).run(iter(documents), 0, 1)
        for bucket in range(BANDS):
            MinhashDedupBuckets(signatures, buckets, config=config).run(None, bucket, BANDS)
        MinhashDedupCluster(buckets, clusters, config=config).run(None, 0, 1)
        kept = [int(item.id) for item in MinhashDedupFilter(clusters).run(iter(documents), 0, 1)]
        spent = cpu_seconds() - began
    flags = np.ones(len(texts), bool)
    flags[kept] = False
    return _answer(flags, flags, spent)


def kedge(texts: list[str]) -> Answer:
    """Through a lake of one source. The CPU-seconds are those of the measure `shingles` over tables in memory, and of
    the whole join, which reads from Parquet the keys and the texts that it verifies; those of the commands have all
    reading and writing."""
    from curation.duplicates import index as near_index
    from curation.measures._near import NearMeasure
    from curation.measuring import ensure, named, signal_parts

    join, candidate_pairs = NearMeasure.join, near_index.candidate_pairs
    seen: dict[str, Any] = {}

    def timed_join(measure: NearMeasure, work: Any) -> None:
        began = cpu_seconds()
        join(measure, work)
        seen["join"] = cpu_seconds() - began

    def watched(index: Any, threshold: float) -> Any:
        seen["index"], seen["pairs"] = index, candidate_pairs(index, threshold)
        return seen["pairs"]

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(NearMeasure, "join", timed_join),
        mock.patch.object(near_index, "candidate_pairs", watched),
        open(os.devnull, "w") as nowhere,  # noqa: PTH123
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        for name, documents in (("warm", texts[:64]), ("docs", texts)):  # the first loads or compiles the kernels
            catalog = _ingested(Path(folder) / name, documents)
            ensure(catalog, named("text_statistics"))
            began = cpu_seconds()
            ensure(catalog, named("shingles"))
            ensure(catalog, named("near_duplicates"))
            command = cpu_seconds() - began
        tables = [pq.read_table(path, columns=["text"]) for path in catalog.row_parts()]
        lines = np.concatenate([pq.read_table(path, columns=["line"])["line"] for path in catalog.row_parts()]) - 1
        parts = signal_parts(catalog, named("near_duplicates"), "docs") or []
        sizes = np.concatenate([pq.read_table(path)["near_duplicate_cluster"] for path in parts])
        began = cpu_seconds()
        for table in tables:
            named("shingles").measure(table, "midtrain")  # type: ignore[union-attr]
        spent = cpu_seconds() - began + seen["join"]
    candidates, flags = np.zeros(len(texts), bool), np.zeros(len(texts), bool)
    index, (a, b, _) = seen["index"], seen["pairs"]
    sets = np.bincount(index.set_N[index.set_N >= 0], minlength=len(index.first_S)) > 1
    sets[a] = sets[b] = True
    candidates[lines[index.at_N]] = (index.set_N >= 0) & sets[index.set_N]
    flags[lines] = sizes > 1
    return _answer(candidates, flags, spent, command)


def _ingested(root: Path, texts: list[str]) -> Any:
    from curation import cli
    from curation.catalog import Catalog
    from curation.config import find_project

    root.mkdir()
    (root / "kedge.yaml").write_text("workers: 1\n")
    (root / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    with contextlib.chdir(root):
        assert cli.run(["add", "docs.jsonl", "--stage", "midtrain"]) == 0
    return Catalog(find_project(root))


SYSTEMS = {"kedge": kedge, "rensa": rensa, "datasketch": datasketch, "datatrove": datatrove}
