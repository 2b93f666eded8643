"""Rules: SQL queries that return the rows to leave out, each with a reason. Their results are verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import duckdb
from pydantic import Field

from curation import schema
from curation.catalog import Catalog, write_parquet
from curation.config import SqlFile, Strict, load_sql, shown
from curation.errors import Problem, UserError
from curation.fingerprint import fingerprint
from curation.measures import JoinMeasure
from curation.measuring import (
    DEFAULT_MEASURES,
    Measure,
    Needs,
    ensure,
    measure_fingerprint,
    named,
    needed,
    signals_view,
)
from curation.outputs import Manifest
from curation.queries import require_repeatable, single_select, sql_error
from curation.relations import empty_relation, parquet_list, quoted

HELD_OUT = "held_out"


class RuleHeader(Strict):
    """Header of `catalogs/rules/NAME.sql`. `stage` is one stage, a list of them or `all`; `needs` names the measures
    whose columns the view `signals` must have (the evidence of a join measure is a view of its own name);
    `thresholds` are numbers that the query reads by `getvariable('NAME')`, so that `kedge rules` can move them; a rule
    that is not `adopted` is shown and removes nothing."""

    stage: Literal["all", "midtrain", "sft", "preference", "rlvr"] | Annotated[list[str], Field(min_length=1)]
    needs: Needs = []
    thresholds: dict[str, int | float] = {}
    adopted: bool = True
    description: str = ""

    @property
    def stages(self) -> tuple[str, ...]:
        if isinstance(self.stage, list):
            return tuple(dict.fromkeys(self.stage))
        return schema.STAGES if self.stage == "all" else (self.stage,)


@dataclass(frozen=True)
class Rule:
    """A rule file and the measures it reads."""

    file: SqlFile
    header: RuleHeader
    measures: tuple[Measure, ...]

    @property
    def name(self) -> str:
        return self.file.name


def load_rules(catalog: Catalog, stage: str | None = None, *, adopted_only: bool = True) -> list[Rule]:
    """The rules of a project (for a stage) in name order. Raises UserError with every problem of a file."""
    skip = catalog.project.file.skip_rules
    found = []
    for name, path in catalog.project.paths("rules", ".sql").items():
        if name == HELD_OUT:
            raise UserError(f"the name '{HELD_OUT}' is taken by the verdicts on held-out prompts", "rename the file",
                            where=shown(path))  # fmt: skip
        file = load_sql(path, RuleHeader)
        wrong = set(file.header.stages) - set(schema.STAGES)
        if wrong:
            raise UserError(f"there is no stage '{sorted(wrong)[0]}'", f"use {', '.join(schema.STAGES)}",
                            where=shown(path), key="stage")  # fmt: skip
        if (stage is None or stage in file.header.stages) and not (adopted_only and (not file.header.adopted
                                                                                     or name in skip)):  # fmt: skip
            rule = Rule(file, file.header, tuple(needed(file.header.needs, shown(path))))
            _check_header(rule)
            found.append(rule)
    return found


def _check_header(rule: Rule) -> None:
    """Raises UserError for a measure that does not know a stage of the rule, and for a threshold that nothing reads."""
    where = shown(rule.file.path)
    problems = []
    for measure in rule.measures:
        unknown = sorted(set(rule.header.stages) - set(measure.stages))
        if unknown:
            what = f"the measure '{measure.plugin_name()}' has no values for {', '.join(unknown)} rows"
            problems.append(Problem(what, f"use stage: [{', '.join(measure.stages)}]", where, "stage"))
    for name in rule.header.thresholds:
        if f"getvariable('{name}')" not in rule.file.text:
            problems.append(Problem(f"the query does not read the threshold '{name}'", f"write getvariable('{name}') "
                                    "where it belongs", where, "thresholds"))  # fmt: skip
    if problems:
        raise UserError(problems)


def default_measures(catalog: Catalog) -> list[Measure]:
    """What `kedge measure` measures: text statistics, and what the adopted rules of the ingested stages read."""
    stages = {manifest.stage for _, manifest in catalog.sources().values()}
    found: dict[str, Measure] = {}
    rules = [rule for rule in load_rules(catalog) if stages & set(rule.header.stages)]
    for measure in [named(name) for name in DEFAULT_MEASURES] + [item for rule in rules for item in rule.measures]:
        found.setdefault(measure.fingerprint(), measure)
    return list(found.values())


def verdict_fingerprint(catalog: Catalog, rule: Rule) -> str:
    """Identity of a rule's verdicts: its text, the rows of its stages, the measures it reads."""
    rows = {name: manifest.fingerprint for name, (_, manifest) in catalog.sources().items()
            if manifest.stage in rule.header.stages}  # fmt: skip
    return fingerprint([rule.file.text, rows, [measure_fingerprint(catalog, item) for item in rule.measures]])


def judge(catalog: Catalog, rule: Rule) -> Path:
    """The file of a rule's verdicts, made where it is missing: row_id, source, rule, reason, in row_id order. Measures
    first what the rule reads. Raises UserError with file and line for a query that fails."""
    digest = verdict_fingerprint(catalog, rule)
    target = catalog.folder("verdicts", rule.name, digest[:16])
    if catalog.manifest(target) is None:
        for measure in rule.measures:
            ensure(catalog, measure)
        connection = catalog.session()
        try:
            bind_evidence(connection, catalog, rule.measures)
            catalog.confine(connection)
            _publish(catalog, connection, target, rule.name, digest, find(connection, catalog, rule),
                     adopted=rule.header.adopted)  # fmt: skip
        except duckdb.Error as error:
            raise sql_error(error, rule.file.text, shown(rule.file.path)) from error
        finally:
            connection.close()
        _forget(target)
    return target / "part-00000.parquet"


def bind_evidence(connection: duckdb.DuckDBPyConnection, catalog: Catalog, measures: Sequence[Measure]) -> None:
    """Create a view per evidence kind of the join measures: what a rule may read beside `signals`."""
    for measure in measures:
        if isinstance(measure, JoinMeasure):
            folder = catalog.folder("evidence", measure.evidence_kind, measure_fingerprint(catalog, measure)[:16])
            body = f"SELECT * FROM {parquet_list([folder / 'part-00000.parquet'])}"
            if catalog.manifest(folder) is None:  # no source has rows of its stages
                body = empty_relation(measure.evidence)
            connection.execute(f'CREATE OR REPLACE TEMP VIEW "{measure.evidence_kind}" AS {body}')


def find(connection: duckdb.DuckDBPyConnection, catalog: Catalog, rule: Rule,
         thresholds: Mapping[str, int | float] | None = None) -> str:  # fmt: skip
    """Run a rule over the stages that it judges, under `thresholds` (by default those of its header), and return a
    SELECT of row_id and reason over what it caught. Raises UserError where the query returns something else."""
    where = shown(rule.file.path)
    for name, value in (rule.header.thresholds if thresholds is None else thresholds).items():
        connection.execute(f'SET VARIABLE "{name}" = ?::DOUBLE', [value])
    selects = []
    for stage in rule.header.stages:
        if not catalog.sources(stage):
            continue
        body = signals_view(catalog, stage, list(rule.measures)) or f"SELECT * FROM rows_{stage}"
        connection.execute(f"CREATE OR REPLACE TEMP VIEW signals AS {body}")
        text = single_select(connection, rule.file.text, where)
        require_repeatable(connection, text, where, rule.header.thresholds)
        _check_columns(connection, text, where)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE found_{stage} AS SELECT row_id::UUID AS row_id, "
                           f"reason::VARCHAR AS reason FROM ({text})")  # fmt: skip
        _check_found(connection, f"found_{stage}", where)
        selects.append(f"SELECT row_id, reason FROM found_{stage}")
    return " UNION ALL ".join(selects)


def _check_columns(connection: duckdb.DuckDBPyConnection, text: str, where: str) -> None:
    names = [row[0] for row in connection.execute(f"DESCRIBE {text}").fetchall()]
    missing = {"row_id", "reason"} - set(names)
    if missing:
        raise UserError(f"the query returns no column {' and no '.join(sorted(missing))}", "return row_id and reason",
                        where=where)  # fmt: skip


def _check_found(connection: duckdb.DuckDBPyConnection, found: str, where: str) -> None:
    silent, strange = connection.execute(
        f"SELECT count(*) FILTER (reason IS NULL OR trim(reason) = ''), "
        f"count(*) FILTER (row_id IS NULL OR row_id NOT IN (SELECT row_id FROM rows)) FROM {found}"
    ).fetchall()[0]
    if silent:
        raise UserError(f"{silent:,} rows are left out without a reason", "give every row a reason; text || NULL is "
                        "NULL", where=where, key="reason")  # fmt: skip
    if strange:
        raise UserError(f"{strange:,} values are ids of no row", "return the row_id of signals or rows", where=where,
                        key="row_id")  # fmt: skip


def _publish(catalog: Catalog, connection: duckdb.DuckDBPyConnection, target: Path, name: str, digest: str,
             select: str, *, adopted: bool = True) -> None:  # fmt: skip
    query = empty_relation(schema.VERDICTS)
    if select:
        query = (f"SELECT DISTINCT found.row_id, rows.source, {quoted(name)} AS rule, found.reason AS reason "
                 f"FROM ({select}) AS found JOIN rows ON found.row_id = rows.row_id")  # fmt: skip
    with catalog.publishing(target) as draft:
        part = write_parquet(draft.folder / "part-00000.parquet", query, connection=connection,
                             order_by="row_id, reason")  # fmt: skip
        draft.manifest = Manifest(kind="verdicts", name=name, fingerprint=digest, parts=[part],
                                  parameters={"adopted": adopted})  # fmt: skip


def _forget(target: Path) -> None:
    """Remove a rule's earlier verdicts: only the newest say why a row is left out now."""
    import shutil

    for folder in target.parent.glob("*"):
        if folder != target:
            shutil.rmtree(folder, ignore_errors=True)


def judge_held_out(catalog: Catalog) -> Path:
    """Verdicts on every row, of any source, whose prompt a source holds out for evaluation."""
    digest = fingerprint(["held out", {name: item.fingerprint for name, (_, item) in catalog.sources().items()}])
    target = catalog.folder("verdicts", HELD_OUT, digest[:16])
    if catalog.manifest(target) is None:
        connection = catalog.session()
        try:
            select = ("SELECT row_id, 'its prompt is held out for evaluation by ' || holder AS reason FROM rows JOIN "
                      "(SELECT prompt_hash, min(source) AS holder FROM rows WHERE held_out GROUP BY prompt_hash) "
                      "USING (prompt_hash)")  # fmt: skip
            _publish(catalog, connection, target, HELD_OUT, digest, select)
        finally:
            connection.close()
        _forget(target)
    return target / "part-00000.parquet"


def verdict_files(catalog: Catalog, stage: str) -> dict[str, Path]:
    """The verdicts of every adopted rule of a stage by rule name, `held_out` included; judged where missing."""
    with catalog.together():
        files = {rule.name: judge(catalog, rule) for rule in load_rules(catalog, stage)}
        return files | {HELD_OUT: judge_held_out(catalog)}


def bind_kept(connection: duckdb.DuckDBPyConnection, catalog: Catalog, stage: str, measures: list[Measure],
              files: dict[str, Path]) -> None:  # fmt: skip
    """Create `verdicts`, and `kept`: the rows of a stage without a verdict, with the columns of `measures`, and with
    `tokens` and `trained_tokens` (null where no measure has them)."""
    connection.execute(f"CREATE TEMP TABLE verdicts AS SELECT * FROM {parquet_list(list(files.values()))}")
    connection.execute("CREATE TEMP TABLE refused AS SELECT DISTINCT row_id FROM verdicts")
    body = signals_view(catalog, stage, measures) or f"SELECT * FROM rows_{stage}"
    have = {name for measure in measures for name in measure.columns.names}
    extra = "".join(f", NULL::INTEGER AS {name}" for name in ("tokens", "trained_tokens") if name not in have)
    connection.execute(f"CREATE TEMP VIEW kept AS SELECT s.*{extra} FROM ({body}) AS s "
                       "WHERE row_id NOT IN (SELECT row_id FROM refused)")  # fmt: skip
