"""What an audit knows besides rows and mirror: the model's positions, the template, the trainer's batch."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BATCH = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_generations", "steps_per_generation",
    "generation_batch_size", "num_iterations", "train_batch_size", "n", "ppo_mini_batch_size", "ppo_epochs",
    "ppo_micro_batch_size_per_gpu",
)  # fmt: skip
EXTENDING = ("linear", "dynamic", "yarn", "longrope")  # RoPE scalings whose factor stretches the trained positions


def installed_version(package: str) -> str | None:
    """The installed version of a distribution, None where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True)
class Setting:
    """Where rows are trained. `model` is a folder with config.json (None: unknown), `options` the trainer's own, as the
    run file has them, `num_processes` the devices."""

    model: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    num_processes: int = 1

    def identity(self) -> dict[str, Any]:
        """What of it can change an audit: the model's configuration, torch, attention, and the options of a batch."""
        batch = {name: self.options[name] for name in BATCH if name in self.options}
        attention = (self.options.get("model_init_kwargs") or {}).get("attn_implementation")
        path = None if self.model is None else self.model / "generation_config.json"
        generation = path.read_text() if path is not None and path.is_file() else ""
        return {"generation": generation, "config": json.dumps(self.config, sort_keys=True), "attention": attention,
                "batch": batch, "torch": installed_version("torch"), "num_processes": self.num_processes}  # fmt: skip

    @property
    def config(self) -> dict[str, Any]:
        """The model's config.json; empty where it is unknown."""
        path = None if self.model is None else self.model / "config.json"
        if path is None or not path.is_file():
            return {}
        value: dict[str, Any] = json.loads(path.read_text())
        return value | value.get("text_config", {})

    @property
    def positions(self) -> int | None:
        """Tokens that the model can attend to; None where its configuration does not say."""
        return positions_of(self.config)


def positions_of(config: dict[str, Any]) -> int | None:
    """`max_position_embeddings` times the RoPE scaling of a config.json. A scaling that names the positions it starts
    from (`original_max_position_embeddings`) stretches those; `llama3` scaling is already counted in."""
    stated = config.get("max_position_embeddings") or config.get("n_positions")
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if stated is None or kind not in EXTENDING or not scaling.get("factor"):
        return None if stated is None else int(stated)
    base = scaling.get("original_max_position_embeddings", stated)
    return max(int(stated), int(base * scaling["factor"]))
