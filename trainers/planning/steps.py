"""Steps, batches and settings of a run, as its trainer counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from curation import registry
from curation.auditing.rl_signal import GRPOBatch
from curation.errors import UserError
from curation.runs import Run

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
# Defaults of TRL 1.16 and verl 0.9.1 for options that kedge's wrappers do not declare (held by tests).
TRL_DEFAULTS: dict[str, Any] = {"gradient_accumulation_steps": 1, "gradient_checkpointing": False, "num_iterations": 1,
                                "steps_per_generation": None, "generation_batch_size": None}  # fmt: skip
TRL_BETA = {"trl_rloo": 0.05}
VERL_DEFAULTS: dict[str, Any] = {
    "data.train_batch_size": 1024, "data.max_response_length": 512, "trainer.total_epochs": 30,
    "trainer.total_training_steps": None, f"{ROLLOUT}.n": 1, f"{ROLLOUT}.temperature": 1.0,
    f"{ACTOR}.optim.lr": 1e-6, f"{ACTOR}.use_kl_loss": False, f"{ACTOR}.kl_loss_coef": 0.001, f"{ACTOR}.ppo_epochs": 1,
    "algorithm.use_kl_in_reward": False, "algorithm.kl_ctrl.kl_coef": 0.001, "algorithm.adv_estimator": "gae",
    "actor_rollout_ref.model.enable_gradient_checkpointing": True, "actor_rollout_ref.model.lora_rank": 0,
}  # fmt: skip
VERL_SFT_DEFAULTS: dict[str, Any] = {
    "data.train_batch_size": 256, "trainer.total_epochs": 4, "trainer.total_training_steps": None, "optim.lr": 1e-3,
    "model.enable_gradient_checkpointing": True, "model.lora_rank": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What a plan needs of a trainer's options. `batch` counts examples behind one update (of RL: prompts behind one
    generation, with `updates` optimiser steps each), `max_steps` is None where epochs decide, `scoring_passes` are
    forward passes over every sample of RL, `whole_batches` says that the last incomplete batch is not trained."""

    method: str
    epochs: float
    batch: int
    max_steps: int | None = None
    learning_rate: float | None = None
    loss: str | None = None
    beta: float | None = None
    group_size: int | None = None
    temperature: float | None = None
    completion_limit: int | None = None
    updates: float = 1.0
    iterations: float = 1.0
    scoring_passes: int = 0
    critic: bool = False
    recomputed: bool = False
    reference: bool = False
    whole_batches: bool = False

    def steps(self, examples: int) -> int:
        """Optimiser steps over `examples` an epoch (rows or bins; pairs; prompts). TRL's last batch of an epoch may be
        smaller, verl's and those of generations are left out."""
        if self.max_steps is not None:
            return self.max_steps
        if self.whole_batches:
            return math.ceil(self.epochs * math.floor(examples // self.batch * self.updates))
        return math.ceil(self.epochs * -(-examples // self.batch))

    def passes(self, examples: int) -> float:
        """Epochs that those steps make."""
        if self.max_steps is None:
            return self.epochs
        return self.max_steps / self.updates * self.batch / max(1, examples)


def settings_of(run: Run) -> Settings:
    """The settings of a run file. Raises UserError for a trainer that is not foreseen or options it refuses."""
    name = run.trainer_name
    if name.startswith("trl_"):
        cls = registry.load("trainers", name, where=run.where)
        declared = {key: item.get_default() for key, item in cls.model_fields.items()}
        try:
            return trl_settings(name, TRL_DEFAULTS | declared | run.options, run.file.num_processes)
        except UserError as error:
            raise UserError([replace(item, where=run.where) for item in error.problems]) from None
    if name.startswith("verl_"):
        made: Any = registry.make("trainers", name, run.options, where=run.where)
        return verl_settings(name, made.config())
    raise UserError(f"no plan is foreseen for the trainer '{name}'", "plan with a trl_* or verl_* trainer",
                    where=run.where, key="trainer.name")  # fmt: skip


def trl_settings(name: str, options: dict[str, Any], num_processes: int) -> Settings:
    """Of one of TRL's trainers, whose options are given with their defaults."""
    limit = int(options["max_steps"])
    loss = options.get("loss_type")
    given: dict[str, Any] = {
        "method": "lora" if options.get("lora") else "full", "epochs": float(options["num_train_epochs"]),
        "max_steps": limit if limit > 0 else None, "learning_rate": options.get("learning_rate"),
        "loss": loss if isinstance(loss, str) else "+".join(loss) if loss else None,
        "recomputed": bool(options["gradient_checkpointing"]),
    }  # fmt: skip
    device, steps = int(options["per_device_train_batch_size"]), int(options["gradient_accumulation_steps"])
    if name not in ("trl_grpo", "trl_rloo"):
        beta = options.get("beta") if name in ("trl_dpo", "trl_kto") else None
        reference = name in ("trl_dpo", "trl_kto", "trl_distillation")  # the teacher scores as a reference does
        return Settings(**given, batch=device * steps * num_processes, beta=beta, reference=reference)
    batch = GRPOBatch(per_device_train_batch_size=device, gradient_accumulation_steps=steps,
                      num_processes=num_processes, num_generations=int(options["num_generations"]),
                      steps_per_generation=options["steps_per_generation"],
                      generation_batch_size=options["generation_batch_size"],
                      num_iterations=int(options["num_iterations"]))  # fmt: skip
    if problems := batch.problems():
        raise UserError(problems)
    beta = float(options.get("beta", TRL_BETA.get(name, 0.0)))
    off_policy = batch.updates_per_generation > 1 or batch.derived[1] % steps
    return Settings(**given, batch=int(batch.prompts_per_generation), beta=beta, group_size=batch.num_generations,
                    temperature=options.get("temperature", 1.0), whole_batches=True,
                    completion_limit=int(options["max_completion_length"]),
                    updates=float(batch.updates_per_generation), iterations=float(batch.num_iterations),
                    scoring_passes=int(beta != 0) + int(bool(off_policy) or name == "trl_rloo"))  # fmt: skip


def verl_settings(name: str, options: dict[str, Any]) -> Settings:
    """Of verl's trainers, whose options are given under their full names."""
    if name == "verl_sft":
        of = VERL_SFT_DEFAULTS | options
        return Settings(method="lora" if of["model.lora_rank"] else "full", epochs=float(of["trainer.total_epochs"]),
                        batch=int(of["data.train_batch_size"]), max_steps=of["trainer.total_training_steps"],
                        learning_rate=float(of["optim.lr"]), recomputed=bool(of["model.enable_gradient_checkpointing"]),
                        whole_batches=True)  # fmt: skip
    of = VERL_DEFAULTS | options
    in_loss, in_reward = bool(of[f"{ACTOR}.use_kl_loss"]), bool(of["algorithm.use_kl_in_reward"])
    beta = of[f"{ACTOR}.kl_loss_coef"] if in_loss else of["algorithm.kl_ctrl.kl_coef"] if in_reward else 0.0
    return Settings(
        method="lora" if of["actor_rollout_ref.model.lora_rank"] else "full", epochs=float(of["trainer.total_epochs"]),
        batch=int(of["data.train_batch_size"]), max_steps=of["trainer.total_training_steps"],
        learning_rate=float(of[f"{ACTOR}.optim.lr"]), beta=float(beta), group_size=int(of[f"{ROLLOUT}.n"]),
        temperature=float(of[f"{ROLLOUT}.temperature"]), completion_limit=int(of["data.max_response_length"]),
        iterations=float(of[f"{ACTOR}.ppo_epochs"]), scoring_passes=1 + int(in_loss or in_reward),
        critic=of["algorithm.adv_estimator"] == "gae", whole_batches=True,
        recomputed=bool(of["actor_rollout_ref.model.enable_gradient_checkpointing"]),
    )  # fmt: skip
