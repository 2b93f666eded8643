"""Mirrors: one file per trainer and version range. A mirror says what the trainer does to rows, as arithmetic over
their anatomy."""

from __future__ import annotations

import ast
import importlib.util
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from curation.errors import Problem, did_you_mean
from curation.registry import Plugin

FATES = ("whole", "cut", "dropped")


class Mirror(Plugin):
    """What one trainer does to rows. Its fields are the trainer's options that decide the fate of rows."""

    kind: ClassVar[str] = "mirrors"
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
    def option_problems(cls, options: dict[str, Any], where: str = "") -> list[Problem]:
        """Options that are dead, unknown, or touch rows in a way that this mirror does not know."""
        known = cls.option_names()
        found = []
        for name, value in options.items():
            key = f"trainer.{name}"
            if name in cls.dead_options:
                found.append(Problem("this option is dead: the trainer dropped it", f"use {cls.dead_options[name]}",
                                     where, key))  # fmt: skip
            elif name in cls.only_at and value not in cls.only_at[name]:
                allowed = " or ".join(repr(item) for item in cls.only_at[name])
                found.append(Problem(f"{value!r} changes the rows and is not mirrored yet, only {allowed} is",
                                     "remove the option, or extend the mirror", where, key))  # fmt: skip
            elif known is not None and name not in known:
                found.append(Problem("the trainer has no such option", did_you_mean(name, known), where, key))
        return found

    @abstractmethod
    def rendering_path(self, stage: str, columns: list[str]) -> str:
        """The rendering path under these options for rows of `stage` whose filled payload columns are `columns`."""

    @abstractmethod
    def fates(self, anatomy: pa.Table) -> pa.Table:
        """N rows of anatomy in training order -> N rows: fate, kept_tokens, kept_trained_tokens, bin (-1 unpacked)."""

    def refuses(self, anatomy: pa.Table) -> list[str]:
        """Why the trainer would stop at the start instead of training; empty where it would not."""
        return []


def _annotated(path: Path) -> set[str]:
    """Names of the annotated class attributes in a Python file."""
    tree = ast.parse(path.read_text())
    return {line.target.id for item in tree.body if isinstance(item, ast.ClassDef) for line in item.body
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)}  # fmt: skip
