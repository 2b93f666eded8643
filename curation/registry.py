"""Plug-ins: one frozen pydantic class in one file whose stem is its name.

A plug-in's fields are its configuration. Shipped plug-ins are found by the file's stem; outside packages register
entry points in `kedge.sources`, `kedge.measures`, `kedge.trainers`, `kedge.harnesses`, `kedge.generators`,
`kedge.mirrors`, `kedge.rewards`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from curation.errors import Problem, UserError, did_you_mean
from curation.fingerprint import fingerprint

# kind -> the package whose files are its shipped plug-ins
KINDS = {
    "rewards": "trainers.rewards",
    "sources": "curation.sources",
    "measures": "curation.measures",
    "mirrors": "curation.auditing.mirrors",
    "trainers": "trainers",
    "harnesses": "evals",
    "generators": "curation.generation",
}


class Plugin(BaseModel):
    """Base of every plug-in. `kind` and `version` belong to the class; `version` is raised by hand whenever the code
    changes what it returns, and is part of every fingerprint made with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]
    version: ClassVar[int]

    @classmethod
    def plugin_name(cls) -> str:
        return cls.__module__.rpartition(".")[2]

    def identity(self) -> dict[str, Any]:
        """Name, version and configuration: what a fingerprint made with this plug-in covers."""
        return {
            "plugin": self.plugin_name(),
            "version": self.version,
            "config": {name: getattr(self, name) for name in type(self).model_fields},
        }

    def fingerprint(self) -> str:
        return fingerprint(self.identity())


@dataclass(frozen=True)
class Entry:
    """A plug-in that is known by name; nothing of it is imported yet."""

    kind: str
    name: str
    origin: str
    module: str
    entry_point: EntryPoint | None = None


def entries(kind: str) -> dict[str, Entry]:
    """The plug-ins of a kind by name. Files whose stem starts with `_` or is `cli` are none, nor is a module that does
    not define a plug-in class (decided by `load`)."""
    found: dict[str, Entry] = {}
    try:
        spec = importlib.util.find_spec(KINDS[kind])
    except ModuleNotFoundError:
        spec = None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*.py")):
            if not path.stem.startswith("_") and _defines_plugin(path, path.stat().st_mtime_ns, kind):
                found[path.stem] = Entry(kind, path.stem, "kedge", f"{KINDS[kind]}.{path.stem}")
    for point in _points(f"kedge.{kind}", tuple(sys.path)):
        origin = point.dist.name if point.dist else "unknown distribution"
        found[point.name] = Entry(kind, point.name, origin, point.module, point)
    return found


@functools.cache
def _points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """The entry points of a group; the files of every installed distribution are read once for a search path."""
    return tuple(entry_points(group=group))


@functools.cache
def _defines_plugin(path: Path, mtime_ns: int, kind: str) -> bool:
    base = {"sources": "Source", "measures": "Measure", "mirrors": "Mirror", "trainers": "Trainer",
            "harnesses": "Harness", "generators": "Generator", "rewards": "Reward"}[kind]  # fmt: skip
    return re.search(rf"^class \w+\(\w*{base}\):", path.read_text(), re.MULTILINE) is not None


def load(kind: str, name: str, *, where: str = "") -> type[Plugin]:
    """The class of a plug-in. Raises UserError for an unknown name ("did you mean") or one that cannot be imported,
    naming its distribution."""
    known = entries(kind)
    if name not in known:
        what = f"there is no {kind.removesuffix('s')} '{name}'"
        raise UserError(what, did_you_mean(name, known), where=where, key=kind)
    entry = known[name]
    try:
        cls = entry.entry_point.load() if entry.entry_point is not None else _class_in(entry)
    except ImportError as error:
        extra = {"trainers": "train", "harnesses": "eval", "generators": "train"}.get(kind, "all")
        raise UserError(
            f"the {kind.removesuffix('s')} '{name}' of {entry.origin} cannot be imported: {error}",
            f'install what it needs: pip install "kedge[{extra}]"',
        ) from error
    lacking = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    if lacking:
        raise UserError(f"the {kind.removesuffix('s')} '{name}' of {entry.origin} does not define {lacking}",
                        f"write it in {entry.module}")  # fmt: skip
    return cls  # type: ignore[no-any-return]


def _class_in(entry: Entry) -> type[Plugin]:
    module = importlib.import_module(entry.module)
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Plugin) and value.__module__ == entry.module:
            return value
    raise UserError(f"{entry.module} defines no plug-in class", "define one class derived from the kind's base")


def make(kind: str, name: str, config: Mapping[str, Any] | None = None, *, where: str = "") -> Plugin:
    """An instance with its configuration checked; every wrong option is reported at once."""
    cls = load(kind, name, where=where)
    try:
        return cls(**dict(config or {}))
    except ValidationError as error:
        raise UserError(validation_problems(error, cls, where=where, prefix=name)) from error


def validation_problems(
    error: ValidationError,
    model: type[BaseModel],
    *,
    where: str = "",
    prefix: str = "",
    lines: Mapping[tuple[str | int, ...], int] | None = None,
) -> list[Problem]:
    """One Problem per pydantic error, with the line of its key where `lines` knows it, and "did you mean"."""
    problems = []
    for item in error.errors():
        location = tuple(item["loc"])
        key = ".".join(str(part) for part in ((prefix,) if prefix else ()) + location)
        line = (lines or {}).get(location) or (lines or {}).get(location[:-1])
        place = f"{where}:{line}" if where and line else where
        if item["type"] == "extra_forbidden":
            problems.append(Problem("unknown key", _suggest(model, location), place, key))
        elif item["type"] == "missing":
            problems.append(Problem("is missing", "add it", place, key))
        else:
            message = item["msg"].removeprefix("Value error, ")
            what, _, then = message.partition("; ")
            shown = "" if item["type"] == "value_error" else f" (got {item['input']!r:.80})"
            problems.append(Problem(what[:1].lower() + what[1:] + shown, then, place, key))
    return problems


def _suggest(model: type[BaseModel], location: tuple[str | int, ...]) -> str:
    current: Any = model
    for part in location[:-1]:
        if isinstance(part, int):  # an item of a list, whose model was found at the list's own key
            continue
        annotation = current.model_fields[part].annotation if part in current.model_fields else None
        current = _model_in(annotation)
        if current is None:
            return "remove it"
    return did_you_mean(str(location[-1]), current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model that an annotation names: itself, an item's of a list, a part's of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in getattr(annotation, "__args__", ()) if (found := _model_in(arg))), None)
