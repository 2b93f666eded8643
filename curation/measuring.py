"""Which signals are missing, measured and published beside the row parts they belong to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation import join_work, joining, registry, schema
from curation.catalog import Catalog, write_parquet
from curation.console import progress, say
from curation.engine import PartJob, run_parts
from curation.errors import UserError, did_you_mean
from curation.fingerprint import fingerprint, hash_file
from curation.measures import JoinMeasure, PartMeasure
from curation.outputs import Manifest, Part
from curation.relations import empty_relation, parquet_list

Measure = PartMeasure | JoinMeasure
DEFAULT_MEASURES = ("text_statistics", "exact_duplicates")


def signals_folder(catalog: Catalog, measure: Measure, source: str) -> Path:
    """`lake/signals/MEASURE/FINGERPRINT/SOURCE`. A join measure's fingerprint covers the rows of all sources."""
    return catalog.folder("signals", measure.plugin_name(), measure_fingerprint(catalog, measure)[:16], source)


def measure_fingerprint(catalog: Catalog, measure: Measure) -> str:
    """Identity of what a measure returns: the plug-in, its configuration, and for a join measure its inputs."""
    if isinstance(measure, PartMeasure):
        return measure.fingerprint()
    stages = {*measure.stages, *measure.against}
    inputs = {name: item.fingerprint for name, (_, item) in catalog.sources().items() if item.stage in stages}
    needed = [named(name).fingerprint() for name in measure.needs]
    return fingerprint([measure.identity(), inputs, needed, catalog.project.file.source_priority])


def signal_parts(catalog: Catalog, measure: Measure, source: str) -> list[Path] | None:
    """The signal parts of a source in the order of its row parts; None where they are not measured for all of them."""
    _, rows = catalog.source(source)
    folder = signals_folder(catalog, measure, source)
    manifest = catalog.manifest(folder)
    if manifest is None or [part.name for part in manifest.parts] != [part.name for part in rows.parts]:
        return None
    return [folder / part.name for part in manifest.parts]


def is_measured(catalog: Catalog, measure: Measure) -> bool:
    """Whether every source that a measure applies to has its signals."""
    return all(signal_parts(catalog, measure, name) is not None for name in applicable(catalog, measure))


def applicable(catalog: Catalog, measure: Measure, sources: list[str] | None = None) -> list[str]:
    """Ingested sources (all, or those named) of the stages that a measure takes. Raises UserError for an unknown
    name."""
    known = catalog.sources()
    for name in sources or []:
        if name not in known:
            raise UserError(f"there is no ingested source '{name}'", did_you_mean(name, known))
    return [name for name, (_, manifest) in known.items()
            if manifest.stage in measure.stages and (not sources or name in sources)]  # fmt: skip


def ensure(catalog: Catalog, measure: Measure, sources: list[str] | None = None, *, workers: int | None = None,
           tell: Callable[[str], None] = say) -> list[str]:  # fmt: skip
    """Measure what is missing for `sources` (all by default), after saying so; returns the sources measured now."""
    names = applicable(catalog, measure, sources)
    missing = [name for name in names if signal_parts(catalog, measure, name) is None]
    if not missing:
        return []
    for name in measure.needs if isinstance(measure, JoinMeasure) else ():
        ensure(catalog, named(name), workers=workers, tell=tell)
    tell(f"measuring {measure.plugin_name()} of {listed(missing)}")
    with catalog.writing(*lock_of(catalog, measure)):
        if isinstance(measure, JoinMeasure):
            _join(catalog, measure, workers)
        else:
            _measure(catalog, measure, missing, workers)
    return missing


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names as a line tells them: the first few, and how many more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def lock_of(catalog: Catalog, measure: Measure) -> tuple[str, str]:
    """What to hold (`Catalog.writing`) while signals of a measure are written."""
    return "signals", f"{measure.plugin_name()}-{measure_fingerprint(catalog, measure)[:16]}"


def part_jobs(catalog: Catalog, measure: PartMeasure, sources: list[str], drafts: Path) -> list[PartJob]:
    """The row parts of some sources that are not measured yet; `drafts` is where their signals are written first."""
    jobs = []
    for source in sources:
        rows_folder, rows = catalog.source(source)
        folder = signals_folder(catalog, measure, source)
        jobs += [PartJob(rows_folder / part.name, folder / part.name, drafts / f"{source}-{part.name}",
                         rows.stage or "") for part in rows.parts if not (folder / part.name).exists()]  # fmt: skip
    return jobs


def _measure(catalog: Catalog, measure: PartMeasure, sources: list[str], workers: int | None) -> None:
    drafts = catalog.temporary("signals")
    jobs = part_jobs(catalog, measure, sources, drafts)
    try:
        with progress(f"measuring {measure.plugin_name()}", len(jobs)) as advance:
            size = sum(job.rows.stat().st_size for job in jobs)
            run_parts(measure, jobs, catalog.project.workers(workers, 4 * size), advance)
    finally:
        shutil.rmtree(drafts, ignore_errors=True)
    for source in sources:
        folder, (_, rows) = signals_folder(catalog, measure, source), catalog.source(source)
        _publish(catalog, measure, folder, rows, [_part(folder / part.name) for part in rows.parts])


def _part(path: Path) -> Part:
    return Part(name=path.name, num_rows=pq.read_metadata(path).num_rows, num_bytes=path.stat().st_size,
                hash=hash_file(path))  # fmt: skip


def _publish(catalog: Catalog, measure: Measure, folder: Path, rows: Manifest, parts: list[Part]) -> None:
    manifest = Manifest(
        kind="signals", name=measure.plugin_name(), stage=rows.stage, parts=parts,
        fingerprint=measure_fingerprint(catalog, measure),
        inputs={"source": rows.name, "rows": {part.name: part.hash for part in rows.parts}},
        parameters=_jsonable(measure.identity()),
    )  # fmt: skip
    catalog.replace_manifest(folder, manifest, {})


def _jsonable(identity: dict[str, Any]) -> dict[str, Any]:
    return {"plugin": identity["plugin"], "version": identity["version"], "config": {
        key: value if isinstance(value, str | int | float | bool | dict | list | None) else str(value)
        for key, value in identity["config"].items()}}  # fmt: skip


def _join(catalog: Catalog, measure: JoinMeasure, workers: int | None) -> None:
    """Run a join measure over all sources; write its evidence, then one value per row beside every row part."""
    digest = measure_fingerprint(catalog, measure)
    parameters = _jsonable(measure.identity())
    needed = {name: named(name) for name in measure.needs}
    names = applicable(catalog, measure)
    signals = {name: {source: paths for source in names if (paths := signal_parts(catalog, item, source)) is not None}
               for name, item in needed.items()}  # fmt: skip
    parts = joining.row_parts(catalog, measure.stages, signals)
    connection = catalog.session()
    drafts = catalog.temporary("join")
    size = 4 * sum(part.path.stat().st_size for part in parts)
    cache = joining.cache_folder(catalog, measure)
    cache.mkdir(parents=True, exist_ok=True)
    work = join_work.JoinWork(
        connection, parts, joining.row_parts(catalog, measure.against, {}), joining.priorities(catalog), drafts, cache,
        joining.previous_evidence(catalog, measure, parameters, digest), catalog.project.workers(workers, size),
    )  # fmt: skip
    try:
        joining.bind_signals(connection, measure, parts, {name: item.columns for name, item in needed.items()})
        measure.join(work)
        columns = "".join(f', "{name}"' for name in measure.columns.names)
        connection.execute(f"CREATE TEMP TABLE joined AS SELECT row_id{columns} FROM measured")
        joining.publish_evidence(catalog, measure, work, digest, parameters)
        for source in names:
            rows = catalog.source(source)[1]
            folder = signals_folder(catalog, measure, source)
            folder.mkdir(parents=True, exist_ok=True)
            for part, table in joining.values_by_part(work, measure, source):
                draft = drafts / part.path.name
                write_parquet(draft, table)
                draft.replace(folder / part.path.name)
            _publish(catalog, measure, folder, rows, [_part(folder / part.name) for part in rows.parts])
    finally:
        connection.close()
        shutil.rmtree(drafts, ignore_errors=True)
    joining.forget(catalog, measure, digest, parameters)


Needs = list[str | dict[str, dict[str, Any]]]


def needed(needs: Needs, where: str = "") -> list[Measure]:
    """The measures that a header names: `- language`, or with options `- near_duplicates: {threshold: 0.8}`; each once.
    Raises UserError for the file `where`."""
    found: dict[str, Measure] = {}
    for item in needs:
        for name, config in ({item: {}} if isinstance(item, str) else item).items():
            measure = named(name, config, where=where)
            found.setdefault(measure.fingerprint(), measure)
    return list(found.values())


def named(name: str, config: dict[str, Any] | None = None, *, where: str = "") -> Measure:
    """A measure by name, for the file `where`. Raises UserError with "did you mean", and for a measure that its name
    alone does not configure."""
    fields = registry.load("measures", name, where=where).model_fields
    missing = [field for field, info in fields.items() if info.is_required() and field not in (config or {})]
    if missing:
        step = f"write its options: needs: [{{{name}: {{{missing[0]}: ...}}}}]"
        if "tokenizer_fingerprint" in missing:
            step = "a mixture measures it, whose header names tokenizer and template"
        raise UserError(f"the measure '{name}' needs {', '.join(missing)}", step, where=where)
    measure = registry.make("measures", name, config, where=where)
    assert isinstance(measure, PartMeasure | JoinMeasure)
    return measure


def signals_view(catalog: Catalog, stage: str, measures: Sequence[Measure], *, columns: str = "r.*") -> str:
    """A SELECT of all rows of a stage (their `columns`) with those of `measures` beside them; empty text where the
    stage has no rows. Everything must be measured."""
    sources = [source for source, (_, manifest) in catalog.sources(stage).items() if manifest.parts]
    return " UNION ALL ".join(source_view(catalog, source, measures, columns=columns) for source in sources)


def source_view(catalog: Catalog, source: str, measures: Sequence[Measure], *, columns: str = "r.*") -> str:
    """A SELECT of the rows of one source (their `columns`) with those of `measures` beside them: a positional join over
    equal lists of parts. The source must be measured."""
    folder, manifest = catalog.source(source)
    if not manifest.parts:
        every = [*schema.rows(manifest.stage or ""), *(field for measure in measures for field in measure.columns)]
        return empty_relation(pa.schema(every))
    joined = parquet_list([folder / part.name for part in manifest.parts]) + " AS r"
    names = [columns]
    for index, measure in enumerate(measures):
        parts = signal_parts(catalog, measure, source)
        if parts is None:
            raise RuntimeError(f"{measure.plugin_name()} is not measured for {source}")
        joined += f" POSITIONAL JOIN {parquet_list(parts)} AS s{index}"
        names += [f's{index}."{name}"' for name in measure.columns.names]
    return f"SELECT {', '.join(names)} FROM {joined}"
