"""Ingest, measure and mix synthetic SFT rows, beside the same work done by hand.

`python -m tests.benchmarks.spine` takes 1,000,000 rows, `--small` 40,000 (a minute), `--rows N` any number. Every
command runs as a process of its own, is watched with all its children, and begins with a cold interpreter; kedge and
its peer have two worker processes each.

kedge, through its own commands: `add` (parse, check the turns, hash payload and prompt, ids, held-out share, rejects
with reasons, Parquet), `measure` (text statistics, exact duplicates over all sources), `mix build` (four rules with a
reason per row left out, takes by weight, training order, lineage, held-out split, Parquet).

The peer, `datasets` alone: load JSON and save Parquet; a map that counts characters and words and hashes
the content, saved; drop duplicates, take by weight, shuffle, save. It keeps no ids, rejects, lineage or reasons, checks
no conversation, holds out no prompt, and keeps every hash in memory; so measure and mix compare like with like but for
the lineage, while ingest does more than its peer. The second peer of ingest, DuckDB's `read_json` copied to Parquet,
is the floor: what reading the bytes and writing columns costs with no Python per row.

A ratio is rows per CPU-second against a peer's: above 1 kedge is the cheaper one.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import wanted_rows
from tests.benchmarks.watching import Cost, kedge, watch

SOURCES = {"chat": 0.5, "code": 0.3, "math": 0.2}
FILES_PER_SOURCE = 4
DUPLICATES = 0.03
TEXT = (
    "the model reads every token once and answers with care before it stops number value function return list "
    "prove that sum over all terms is even because each pair cancels while index grows by one until end"
)
WORDS = TEXT.split()
MIXTURE = """\
/* ---
stage: sft
--- */
SELECT * FROM take_weighted(MAP {{'chat': 0.5, 'code': 0.3, 'math': 0.2}}, rows := {rows}, seed := 7)
"""
PEER = Path(__file__).with_name("spine_peer.py")


def write_rows(folder: Path, rows: int) -> None:
    """`rows` conversations of 100 to 1,500 characters over three sources of four files each; three in a hundred repeat
    an earlier row of their source."""
    folder.mkdir()
    for source, share in SOURCES.items():
        rng = random.Random(source)
        kept: list[str] = []
        per_file = round(rows * share) // FILES_PER_SOURCE
        for number in range(FILES_PER_SOURCE):
            with (folder / f"{source}-{number}.jsonl").open("w") as stream:
                for index in range(per_file):
                    if kept and rng.random() < DUPLICATES:
                        stream.write(rng.choice(kept))
                        continue
                    question = " ".join(rng.choices(WORDS, k=rng.randint(6, 30)))
                    answer = " ".join(rng.choices(WORDS, k=rng.randint(10, 230)))
                    turns = [{"role": "user", "content": f"{source} {number}-{index}: {question}?"},
                             {"role": "assistant", "content": answer + "."}]  # fmt: skip
                    line = json.dumps({"messages": turns, "topic": source}) + "\n"
                    if index % 50 == 0:
                        kept.append(line)
                    stream.write(line)


def kedge_costs(root: Path, rows: int) -> dict[str, Cost]:
    """What each step of kedge takes in a new project."""
    (root / "catalogs" / "mixtures").mkdir(parents=True)
    (root / "catalogs" / "sources").mkdir()
    (root / "kedge.yaml").write_text("workers: 2\n")
    (root / "catalogs" / "mixtures" / "all.sql").write_text(MIXTURE.format(rows=rows // 2))
    costs = []
    for source in SOURCES:
        text = f"reader: jsonl\npath: data/{source}-*.jsonl\nstage: sft\nshape: messages\nheld_out: 0.01\n"
        (root / "catalogs" / "sources" / f"{source}.yaml").write_text(text)
        costs.append(watch(kedge("add", source), root))
    return {"ingest": _sum(costs), "measure": watch(kedge("measure"), root),
            "mix": watch(kedge("mix", "build", "all"), root)}  # fmt: skip


def _sum(costs: list[Cost]) -> Cost:
    return Cost(sum(item.seconds for item in costs), sum(item.cpu_seconds for item in costs),
                max(item.peak_bytes for item in costs))  # fmt: skip


def peer_costs(root: Path, rows: int) -> dict[str, Cost]:
    """What the same steps take with `datasets` alone, and `duckdb_ingest` with DuckDB alone."""
    return {step: watch([sys.executable, str(PEER), step, str(rows // 2)], root)
            for step in ("ingest", "duckdb_ingest", "measure", "mix")}  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run, print the table and the JSON line, and return what the line holds."""
    rows = wanted_rows(arguments, __doc__ or "", small=40_000)
    root = Path(tempfile.mkdtemp(prefix="spine-"))
    try:
        write_rows(root / "data", rows)
        peer = peer_costs(root, rows)
        shutil.rmtree(root / "peer")
        own = kedge_costs(root, rows)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return report(rows, own, peer)


def report(rows: int, own: dict[str, Cost], peer: dict[str, Cost]) -> dict[str, float]:
    """Print the table and the JSON line."""
    table = Table(title=f"{rows:,} rows; in brackets the peer, datasets (and duckdb)")
    for name in ("step", "rows", "seconds", "rows/s", "rows per CPU-second", "peak MiB", "ratio to the peer"):
        table.add_column(name, justify="left" if name == "step" else "right")
    line: dict[str, float] = {"rows": rows}
    for step, cost in own.items():
        others = {"datasets": peer[step]} | ({"duckdb": peer[f"duckdb_{step}"]} if f"duckdb_{step}" in peer else {})
        ratios = {name: other.cpu_seconds / cost.cpu_seconds for name, other in others.items()}
        figures = [[item.seconds, rows / item.seconds, rows / item.cpu_seconds, item.peak_bytes / 2**20]
                   for item in (cost, *others.values())]  # fmt: skip
        cells = [_cell(*column) for column in zip(zip(*figures, strict=True), (1, 0, 0, 0), strict=True)]
        table.add_row(step, f"{rows:,}", *cells, ", ".join(f"{ratio:.2f}" for ratio in ratios.values()))
        line |= {f"rows_per_second_{step}": round(rows / cost.seconds, 1),
                 f"rows_per_cpu_second_{step}": round(rows / cost.cpu_seconds, 1),
                 f"peak_memory_bytes_{step}": cost.peak_bytes}  # fmt: skip
        line |= {f"ratio_to_{name}_{step}": round(ratio, 3) for name, ratio in ratios.items()}
    line["peak_memory_bytes"] = max(cost.peak_bytes for cost in own.values())
    line["peak_memory_bytes_datasets"] = max(cost.peak_bytes for name, cost in peer.items() if "duckdb" not in name)
    Console(width=140).print(table)
    print(json.dumps(line))
    return line


def _cell(values: tuple[float, ...], digits: int) -> str:
    first, *others = (f"{value:,.{digits}f}" for value in values)
    return f"{first} ({', '.join(others)})" if others else first


if __name__ == "__main__":
    main()
