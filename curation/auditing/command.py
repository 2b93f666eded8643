"""`kedge audit`: of a run, a mixture at a length, or a bare file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pyarrow as pa

from curation.auditing.audit import Audit, measured
from curation.auditing.bare import audit_file, audit_launch, bare_case
from curation.auditing.gate import audit_run, audit_subject, mixture_subject
from curation.auditing.launch_files import read_launch
from curation.auditing.sweep import Sweep, sweep
from curation.catalog import Catalog
from curation.config import find_project, project_around, shown
from curation.console import out, print_json
from curation.errors import EXIT_FAILED, EXIT_OK, UserError, did_you_mean
from curation.fingerprint import fingerprint
from curation.outputs import Manifest
from curation.reports.audit import print_audit, write
from curation.reports.sweep import print_sweep
from curation.reports.sweep import write as write_sweep
from curation.runs import Run

SWEEP_VERSION = 3


def run(subject: str, dataset: str | None, tokenizer: str | None, max_length: int | None, to: Path | None,
        as_json: bool) -> int:  # fmt: skip
    """Audit, print, and return the exit code: 1 where a check fails. A file or a mixture without a length is swept over
    many; that decides nothing, so its exit code is 0."""
    is_file = Path(subject).is_file()
    launch = read_launch(Path(subject), None if dataset is None else Path(dataset)) if is_file else None
    if dataset is not None and launch is None:
        raise UserError(f"'{subject}' is no launch file that takes a dataset", f"for example: kedge audit {dataset} "
                        "--tokenizer FOLDER")  # fmt: skip
    if max_length is None and launch is None and (is_file or not _is_run(subject, tokenizer)):
        swept = sweep_file(Path(subject), tokenizer, to) if is_file else sweep_mixture(subject, tokenizer, to)
        print_json(swept.as_json()) if as_json else print_sweep(swept)
        _say_where(to or swept.folder, as_json)
        return EXIT_OK
    if launch is not None:
        made, fates = audit_launch(launch, Path(subject), tokenizer, max_length, project=project_around())
        _write(made, fates, to)
    elif is_file:
        made = _file(Path(subject), tokenizer, max_length, to)
    else:
        made = _project(subject, tokenizer, max_length, to)
    print_json(made.as_json()) if as_json else print_audit(made)
    _say_where(to or made.folder, as_json)
    return EXIT_OK if made.passed else EXIT_FAILED


def _write(made: Audit, fates: pa.Table, to: Path | None) -> None:
    if to is not None:
        to.mkdir(parents=True, exist_ok=True)
        write(made, fates, to)


def _say_where(folder: Path | None, as_json: bool) -> None:
    if folder is not None and not as_json:
        out.print(f"report: {shown(folder / 'report.html')}", markup=False)


def _is_run(subject: str, tokenizer: str | None) -> bool:
    """Whether the subject is a run's own audit. Raises UserError for a name that is neither a run nor a mixture."""
    project = find_project()
    runs, mixtures = project.paths("runs", ".yaml"), project.paths("mixtures", ".sql")
    if subject not in runs and subject.partition("@")[0] not in mixtures:
        raise UserError(f"there is no run, mixture or file '{subject}'", did_you_mean(subject, {*runs, *mixtures}))
    return subject in runs and tokenizer is None


def sweep_mixture(name: str, tokenizer: str | None, to: Path | None) -> Sweep:
    """A frozen mixture at many lengths, published under `lake/sweeps/`."""
    catalog = Catalog(find_project())
    subject = mixture_subject(catalog, name, tokenizer, None)
    table = measured(catalog, subject.anatomy, subject.mixture)
    made = sweep(subject.case(catalog, table))
    made.details |= {"mixture": f"{subject.mixture.name}@{subject.mixture.fingerprint[:12]}",
                    "template": subject.anatomy.template, "rendering": subject.anatomy.path}  # fmt: skip
    made.folder = catalog.folder("sweeps", subject.name, fingerprint([SWEEP_VERSION, subject.key])[:16])
    if catalog.manifest(made.folder) is None:
        with catalog.publishing(made.folder) as draft:
            write_sweep(made, draft.folder)
            draft.manifest = Manifest(kind="sweeps", name=subject.name, fingerprint=subject.key,
                                      inputs={"mixture": subject.mixture.fingerprint})  # fmt: skip
    if to is not None:
        write_sweep(made, to)
    return made


def sweep_file(path: Path, tokenizer: str | None, to: Path | None) -> Sweep:
    """A bare dataset at many lengths, without any project."""
    if tokenizer is None:
        raise UserError("a bare file needs --tokenizer", f"for example: kedge audit {path} --tokenizer FOLDER")
    with tempfile.TemporaryDirectory() as folder:
        case = bare_case(path, tokenizer, None, project_around(), Path(folder))
        made = sweep(case)
    if to is not None:
        write_sweep(made, to)
    return made


def _file(path: Path, tokenizer: str | None, max_length: int | None, to: Path | None) -> Audit:
    if tokenizer is None or max_length is None:
        step = f"for example: kedge audit {path} --tokenizer FOLDER --max-length 2048"
        raise UserError("a bare file needs --tokenizer", step)
    made, fates = audit_file(path, tokenizer, max_length, project=project_around())
    _write(made, fates, to)
    return made


def _project(subject: str, tokenizer: str | None, max_length: int | None, to: Path | None) -> Audit:
    catalog = Catalog(find_project())
    by_run = _is_run(subject, tokenizer) and max_length is None
    made = audit_run(catalog, Run(catalog, subject)) if by_run else \
        audit_subject(catalog, mixture_subject(catalog, subject, tokenizer, max_length))  # fmt: skip
    if to is not None and made.folder is not None:
        to.mkdir(parents=True, exist_ok=True)
        for name in ("report.html", "audit.json"):
            shutil.copyfile(made.folder / name, to / name)
    return made
