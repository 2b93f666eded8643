"""Look for planted benchmark items in generated rows, and let others look too.

`python -m tests.benchmarks.decontamination` takes 100,000 rows against GSM8K test and MMLU test (generated items where
the real data is absent), `--small` 4,000 rows, `--rows N` any number. The measure `contamination` runs in this process
alone, compiled beforehand: documents per CPU-second cover everything from reading the Parquet parts (seeds,
boilerplate, alignment, evidence, values per row) but the index, which is made once for a set of benchmarks and kept;
`docs_per_cpu_second_with_index` counts it too. Peers run over the same texts in memory, datatrove over fewer.

Recall counts planted items that are checkable (the measure lists the others), precision the rows of four kinds that
hold none; planted twins count for nothing and are told apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from curation import schema
from curation.contamination.search import index_of
from curation.fingerprint import hash_file
from curation.join_work import JoinWork, RowPart
from curation.measures.contamination import Contamination
from curation.measuring import named
from tests.benchmarks.decontamination_peers import datatrove, open_r1, texts_of
from tests.contamination_corpus import Corpus, Judgement, generated_items, item_table, judge, make_corpus, row_table

SEED = 17  # thresholds were chosen on seeds 1 to 3
DATATROVE_ROWS = 10_000
PARTS = 2


def work_over(corpus: Corpus, folder: Path, parts: int = PARTS) -> JoinWork:
    """Write a corpus as row parts and bind it for a join in this process."""
    folder.mkdir(parents=True)
    rows = row_table(corpus, schema.rows("midtrain"))
    each = -(-rows.num_rows // parts)
    found = []
    for number in range(parts):
        path = folder / f"rows-{number}.parquet"
        pq.write_table(rows.slice(number * each, each), path, compression="zstd", compression_level=3)
        found.append(RowPart("corpus", "midtrain", path, hash_file(path), pq.read_metadata(path).num_rows))
    path = folder / "items.parquet"
    pq.write_table(item_table(corpus, schema.rows(schema.BENCHMARK)), path)
    items = RowPart("items", schema.BENCHMARK, path, hash_file(path), len(corpus.items))
    connection = duckdb.connect()
    connection.execute("SET arrow_lossless_conversion = true")
    connection.execute(f"CREATE VIEW rows AS SELECT row_id, source FROM read_parquet('{folder}/rows-*.parquet')")
    (folder / "scratch").mkdir()
    return JoinWork(connection, tuple(found), (items,), {"corpus": 0}, folder / "scratch", folder / "cache", None, 1)


def judged(corpus: Corpus, work: JoinWork) -> Judgement:
    """The findings of a join against the labels."""
    flagged: dict[int, set[int]] = {}
    twins = set()
    for row, item, kind in work.connection.execute("SELECT row_id, item, class FROM found").fetchall():
        if kind == "twin":
            twins.add(row.int)
        else:
            flagged.setdefault(row.int, set()).add(item.int)
    return judge(corpus, flagged, checkable_items(corpus, work), twins)


def checkable_items(corpus: Corpus, work: JoinWork) -> dict[str, list[bool]]:
    """Component -> per item whether the measure could check it; answers by the index, since answers that others stand
    for are not listed."""
    from curation.contamination.index import load_index
    from curation.contamination.items import COMPONENTS

    index = load_index(next(work.cache.glob("index-*")))
    found = {name: [False] * len(corpus.items) for name in COMPONENTS}
    listed = {(entry["item"], entry["component"]) for entry in work.counts["not_checkable"]}
    for ref in (index.reason_R == 0).nonzero()[0].tolist():
        row_id, name = bytes(index.row_id_R[ref]), COMPONENTS[index.component_R[ref]]
        found[name][int.from_bytes(row_id, "big")] = (row_id.hex(), name) not in listed
    return found


def figures(judgement: Judgement, rows: int, seconds: float) -> dict[str, Any]:
    """The JSON figures of one system."""
    return {"docs_per_cpu_second": round(rows / seconds, 1), "f1": round(judgement.f1, 4),
            "precision": round(judgement.precision, 4), "recall": round(judgement.recall, 4),
            "recall_by_mechanism": {name: round(value, 4) for name, value in judgement.recall_by_mechanism.items()},
            "flagged_negatives": {name: flagged for name, (flagged, _) in judgement.flagged.items()},
            "rows": rows}  # fmt: skip


def first_rows(corpus: Corpus, rows: int) -> Corpus:
    """The corpus of the first rows."""
    return Corpus(corpus.items, corpus.rows[:rows], corpus.mechanism_N[:rows], corpus.item_N[:rows])


def make_index(work: JoinWork, measure: Contamination) -> float:
    """Build the index of the items where the join looks for it, once for a set of benchmarks; CPU-seconds."""
    began = time.process_time()
    index_of(work, measure.options())
    return time.process_time() - began


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run, print the tables and the JSON line, and return what the line holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="4,000 rows")
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args(arguments)
    rows = 4_000 if options.small else options.rows
    root = Path(tempfile.mkdtemp(prefix="decontamination-"))
    try:
        warm = make_corpus(200, 1, generated_items(60, 1), ["a row of no interest"] * 3)
        named("contamination").join(work_over(warm, root / "warm"))  # type: ignore[union-attr, call-arg, arg-type]
        corpus = make_corpus(rows, SEED)
        work = work_over(corpus, root / "own")
        measure = named("contamination")
        assert isinstance(measure, Contamination)
        index_seconds = make_index(work, measure)
        began = time.process_time()
        measure.join(work)
        seconds = time.process_time() - began
        judgement = judged(corpus, work)
        checkable = checkable_items(corpus, work)
        counts = work.counts
        work.connection.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    line = figures(judgement, rows, seconds)
    line |= {"index_cpu_seconds": round(index_seconds, 2), "items": len(corpus.items),
             "docs_per_cpu_second_with_index": round(rows / (seconds + index_seconds), 1),
             "items_not_checkable": sum(counts["items_not_checkable"].values()),
             "twins_reported": list(judgement.twins_reported), "peers": {}}  # fmt: skip
    for name, peer, limit in (("open_r1", open_r1, rows), ("datatrove", datatrove, min(rows, DATATROVE_ROWS))):
        part = first_rows(corpus, limit)
        try:
            flagged, seconds = peer(corpus.items, texts_of(part, limit))
        except ImportError as error:
            print(f"left out: {name}: {error}")
            continue
        line["peers"][name] = figures(judge(part, {row: set() for row in flagged}, checkable), limit, seconds)
    report(line, judgement)
    return line


def report(line: dict[str, Any], judgement: Judgement) -> None:
    """Print the tables and the JSON line."""
    systems = {"kedge": line, **line["peers"]}
    table = Table(title=f"{line['rows']:,} documents, {line['items']:,} items; recall by mechanism")
    table.add_column("")
    for name in systems:
        table.add_column(name, justify="right")
    shown: dict[str, list[str]] = {
        "documents": [f"{of['rows']:,}" for of in systems.values()],
        "documents per CPU-second": [f"{of['docs_per_cpu_second']:,.0f}" for of in systems.values()],
        "F1": [f"{of['f1']:.4f}" for of in systems.values()],
        "precision": [f"{of['precision']:.4f}" for of in systems.values()],
        "recall": [f"{of['recall']:.4f}" for of in systems.values()],
    }  # fmt: skip
    for name in line["recall_by_mechanism"]:
        shown[f"  {name}"] = [f"{of['recall_by_mechanism'][name]:.4f}" for of in systems.values()]
    for name in line["flagged_negatives"]:
        shown[f"  {name} rows flagged"] = [f"{of['flagged_negatives'][name]:,}" for of in systems.values()]
    for name, cells in shown.items():
        table.add_row(name, *cells)
    Console(width=120).print(table)
    print("\n".join(judgement.lines()))
    print(json.dumps(line))


if __name__ == "__main__":
    main()
