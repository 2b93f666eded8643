"""What a job's query offers: its subjects (rows, generations of a prompt, or earlier items) in the order in which a
round takes them, and the contents of those that it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from curation import schema
from curation.annotation import contents, views
from curation.annotation.jobs import Job, candidates_problem
from curation.annotation.records import BOTH_BAD, TIE
from curation.catalog import Catalog
from curation.errors import Problem, UserError
from curation.measuring import ensure, needed, signals_view
from curation.queries import require_repeatable, single_select, sql_error
from curation.relations import quoted
from curation.rules import bind_evidence, bind_kept, verdict_files
from curation.takes import create_macros

SUBJECTS = {"row_id": "UUID", "generation_ids": "VARCHAR[]", "item_id": "VARCHAR"}
OPTIONAL = {"topic": "VARCHAR", "priority": "DOUBLE", "gold": "VARCHAR"}
KEYS = {
    "row_id": "replace(subject::VARCHAR, '-', '')",
    "item_id": "coalesce((SELECT of_item FROM items WHERE item_id = subject), subject)",
    "generation_ids": "array_to_string(list_sort(subject), '+')",
}
# What the row itself says is no remark about it: `SELECT * FROM kept` leaves margin and measures in meta.
NOT_META = {*SUBJECTS, *OPTIONAL, *(name for name, _ in schema.IDENTITY + schema.ORIGIN),
            *(name for stage in schema.STAGES for name, _ in schema.PAYLOAD[stage])}  # fmt: skip
KEPT = re.compile(r"\b(kept|verdicts|take_\w+)\b", re.IGNORECASE)
USED = pa.schema([("key", pa.string()), ("topic", pa.string()), ("is_gold", pa.bool_())])


@dataclass(frozen=True)
class Offers:
    """What a query offers beyond what a round has: keys in the order in which they are taken, of items with a known
    verdict apart; how many rows the query gave, and how many are refused for which reason."""

    plain: list[str]
    gold: list[str]
    num_rows: int
    refused: dict[str, int]


@contextmanager
def asked(catalog: Catalog, job: Job) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with what the job's query returns (`asked`, `offered`, `contents`). Raises UserError with file and
    line for a query that fails or changes from run to run, and for rows that the job cannot show."""
    connection = catalog.session()
    try:
        text = _bind(catalog, connection, job)
        subject = _collect(connection, job, text)
        _check_subjects(connection, job, subject)
        contents.create(connection, job, subject)
        _check_offered(connection, job)
        yield connection
    finally:
        connection.close()


def offers(connection: duckdb.DuckDBPyConnection, job: Job, used: Sequence[tuple[str, str | None, bool]]) -> Offers:
    """What is left to take when the subjects `used` (key, topic, whether it is gold) are in the round.

    Topic after topic gives its next: within a topic by falling priority, then by a hash of key and seed. The places of
    a topic go on after those used, so that a round that grows in steps has the order of one made at once.
    """
    table = pa.Table.from_pylist([dict(zip(USED.names, one, strict=True)) for one in used], schema=USED)
    connection.register("used_items", table)
    seed = job.header.seed
    ordered = connection.execute(f"""
        WITH taken AS (SELECT is_gold, coalesce(topic, '') AS topic, count(*) AS n FROM used_items GROUP BY ALL),
        free AS (SELECT *, coalesce(topic, '') AS stratum FROM offered
                 WHERE refused IS NULL AND key NOT IN (SELECT key FROM used_items)),
        placed AS (SELECT free.*, coalesce(n, 0) + row_number() OVER (PARTITION BY gold IS NULL, stratum ORDER BY
                          priority DESC NULLS LAST, sample_key(key, {seed}), key) AS place
                   FROM free LEFT JOIN taken ON stratum = taken.topic AND is_gold = (gold IS NOT NULL))
        SELECT key, gold FROM placed ORDER BY place, stratum, key
    """).fetchall()
    refused = dict(connection.execute("SELECT refused, count(*) FROM offered WHERE refused IS NOT NULL GROUP BY ALL "
                                      "ORDER BY ALL").fetchall())  # fmt: skip
    total = connection.execute("SELECT count(*) FROM offered").fetchall()[0][0]
    connection.unregister("used_items")
    return Offers([key for key, gold in ordered if gold is None], [key for key, gold in ordered if gold is not None],
                  total, refused)  # fmt: skip


def fetch(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The contents of some subjects by key: topic, gold, meta, row_id, source, prompt, tools, candidates, of_item."""
    connection.register("picked", pa.table({"key": pa.array(keys, pa.string())}))
    found = connection.sql(
        f"SELECT a.key, a.topic, a.gold, a.meta, {', '.join('c.' + name for name in contents.COLUMNS.split(', '))} "
        "FROM asked AS a JOIN contents AS c ON a.key = c.key WHERE a.key IN (SELECT key FROM picked)"
    ).to_arrow_table()
    connection.unregister("picked")
    return {record["key"]: record for record in found.to_pylist()}


def _bind(catalog: Catalog, connection: duckdb.DuckDBPyConnection, job: Job) -> str:
    """Create what the query may read, and return its text."""
    stage = job.header.stage
    for name, select in views.selects(catalog).items():
        connection.execute(f'CREATE TEMP VIEW "{name}" AS {select}')
    measures = needed(job.header.needs, job.where)
    if wrong := [measure.plugin_name() for measure in measures if stage not in measure.stages]:
        raise UserError(f"the measure '{wrong[0]}' has no values for {stage} rows", "change stage or needs",
                        where=job.where, key="needs")  # fmt: skip
    for measure in measures:
        ensure(catalog, measure, list(catalog.sources(stage)))
    bind_evidence(connection, catalog, measures)
    body = signals_view(catalog, stage, measures) or f"SELECT * FROM rows_{stage}"
    connection.execute(f"CREATE TEMP VIEW signals AS {body}")
    if KEPT.search(job.query):
        bind_kept(connection, catalog, stage, measures, verdict_files(catalog, stage))
    else:  # nothing is judged for a query that does not ask what is kept
        connection.execute(f"CREATE TEMP VIEW kept AS SELECT * FROM rows_{stage}")
    create_macros(connection, stage, {name: item.stage or "" for name, (_, item) in catalog.sources().items()},
                  "accept")  # fmt: skip
    catalog.confine(connection)
    text = single_select(connection, job.file.text, job.where)
    require_repeatable(connection, text, job.where)
    return text


def _collect(connection: duckdb.DuckDBPyConnection, job: Job, text: str) -> str:
    """Create `asked` (key, subject, topic, priority, gold, meta) from the query; returns which column is the subject.
    Raises UserError for a query that fails, and for columns that lack."""
    try:
        columns = [row[0] for row in connection.execute(f"DESCRIBE {text}").fetchall()]
        names = {name.lower() for name in columns}
        subject = _subject(job, names)
        optional = ", ".join(f"{name if name in names else 'NULL'}::{of} AS {name}" for name, of in OPTIONAL.items())
        remarks = ", ".join(f'"{name}" := "{name}"' for name in columns if name.lower() not in NOT_META)
        meta = f"struct_pack({remarks})" if remarks else "NULL"
        connection.execute(
            f"CREATE TEMP TABLE asked AS SELECT *, {KEYS[subject]} AS key FROM "
            f"(SELECT {subject}::{SUBJECTS[subject]} AS subject, {optional}, {meta} AS meta FROM ({text}))"
        )
    except duckdb.Error as error:
        raise sql_error(error, job.file.text, job.where) from error
    connection.execute("UPDATE asked SET priority = NULL WHERE isnan(priority)")
    if subject == "item_id":
        connection.execute("UPDATE asked SET topic = items.topic FROM items WHERE asked.topic IS NULL AND "
                           "items.item_id = asked.subject")  # fmt: skip
    return subject


def _subject(job: Job, names: set[str]) -> str:
    if job.header.round == "adjudication":
        if "item_id" not in names:
            raise UserError("an adjudication needs a column item_id", "select it FROM resolved WHERE "
                            f"resolution = '{job.header.of}' AND outcome = 'disputed'", where=job.where)  # fmt: skip
        return "item_id"
    for name in ("generation_ids", "row_id"):
        if name in names:
            return name
    raise UserError("the query returns no column row_id and no column generation_ids",
                    "return one of them; item_id belongs to a job of round: adjudication", where=job.where)  # fmt: skip


def _check_subjects(connection: duckdb.DuckDBPyConnection, job: Job, subject: str) -> None:
    """Raises UserError for subjects that are null, come twice or are not known."""
    bad = {
        "empty": "SELECT coalesce(key, '') AS key FROM asked WHERE coalesce(key, '') = ''",
        "twice": "SELECT key FROM asked WHERE key <> '' GROUP BY key HAVING count(*) > 1",
        "row_id": f"SELECT key FROM asked WHERE key <> '' AND subject NOT IN "
        f"(SELECT row_id FROM rows_{job.header.stage})",
        "item_id": "SELECT key FROM asked WHERE key <> '' AND subject NOT IN (SELECT item_id FROM items WHERE "
        f"job = {quoted(job.header.of or '')})",
        "generation_ids": "SELECT id AS key FROM (SELECT unnest(subject) AS id FROM asked) WHERE id IS NULL OR id NOT "
        "IN (SELECT generation_id FROM generation)",
        "repeated": "SELECT key FROM asked WHERE len(subject) <> len(list_distinct(subject))",
        "prompts": "SELECT a.key FROM (SELECT key, unnest(subject) AS id FROM asked) AS a JOIN generation AS g ON "
        "a.id = g.generation_id GROUP BY a.key HAVING count(DISTINCT g.prompt_hash) > 1",
    }  # fmt: skip
    words = {
        "empty": ("rows have no value", "leave them out"),
        "twice": ("come twice", "return each once"),
        "row_id": (f"are ids of no {job.header.stage} row", "return the row_id of kept, or set stage"),
        "item_id": (f"are items of no round of '{job.header.of}'", "return the item_id of items or resolved"),
        "generation_ids": ("are ids of no generation", "return ids of the view generation; see: kedge generate"),
        "repeated": ("rows name a generation twice", "name each once"),
        "prompts": ("rows join answers to different prompts", "group by prompt_hash"),
    }
    checks = ["empty", "twice", subject, *(["repeated", "prompts"] if subject == "generation_ids" else [])]
    problems = []
    for check in checks:
        count, first = connection.execute(f"SELECT count(*), min(key) FROM ({bad[check]})").fetchall()[0]
        if count:
            what, step = words[check]
            example = f" ({first} first)" if first else ""
            problems.append(Problem(f"{count:,} {what}{example}", step, job.where, subject))
    if problems:
        raise UserError(problems)


def _check_offered(connection: duckdb.DuckDBPyConnection, job: Job) -> None:
    """Raises UserError for items whose number of candidates does not fit the questions, and for gold that names no
    candidate or cannot be answered."""
    where, header = job.where, job.header
    counts = connection.execute("SELECT len(keys), count(*) FROM offered WHERE refused IS NULL GROUP BY ALL ORDER BY "
                                "ALL").fetchall()  # fmt: skip
    problems = [Problem(what, "change the questions or the query", where, "questions")
                for number, _ in counts if (what := candidates_problem(header.questions, number))]  # fmt: skip
    verdict = header.verdict
    special = [name for name in (TIE, BOTH_BAD) if verdict is not None
               and (getattr(verdict, name) if verdict.kind == "preference" else name == TIE)]  # fmt: skip
    allowed = "list_concat(keys, [" + ", ".join(map(quoted, special)) + "]::VARCHAR[])"
    num_gold, wrong, example = connection.execute(
        f"SELECT count(gold), count(*) FILTER (NOT list_contains({allowed}, gold)), "
        f"min(gold) FILTER (NOT list_contains({allowed}, gold)) FROM offered WHERE gold IS NOT NULL"
    ).fetchall()[0]
    if num_gold and not header.gold_share:
        problems.append(Problem(f"{num_gold:,} rows have a gold verdict, and gold_share is 0", "set gold_share, or "
                                "leave the column out", where, "gold"))  # fmt: skip
    elif wrong:
        also = f", {' or '.join(special)}" if special else ""
        problems.append(Problem(f"{wrong:,} gold verdicts name no candidate ('{example}' first)",
                                f"write a candidate's key{also}", where, "gold"))  # fmt: skip
    if problems:
        raise UserError(problems)


def explained(counts: Mapping[str, int]) -> str:
    """Refusals as a line tells them."""
    return "; ".join(f"{count:,} because {reason}" for reason, count in sorted(counts.items()))
