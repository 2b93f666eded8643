"""`kedge audit`: of a run, a mixture at a length, or a bare file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.auditing.audit import Audit, audit_key, audit_rows, filled_columns, mirror_for
from curation.auditing.gate import audit_run, audit_subject, mixture_subject
from curation.catalog import Catalog
from curation.config import Project, find_project, shown
from curation.console import out, print_json
from curation.errors import EXIT_FAILED, EXIT_OK, UserError, did_you_mean
from curation.fingerprint import fingerprint, hash_file
from curation.measures.anatomy import Anatomy, anatomy_for
from curation.reports.audit import print_audit, worst_rows, write
from curation.runs import Run


def run(subject: str, tokenizer: str | None, max_length: int | None, to: Path | None, as_json: bool) -> int:
    """Audit, print, and return the exit code: 1 where a check fails."""
    made = _file(Path(subject), tokenizer, max_length, to) if Path(subject).is_file() else \
        _project(subject, tokenizer, max_length, to)  # fmt: skip
    if as_json:
        print_json(made.as_json())
    else:
        print_audit(made)
        folder = to or made.folder
        if folder is not None:
            out.print(f"report: {shown(folder / 'report.html')}", markup=False)
    return EXIT_OK if made.passed else EXIT_FAILED


def _file(path: Path, tokenizer: str | None, max_length: int | None, to: Path | None) -> Audit:
    if tokenizer is None or max_length is None:
        step = f"for example: kedge audit {path} --tokenizer FOLDER --max-length 2048"
        raise UserError("a bare file needs --tokenizer and --max-length", step)
    project: Project | None = None
    try:
        project = find_project()
    except UserError:
        project = None
    made, fates = audit_file(path, tokenizer, max_length, project=project)
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        write(made, fates, to)
    return made


def audit_file(path: Path, tokenizer: str, max_length: int, *, project: Project | None = None,
               assistant_only: bool = False) -> tuple[Audit, pa.Table]:  # fmt: skip
    """Audit a bare dataset under TRL SFT's defaults, without any project. The template is the tokenizer's own where it
    has one, else ChatML."""
    from curation.ingest import read_bare
    from curation.rendering import load_tokenizer

    mirror = mirror_for("trl_sft", {"max_length": max_length, "assistant_only_loss": assistant_only})
    with tempfile.TemporaryDirectory() as folder:
        stage, parts = read_bare(path, Path(folder))
        if stage not in Anatomy.stages:
            raise UserError(f"holds {stage} rows, which TRL SFT does not train on", "audit a midtrain or sft dataset",
                            where=str(path))  # fmt: skip
        own = load_tokenizer(project, tokenizer).hf.chat_template is not None
        rendering = mirror.rendering_path(stage, filled_columns(parts))
        anatomy = anatomy_for(project, tokenizer, "tokenizer" if own else "chatml", rendering, {})
        tables = []
        for part in parts:
            table = pq.read_table(part, columns=list(anatomy.reads(stage)))
            tables.append(anatomy.measure(table, stage))
        data = fingerprint([hash_file(part) for part in parts])
        table = pa.concat_tables(tables)
        audit, fates = audit_rows(path.name, parts, table, mirror, audit_key(mirror, anatomy, data))
        audit.details["worst"] = worst_rows(parts, fates, table, anatomy, stage)
        return audit, fates


def _project(subject: str, tokenizer: str | None, max_length: int | None, to: Path | None) -> Audit:
    catalog = Catalog(find_project())
    runs, mixtures = catalog.project.paths("runs", ".yaml"), catalog.project.paths("mixtures", ".sql")
    by_run = subject in runs and max_length is None and tokenizer is None
    if not by_run and subject.partition("@")[0] not in mixtures:
        raise UserError(f"there is no run, mixture or file '{subject}'", did_you_mean(subject, {*runs, *mixtures}))
    if by_run:
        made = audit_run(catalog, Run(catalog, subject))
    else:
        if max_length is None:
            raise UserError("the audit of a mixture needs --max-length", "a context length belongs to a run: audit a "
                            "run, or give one")  # fmt: skip
        made = audit_subject(catalog, mixture_subject(catalog, subject, tokenizer, max_length))
    if to is not None and made.folder is not None:
        to.mkdir(parents=True, exist_ok=True)
        for name in ("report.html", "audit.json"):
            shutil.copyfile(made.folder / name, to / name)
    return made
