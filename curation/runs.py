"""Run files: what is trained, from what, on what, under which limits.

The audit, the trainers and the harness all read this one file. The trainer's own options stay a mapping here; the
trainer plug-in and the mirror of the same name each check the part they understand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from curation import checkpoints
from curation.catalog import Catalog
from curation.config import Strict, load_yaml, shown
from curation.errors import UserError
from curation.fingerprint import fingerprint


class Waiver(Strict):
    """A failed audit check that its owner accepts: bound to the value seen, with a reason, lapsing when it worsens."""

    check: str
    value: float
    reason: str = Field(min_length=10)


class RunFile(Strict):
    """`catalogs/runs/NAME.yaml`.

    `base` is a model folder or hub id, `parent` a checkpoint (`RUN` for its last, `RUN@STEP`, or a tag); exactly one
    is given. `tokenizer` and `template` default to the base's own. `trainer` is `{name: ..., option: ...}` in the
    trainer's own option names. `suite` names the benchmarks that judge it.
    """

    trainer: dict[str, Any]
    mixture: str
    base: str | None = None
    parent: str | None = None
    tokenizer: str | None = None
    template: str | None = None
    template_kwargs: dict[str, Any] = {}
    suite: str | None = None
    waivers: list[Waiver] = []
    launcher: str = "local"
    num_processes: int = Field(default=1, ge=1)
    max_hours: float | None = Field(default=None, gt=0)
    trust_remote_code: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> RunFile:
        if (self.base is None) == (self.parent is None):
            raise ValueError("name exactly one of 'base' and 'parent'; base is a model, parent a checkpoint of a run")
        if "name" not in self.trainer:
            raise ValueError("trainer has no 'name'; for example: trainer: {name: trl_sft}")
        return self


class Run:
    """A run file with its name, and where it starts from."""

    def __init__(self, catalog: Catalog, name: str):
        self.catalog = catalog
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
        if self.file.parent is not None:
            return checkpoints.find(self.catalog, self.file.parent)
        assert self.file.base is not None
        return checkpoints.register_base(self.catalog, self.file.base)

    def model_folder(self) -> Path:
        """A folder with the architecture that is trained: that of the base which the chain of parents starts from, so
        that it is known before the parents are trained; a parent that is no run file's has its own."""
        run, seen = self, {self.name}
        while run.file.parent is not None:
            name = run.file.parent.partition("@")[0]
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

    def fingerprint(self, mixture_fingerprint: str) -> str:
        """What the trained weights depend on: trainer, options, mixture, starting weights, template, kwargs. Waivers,
        suite, launcher and limits do not change the weights and are left out."""
        start = self.start()
        covered = ("trainer", "tokenizer", "template", "template_kwargs", "num_processes", "trust_remote_code")
        return fingerprint(
            {name: getattr(self.file, name) for name in covered}
            | {"mixture": mixture_fingerprint, "start": start.weights_hash}
        )


def all_runs(catalog: Catalog) -> list[str]:
    """Names of the run files of a project and of runs that exist in its lake only (foreign ones), in name order."""
    known = set(catalog.project.paths("runs", ".yaml")) | {item.run for item in checkpoints.every(catalog)}
    return sorted(name for name in known if not name.startswith("base-"))


def require_known(catalog: Catalog, name: str) -> None:
    """Raises UserError where `name` is neither a run file nor a registered run."""
    from curation.errors import did_you_mean

    if name not in all_runs(catalog):
        raise UserError(f"there is no run '{name}'", did_you_mean(name, all_runs(catalog)))
