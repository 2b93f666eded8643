"""Source files `catalogs/sources/NAME.yaml`: where records lie, how they become rows, and what is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from curation import registry
from curation.catalog import Catalog
from curation.config import Strict, load_yaml
from curation.errors import Problem, UserError, did_you_mean
from curation.parsing import Parsing
from curation.shapes import SHAPES

LABELS = ("skill", "domain")  # of a whole source, the first that it has


class SourceFile(Strict):
    """`catalogs/sources/NAME.yaml`. `path` is one file, folder, glob or dataset id, or a list of them, relative to the
    project. `fields` gives a record's field the name that the shape wants (`{instruction: query}`). `held_out` is the
    share (0..1) of prompts kept out of every training mixture, `reject_share` the share of records that may fail.
    `skill` (else `domain`), a word of your own, is what the measure `skills` says of every row whose record names no
    skill itself."""

    reader: str
    path: str | list[str]
    stage: Literal["midtrain", "sft", "preference", "rlvr", "benchmark"]
    shape: str
    reader_options: dict[str, Any] = {}
    fields: dict[str, str] = {}
    licence: str = "unknown"
    revision: str | None = None
    origin: Literal["human", "distilled", "web", "generated", "unknown"] = "unknown"
    teacher: str | None = None
    teacher_terms: str | None = None
    skill: str | None = Field(default=None, min_length=1)
    domain: str | None = Field(default=None, min_length=1)
    held_out: float = Field(default=0.0, ge=0, lt=1)
    reject_share: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _known(self) -> SourceFile:
        if self.shape not in SHAPES:
            raise ValueError(f"shape: there is no shape '{self.shape}'; {did_you_mean(self.shape, SHAPES)}")
        if self.stage not in SHAPES[self.shape].stages:
            raise ValueError(f"stage: the shape '{self.shape}' cannot fill a {self.stage} row; use one of "
                             f"{', '.join(SHAPES[self.shape].stages)}")  # fmt: skip
        return self

    def parsing(self, name: str) -> Parsing:
        """What decides how the records of this source become rows."""
        options = dict(self.reader_options)
        if self.reader == "hf_hub" and self.revision is not None:
            options.setdefault("revision", self.revision)
        return Parsing(name, self.reader, options, self.shape, self.stage, self.fields, self.held_out)


def load_source(catalog: Catalog, name: str) -> SourceFile:
    """The source file of a name. Raises UserError."""
    return load_yaml(catalog.project.path("sources", name, ".yaml"), SourceFile)


def input_files(catalog: Catalog, source: SourceFile, where: str) -> dict[str, Path]:
    """The input files of a source by the name that rows carry, in name order. Raises UserError for a pattern without
    files, and for empty files."""
    cls = registry.load("sources", source.reader, where=where)
    found: dict[str, Path] = {}
    problems = []
    for pattern in [source.path] if isinstance(source.path, str) else source.path:
        base = Path(pattern)
        absolute = base if base.is_absolute() else catalog.project.root / base
        if source.reader == "hf_hub":
            found[pattern] = absolute if absolute.is_dir() else base
            continue
        if absolute.is_dir():
            matches = [path for path in visible_files(absolute)
                       if path.name.lower().endswith(cls.suffixes)]  # type: ignore[attr-defined]  # fmt: skip
        elif absolute.is_file():
            matches = [absolute]
        else:
            root, parts = Path(absolute.anchor), absolute.relative_to(absolute.anchor)
            matches = [path for path in root.glob(str(parts)) if path.is_file()]
        if not matches:
            problems.append(Problem(f"no file matches '{pattern}'", "check the path", where, "path"))
        for path in matches:
            if path.stat().st_size == 0:
                problems.append(Problem("is empty", "remove it or fill it", catalog.project.relative(path)))
            found[catalog.project.relative(path)] = path
    if problems:
        raise UserError(problems)
    return dict(sorted(found.items()))


def visible_files(folder: Path) -> list[Path]:
    """The files below a folder in path order, without hidden ones and those in hidden folders."""
    return sorted(path for path in folder.rglob("*") if path.is_file()
                  and not any(name.startswith(".") for name in path.relative_to(folder).parts))  # fmt: skip
