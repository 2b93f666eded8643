"""Near duplicates beside rensa, datasketch and datatrove: speed, candidates before verification, and what is left.

`python -m tests.benchmarks.near_duplicates` makes 100,000 documents (`--small` 4,000, `--rows N` any number), of which
14 % repeat an earlier one by seven mechanisms. A document is a near duplicate where its true Jaccard similarity to its
original or to another copy of it, of 5-word shingles by a slow reference, is at least .70. Every system has 14 bands of
8 and the same words (letters and digits, case folded), and runs in a process of its own with the texts in memory. A
system that is not installed is left out; datatrove, which is slow, gets 4,000 documents at most.

`docs_per_cpu_second` of kedge counts the measure `shingles` and the whole join `near_duplicates`: index, candidates,
verification (texts are read again from Parquet), clusters, evidence; `docs_per_cpu_second_of_commands` has all reading
and writing of Parquet too. `candidate_recall` is the share of near duplicates with a candidate pair before any
verification, which is all that the peers answer; kedge's less rensa's stands beside its standard error (paired by
document). `recall`, `precision` and `f1` are of the answer, kedge's after verification. All are over documents that
none was made from, since some systems flag a whole group and others all but one.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import multiprocessing
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks.near_duplicate_rows import Planted, planted, true_jaccard
from tests.benchmarks.near_duplicate_systems import SYSTEMS, Answer

THRESHOLD = 0.7
AT_MOST = {"datatrove": 4_000}
NEEDS = {"rensa": ("rensa",), "datasketch": ("datasketch",), "datatrove": ("datatrove", "spacy")}


def asked(name: str, texts: list[str]) -> Answer:
    """The answer of one system, from a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(SYSTEMS[name], texts).result()


def truth(corpus: Planted) -> tuple[np.ndarray, np.ndarray]:
    """(which of N documents are judged: those that none was made from; which of these are near duplicates). Documents
    of different origin share no phrases, so only families are compared."""
    families: dict[int, list[int]] = defaultdict(list)
    for number, original in enumerate(corpus.original):
        families[number if original < 0 else original].append(number)
    judged, near = np.ones(len(corpus.texts), bool), np.zeros(len(corpus.texts), bool)
    for original, members in families.items():
        judged[original] = len(members) == 1
        for pair in itertools.combinations(members, 2):
            if true_jaccard(*(corpus.texts[number] for number in pair)) >= THRESHOLD:
                near[list(pair)] = True
    return judged, near & judged


def figures(corpus: Planted, judged_N: np.ndarray, near_N: np.ndarray, said: Answer) -> dict[str, Any]:
    """What the JSON line holds of one system."""
    hits, flagged = int((said.flagged_N & near_N).sum()), int((said.flagged_N & judged_N).sum())
    names = np.array(corpus.mechanism)
    shares = {name: round(float(said.flagged_N[near_N & (names == name)].mean()), 4)
              for name in sorted({*names[near_N]})}  # fmt: skip
    return {
        "documents": len(near_N),
        "docs_per_cpu_second": round(len(near_N) / said.cpu_seconds),
        "docs_per_cpu_second_of_commands": round(len(near_N) / said.command_seconds),
        "candidate_recall": round(float(said.candidate_N[near_N].mean()), 4),
        "recall": round(hits / int(near_N.sum()), 4),
        "precision": round(hits / max(1, flagged), 6),
        "f1": round(2 * hits / (flagged + int(near_N.sum())), 4),
        "recall_by_mechanism": shares,
        "peak_memory_bytes": said.peak_memory_bytes,
    }


def compare(rows: int) -> dict[str, Any]:
    """The JSON line over a corpus of `rows` documents."""
    found: dict[str, dict[str, Any]] = {}
    candidates: dict[str, np.ndarray] = {}
    for count, names in itertools.groupby(SYSTEMS, lambda name: min(rows, AT_MOST.get(name, rows))):
        corpus = planted(count)
        judged, near = truth(corpus)
        for name in names:
            if all(map(importlib.util.find_spec, NEEDS.get(name, ()))):
                said = asked(name, corpus.texts)
                found[name] = figures(corpus, judged, near, said)
                candidates[name] = said.candidate_N[near]
    line = found.pop("kedge") | {"near_duplicates": len(candidates["kedge"]), "peers": found}
    if "rensa" in candidates:
        gap = candidates["kedge"].astype(float) - candidates["rensa"]
        line["candidate_recall_less_rensa"] = round(float(gap.mean()), 4)
        line["candidate_recall_standard_error"] = round(float(gap.std(ddof=1)) / math.sqrt(len(gap)), 4)
    return line


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print the table and the JSON line, and return what the line holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="4,000 documents")
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args(arguments)
    line = compare(4_000 if options.small else options.rows)
    systems = {"kedge": line} | line["peers"]
    table = Table("system", "documents", "docs/CPU-s", "candidates", "recall", "precision", "F1", "MiB",
                  title=f"{line['near_duplicates']:,} near duplicates in {line['documents']:,} documents")  # fmt: skip
    for name, item in systems.items():
        table.add_row(name, f"{item['documents']:,}", f"{item['docs_per_cpu_second']:,}",
                      f"{item['candidate_recall']:.4f}", f"{item['recall']:.4f}", f"{item['precision']:.4f}",
                      f"{item['f1']:.4f}", f"{item['peak_memory_bytes'] >> 20:,}")  # fmt: skip
    Console(width=100).print(table)
    shares = Table("recall by mechanism", *systems)
    for name in line["recall_by_mechanism"]:
        shares.add_row(name, *(f"{item['recall_by_mechanism'].get(name, math.nan):.3f}" for item in systems.values()))
    Console(width=100).print(shares)
    print(json.dumps(line))
    return line


if __name__ == "__main__":
    main()
