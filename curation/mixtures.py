"""Mixtures: a SQL query over kept rows, looked at, and frozen as Parquet in training order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb

from curation import schema
from curation.catalog import Catalog, write_parquet
from curation.config import SqlFile, Strict, load_sql, shown
from curation.errors import GateFailed, Problem, UserError, did_you_mean
from curation.fingerprint import fingerprint, hash_file
from curation.measuring import Measure, Needs, ensure, measure_fingerprint, needed, signal_parts
from curation.outputs import Manifest
from curation.queries import at_line, require_repeatable, single_select, sql_error
from curation.relations import parquet_list
from curation.rules import bind_kept, load_rules, verdict_files, verdict_fingerprint
from curation.takes import account, create_macros, find_takes, hopeless, shortfalls, take_name

BUILD_VERSION = 2
ROWS_PER_PART = 262_144


class MixtureHeader(Strict):
    """Header of `catalogs/mixtures/NAME.sql`. `tokenizer`, `template`, `template_kwargs` and `rendering` say what a
    token is. `seed` decides the training order, a hash of (row_id, epoch, seed), after the columns of `order`."""

    stage: Literal["midtrain", "sft", "preference", "rlvr"]
    tokenizer: str | None = None
    template: str = "tokenizer"
    template_kwargs: dict[str, Any] = {}
    rendering: Literal["whole", "trl_assistant", "text"] = "whole"
    needs: Needs = []
    on_shortfall: Literal["fail", "repeat", "accept"] = "fail"
    seed: int = 0
    order: list[str] = []


@dataclass(frozen=True)
class FrozenMixture:
    """A frozen mixture: its Parquet parts in training order, and the evaluation split held out beside them."""

    name: str
    fingerprint: str
    stage: str
    folder: Path
    manifest: Manifest
    train: list[Path]
    held_out: list[Path]

    @property
    def num_rows(self) -> int:
        return int(self.manifest.counts["num_rows"])

    @property
    def content(self) -> str:
        """The identity of its rows in their order, held-out ones too. A mixture that is frozen again, because a rule,
        a macro or a source changed, has another fingerprint; where its rows are the same, so are weights trained on
        them."""
        held_out = [hash_file(path) for path in self.held_out]
        return fingerprint({"train": [part.hash for part in self.manifest.parts], "held_out": held_out})


@dataclass
class Plan:
    """A mixture bound on a connection: the tables `plan` (row_id, source, epoch, position), `kept` and `verdicts`."""

    file: SqlFile
    header: MixtureHeader
    measures: list[Measure]
    fingerprint: str
    takes: list[dict[str, Any]]
    counts: dict[str, Any]


def load_mixture(catalog: Catalog, name: str) -> SqlFile:
    """The mixture file of a name. Raises UserError."""
    return load_sql(catalog.project.path("mixtures", name, ".sql"), MixtureHeader)


def measures_of(catalog: Catalog, header: MixtureHeader, where: str = "") -> list[Measure]:
    """What a mixture (of the file `where`) reads: the measures it needs, and the anatomy under its tokenizer and
    template."""
    measures = needed(header.needs, where)
    if header.tokenizer is not None:
        from curation.measures.anatomy import anatomy_for

        path = {"preference": "trl_prompt_completion", "rlvr": "whole"}.get(header.stage, header.rendering)
        measures.append(anatomy_for(catalog.project, header.tokenizer, header.template, path, header.template_kwargs,
                                    header.stage))  # fmt: skip
    return measures


def mixture_fingerprint(catalog: Catalog, file: SqlFile, measures: list[Measure]) -> str:
    """Identity of a frozen mixture: its text, the rows of its stage, the verdicts of the adopted rules, held-out
    prompts of every source, and the measures it reads."""
    stage = file.header.stage
    rows = {name: item.fingerprint for name, (_, item) in catalog.sources().items()
            if item.stage == stage or item.parameters.get("held_out")}  # fmt: skip
    rules = {rule.name: verdict_fingerprint(catalog, rule) for rule in load_rules(catalog, stage)}
    return fingerprint(
        [BUILD_VERSION, file.text, rows, rules, [measure_fingerprint(catalog, item) for item in measures]]
    )


def _bind(catalog: Catalog, file: SqlFile, connection: duckdb.DuckDBPyConnection) -> Plan:
    header: MixtureHeader = file.header
    where = shown(file.path)
    sources = {name: item.stage or "" for name, (_, item) in catalog.sources().items()}
    if header.stage not in sources.values():
        raise UserError(f"no source of stage {header.stage} is ingested", "run: kedge add PATH", where=where)
    measures = measures_of(catalog, header, where)
    for measure in measures:
        ensure(catalog, measure, [name for name, of in sources.items() if of == header.stage])
    bind_kept(connection, catalog, header.stage, measures, verdict_files(catalog, header.stage))
    create_macros(connection, header.stage, sources, header.on_shortfall)
    catalog.confine(connection)
    text = single_select(connection, file.text, where)
    require_repeatable(connection, text, where)
    if header.tokenizer is None:
        for node in find_takes(connection, text):
            if take_name(node) in ("take_tokens", "take_trained_tokens"):
                raise UserError("a budget in tokens needs to know what a token is", "add tokenizer (and template) to "
                                "the header", where=where, key="tokenizer")  # fmt: skip
    try:
        takes = account(connection, text, where)
        if problems := hopeless(takes, header.on_shortfall, where):
            raise UserError(problems)
        _plan(connection, header, text, where)
    except duckdb.Error as error:
        raise sql_error(error, file.text, where) from error
    return Plan(file, header, measures, mixture_fingerprint(catalog, file, measures), takes, _counts(connection))


def _plan(connection: duckdb.DuckDBPyConnection, header: MixtureHeader, text: str, where: str) -> None:
    """Create `plan`. Raises UserError where the query returns no row_id, a row twice, or a row that is not kept."""
    columns = [row[0] for row in connection.execute(f"DESCRIBE {text}").fetchall()]
    missing = [name for name in ["row_id", *header.order] if name not in columns]
    if missing:
        raise UserError(f"the query returns no column '{missing[0]}'", "return row_id (SELECT * does) and the columns "
                        "of 'order'", where=where)  # fmt: skip
    epoch = "coalesce(epoch, 0)" if "epoch" in columns else "0"
    order = "".join(f'chosen."{name}", ' for name in header.order)
    connection.execute(
        f"CREATE TEMP TABLE chosen AS SELECT row_id::UUID AS row_id, {epoch}::INTEGER AS epoch{_also(header.order)} "
        f"FROM ({text})"
    )
    connection.execute(f"""
        CREATE TEMP TABLE plan AS
        SELECT chosen.row_id, kept.source, chosen.epoch, kept.tokens, kept.trained_tokens,
               row_number() OVER (ORDER BY {order}sample_key(concat(chosen.row_id, ':', chosen.epoch), {header.seed}),
                                  chosen.row_id, chosen.epoch) - 1 AS position
        FROM chosen JOIN kept ON chosen.row_id = kept.row_id
    """)
    asked, planned, twice = connection.execute("""
        SELECT (SELECT count(*) FROM chosen), (SELECT count(*) FROM plan),
               (SELECT count(*) FROM (SELECT 1 FROM chosen GROUP BY row_id, epoch HAVING count(*) > 1))
    """).fetchall()[0]
    if twice:
        raise UserError(f"{twice:,} rows come twice in one epoch", "take every source once, or use take_epochs",
                        where=where)  # fmt: skip
    if planned < asked:
        raise UserError(f"{asked - planned:,} rows of the query are not kept rows of this stage", "select from kept or "
                        "a take; see: kedge rules", where=where)  # fmt: skip
    if not planned:
        raise UserError("the query returns no rows", "look at what the rules leave: kedge rules", where=where)


def _also(columns: list[str]) -> str:
    return "".join(f', "{name}"' for name in columns)


def _counts(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Per source: rows, distinct rows, tokens, trained tokens; rows in the source, offered (kept), refused by each
    rule, left over."""
    rows = connection.execute(
        "WITH mixed AS (SELECT source, count(*) AS n, count(DISTINCT row_id) AS d, sum(tokens) AS t, "
        "sum(trained_tokens) AS m FROM plan GROUP BY source), "
        "offered AS (SELECT source, count(*) AS n FROM kept GROUP BY source) "
        "SELECT coalesce(mixed.source, offered.source), coalesce(mixed.n, 0), coalesce(mixed.d, 0), mixed.t::BIGINT, "
        "mixed.m::BIGINT, coalesce(offered.n, 0) FROM mixed FULL JOIN offered USING (source) ORDER BY 1"
    ).fetchall()
    refused: dict[str, dict[str, int]] = {}
    for source, rule, count in connection.execute(
        "SELECT source, rule, count(DISTINCT row_id) FROM verdicts GROUP BY ALL ORDER BY ALL").fetchall():  # fmt: skip
        refused.setdefault(source, {})[rule] = count
    by_source = {
        source: {"rows": n, "distinct_rows": d, "tokens": t, "trained_tokens": m, "offered": offered,
                 "refused": refused.get(source, {}), "left_over": offered - d}
        for source, n, d, t, m, offered in rows
    }  # fmt: skip
    total = connection.execute(
        "SELECT count(*), sum(tokens)::BIGINT, sum(trained_tokens)::BIGINT FROM plan"
    ).fetchall()[0]
    return {"num_rows": total[0], "tokens": total[1], "trained_tokens": total[2], "sources": by_source}


def preview(catalog: Catalog, name: str) -> dict[str, Any]:
    """What a mixture would hold: counts per source, for every take what it asked, was offered and delivered, and what
    the mixture covers. Nothing is written but missing signals and verdicts.

    A mixture that is frozen as its file, sources, rules and signals are now is not queried again: the counts are those
    of its manifest, the coverage is that of its rows. `frozen` tells that, and `frozen_at` since when (ISO 8601).
    """
    from curation.coverage import coverage

    file = load_mixture(catalog, name)
    measures = measures_of(catalog, file.header, shown(file.path))
    digest = mixture_fingerprint(catalog, file, measures)
    folder = _target(catalog, file.name, digest)
    manifest = catalog.manifest(folder)
    connection = catalog.session()
    try:
        if manifest is None:
            plan = _bind(catalog, file, connection)
            digest, takes, counts = plan.fingerprint, plan.takes, plan.counts
        else:
            _bind_frozen(catalog, connection, _frozen(folder, manifest), measures)
            takes = manifest.counts["takes"]
            counts = {key: manifest.counts[key] for key in ("num_rows", "tokens", "trained_tokens", "sources")}
        covered = coverage(catalog, connection, file.name, file.header.stage)
    finally:
        connection.close()
    since = None if manifest is None else catalog.provenance(folder).get("created_at")
    return {"name": file.name, "stage": file.header.stage, "fingerprint": digest, "frozen": manifest is not None,
            "frozen_at": since, "takes": takes, "short": shortfalls(takes), "coverage": covered} | counts  # fmt: skip


def _bind_frozen(catalog: Catalog, connection: duckdb.DuckDBPyConnection, mixture: FrozenMixture,
                 measures: list[Measure]) -> None:  # fmt: skip
    """Create `plan` with row_id, source and tokens (null where no measure counts them) from a frozen mixture's parts,
    and the macros of mixtures, of which the takes want a `kept`."""
    connection.execute("CREATE TEMP VIEW kept AS SELECT *, NULL::INTEGER AS tokens, NULL::INTEGER AS trained_tokens "
                       f"FROM rows_{mixture.stage}")  # fmt: skip
    create_macros(connection, mixture.stage, {name: item.stage or "" for name, (_, item) in catalog.sources().items()},
                  mixture.manifest.parameters["on_shortfall"])  # fmt: skip
    plan = f"SELECT row_id::UUID AS row_id, source, NULL::INTEGER AS tokens FROM {parquet_list(mixture.train)}"
    if counting := [measure for measure in measures if "tokens" in measure.columns.names]:
        sources = [name for name, item in mixture.manifest.counts["sources"].items() if item["rows"]]
        ensure(catalog, counting[0], sources)
        files = [part for name in sources for part in signal_parts(catalog, counting[0], name) or []]
        plan = f"SELECT p.row_id, p.source, t.tokens FROM ({plan}) AS p LEFT JOIN {parquet_list(files)} AS t " \
               "ON p.row_id = t.row_id"  # fmt: skip
    connection.execute(f"CREATE TEMP TABLE plan AS {plan}")


def _target(catalog: Catalog, name: str, digest: str) -> Path:
    return catalog.folder("mixtures", name, digest[:16])


def build(catalog: Catalog, name: str) -> FrozenMixture:
    """Freeze a mixture; the one that is frozen under the same fingerprint is returned as it is. Raises GateFailed for
    a shortfall that the header does not accept."""
    file = load_mixture(catalog, name)
    measures = measures_of(catalog, file.header, shown(file.path))
    target = _target(catalog, file.name, mixture_fingerprint(catalog, file, measures))
    if catalog.manifest(target) is None:
        with catalog.writing("mixtures", file.name):
            connection = catalog.session()
            try:
                plan = _bind(catalog, file, connection)
                _require_supply(plan)
                _freeze(catalog, connection, plan, target)
            finally:
                connection.close()
    return _frozen(target, catalog.manifest(target))


def _require_supply(plan: Plan) -> None:
    if plan.header.on_shortfall != "fail":
        return
    problems = [
        Problem(f"{item['take']} asks for {item['requested']:,} {item['unit']} of '{item['source']}', which has "
                f"{item['offered']:,}", "ask for less, or set on_shortfall: repeat | accept in the header",
                at_line(shown(plan.file.path), item["line"])) for item in shortfalls(plan.takes)
    ]  # fmt: skip
    if problems:
        raise GateFailed(problems)


def _freeze(catalog: Catalog, connection: duckdb.DuckDBPyConnection, plan: Plan, target: Path) -> None:
    stage = plan.header.stage
    columns = ", ".join(f"r.{name}" for name, _ in schema.PAYLOAD[stage] + schema.ANNOTATIONS[stage])
    select = (
        "SELECT replace(r.row_id::VARCHAR, '-', '') AS row_id, r.source, {epoch} AS epoch, "
        f"replace(r.prompt_hash::VARCHAR, '-', '') AS prompt_hash, {columns}, r.meta "
        f"FROM rows_{stage} AS r {{rest}}"
    )
    total = plan.counts["num_rows"]
    with catalog.publishing(target) as draft:
        parts = []
        for number, first in enumerate(range(0, total, ROWS_PER_PART)):
            chunk = f"(SELECT * FROM plan WHERE position >= {first} AND position < {first + ROWS_PER_PART}) AS p"
            inner = select.format(epoch="p.epoch", rest=f"JOIN {chunk} ON r.row_id = p.row_id")
            query = inner.replace("SELECT ", "SELECT p.position, ", 1)
            path = draft.folder / "train" / f"part-{number:05d}.parquet"
            path.parent.mkdir(exist_ok=True)
            parts.append(_write_ordered(connection, path, query, "position"))
        evaluation = select.format(
            epoch="0", rest="WHERE r.held_out AND r.source IN (SELECT DISTINCT source FROM plan) AND r.row_id NOT IN "
            "(SELECT row_id FROM verdicts WHERE rule <> 'held_out')")  # fmt: skip
        path = draft.folder / "held_out" / "part-00000.parquet"
        held_out = write_parquet(path, evaluation, connection=connection, order_by="row_id")
        (draft.folder / "mixture.sql").write_text(plan.file.text)
        rules = [rule.name for rule in load_rules(catalog, stage)]
        draft.manifest = Manifest(
            kind="mixtures", name=plan.file.name, fingerprint=plan.fingerprint, stage=stage, parts=parts,
            inputs={"sources": {name: item.fingerprint for name, (_, item) in catalog.sources(stage).items()},
                    "rules": rules, "measures": [item.identity() for item in plan.measures]},
            parameters=plan.header.model_dump(mode="json"),
            counts=plan.counts | {"takes": plan.takes, "held_out_rows": held_out.num_rows},
        )  # fmt: skip


def _write_ordered(connection: duckdb.DuckDBPyConnection, path: Path, query: str, position: str) -> Any:
    """Write a query in the order of a column that is not itself written."""
    connection.execute(f"CREATE OR REPLACE TEMP VIEW ordered AS {query}")
    names = [row[0] for row in connection.execute("DESCRIBE ordered").fetchall() if row[0] != position]
    return write_parquet(path, "SELECT * FROM ordered", connection=connection, order_by=position,
                         columns=", ".join(names))  # fmt: skip


def _frozen(folder: Path, manifest: Manifest | None) -> FrozenMixture:
    assert manifest is not None
    return FrozenMixture(manifest.name, manifest.fingerprint, manifest.stage or "", folder, manifest,
                         sorted((folder / "train").glob("*.parquet")),
                         sorted((folder / "held_out").glob("*.parquet")))  # fmt: skip


def find_frozen(catalog: Catalog, reference: str) -> FrozenMixture:
    """The frozen mixture that a name (`NAME`, or `NAME@FINGERPRINT` with a prefix) means: the one its file gives now,
    else the newest of that name. Raises UserError naming `kedge mix build`."""
    name, _, prefix = reference.partition("@")
    files = catalog.project.paths("mixtures", ".sql")
    if not prefix and name in files:
        file = load_mixture(catalog, name)
        target = _target(catalog, name, mixture_fingerprint(catalog, file, measures_of(catalog, file.header)))
        manifest = catalog.manifest(target)
        if manifest is not None:
            return _frozen(target, manifest)
        older = catalog.latest("mixtures", name)
        what = f"the mixture '{name}' is not frozen" + (" as its file and sources are now" if older else "")
        raise UserError(what, f"run: kedge mix build {name}")
    found = catalog.latest("mixtures", name, prefix)
    if found is None:
        known = set(files) | {manifest.name for _, manifest in catalog.manifests("mixtures")}
        raise UserError(f"there is no mixture '{reference}'", did_you_mean(name, known), key="mixture")
    return _frozen(*found)
