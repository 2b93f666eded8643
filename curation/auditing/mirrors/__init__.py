"""Mirrors: one file per trainer and version range. A mirror says what the trainer does to rows, as arithmetic over
their anatomy."""

from __future__ import annotations

import ast
import importlib.util
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa

from curation.auditing.fates import Fates
from curation.errors import Problem, did_you_mean
from curation.registry import Plugin


class Mirror(Plugin):
    """What one trainer does to rows. Its fields are the trainer's options that decide the fate of rows.

    A row is one token sequence (midtrain, sft), one per side (preference: chosen and rejected) or a prompt (rlvr);
    `stages` says which rows a mirror takes, `limits` names the field that holds the context length in tokens, and
    `read_not_run`, where it is not empty, why no differential test against the trainer is possible."""

    kind: ClassVar[str] = "mirrors"
    stages: ClassVar[tuple[str, ...]] = ("midtrain", "sft")
    limits: ClassVar[str] = "max_length"
    read_not_run: ClassVar[str] = ""
    package: ClassVar[str]
    versions: ClassVar[str]  # the mirrored versions, as a requirement (`>=1.16,<1.17`)
    dead_options: ClassVar[dict[str, str]] = {}  # option that the trainer ignores or no longer has -> what to use

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Mirror:
        """The mirror under a run's trainer options; options that do not touch rows are left to the trainer."""
        return cls(**{name: value for name, value in options.items() if name in cls.model_fields})

    # Options that touch rows and are mirrored at these values alone, and the files (package, path) whose classes list
    # every option of the trainer, read without importing it; `own_options` are those of kedge's wrapper.
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {}
    option_files: ClassVar[tuple[tuple[str, str], ...]] = ()
    own_options: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def option_names(cls) -> frozenset[str] | None:
        """Every option that the installed trainer has; None where it is not installed."""
        found: set[str] = set(cls.model_fields) | cls.own_options
        for package, path in cls.option_files:
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:
                return None
            found |= _annotated(Path(spec.origin).parent / path)
        return frozenset(found) if cls.option_files else None

    @classmethod
    def instead(cls, name: str) -> str:
        """What to do about a dead option."""
        use = cls.dead_options[name]
        return f"use {use}" if not use.startswith("nothing") else f"remove it{use.removeprefix('nothing')}"

    @classmethod
    def option_problems(cls, options: dict[str, Any], where: str = "") -> list[Problem]:
        """Options that are dead, unknown, or touch rows in a way that this mirror does not know."""
        known = cls.option_names()
        found = []
        for name, value in options.items():
            key = f"trainer.{name}"
            if name in cls.dead_options:
                found.append(Problem("this option is dead: the trainer dropped it", cls.instead(name), where, key))
            elif name in cls.only_at and value not in cls.only_at[name]:
                allowed = " or ".join(repr(item) for item in cls.only_at[name])
                found.append(Problem(f"{value!r} changes the rows and is not mirrored yet, only {allowed} is",
                                     "remove the option, or extend the mirror", where, key))  # fmt: skip
            elif known is not None and name not in known:
                found.append(Problem("the trainer has no such option", did_you_mean(name, known), where, key))
        return found

    @property
    def context_length(self) -> int | None:
        """The context length in tokens, None where there is no limit."""
        value = getattr(self, self.limits)
        return None if value is None else int(value)

    def at(self, length: int | None) -> Self:
        """The same options at another context length."""
        return self.model_copy(update={self.limits: length})

    @property
    def packs(self) -> bool:
        """Whether several sequences share one of the trainer's."""
        return bool(getattr(self, "packing", False))

    @property
    def isolates(self) -> bool:
        """Whether packed documents do not attend to each other."""
        return True

    @abstractmethod
    def rendering_path(self, stage: str, columns: list[str]) -> str:
        """The rendering path under these options for rows of `stage` whose filled payload columns are `columns`."""

    def rendering_kwargs(self, template_kwargs: dict[str, Any]) -> dict[str, Any]:
        """The kwargs of the rendering under a run's own template kwargs."""
        return template_kwargs

    @abstractmethod
    def fates(self, anatomy: pa.Table) -> Fates:
        """N sequences of anatomy (columns of measures.anatomy) in training order -> their fates."""

    def refuses(self, anatomy: pa.Table) -> list[str]:
        """Why the trainer would stop at the start instead of training; empty where it would not."""
        return []


def _annotated(path: Path) -> set[str]:
    """Names of the annotated class attributes in a Python file."""
    tree = ast.parse(path.read_text())
    return {line.target.id for item in tree.body if isinstance(item, ast.ClassDef) for line in item.body
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)}  # fmt: skip
