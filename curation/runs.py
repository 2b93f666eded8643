"""A run: its file, where it starts from, and what its weights depend on."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

from curation import checkpoints, registry
from curation.catalog import Catalog
from curation.config import load_yaml, shown
from curation.errors import UserError
from curation.fingerprint import fingerprint
from curation.run_files import RunFile

ROLES = ("reference", "teacher", "reward_model")


class Run:
    """A run file with its name, and where it starts from. `origin`, where given, is a checkpoint that takes the place
    of the one that the file names (a rollback)."""

    def __init__(self, catalog: Catalog, name: str, origin: str | None = None):
        self.catalog, self.origin = catalog, origin
        self.path: Path = catalog.project.path("runs", name, ".yaml")
        self.name = self.path.stem
        self.file = load_yaml(self.path, RunFile)
        self.where = shown(self.path)

    @property
    def trainer_name(self) -> str:
        return str(self.file.trainer["name"])

    @property
    def options(self) -> dict[str, Any]:
        """The trainer's options without its name."""
        return {key: value for key, value in self.file.trainer.items() if key != "name"}

    def start(self) -> checkpoints.Checkpoint:
        """The checkpoint that training starts from; a `base` is registered as the run `base-NAME` at step 0."""
        named = self.origin or self.file.parent or self.file.extends
        if named is not None:
            return checkpoints.find(self.catalog, named)
        assert self.file.base is not None
        return checkpoints.register_base(self.catalog, self.file.base)

    def named_roles(self) -> dict[str, str]:
        """The further models that the run file names, by what they are for; several reward models are `reward_model_1`
        and so on, in its order."""
        found: dict[str, str] = {}
        for role in ROLES:
            value = getattr(self.file, role)
            if isinstance(value, str):
                found[role] = value
            elif value is not None:
                found |= {f"{role}_{number}": item for number, item in enumerate(value, 1)}
        return found

    def roles(self) -> dict[str, checkpoints.Checkpoint]:
        """The checkpoints of `named_roles`; a model that is none is registered."""
        return {role: self._model(reference) for role, reference in self.named_roles().items()}

    def reward_models(self) -> list[checkpoints.Checkpoint]:
        """The run's reward models in the order of its file."""
        return [item for role, item in self.roles().items() if role.startswith("reward_model")]

    def _model(self, reference: str) -> checkpoints.Checkpoint:
        try:
            return checkpoints.find(self.catalog, reference)
        except UserError:
            return checkpoints.register_base(self.catalog, reference)

    def model_folder(self) -> Path:
        """A folder with the architecture that is trained: that of the base which the chain of parents starts from, so
        that it is known before the parents are trained; a parent that is no run file's has its own."""
        run, seen = self, {self.name}
        while (named := run.file.parent or run.file.extends) is not None:
            name = named.partition("@")[0]
            if name in seen or name not in self.catalog.project.paths("runs", ".yaml"):
                break
            run = Run(self.catalog, name)
            seen.add(name)
        start = run.start()
        return start.base_folder(self.catalog) or start.folder(self.catalog)

    def tokenizer_reference(self) -> str:
        """Name, folder or hub id of the tokenizer: the run file's, else the one saved with the starting weights."""
        return self.file.tokenizer or str(self.start().folder(self.catalog))

    def template_reference(self) -> str:
        """Name or path of the chat template: the run file's, else the tokenizer's own (`tokenizer`)."""
        return self.file.template or "tokenizer"

    def fingerprint(self, mixture_content: str) -> str:
        """What the trained weights depend on: trainer, options, the mixture's rows (`FrozenMixture.content`), starting
        weights, template, kwargs, rewards with the bytes that they read. Waivers, suite, launcher, monitors and limits
        do not change the weights and are left out. Raises UserError where a reward cannot be made."""
        start = self.start()
        covered = ("trainer", "tokenizer", "template", "template_kwargs", "num_processes", "trust_remote_code")
        more: dict[str, Any] = {role: item.weights_hash for role, item in self.roles().items()}
        if self.file.rewards:
            more["rewards"] = [item.model_dump() for item in self.file.rewards]
            if self.file.reward_failures.value:
                more["failed_reward"] = self.file.reward_failures.value
            if self.reward_bytes:
                more["reward_bytes"] = self.reward_bytes
        if self.file.extends is not None:
            more["extends"] = start.id
        return fingerprint(
            {name: getattr(self.file, name) for name in covered} | more
            | {"mixture": mixture_content, "start": start.weights_hash}
        )  # fmt: skip

    @functools.cached_property
    def reward_bytes(self) -> dict[str, Any]:
        """Hashes of the files that the run's rewards read (the file of a function, the weights of a model by path), by
        the reward's name and place among the rewards, as they were when this was first asked. A file that such a file
        imports is not covered. Raises UserError where a reward cannot be made: it has a wrong option, or its file is
        missing."""
        found: dict[str, Any] = {}
        with contextlib.chdir(self.catalog.project.root):
            for number, item in enumerate(self.file.rewards, 1):
                if item.name == "reward_model" and "path" not in item.options:
                    continue  # the run's own, whose weights are covered as a role
                identity = registry.make("rewards", item.name, item.options, where=self.where).identity()
                read = {name: value for name, value in identity.items() if name not in ("plugin", "version", "config")}
                found |= {f"{item.name}_{number}": read} if read else {}
        return found


def all_runs(catalog: Catalog) -> list[str]:
    """Names of the run files of a project and of runs that exist in its lake only (foreign ones), in name order."""
    known = set(catalog.project.paths("runs", ".yaml")) | {item.run for item in checkpoints.every(catalog)}
    return sorted(name for name in known if not name.startswith("base-"))


def require_known(catalog: Catalog, name: str) -> None:
    """Raises UserError where `name` is neither a run file nor a registered run."""
    from curation.errors import did_you_mean

    if name not in all_runs(catalog):
        raise UserError(f"there is no run '{name}'", did_you_mean(name, all_runs(catalog)))
