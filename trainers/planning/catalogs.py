"""What plans reckon with: devices and their utilisation (hardware.yaml), and published settings (practices.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, RootModel

from curation.config import SHIPPED, Project, Strict, parse, read_text, read_yaml, shown
from curation.errors import Problem, UserError, did_you_mean
from trainers.planning.steps import Settings
from trainers.planning.work import Decoding, Device

TOLERANCE = 1e-9
LABELS = {"learning_rate": "the learning rate", "beta": "beta", "epochs": "the number of epochs",
          "group_size": "the group size", "temperature": "the rollout temperature"}  # fmt: skip


class Sourced(Strict):
    """A share with where it is from."""

    value: float = Field(gt=0, le=1)
    source: str = Field(min_length=5)


class DeviceEntry(Strict):
    """One accelerator of hardware.yaml."""

    bf16_flops: float = Field(gt=0)
    memory_bytes: float = Field(gt=0)
    bandwidth_bytes: float = Field(gt=0)
    dollars_per_hour: float = Field(ge=0)
    source: str = Field(min_length=5)


class Measured(Strict):
    """Seconds per step that a run took."""

    device: str
    seconds_per_step: float = Field(gt=0)
    num_devices: int = Field(default=1, ge=1)
    source: str = Field(min_length=3)


class HardwareFile(Strict):
    """catalogs/hardware.yaml: the shipped one, with a project's own laid over it by name."""

    devices: dict[str, DeviceEntry]
    utilisation: dict[str, Sourced]
    generation: dict[str, Sourced]
    measured: dict[str, Measured] = {}

    def device(self, name: str) -> Device:
        """A device's figures."""
        entry = self.devices[name]
        return Device(entry.bf16_flops, entry.memory_bytes, entry.bandwidth_bytes, entry.dollars_per_hour)

    @property
    def decoding(self) -> Decoding:
        """What generation reaches."""
        return Decoding(**{name: item.value for name, item in self.generation.items() if name != "completion_share"})


class Practice(Strict):
    """One setting of a stage as published; `published` names each source and its value. `method`, `trainers` and
    `losses` narrow it."""

    stages: list[Literal["midtrain", "sft", "preference", "rlvr"]]
    setting: Literal["learning_rate", "beta", "epochs", "group_size", "temperature"]
    published: dict[str, float] = Field(min_length=1)
    method: Literal["full", "lora"] | None = None
    trainers: list[str] | None = None
    losses: list[str] | None = None

    def concerns(self, stage: str, trainer: str, settings: Settings) -> bool:
        """Whether it is about a run of a stage."""
        return (stage in self.stages and self.method in (None, settings.method)
                and (self.trainers is None or trainer in self.trainers)
                and (self.losses is None or settings.loss in self.losses))  # fmt: skip

    def warning(self, settings: Settings) -> str | None:
        """What is unusual about the run's value; None where it lies within what is published, ends included."""
        value = getattr(settings, self.setting)
        low, high = min(self.published.values()), max(self.published.values())
        if value is None or low - TOLERANCE * abs(low) <= value <= high + TOLERANCE * abs(high):
            return None
        nearest = min(self.published, key=lambda name: abs(self.published[name] - value))
        published = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        return (f"{LABELS[self.setting]} {value:g} lies outside of what is published, {published} (nearest: {nearest}, "
                f"{self.published[nearest]:g})")  # fmt: skip


class PracticeFile(RootModel[dict[str, Practice]]):
    """catalogs/practices.yaml by name."""


@dataclass(frozen=True)
class PlanCatalogs:
    """Both files."""

    hardware: HardwareFile
    practices: dict[str, Practice]


def load(project: Project) -> PlanCatalogs:
    """The shipped files under a project's own. Raises UserError with everything that is wrong in a project's files."""
    hardware = parse(HardwareFile, *_laid_over(project, "hardware.yaml"))
    known = hardware.devices
    problems = [Problem(f"'{item.device}' is no device", did_you_mean(item.device, known), key=f"measured.{run}")
                for run, item in hardware.measured.items() if item.device not in hardware.devices]  # fmt: skip
    if problems:
        raise UserError(problems)
    value, lines, where = _laid_over(project, "practices.yaml")
    return PlanCatalogs(hardware, parse(PracticeFile, value, lines, where).root)


def _laid_over(project: Project, name: str) -> tuple[Any, Any, str]:
    """(value, lines, file) of a shipped YAML file with a project's own laid over it, two levels deep."""
    value, lines = read_yaml(read_text(SHIPPED / name), name)
    own: Path = project.catalogs / name
    if not own.is_file() or own.resolve() == (SHIPPED / name).resolve():
        return value, lines, name
    given, lines = read_yaml(read_text(own), shown(own))
    if not isinstance(given, dict | None):
        raise UserError("must be a mapping of keys to values", where=f"{shown(own)}:1")
    for key, item in (given or {}).items():
        both = isinstance(item, dict) and isinstance(value.get(key), dict)
        merged = {inner: {**(value[key].get(inner) or {}), **of} if isinstance(of, dict) and isinstance(
            value[key].get(inner), dict) else of for inner, of in item.items()} if both else {}  # fmt: skip
        value[key] = {**value[key], **merged} if both else item
    return value, lines, shown(own)


def warnings(practices: dict[str, Practice], stage: str, trainer: str, settings: Settings) -> list[str]:
    """What is unusual about a run, in the order of the file."""
    of = [item.warning(settings) for item in practices.values() if item.concerns(stage, trainer, settings)]
    return [text for text in of if text is not None]
