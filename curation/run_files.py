"""Run files: what is trained, from what, on what, under which limits.

The audit, the trainers and the harness all read this one file. The trainer's own options stay a mapping here; the
trainer plug-in and the mirror of the same name each check the part they understand.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from curation.config import Strict


class Waiver(Strict):
    """A failed audit check that its owner accepts: bound to the value seen, with a reason, lapsing when it worsens."""

    check: str
    value: float
    reason: str = Field(min_length=10)


class Named(BaseModel):
    """A plug-in or rule by name with its own options beside: `{name: ..., option: ...}`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Everything beside the declared keys."""
        return dict(self.model_extra or {})


class RewardUse(Named):
    """One component of the reward of an RL run."""

    weight: float = 1.0


class RewardFailures(Strict):
    """What a reward that raises, hangs or returns no number does to an RL run. The component counts as `value` in that
    rollout; one that fails for more than `max_share` of a batch, or of the last 64 rollouts, ends the run (from 8
    rollouts on). `wall_seconds` is what a component may take for up to 16 rollouts, which are asked one by one where
    it takes longer."""

    value: float = Field(default=0.0, allow_inf_nan=False)
    max_share: float = Field(default=0.5, ge=0, le=1)
    wall_seconds: float = Field(default=60.0, gt=0)

    def settings(self) -> dict[str, float]:
        """As the client of the reward services takes them."""
        return {"failed_value": self.value, "max_failure_share": self.max_share, "wall_seconds": self.wall_seconds}


class MonitorUse(Named):
    """A monitor of the run: what it does when it trips, and a shell command that is then run."""

    level: Literal["warn", "stop", "off"] = "warn"
    command: str | None = None


class Keep(Strict):
    """Which checkpoints keep their weights: the `last` ones, those at multiples of `every` steps, and the best by a
    benchmark's metric (`BENCHMARK` or `BENCHMARK:METRIC`). Those that something else needs are kept in any case."""

    last: int = Field(default=1, ge=1)
    every: int | None = Field(default=None, ge=1)
    best: str | None = None


class Launcher(Strict):
    """Where the training process runs. `local`: here. `slurm`: through `sbatch --wait`, with `options` as its
    directives (`partition: gpu`). `command`: behind the words of `prefix` (`[srun, --gpus=8]`)."""

    kind: Literal["local", "slurm", "command"] = "local"
    prefix: list[str] = []
    options: dict[str, str | int] = {}


class RunFile(Strict):
    """`catalogs/runs/NAME.yaml`.

    Exactly one of `base` (a model folder or hub id), `parent` (a checkpoint: `RUN` for its last, `RUN@STEP`, or a tag)
    and `extends` (a run whose last checkpoint, with the optimiser's state, is trained on for more steps or epochs) is
    given. `tokenizer` and `template` default to the base's own; a template other than the parent's needs
    `template_change: extends`. `trainer` is `{name: ..., option: ...}` in the trainer's own option names. `suite` names
    the benchmarks that judge it. `rewards` are the components of an RL run's reward and `reward_failures` what becomes
    of a failing one; `reference`, `teacher` and `reward_model` are checkpoints or model folders that a trainer needs
    beside the policy. Several reward models are an ensemble (see the reward `reward_model`).
    """

    trainer: dict[str, Any]
    mixture: str
    base: str | None = None
    parent: str | None = None
    extends: str | None = None
    tokenizer: str | None = None
    template: str | None = None
    template_kwargs: dict[str, Any] = {}
    suite: str | None = None
    waivers: list[Waiver] = []
    launcher: Launcher = Launcher()
    rewards: list[RewardUse] = []
    reward_failures: RewardFailures = RewardFailures()
    monitors: list[MonitorUse] = []
    keep: Keep | None = None
    template_change: Literal["none", "extends"] = "none"
    reference: str | None = None
    teacher: str | None = None
    reward_model: str | Annotated[list[str], Field(min_length=1)] | None = None
    num_processes: int = Field(default=1, ge=1)
    max_hours: float | None = Field(default=None, gt=0)
    trust_remote_code: bool = False

    @field_validator("launcher", mode="before")
    @classmethod
    def _by_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_origin(self) -> RunFile:
        if sum(item is not None for item in (self.base, self.parent, self.extends)) != 1:
            raise ValueError("name exactly one of 'base', 'parent' and 'extends'; base is a model, parent a checkpoint "
                             "of a run, extends a run to train on")  # fmt: skip
        if "name" not in self.trainer:
            raise ValueError("trainer has no 'name'; for example: trainer: {name: trl_sft}")
        return self
