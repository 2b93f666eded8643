"""An audit: rows in training order, their anatomy, a mirror -> fates, checks and a verdict."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from packaging.requirements import SpecifierSet

from curation import registry
from curation.auditing.case import Case, checks_of, template_checks
from curation.auditing.checks import Check
from curation.auditing.fates import Fates
from curation.auditing.judged import Judged, by_source
from curation.auditing.mirrors import Mirror
from curation.auditing.setting import Setting, installed_version
from curation.auditing.strata import shifts
from curation.auditing.what_if import ways
from curation.catalog import Catalog
from curation.console import progress, say
from curation.engine import PartJob, run_parts
from curation.errors import UserError, did_you_mean
from curation.fingerprint import fingerprint, hash_file
from curation.measures._rendered import RenderedMeasure
from curation.mixtures import FrozenMixture
from curation.outputs import Manifest, Part

AUDIT_VERSION = 5


@dataclass
class Audit:
    """The result of an audit. `subject` is what was audited; `key` covers everything that can change the outcome;
    `folder` is where it is published (None for a bare file)."""

    subject: str
    key: str
    mirror: str
    options: dict[str, Any]
    max_length: int | None
    num_rows: int
    num_bins: int | None
    checks: list[Check]
    sources: list[dict[str, Any]]
    details: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def passed(self) -> bool:
        """Whether no check fails that is not waived."""
        return not any(check.level == "error" and not check.waived for check in self.checks)

    @property
    def verdict(self) -> str:
        """One line: passed or failed, and the first reason."""
        failed = [check for check in self.checks if check.level == "error" and not check.waived]
        warned = sum(check.level == "warn" for check in self.checks)
        waived = sum(bool(check.waived) for check in self.checks)
        more = (f", {warned} warnings" if warned else "") + (f", {waived} waived" if waived else "")
        if failed:
            return f"FAILED: {failed[0].message}" + (f" (and {len(failed) - 1} more)" if len(failed) > 1 else "") + more
        return f"PASSED: {self.num_rows:,} rows{more}"

    def as_json(self) -> dict[str, Any]:
        """Everything a report shows."""
        return {"subject": self.subject, "key": self.key, "verdict": self.verdict, "passed": self.passed,
                "mirror": self.mirror, "options": self.options, "max_length": self.max_length,
                "num_rows": self.num_rows, "num_bins": self.num_bins, "sources": self.sources,
                "checks": [asdict(check) for check in self.checks], "details": self.details}  # fmt: skip


def mirror_for(trainer: str, options: dict[str, Any], where: str = "", *, checked: bool = False) -> Mirror:
    """The mirror of a trainer under its options. Raises UserError for a trainer without a mirror, for options that are
    dead, unknown or touch rows unmirrored (unless they were `checked` before), and where the installed trainer lies
    outside the mirrored versions."""
    known = registry.entries("mirrors")
    if trainer not in known:
        raise UserError(f"there is no mirror of the trainer '{trainer}'", f"{did_you_mean(trainer, known)}; write "
                        f"curation/auditing/mirrors/{trainer}.py", where=where, key="trainer.name")  # fmt: skip
    cls = registry.load("mirrors", trainer)
    assert issubclass(cls, Mirror)
    problems = [] if checked else cls.option_problems(options, where)
    if problems:
        raise UserError(problems)
    installed = installed_version(cls.package)
    if installed is not None and installed not in SpecifierSet(cls.versions):
        what = f"{cls.package} {installed} is installed, the mirror knows {cls.versions}"
        step = f"install a mirrored version, or write a mirror for {installed} in curation/auditing/mirrors/"
        raise UserError(what, step, where=where)
    wanted = {name: value for name, value in options.items() if name in cls.model_fields}
    made = registry.make("mirrors", trainer, wanted, where=where)
    assert isinstance(made, Mirror)
    return made


def filled_columns(parts: list[Path]) -> list[str]:
    """Payload columns that hold something in the first part (`text`, `messages`, ...)."""
    names = [name for name in ("text", "messages") if name in pq.read_schema(parts[0]).names]
    table = pq.read_table(parts[0], columns=names)
    return [name for name in names if table[name].null_count < table.num_rows]


def audit_rows(case: Case, key: str) -> tuple[Audit, pa.Table]:
    """Judge the rows; returns the audit and the fates, one row per sequence (of preference rows one per side) with
    position, side, row_id, source, epoch, fate, lengths, ids_hash, bin and pieces."""
    fates = case.mirror.fates(case.anatomy)
    judged = case.judged(fates)
    sources = by_source(judged)
    audit = Audit(case.subject, key, case.mirror.plugin_name(), case.mirror.model_dump(mode="json"),
                  case.mirror.context_length, case.rows.num_rows, fates.num_bins(),
                  [*checks_of(case, judged, sources), *template_checks(case)], sources)  # fmt: skip
    if (judged.fates.kept < judged.tokens).any():
        longest = int(judged.tokens.max(initial=1))
        audit.details["ways"] = ways(case, judged, longest)
        audit.details["ways_length"] = longest
    audit.details |= {"stage": case.stage, "length_histogram": histogram(judged),
                      "read_not_run": case.mirror.read_not_run,
                      "strata": [item.as_json() for item in shifts(judged)]}  # fmt: skip
    return audit, _fates_table(case, fates)


def _fates_table(case: Case, fates: Fates) -> pa.Table:
    rows, (row, side, columns) = case.rows, case.sequences
    epoch = rows["epoch"].take(row) if "epoch" in rows.column_names else pa.array([0] * len(row), pa.int32())
    ids = rows["row_id"] if pa.types.is_string(rows["row_id"].type) else pa.array(
        [value.hex if hasattr(value, "hex") else str(value) for value in rows["row_id"].to_pylist()])  # fmt: skip
    found = fates.table()
    return pa.table({
        "position": pa.array(row, pa.int64()), "side": pa.array(side, pa.int8()), "row_id": ids.take(row),
        "source": rows["source"].take(row), "epoch": epoch, "tokens": columns["tokens"],
        "trained_tokens": columns["trained_tokens"], "ids_hash": columns["ids_hash"],
        **{name: found[name] for name in ("fate", "kept_tokens", "kept_trained_tokens", "bin", "pieces")},
    })  # fmt: skip


def histogram(rows: Judged, buckets: int = 40) -> dict[str, Any]:
    """Rows per length bucket and source: edges (tokens, ascending) and counts."""
    top = max(1, int(rows.tokens.max(initial=1)))
    edges = np.unique(np.linspace(0, top + 1, buckets + 1).astype(int))
    counts = {name: np.histogram(rows.tokens[rows.source == index], edges)[0].tolist()
              for index, name in enumerate(rows.names)}  # fmt: skip
    return {"edges": edges.tolist(), "counts": counts}


def measured(catalog: Catalog, anatomy: RenderedMeasure, mixture: FrozenMixture) -> pa.Table:
    """The anatomy of a frozen mixture's rows, measured once, after saying so, and kept beside the signals of sources.
    An interrupted measuring goes on with the parts that are missing."""
    label = f"mixture-{mixture.fingerprint[:16]}"
    folder = catalog.folder("signals", "anatomy", anatomy.fingerprint()[:16], label)
    targets = [folder / part.name for part in mixture.train]
    if catalog.manifest(folder) is None:
        say(f"measuring anatomy of the mixture {mixture.name}")
        drafts = catalog.temporary("anatomy")
        jobs = [PartJob(part, target, drafts / target.name, mixture.stage)
                for part, target in zip(mixture.train, targets, strict=True) if not target.exists()]  # fmt: skip
        try:
            with progress("measuring anatomy", len(jobs)) as advance:
                size = sum(job.rows.stat().st_size for job in jobs)
                run_parts(anatomy, jobs, catalog.project.workers(None, 4 * size), advance)
        finally:
            shutil.rmtree(drafts, ignore_errors=True)
        made = [Part(name=path.name, num_rows=pq.read_metadata(path).num_rows, num_bytes=path.stat().st_size,
                     hash=hash_file(path)) for path in targets]  # fmt: skip
        manifest = Manifest(kind="signals", name="anatomy", fingerprint=anatomy.fingerprint(), stage=mixture.stage,
                            parts=made, inputs={"source": label})  # fmt: skip
        catalog.replace_manifest(folder, manifest, {})
    return pa.concat_tables([pq.read_table(target) for target in targets])


def audit_key(mirror: Mirror, anatomy: RenderedMeasure, data: str, setting: Setting) -> str:
    """Covers everything that can change the outcome: data, tokenizer, template, kwargs, rendering path, transformers,
    the mirror and its options, the installed version of the trainer, and where rows are trained."""
    return fingerprint([AUDIT_VERSION, data, anatomy.identity(), mirror.identity(), installed_version(mirror.package),
                        setting.identity()])  # fmt: skip
