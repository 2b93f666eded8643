"""Projects, and files that are read with their line numbers: YAML, and SQL with a YAML header.

A project is the nearest parent folder with a `kedge.yaml`. Names resolve to the project's `catalogs/` first, then to
the shipped ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curation.errors import Problem, UserError, did_you_mean
from curation.registry import validation_problems

PROJECT_FILE = "kedge.yaml"
SMALL_JOB_BYTES = 8 << 20
SHIPPED = Path(__file__).resolve().parent.parent / "catalogs"
Lines = dict[tuple[str | int, ...], int]
Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of everything read from a file: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RayCluster(Strict):
    """`engines: ray:` of kedge.yaml. `address` is that of a running cluster (by default RAY_ADDRESS, else a cluster on
    this machine is started); `tasks` are the shares that the work is cut into (by default of 64 MiB of rows or more,
    four per core at most)."""

    address: str | None = None
    cpus_per_task: int = Field(default=1, ge=1)
    mem_per_cpu_gb: float = Field(default=1.0, gt=0)
    tasks: int | None = Field(default=None, ge=1)


class SlurmCluster(Strict):
    """`engines: slurm:` of kedge.yaml. `time` limits one task of the array, `tasks` their number and `workers` how many
    run at once; `env_command` makes kedge's environment on a node (by default this interpreter's path is used there);
    `sbatch_args` are further directives (`{account: x}`)."""

    partition: str
    time: str = "04:00:00"
    cpus_per_task: int = Field(default=1, ge=1)
    mem_per_cpu_gb: int = Field(default=4, ge=1)
    tasks: int = Field(default=256, ge=1, le=1_000)
    workers: int | None = Field(default=None, ge=1)
    env_command: str | None = None
    sbatch_args: dict[str, str | int] = {}


class Engines(Strict):
    """`engines:` of kedge.yaml: what `kedge measure --engine ray|slurm` needs to know."""

    ray: RayCluster = RayCluster()
    slurm: SlurmCluster | None = None


class ProjectFile(Strict):
    """`kedge.yaml`. `tokenizers` gives names to folders or hub ids (`ID@REVISION`); `skip_rules` names shipped or own
    rules that are not adopted; `source_priority` lists the sources whose rows are kept first where rows repeat (others
    follow by name); `memory` limits what DuckDB may hold before it spills to disk; `engines` describes clusters;
    `classifiers` gives names to sequence classifiers: a path, or options of the measure `classifier`."""

    tokenizers: dict[str, str] = {}
    skip_rules: list[str] = []
    source_priority: list[str] = []
    memory: str = "1GB"
    workers: int | None = None
    engines: Engines = Engines()
    classifiers: dict[str, str | dict[str, Any]] = {}


YAML_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML was built with it


def read_yaml(text: str, where: str, first_line: int = 1) -> tuple[Any, Lines]:
    """The value of a YAML document and the line of every key in it. Raises UserError with `file:line`."""
    try:
        loader = YAML_LOADER(text)
        node = loader.get_single_node()
        value = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        mark = getattr(error, "problem_mark", None)
        line = first_line + mark.line if mark else first_line
        what = getattr(error, "problem", None) or str(error)
        raise UserError(f"is no valid YAML: {what}", "mend the line", where=f"{where}:{line}") from error
    lines: Lines = {}
    problems: list[Problem] = []

    def walk(item: Any, path: tuple[str | int, ...]) -> None:
        if isinstance(item, yaml.MappingNode):
            seen: set[str] = set()
            for key, child in item.value:
                line = first_line + key.start_mark.line
                if key.value in seen:
                    problems.append(Problem("stands here twice", "keep one", f"{where}:{line}", key.value))
                seen.add(key.value)
                lines[(*path, key.value)] = line
                walk(child, (*path, key.value))
        elif isinstance(item, yaml.SequenceNode):
            for index, child in enumerate(item.value):
                lines[(*path, index)] = first_line + child.start_mark.line
                walk(child, (*path, index))

    if node is not None:
        walk(node, ())
    if problems:
        raise UserError(problems)
    return value, lines


def parse(model: type[Model], value: Any, lines: Lines, where: str) -> Model:
    """`value` as `model`; every problem at once, as `file:line: key: what; next`."""
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise UserError("must be a mapping of keys to values", where=f"{where}:1")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(validation_problems(error, model, where=where, lines=lines)) from error


def shown(path: Path) -> str:
    """A path as errors and reports print it: relative to the working directory where it lies below."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def read_text(path: Path) -> str:
    """The text of a file; UserError where it is absent or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError("is not UTF-8", "save it as UTF-8", where=shown(path)) from error
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=shown(path)) from error


def load_yaml(path: Path, model: type[Model]) -> Model:
    """A YAML file as `model`."""
    value, lines = read_yaml(read_text(path), shown(path))
    return parse(model, value, lines, shown(path))


_HEADER = re.compile(r"\A\s*/\*\s*---[ \t]*\n(?P<yaml>.*?)\n?---\s*\*/", re.DOTALL)


@dataclass(frozen=True)
class SqlFile:
    """A SQL file of a catalogue: its header, and its text unmodified (the header is a comment to DuckDB)."""

    path: Path
    header: Any
    text: str

    @property
    def name(self) -> str:
        return self.path.stem


def load_sql(path: Path, header: type[Model]) -> SqlFile:
    """A SQL file whose leading comment holds a YAML header between `/* ---` and `--- */`."""
    text = read_text(path)
    match = _HEADER.match(text)
    if match is None:
        raise UserError(
            "has no header", "begin the file with a comment '/* ---', YAML lines, '--- */'", where=f"{shown(path)}:1"
        )
    first_line = text[: match.start("yaml")].count("\n") + 1
    value, lines = read_yaml(match["yaml"], shown(path), first_line)
    return SqlFile(path, parse(header, value, lines, shown(path)), text)


@dataclass(frozen=True)
class Project:
    """A folder with `kedge.yaml`, its own `catalogs/` and its `lake/`."""

    root: Path
    file: ProjectFile = field(default_factory=ProjectFile)

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def catalogs(self) -> Path:
        return self.root / "catalogs"

    def paths(self, kind: str, suffix: str) -> dict[str, Path]:
        """Every file of a kind (`rules`, `.sql`) by name; the project's own hide shipped ones of the same name."""
        found: dict[str, Path] = {}
        for base in (SHIPPED, self.catalogs):
            for path in sorted((base / kind).glob(f"*{suffix}")):
                found[path.name.removesuffix(suffix)] = path
        return dict(sorted(found.items()))

    def path(self, kind: str, name: str, suffix: str) -> Path:
        """The file that `name` means: a path ending in `suffix`, or a name in the catalogues. Raises UserError."""
        if name.endswith(suffix) and (Path(name).is_file() or "/" in name):
            if not Path(name).is_file():
                raise UserError(f"there is no file '{name}'", "check the path")
            return Path(name)
        known = self.paths(kind, suffix)
        stem = name.removesuffix(suffix)
        if stem not in known:
            raise UserError(
                f"there is no '{name}' in catalogs/{kind}/", f"{did_you_mean(stem, known)} (see: kedge show {kind})"
            )
        return known[stem]

    def workers(self, given: int | None, num_bytes: int) -> int:
        """Worker processes for a job over `num_bytes` of input: those given, else one where starting more would cost
        more than it saves, else those of kedge.yaml or one per core."""
        if given is not None:
            return given
        if num_bytes < SMALL_JOB_BYTES:
            return 1
        return self.file.workers or os.cpu_count() or 1

    def relative(self, path: Path) -> str:
        """A path as manifests hold it: relative to the project, with forward slashes; absolute outside of it."""
        try:
            return path.resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError:
            return path.resolve().as_posix()


def parents(start: Path) -> Iterator[Path]:
    yield start
    yield from start.parents


def project_around() -> Project | None:
    """The project around the working directory, None where there is none. Raises UserError for a kedge.yaml that is
    wrong."""
    inside = any((folder / PROJECT_FILE).is_file() for folder in parents(Path.cwd().resolve()))
    return find_project() if inside else None


def find_project(start: Path | None = None) -> Project:
    """The project around `start` (the working directory by default). Raises UserError naming `kedge init`."""
    here = (start or Path.cwd()).resolve()
    for folder in parents(here):
        if (folder / PROJECT_FILE).is_file():
            return Project(folder, load_yaml(folder / PROJECT_FILE, ProjectFile))
    raise UserError(f"no {PROJECT_FILE} in {here} or any folder above", "run: kedge init")
