"""What the readers of launch files share: settings with their lines, paths, and options checked by a mirror."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from curation import registry
from curation.auditing.mirrors import Mirror
from curation.config import Lines, read_text, read_yaml, shown
from curation.errors import Problem, UserError
from curation.registry import validation_problems

OWN_TEMPLATE = "tokenizer"  # the reference by which the tokenizer's own chat template is loaded
MAIN = re.compile(r"\bverl\.[\w.]*\b(?:main_ppo|\w*sft_trainer)\b")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
OVERRIDE = re.compile(r"(\+\+|\+|~)?([A-Za-z_]\w*(?:\.\w+)+)=(.*)$", re.DOTALL)
VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")
CLOSE = 0.85  # similarity from which an unknown key counts as a misspelling


@dataclass(frozen=True)
class Launch:
    """What a launch file would do. `stage` is that of the rows (`midtrain`, `sft`, `preference`, `rlvr`), `trainer` the
    name of the mirror and `options` its fields. `datasets` are local files or folders in the file's order, and
    `dataset_formats` what the file says of the records of each (`type`, and which field or role is called what).
    `tokenizer` and `template` are references as rendering loads them (`template` None: plain text); `template_kwargs`
    go to the template. `given` holds every setting of the file, `notes` what a reader of the audit should know, and
    `problems` options that are dead, unknown or not mirrored (check V2)."""

    framework: str
    stage: str
    trainer: str
    options: dict[str, Any]
    datasets: tuple[Path, ...] = ()
    dataset_formats: tuple[dict[str, Any], ...] = ()
    tokenizer: str | None = None
    template: str | None = None
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    given: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def dataset(self) -> Path | None:
        """The first of the datasets; None where the file names none."""
        return self.datasets[0] if self.datasets else None

    @property
    def dataset_format(self) -> dict[str, Any]:
        """The format of the first of the datasets; empty where the file says nothing."""
        return self.dataset_formats[0] if self.dataset_formats else {}


@dataclass(frozen=True)
class LaunchFile:
    """A launch file as read: `value` its settings as nested mappings, `lines` the line of every key, `text` the file,
    `main` the module that a shell script starts."""

    path: Path
    value: dict[str, Any]
    lines: Lines
    text: str = ""
    main: str = ""

    def get(self, *key: str, default: Any = None) -> Any:
        """The setting at a nested key; `default` where it is absent or empty."""
        found: Any = self.value
        for part in key:
            if not isinstance(found, dict) or part not in found:
                return default
            found = found[part]
        return default if found is None else found

    def where(self, *key: str | int) -> str:
        """`file:line` of a key, or of the nearest mapping around it that has a line."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.lines:
                return f"{shown(self.path)}:{self.lines[key[:length]]}"
        return f"{shown(self.path)}:1"

    def problem(self, what: str, step: str, *key: str | int) -> Problem:
        """A problem with the setting at `key`."""
        return Problem(what, step, self.where(*key), ".".join(map(str, key)))

    def local(self, reference: str) -> Path | None:
        """A path of the file, in the working directory or beside the file; None where it is in neither."""
        for base in (Path.cwd(), self.path.resolve().parent):
            found = base / Path(reference).expanduser()
            if found.exists():
                return found
        return None

    def reference(self, value: Any) -> str | None:
        """A model or tokenizer: its folder where it is a local one, else the reference (a hub id) as it stands."""
        if not isinstance(value, str) or not value:
            return None
        found = self.local(value)
        return str(found) if found is not None and found.is_dir() else value

    def data(self, named: Iterable[tuple[str, tuple[str | int, ...]]], given: Path | None) -> tuple[Path, ...]:
        """Local files or folders of the data that is named at keys of the file, or `given` in their place. Raises
        UserError with every name that is not on this machine."""
        if given is not None:
            return (given,)
        found, problems = [], []
        for reference, key in named:
            path = self.local(reference)
            if path is None:
                step = "download it, and give the local file: kedge audit FILE DATASET"
                problems.append(self.problem(f"the dataset '{reference}' is not on this machine", step, *key))
            else:
                found.append(path)
        if problems:
            raise UserError(problems)
        if not found:
            step = "give a local file: kedge audit FILE DATASET"
            raise UserError("names no dataset", step, where=f"{shown(self.path)}:1")
        return tuple(found)

    def checked(self, trainer: str, options: dict[str, Any], keys: dict[str, tuple[str | int, ...]]) -> tuple[
        dict[str, Any], list[Problem]
    ]:  # fmt: skip
        """(the mirror's fields that can be used, what is wrong with `options`). `keys` says where an option stands in
        the file, if not at the top under its own name. Options that are off (null or false) are not told as dead."""
        cls = mirror_class(trainer)
        if cls is None:
            return options, []
        live = {name: value for name, value in options.items()
                if name not in cls.dead_options or value not in (None, False)}  # fmt: skip
        problems = [self._placed(problem, keys) for problem in cls.option_problems(live)]
        fields = {name: value for name, value in live.items() if name in cls.model_fields}
        try:
            cls(**fields)
        except ValidationError as error:
            problems += [self._placed(problem, keys) for problem in validation_problems(error, cls)]
            fields = {name: value for name, value in fields.items()
                      if name not in {item["loc"][0] for item in error.errors()}}  # fmt: skip
        return fields, sorted(problems, key=lambda problem: _line(problem.where))

    def _placed(self, problem: Problem, keys: dict[str, tuple[str | int, ...]]) -> Problem:
        name = problem.key.removeprefix("trainer.").partition(".")[0]
        key = keys.get(name, (name,))
        return replace(problem, where=self.where(*key), key=".".join(map(str, key)))

    def misspelt(self, known: Iterable[str], others: Iterable[str] = ()) -> list[Problem]:
        """Top-level keys that are close to one of `known` but none of it, nor of `others`."""
        names = sorted(set(known))
        found = []
        for key in self.value:
            if key in names or key in others or not isinstance(key, str):
                continue
            close = difflib.get_close_matches(key, names, n=1, cutoff=CLOSE)
            if close and close[0] not in self.value:
                found.append(self.problem("there is no such option", f"did you mean '{close[0]}'?", key))
        return found


def mirror_class(trainer: str) -> type[Mirror] | None:
    """The class of a mirror; None where there is none of that name."""
    if trainer not in registry.entries("mirrors"):
        return None
    cls = registry.load("mirrors", trainer)
    assert issubclass(cls, Mirror)
    return cls


def read_settings(path: Path) -> LaunchFile | None:
    """A YAML file; None where it holds no mapping. Raises UserError where it is no YAML."""
    text = read_text(path)
    value, lines = read_yaml(text, shown(path))
    return LaunchFile(path, value, lines, text) if isinstance(value, dict) else None


def read_script(path: Path) -> LaunchFile | None:
    """The Hydra overrides of a shell script that starts verl, as nested settings; None where it starts something else.
    Variables that the script sets are filled in as text, and HOME and PWD; nothing is run."""
    text = read_text(path)
    main = MAIN.search("\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    if main is None:
        return None
    variables = {name: os.environ.get(name, "") for name in ("HOME", "PWD")}
    given: list[tuple[str, Any, int]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = [word for word in _words(line) if word != "export"]
        for word in itertools.takewhile(ASSIGNMENT.fullmatch, words):
            name, _, value = word.partition("=")
            variables[name] = filled(value, variables)
        for word in words:
            override = OVERRIDE.fullmatch(word)
            if override is not None and override[1] != "~":
                given.append((override[2], _parsed(filled(override[3], variables)), number))
    return nested(path, given, text, main[0])


def nested(path: Path, given: Iterable[tuple[str, Any, int]], text: str, main: str = "") -> LaunchFile:
    """Dotted settings (key, value, line) as nested mappings; a later one replaces an earlier one."""
    value: dict[str, Any] = {}
    lines: Lines = {}
    for dotted, item, line in given:
        parts = tuple(dotted.split("."))
        inner = value
        for depth, part in enumerate(parts[:-1], 1):
            lines.setdefault(parts[:depth], line)
            if not isinstance(inner.get(part), dict):
                inner[part] = {}
            inner = inner[part]
        inner[parts[-1]] = item
        lines[parts] = line
    return LaunchFile(path, value, lines, text, main)


def filled(text: str, variables: dict[str, str]) -> str:
    """`text` with `$NAME`, `${NAME}` and `${NAME:-DEFAULT}` filled in; what is not known stays as it is."""

    def value(match: re.Match[str]) -> str:
        name, default = match[1] or match[3], match[2]
        return variables.get(name) or (default if default is not None else match[0])

    return VARIABLE.sub(value, text)


def _words(line: str) -> list[str]:
    """A line of a shell script in words, without its comment and the backslash at its end."""
    try:
        return shlex.split(line.rstrip().removesuffix("\\"), comments=True)
    except ValueError:  # a quote that is closed on another line
        return line.split()


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _line(where: str) -> int:
    number = where.rpartition(":")[2]
    return int(number) if number.isdigit() else 0
