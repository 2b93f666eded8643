"""The prompts of a generation job: rows that its query, mixture or source names, each prompt once."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

import duckdb

from curation import schema
from curation.catalog import Catalog
from curation.errors import UserError
from curation.fingerprint import fingerprint
from curation.generation._jobs import STAGES, GenerationJob
from curation.measuring import ensure, needed, signals_view
from curation.mixtures import build
from curation.queries import require_repeatable, single_select, sql_error
from curation.relations import parquet_list, quoted
from curation.rules import bind_evidence, bind_kept, verdict_files
from curation.takes import create_macros, find_takes


class Prompt(NamedTuple):
    """A prompt and the row that it is taken from. `key` is 32 hex characters over `messages` and `tools`."""

    key: str
    row_id: UUID
    source: str
    prompt_hash: UUID
    messages: list[dict[str, str]]
    tools: str | None


class Found(NamedTuple):
    """The prompts of a job, and how many rows were asked for, repeat another's prompt, and have none."""

    prompts: list[Prompt]
    num_rows: int
    num_repeated: int
    num_without: int


def prompts_of(catalog: Catalog, job: GenerationJob) -> Found:
    """Every prompt of the job once, in an order of chance that the job's seed decides, the first `limit` of them.
    Measures, judges and freezes first what is read. Raises UserError."""
    connection = catalog.session()
    try:
        stage, query = _rows(catalog, job, connection)
        rows = _read(connection, stage, query, job)
    finally:
        connection.close()
    unique: dict[str, Prompt] = {}
    num_without = 0
    for row in rows:  # ordered by source and id
        messages = prompt_messages(row, stage)
        if not messages:
            num_without += 1
            continue
        key = fingerprint([messages, row["tools"]])
        unique.setdefault(key, Prompt(key, row["row_id"], row["source"], row["prompt_hash"], messages, row["tools"]))
    if not unique:
        raise UserError("the job has no prompts: " + (f"none of its {len(rows):,} rows has one" if rows else
                        "it names no rows"), "look at what its query returns, and what the rules leave: kedge rules",
                        where=job.where, key="prompts")  # fmt: skip
    order = sorted(unique, key=lambda key: fingerprint([key, job.file.seed]))
    return Found([unique[key] for key in order[: job.file.limit]], len(rows), len(rows) - num_without - len(unique),
                 num_without)  # fmt: skip


def prompt_messages(row: dict[str, Any], stage: str) -> list[dict[str, str]]:
    """What is answered: the prompt of a row, of a conversation all before its last assistant turn (whole where no
    assistant speaks); nulls dropped. Empty where nobody asks."""
    turns = row["prompt" if stage != "sft" else "messages"] or []
    if stage == "sft":
        last = max((number for number, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))
        turns = turns[:last]
    asked = any(turn["role"] in ("user", "tool") for turn in turns)
    return [{key: value for key, value in turn.items() if value is not None} for turn in turns] if asked else []


def _rows(catalog: Catalog, job: GenerationJob, connection: duckdb.DuckDBPyConnection) -> tuple[str, str]:
    """The stage of a job's rows, and a SELECT of their row_id; the connection has what it reads, and is confined."""
    prompts = job.file.prompts
    if prompts.mixture is not None:
        frozen = build(catalog, prompts.mixture)
        parts = getattr(frozen, prompts.split)
        if not parts:
            raise UserError(f"the mixture '{frozen.name}' has no {prompts.split} rows", "name another split",
                            where=job.where, key="prompts")  # fmt: skip
        stage, query = frozen.stage, f"SELECT row_id::UUID AS row_id FROM {parquet_list(parts)}"
    elif prompts.source is not None:
        stage = catalog.source(prompts.source)[1].stage or ""
        query = f"SELECT row_id FROM kept WHERE source = {quoted(prompts.source)}"
    else:
        stage, query = prompts.stage or "", prompts.sql or ""
    if stage not in STAGES:
        raise UserError(f"rows of stage {stage} have no prompts", f"name rows of {', '.join(STAGES)}", where=job.where,
                        key="prompts")  # fmt: skip
    if not catalog.sources(stage):
        raise UserError(f"no source of stage {stage} is ingested", "run: kedge add PATH", where=job.where, key="stage")
    if prompts.mixture is None:
        _bind(catalog, connection, stage, job)
    catalog.confine(connection)
    return stage, _checked(connection, job) if prompts.sql is not None else query


def _bind(catalog: Catalog, connection: duckdb.DuckDBPyConnection, stage: str, job: GenerationJob) -> None:
    """Create `kept`, `signals`, the evidence of the measures that are needed, and the macros."""
    measures = needed(job.file.prompts.needs, job.where)
    sources = {name: item.stage or "" for name, (_, item) in catalog.sources().items()}
    for measure in measures:
        if stage not in measure.stages:
            raise UserError(f"the measure '{measure.plugin_name()}' has no values for {stage} rows", "leave it out",
                            where=job.where, key="needs")  # fmt: skip
        ensure(catalog, measure, [name for name, of in sources.items() if of == stage])
    bind_kept(connection, catalog, stage, measures, verdict_files(catalog, stage))
    body = signals_view(catalog, stage, measures) or f"SELECT * FROM rows_{stage}"
    connection.execute(f"CREATE TEMP VIEW signals AS {body}")
    bind_evidence(connection, catalog, measures)
    create_macros(connection, stage, sources, "fail")


def _checked(connection: duckdb.DuckDBPyConnection, job: GenerationJob) -> str:
    """The job's own query. Raises UserError, with its line in the file, where it cannot be used."""
    text = "\n" * (job.line - 1) + (job.file.prompts.sql or "")
    text = single_select(connection, text, job.where)
    require_repeatable(connection, text, job.where)
    if find_takes(connection, text):
        raise UserError("takes belong to mixtures, which count what they deliver", "name a mixture, or set limit",
                        where=job.where, key="sql")  # fmt: skip
    try:
        columns = [row[0] for row in connection.execute(f"DESCRIBE {text}").fetchall()]
    except duckdb.Error as error:
        raise sql_error(error, text, job.where) from error
    if "row_id" not in columns:
        raise UserError("the query returns no column row_id", "return row_id (SELECT * does)", where=job.where,
                        key="sql")  # fmt: skip
    return text


def _read(connection: duckdb.DuckDBPyConnection, stage: str, query: str, job: GenerationJob) -> list[dict[str, Any]]:
    """The rows of a query with their prompts, each once, ordered by source and id."""
    column = "messages" if stage == "sft" else "prompt"
    try:
        connection.execute(f"CREATE TEMP TABLE asked AS SELECT DISTINCT row_id::UUID AS row_id FROM ({query})")
    except duckdb.Error as error:
        raise sql_error(error, query, job.where) from error
    table = connection.sql(
        f"SELECT row_id, source, prompt_hash, {column}, tools FROM rows_{stage} "
        "WHERE row_id IN (SELECT row_id FROM asked) ORDER BY source, row_id"
    ).to_arrow_table()
    strange = connection.execute("SELECT count(*) FROM asked").fetchall()[0][0] - table.num_rows
    if strange:
        raise UserError(f"{strange:,} values are ids of no {stage} row", "return the row_id of kept, signals or "
                        f"rows_{stage}", where=job.where, key="sql")  # fmt: skip
    assert table.schema.field("row_id").type == schema.UUID
    return list(table.to_pylist())
