"""`kedge add`: recognise, write the source file, ingest, and show what came of it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from curation import parsing, schema
from curation.catalog import Catalog
from curation.config import Project, find_project, shown
from curation.console import out, print_json
from curation.errors import UserError, did_you_mean
from curation.ingest import IngestReport, ingest
from curation.outputs import write_atomically
from curation.recognising import Recognised, reader_of, recognise_file, shape_for
from curation.source_files import visible_files

HEADER = (
    "# Written by 'kedge add'; edit it and run 'kedge add {name}' again. licence: an SPDX id or unknown;\n"
    "# skill: a word of your own, where all rows train one skill.\n"
)


def add(reference: str, name: str | None, stage: str | None, held_out: float | None) -> tuple[IngestReport, Catalog]:
    """Ingest a source that has a file already, or recognise a path or hub id, write its source file and ingest it.
    Raises UserError, or GateFailed for too many rejects."""
    project = find_project()
    catalog = Catalog(project)
    known = project.paths("sources", ".yaml")
    if reference in known and not Path(reference).is_file():
        if stage is not None or held_out is not None:
            raise UserError(f"'{reference}' has a source file already", f"edit {shown(known[reference])} instead")
        return ingest(catalog, reference), catalog
    path = Path(reference).absolute()
    name = name or re.sub(r"[^a-z0-9_]+", "_", Path(reference.rstrip("/")).name.split(".")[0].lower()).strip("_")
    target = project.catalogs / "sources" / f"{name}.yaml"
    if stage is None and held_out is None and _reads(project, target, path):
        return ingest(catalog, name), catalog
    spec = source_spec(project, reference, path, stage, held_out)
    text = HEADER.format(name=name) + yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
    if target.exists():
        if yaml.safe_load(target.read_text()) != spec:
            raise UserError(f"{shown(target)} is there already and says something else", f"run: kedge add {name}, or "
                            "choose another --name")  # fmt: skip
    else:
        write_atomically(target, text.encode())
    return ingest(catalog, name), catalog


def _reads(project: Project, target: Path, path: Path) -> bool:
    """Whether the source file `target` exists and reads just this path: the same source, named by its path."""
    if not target.is_file():
        return False
    content = yaml.safe_load(target.read_text())
    return isinstance(content, dict) and content.get("path") in (project.relative(path), str(path))


def source_spec(
    project: Project, reference: str, path: Path, stage: str | None, held_out: float | None
) -> dict[str, Any]:
    """The content of a new source file."""
    spec: dict[str, Any] = {}
    if path.is_file():
        seen = recognise_file(path, stage=stage)
        spec |= {"reader": seen.reader, "path": project.relative(path)}
    elif path.is_dir() and (path / "README.md").is_file():
        seen = recognise_file(path, stage=stage, reader="hf_hub")
        spec |= {"reader": "hf_hub", "path": project.relative(path)}
    elif path.is_dir():
        seen = _folder(path, stage)
        spec |= {"reader": seen.reader, "path": project.relative(path)}
    else:
        seen, spec = _hub(project, reference, stage)
    spec |= {"stage": seen.stage, "shape": seen.shape, "licence": "unknown", "origin": "unknown"}
    return spec | ({"held_out": held_out} if held_out is not None else {})


def _folder(path: Path, stage: str | None) -> Recognised:
    """What the files of a folder are. Files that no reader knows are no data; files of several formats are an error,
    because the source would leave some of them out."""
    readers: dict[str, Path] = {}
    for item in visible_files(path):
        with contextlib.suppress(UserError):
            readers.setdefault(reader_of(item), item)
    if not readers:
        raise UserError("holds no file that a reader knows", "give a file or a folder with data", where=shown(path))
    if len(readers) > 1:
        formats = ", ".join(f"{name} ({shown(item)})" for name, item in sorted(readers.items()))
        raise UserError(f"holds files of several formats: {formats}", "add the files of one format each in a source of "
                        "their own", where=shown(path))  # fmt: skip
    ((reader, first),) = readers.items()
    return recognise_file(first, stage=stage, reader=reader)


def _hub(project: Project, reference: str, stage: str | None) -> tuple[Recognised, dict[str, Any]]:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", reference) or reference.startswith("."):
        known = project.paths("sources", ".yaml")
        raise UserError(f"'{reference}' is no file, folder, source or dataset id", did_you_mean(reference, known))
    from curation import registry
    from curation.shapes import SHAPES
    from curation.sources.hf_hub import HfHub, pinned_revision

    revision = pinned_revision(reference)
    source = registry.make("sources", "hf_hub", {"revision": revision})
    assert isinstance(source, HfHub)
    values = [item.value for item in parsing.first_records(Path(reference), source, 200) if item.value is not None]
    shape = shape_for(values, stage, reference)
    seen = Recognised("hf_hub", shape, stage or SHAPES[shape].stages[0], [])
    return seen, {"reader": "hf_hub", "path": reference, "revision": revision}


def print_report(report: IngestReport, catalog: Catalog, as_json: bool) -> None:
    """Counts, three rows as parsed, the fields that no row takes, and what to type next."""
    if as_json:
        print_json(vars(report) | {"rows": three_rows(catalog, report)})
        return
    for row in three_rows(catalog, report):
        out.print(f"{row['file']}:{row['line']}", style="bold", markup=False)
        for name, value in row.items():
            if name not in ("file", "line") and value is not False:
                for line in _lines(name, value):
                    text = line.replace("\n", "\\n")
                    out.print(f"  {text[:400]}{' ...' if len(text) > 400 else ''}", markup=False)
    if report.ignored:
        out.print(f"ignored for training, kept in meta: {', '.join(report.ignored)}", markup=False)
    out.print(f"{report.name}: {report.num_rows:,} {report.stage} rows, {report.num_rejects:,} rejects, "
              f"{report.num_files_read} of {report.num_files} files read", markup=False)  # fmt: skip
    if catalog.source(report.name)[1].parameters.get("shape") == "prompts":
        out.print("no row has a ground truth: measures read the prompts, and the rule unverifiable_prompt leaves them "
                  "out of mixtures; look-alikes: kedge measure --only safety, then kedge show safety")  # fmt: skip
    what = "--only contamination" if report.stage == schema.BENCHMARK else report.name
    out.print(f"next: kedge measure {what}", markup=False)


def _lines(name: str, value: Any) -> list[str]:
    """A field as it is shown: a line per turn for messages."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]:
        turns = []
        for turn in value:
            more = {key: text for key, text in turn.items() if key not in ("role", "content")}
            turns.append(f"  {turn['role']}: {turn.get('content', '')}" + (f" {more}" if more else ""))
        return [f"{name}:", *turns]
    return [f"{name}: {value}"]


def three_rows(catalog: Catalog, report: IngestReport) -> list[dict[str, Any]]:
    """The first three rows with the columns that hold something."""
    folder, manifest = catalog.source(report.name)
    hidden = {"row_id", "content_hash", "prompt_hash", "stage", "source", "occurrence", "meta"}
    found = []
    for part in manifest.parts:
        file = pq.ParquetFile(folder / part.name)
        for batch in file.iter_batches(3):
            found += [{name: _dense(value) for name, value in row.items() if name not in hidden and value is not None}
                      for row in batch.to_pylist()]  # fmt: skip
            break
        if len(found) >= 3:
            break
    return found[:3]


def _dense(value: Any) -> Any:
    if isinstance(value, list):
        return [_dense(item) for item in value]
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item is not None}
    return value
