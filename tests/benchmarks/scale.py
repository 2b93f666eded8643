"""Five million SFT rows from files to a frozen mixture, and the same commands again with nothing changed.

`python -m tests.benchmarks.scale` takes 5,000,000 rows, `--small` 50,000, `--rows N` any number. Every command runs as
a process of its own and is watched with all its children: `add` of four sources (and of a benchmark's items, which is
not counted), `measure` (all that the adopted rules read), `rules exact_duplicate` (the verdicts of all adopted rules),
`mix build`.

The second run is `measure` and `mix build` once more: `seconds_repeat` is both together, interpreters' start included.
It must execute no measure and write nothing: every published file of the lake is compared by size, time and inode. What
`rules`, which counts again what it shows, takes in the second run is told beside it.

`--words 4` makes rows of 2 kB instead of 0.5 kB, and `--each` runs every measure in a process of its own, so that each
has a line: the rates in catalogs/plans/scale.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from curation.catalog import Catalog
from curation.config import find_project
from curation.rules import default_measures
from tests.benchmarks import scale_rows
from tests.benchmarks.watching import Cost, kedge, watch

RULES = ("rules", "exact_duplicate")
MIXTURE = """\
/* ---
stage: sft
on_shortfall: accept
--- */
SELECT * FROM take_weighted(MAP {{'math': 0.4, 'chat': 0.3, 'code': 0.2, 'tools': 0.1}}, rows := {rows}, seed := 7)
"""
SOURCE = "reader: jsonl\npath: data/{name}-*.jsonl\nstage: sft\nshape: messages\nheld_out: 0.01\n"


def prepare(root: Path, rows: int, words: int) -> None:
    """A project with the rows on disk and nothing ingested."""
    for name in ("mixtures", "sources"):
        (root / "catalogs" / name).mkdir(parents=True)
    (root / "kedge.yaml").write_text("tokenizers: {}\n")
    (root / "catalogs" / "mixtures" / "all.sql").write_text(MIXTURE.format(rows=rows // 2))
    for source in scale_rows.write_rows(root / "data", rows, words):
        (root / "catalogs" / "sources" / f"{source}.yaml").write_text(SOURCE.format(name=source))


def first_costs(root: Path, each: bool) -> dict[str, Cost]:
    """What each command takes in the new project; with `each` every measure too, before `measure`."""
    costs = {f"add {source}": told("add", source, root=root) for source in scale_rows.SHARES}
    told("add", "data/items.jsonl", "--stage", "benchmark", root=root)
    names = [item.plugin_name() for item in default_measures(Catalog(find_project(root)))] if each else []
    alone = [("measure", "--only", name) for name in names]
    for command in (*alone, ("measure",), RULES, ("mix", "build", "all")):
        costs[" ".join(command)] = told(*command, root=root)
    return costs


def told(*command: str, root: Path) -> Cost:
    """What a command takes, said at once: a long run shows where it is."""
    cost = watch(kedge(*command), root)
    figures = f"{cost.seconds:,.1f} s, {cost.cpu_seconds:,.1f} CPU-s, {cost.peak_bytes / 2**20:,.0f} MiB"
    print(f"{' '.join(command)}: {figures}", file=sys.stderr, flush=True)
    return cost


def repeat_costs(root: Path) -> dict[str, Cost]:
    """What the same commands take again. Raises RuntimeError where one of them wrote anything."""
    before = published(root)
    costs = {}
    for command in (("measure",), ("mix", "build", "all"), RULES):
        costs[" ".join(command)] = told(*command, root=root)
        changed = sorted(path for path, _ in published(root).items() ^ before.items())
        if changed:
            raise RuntimeError(f"'{' '.join(command)}' changed {changed[:3]} in the second run")
    return costs


def published(root: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time and inode of every published file of the lake."""
    lake = root / "lake"
    files = [path for path in lake.rglob("*") if path.is_file() and not path.relative_to(lake).parts[0].startswith(".")
             and path.name != "catalog.duckdb"]  # fmt: skip
    return {path.relative_to(lake).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino)
            for path in files}  # fmt: skip


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run, print the table and the JSON line, and return what the line holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="50,000 rows")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--words", type=int, default=1, help="multiply the length of the texts")
    parser.add_argument("--each", action="store_true", help="measure by measure, each in its own process")
    parser.add_argument("--keep", action="store_true", help="leave the project on disk and say where")
    options = parser.parse_args(arguments)
    rows = 50_000 if options.small else int(options.rows)
    root = Path(tempfile.mkdtemp(prefix="scale-"))
    try:
        prepare(root, rows, options.words)
        first = first_costs(root, options.each)
        lake_bytes = sum(size for size, _, _ in published(root).values())
        repeat = repeat_costs(root)
    finally:
        if options.keep:
            print(f"the project is in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    return report(rows, lake_bytes, first, repeat)


def report(rows: int, lake_bytes: int, first: dict[str, Cost], repeat: dict[str, Cost]) -> dict[str, float]:
    """Print the table and the JSON line."""
    table = Table(title=f"{rows:,} rows, {lake_bytes / 2**20:,.0f} MiB of lake")
    for name in ("command", "seconds", "CPU-seconds", "rows per CPU-second", "peak MiB", "seconds again"):
        table.add_column(name, justify="left" if name == "command" else "right")
    for name, cost in first.items():
        mine = rows * scale_rows.SHARES.get(name.removeprefix("add "), 1)
        again = f"{repeat[name].seconds:,.2f}" if name in repeat else ""
        table.add_row(name, f"{cost.seconds:,.1f}", f"{cost.cpu_seconds:,.1f}", f"{mine / cost.cpu_seconds:,.0f}",
                      f"{cost.peak_bytes / 2**20:,.0f}", again)  # fmt: skip
    line: dict[str, float] = {
        "rows": rows,
        "seconds_first": round(sum(cost.seconds for cost in first.values()), 2),
        "seconds_repeat": round(repeat["measure"].seconds + repeat["mix build all"].seconds, 3),
        "peak_memory_bytes": max(cost.peak_bytes for cost in (*first.values(), *repeat.values())),
        "cpu_seconds_first": round(sum(cost.cpu_seconds for cost in first.values()), 2),
        "lake_bytes": lake_bytes,
        "seconds_repeat_measure": round(repeat["measure"].seconds, 3),
        "seconds_repeat_mix_build": round(repeat["mix build all"].seconds, 3),
        "seconds_repeat_rules": round(repeat[" ".join(RULES)].seconds, 3),
    }
    Console(width=140).print(table)
    print(json.dumps(line))
    return line


if __name__ == "__main__":
    main()
