"""Thin wrappers around trainers: a run file becomes the framework's own configuration and its own trainer runs."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from curation.registry import Plugin


@dataclass(frozen=True)
class Launch:
    """What a trainer gets: a job file with everything the training process needs, its log, the number of processes and
    whether the launcher's command is only to be returned."""

    job: Path
    log: Path
    num_processes: int


class Trainer(Plugin):
    """A trainer. Its fields are the options of the framework's own configuration, in its names."""

    kind: ClassVar[str] = "trainers"

    @abstractmethod
    def command(self, launch: Launch) -> list[str]:
        """The command line of the training process."""

    @abstractmethod
    def launch(self, launch: Launch) -> int:
        """Run the training process to its end and return its exit code (0, 1, or 4 where what it prepared is not what
        was audited)."""
