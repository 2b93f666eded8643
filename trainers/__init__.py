"""Thin wrappers around trainers: a run file becomes the framework's own configuration and its own trainer runs."""

from __future__ import annotations

import shlex
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from curation.errors import UserError
from curation.launching import COMMAND_PID, model_environment
from curation.registry import Plugin
from curation.run_files import Launcher


@dataclass(frozen=True)
class Launch:
    """What a trainer gets: a job file with everything the training process needs, its log, the number of processes,
    and where the process runs."""

    job: Path
    log: Path
    num_processes: int
    launcher: Launcher = field(default_factory=Launcher)

    def environment(self, settings: dict[str, str] | None = None) -> dict[str, str]:
        """The environment of the process. Behind a launcher it may run on another host, where this command's process
        id means nothing."""
        found = model_environment(settings)
        if self.launcher.kind != "local":
            found.pop(COMMAND_PID)
        return found

    def wrapped(self, command: list[str]) -> list[str]:
        """The command as the launcher starts it; for Slurm a script beside the job, which `sbatch --wait` runs."""
        if self.launcher.kind == "slurm":
            script = self.job.with_name("submit.sbatch")
            script.write_text(self.sbatch(command))
            return ["sbatch", "--wait", str(script)]
        return [*self.launcher.prefix, *command]

    def sbatch(self, command: list[str]) -> str:
        """The Slurm script of a command."""
        directives = {"job-name": f"kedge-{self.job.parent.parent.name}", "output": str(self.log),
                      "open-mode": "append"} | self.launcher.options  # fmt: skip
        lines = [f"#SBATCH --{name}={value}" for name, value in directives.items()]
        return "\n".join(["#!/bin/bash", *lines, shlex.join([*self.launcher.prefix, *command]), ""])


# What a run file may name beside weights and rows, and what to write where a trainer needs it.
EXTRAS = dict.fromkeys(("reference", "teacher", "reward_model"), "name a checkpoint or a model folder") | {
    "rewards": "add at least: rewards: [{name: answer}]"
}


class Trainer(Plugin):
    """A trainer. Its fields are the options of the framework's own configuration, in its names. `uses` are the keys of
    EXTRAS that it does something with, `needs` those without which it cannot start; a run with another is refused."""

    kind: ClassVar[str] = "trainers"
    uses: ClassVar[frozenset[str]] = frozenset(EXTRAS)
    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The framework's own options, without what kedge sets."""

    def prepare(self, job: dict[str, Any]) -> None:
        """What must be checked or written before the process starts, in the run's folder. Raises UserError."""

    def bundle(self, job: dict[str, Any], folder: Path) -> None:
        """Write what runs the job elsewhere into `folder`: rows, configuration, command, requirements."""
        raise UserError(f"{self.plugin_name()} has no bundle", "train it here")

    @abstractmethod
    def command(self, launch: Launch) -> list[str]:
        """The command line of the training process."""

    @abstractmethod
    def launch(self, launch: Launch) -> int:
        """Run the training process to its end and return its exit code (0, 1, or 4 where what it prepared is not what
        was audited)."""
