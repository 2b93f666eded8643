"""What a mixture covers: skills, task verbs and distinct n-grams, and what of the parent stage's mixture it lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curation import checkpoints
from curation.catalog import Catalog
from curation.errors import UserError
from curation.measuring import ensure, named, signal_parts
from curation.outputs import Manifest
from curation.relations import parquet_list
from curation.runs import Run
from curation.texts import SIDES, joined

LABELS = {"skill": "skills", "task_verb": "task_verbs"}  # column -> its measure
MEASURED_ROWS = 50_000  # up to so many rows are measured on the way, in a second or two
LEAST_SHARE = 0.005  # of the parent's rows: what is rarer there is not missed here
LACKING = 0.1  # of the parent's share
SAMPLE_ROWS, SAMPLE_CHARS = 20_000, 6_000_000
SCANNED_ROWS = 100_000
WORD = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]|[\p{L}\p{N}]+"

Counts = list[dict[str, Any]]


def coverage(catalog: Catalog, connection: duckdb.DuckDBPyConnection, name: str, stage: str) -> dict[str, Any]:
    """What the mixture `name` covers, whose rows are the table `plan` of `connection`.

    skill and task_verb: {label, rows, share, tokens} by falling rows (label null where a row has none), or null where
    it is not measured and the sources are too many to do it on the way; `not_measured` names those measures. parents:
    per stage before it {run, parent, mixture, lacks}, where lacks lists {kind, label, parent_share, share} of what has
    at least 0.5 % of the parent's rows and here less than a tenth of that share. distinct: per source and over `all`
    {rows, words, distinct_1, distinct_2, distinct_3}: distinct n-grams over all (0..1, null without any) of a sample.
    """
    sources = [row[0] for row in connection.execute("SELECT DISTINCT source FROM plan ORDER BY 1").fetchall()]
    parts = {kind: _labelled(catalog, measure, sources) for kind, measure in LABELS.items()}
    found: dict[str, Any] = {kind: _count(connection, "plan", kind, files) for kind, files in parts.items()}
    found["not_measured"] = [LABELS[kind] for kind, files in parts.items() if files is None]
    found["parents"] = [_compare(catalog, connection, parent, found) for parent in parents(catalog, name)]
    found["distinct"] = distinct_ngrams(catalog, connection, stage, sources)
    return found


def _labelled(catalog: Catalog, measure: str, sources: Sequence[str]) -> list[Path] | None:
    """The signal parts of a measure for some sources, measured now where that is quick; None where it is not."""
    of = named(measure)
    missing = [name for name in sources if signal_parts(catalog, of, name) is None]
    if sum(catalog.source(name)[1].num_rows for name in missing) > MEASURED_ROWS:
        return None
    if missing:
        ensure(catalog, of, missing)
    return [part for name in sources for part in signal_parts(catalog, of, name) or []]


def _count(connection: duckdb.DuckDBPyConnection, rows: str, kind: str, parts: list[Path] | None) -> Counts | None:
    """{label, rows, share, tokens} of a relation with row_id and tokens, by falling rows."""
    if not parts:
        return None
    counted = connection.execute(
        f"SELECT s.{kind}, count(*), sum(p.tokens)::BIGINT FROM {rows} AS p JOIN {parquet_list(parts)} AS s "
        "ON p.row_id = s.row_id GROUP BY 1 ORDER BY 2 DESC, 1 NULLS LAST"
    ).fetchall()
    total = max(1, sum(row[1] for row in counted))
    return [{"label": label, "rows": n, "share": n / total, "tokens": tokens} for label, n, tokens in counted]


@dataclass(frozen=True)
class Parent:
    """A run that trains a mixture, the run that it starts from, and what that one was trained on: the frozen mixture,
    None where it is not frozen."""

    run: str
    parent: str
    mixture: str
    frozen: tuple[Path, Manifest] | None


def parents(catalog: Catalog, name: str) -> list[Parent]:
    """The stages before a mixture: of every run file that trains it from a parent, what the parent was trained on (of
    a checkpoint what its record says, else what the parent's run file names), each mixture once. Run files that cannot
    be read are passed over: they are no matter of a mixture."""
    found: dict[str, Parent] = {}
    runs = catalog.project.paths("runs", ".yaml")
    for run_name in runs:
        with contextlib.suppress(UserError):
            run = Run(catalog, run_name)
            if run.file.mixture.partition("@")[0] != name or run.file.parent is None:
                continue
            parent = run.file.parent.partition("@")[0]
            reference = None
            with contextlib.suppress(UserError):
                checkpoint = checkpoints.find(catalog, run.file.parent)
                parent, reference = checkpoint.run, checkpoint.mixture
            if reference is None and parent in runs:
                reference = Run(catalog, parent).file.mixture
            if reference is not None and reference.partition("@")[0] != name and reference not in found:
                base, _, prefix = reference.partition("@")
                found[reference] = Parent(run_name, parent, base, catalog.latest("mixtures", base, prefix))
    return list(found.values())


def _compare(catalog: Catalog, connection: duckdb.DuckDBPyConnection, parent: Parent, here: Mapping[str, Any]
             ) -> dict[str, Any]:  # fmt: skip
    """What a parent's mixture has and this one lacks; `lacks` is null where the parent's is not frozen or measured."""
    told: dict[str, Any] = {"run": parent.run, "parent": parent.parent, "mixture": parent.mixture, "lacks": None}
    if parent.frozen is None:
        return told | {"why": f"the mixture '{parent.mixture}' of its parent is not frozen: kedge mix build "
                       f"{parent.mixture}"}  # fmt: skip
    folder, manifest = parent.frozen
    known = catalog.sources()
    sources = [name for name, item in manifest.counts.get("sources", {}).items() if item["rows"] and name in known]
    connection.execute("CREATE OR REPLACE TEMP VIEW parent_rows AS SELECT row_id::UUID AS row_id, NULL AS tokens FROM "
                       + parquet_list(sorted((folder / "train").glob("*.parquet"))))  # fmt: skip
    lacks: Counts = []
    for kind, measure in LABELS.items():
        before = _count(connection, "parent_rows", kind, _labelled(catalog, measure, sources))
        if before is None and here[kind] is not None:
            return told | {"why": f"the rows of '{parent.mixture}' are not measured: kedge measure --only {measure}"}
        shares = {item["label"]: item["share"] for item in here[kind] or []}
        lacks += [
            {"kind": kind, "label": item["label"], "parent_share": item["share"],
             "share": shares.get(item["label"], 0.0)}
            for item in before or []
            if here[kind] is not None and item["label"] is not None and item["share"] >= LEAST_SHARE
            and shares.get(item["label"], 0.0) < LACKING * item["share"]
        ]  # fmt: skip
    return told | {"lacks": lacks}


def distinct_ngrams(catalog: Catalog, connection: duckdb.DuckDBPyConnection, stage: str, sources: Sequence[str]
                    ) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Distinct words, pairs and triples of words over all of them (Li et al., 2016, arXiv:1510.03055), per source and
    over `all`. Of the mixture's rows (each once) those first by sample key, at most 20,000 and 6 million characters; of
    sources above 100,000 rows together, those of evenly spaced row groups. Compare figures of equally many words."""
    sample = _sample(catalog, connection, stage, sources)
    words = (
        sample.select("row", "source", pl.col("text").str.to_lowercase().str.extract_all(WORD).alias("word"))
        .explode("word", empty_as_null=True).drop_nulls("word")
        .select("row", "source", pl.col("word").hash(seed=0).alias("w1"))
        .with_columns(pl.when(pl.col("row") == pl.col("row").shift(-1)).then(_pair("w1", "w1", -1)).alias("w2"))
        .with_columns(pl.when(pl.col("row") == pl.col("row").shift(-2)).then(_pair("w2", "w1", -2)).alias("w3"))
    )  # fmt: skip
    found = {}
    for name in [*sources, "all"]:
        of = words if name == "all" else words.filter(pl.col("source") == name)
        rows = len(sample) if name == "all" else int((sample["source"] == name).sum())
        found[name] = {"rows": rows, "words": len(of)} | {f"distinct_{n}": _distinct(of[f"w{n}"]) for n in (1, 2, 3)}
    return found


def _pair(first: str, second: str, shift: int) -> pl.Expr:
    """A hash of two columns of hashes whose order counts."""
    return pl.struct(pl.col(first), pl.col(second).shift(shift).alias("next")).hash(seed=0)


def _distinct(hashes: pl.Series) -> float | None:
    given = hashes.drop_nulls()
    return given.n_unique() / len(given) if len(given) else None


def _sample(catalog: Catalog, connection: duckdb.DuckDBPyConnection, stage: str, sources: Sequence[str]
            ) -> pl.DataFrame:  # fmt: skip
    """row, source and text of the sample, in the order of its keys."""
    groups = _row_groups(catalog, sources)
    ids = [pq.ParquetFile(path).read_row_group(group, columns=["row_id"])["row_id"] for path, group in groups]
    located = pa.table({
        "row_id": pa.chunked_array([chunk for column in ids for chunk in column.chunks] or [pa.array([], pa.uuid())]),
        "row_group": pa.array([number for number, column in enumerate(ids) for _ in range(len(column))], pa.int32()),
        "place": pa.array([place for column in ids for place in range(len(column))], pa.int32()),
    })  # fmt: skip
    connection.register("located_rows", located)
    chosen = pl.from_arrow(connection.sql(
        "SELECT l.row_group, l.place, row_number() OVER (ORDER BY sample_key(l.row_id, 0), l.row_id) AS row, p.source "
        "FROM located_rows AS l JOIN (SELECT DISTINCT row_id, source FROM plan) AS p ON l.row_id = p.row_id "
        f"ORDER BY row LIMIT {SAMPLE_ROWS}").to_arrow_table())  # fmt: skip
    connection.unregister("located_rows")
    assert isinstance(chosen, pl.DataFrame)
    texts = [pl.DataFrame({"row": [], "source": [], "text": []}, schema={"row": pl.Int64, "source": pl.String,
                                                                         "text": pl.String})]  # fmt: skip
    for number in chosen["row_group"].unique().sort():
        of = chosen.filter(pl.col("row_group") == number)
        path, group = groups[number]
        file = pq.ParquetFile(path)
        wanted = [name for name in SIDES[stage] if name in file.schema_arrow.names]
        rows = file.read_row_group(group, columns=wanted).take(of["place"].to_numpy())
        texts.append(of.select("row", "source", text=pl.Series(joined(rows, wanted))))
    sample = pl.concat(texts).sort("row")
    return sample.filter(pl.col("text").str.len_chars().cum_sum().shift(1).fill_null(0) < SAMPLE_CHARS)


def _row_groups(catalog: Catalog, sources: Sequence[str]) -> list[tuple[Path, int]]:
    """Row groups of the sources, in source order: all, or of a large source evenly spaced ones."""
    total = sum(catalog.source(name)[1].num_rows for name in sources)
    stride = -(-total // SCANNED_ROWS) if total else 1
    found = []
    for name in sources:
        folder, manifest = catalog.source(name)
        files = [folder / part.name for part in manifest.parts]
        every = [(file, group) for file in files for group in range(pq.read_metadata(file).num_row_groups)]
        found += every[::stride]
    return found
