"""What verl would make of its settings and rows, asked of verl itself; runs inside verl's environment, on the standard
library and what verl brings: `python -P verl_check.py CASES.json ANSWERS.json`.

A case {"entry": "cluster"} asks for the resources of the Ray cluster: {"resources", "problem"}. Any other case is
{"entry": "rl" or "sft", "settings": {full name: value}, "arguments": Hydra's overrides of them, "data": {"train": rows,
"val": rows written}, "cpus": logical CPUs that verl reserves, "room": samples that TransferQueue must hold} and, where
verl's datasets are to be built, "tokenizer": folder, "audited": Parquet of row_id, tokens, ids_hash, "cache": folder.
With "elsewhere" it is trained in another environment: what this one lacks is no problem.

An answer is {"problems": [{"key", "what", "next", "name", "known"}], "lengths": {"train", "val"}, "differing": [text]}.
Of a problem with `known`, `name` is none of these names.
"""

from __future__ import annotations

import difflib
import functools
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# This file is run by its path in an interpreter that may hold another kedge; those beside it come last on its path.
sys.path.append(str(Path(__file__).parent))
import verl_registries as registries
import verl_rows

warnings.filterwarnings("ignore")

CONFIG = {"rl": "ppo_trainer", "sft": "sft_trainer_engine"}
# Sections that take names beyond those of the YAML.
OPEN = ("override_config", "reward_kwargs", "vllm", "sglang", "trtllm", "override_optimizer_config", "ray_init",
        "override_transformer_config", "env_vars", "sampler_kwargs", "kw_args", "apply_chat_template_kwargs",
        "mm_processor_kwargs")  # fmt: skip
ADDED = ("reward_kwargs", "override_config", "override_optimizer_config")  # open sections that the YAML may lack
# Options whose values are of more types than their default.
ANY_TYPE = ("data.train_files", "data.val_files", "trainer.logger", "trainer.save_freq", "trainer.test_freq",
            "algorithm.rollout_correction.rollout_is_threshold", "data.enable_thinking_default",
            "actor_rollout_ref.model.target_modules", "model.target_modules")  # fmt: skip
ONE_BY_ONE = ("gae", "reinforce_plus_plus", "remax", "tir_optimal_token_baseline", "optimal_token_baseline")
Case = dict[str, Any]


@functools.cache
def untouched(config: str) -> Any:
    """verl's configuration without overrides."""
    return composed(config, [])


def composed(config: str, overrides: list[str]) -> Any:
    from hydra import compose, initialize_config_module

    with initialize_config_module(config_module="verl.trainer.config", version_base=None):
        return compose(config_name=config, overrides=overrides)


def leaves(node: Any, before: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

    for name in node:
        full = f"{before}{name}"
        value = node._get_node(name)
        yield full
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            yield from leaves(value, f"{full}.")


def names(case: Case, base: Any, problems: registries.Problems) -> None:
    """Every name is one of verl's YAML or lies in an open section, every value of its default's type."""
    from omegaconf import DictConfig, OmegaConf

    known = list(leaves(base))
    for name, value in case["settings"].items():
        node, parts = base, name.split(".")
        for depth, part in enumerate(parts):
            section = parts[depth - 1] if depth else ""
            if isinstance(node, DictConfig) and part in list(node):  # also where it has no value yet
                node = node._get_node(part)
            elif section in OPEN or part in ADDED or any(item in OPEN for item in parts[:depth]):
                node = None
                break
            else:
                close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
                problems.add(name, "verl has no such option", name=name, known=close or known)
                node = None
                break
        if node is not None and not isinstance(node, DictConfig) and name not in ANY_TYPE:
            default = None if OmegaConf.is_missing(base, name) else OmegaConf.select(base, name)
            if not of_type(value, default):
                problems.add(name, f"{value!r} is no {type(default).__name__}, as verl's default {default!r} is")


def of_type(value: Any, default: Any) -> bool:
    if value is None or default is None or (isinstance(default, str) and isinstance(value, str)):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float) and (isinstance(default, float) or float(value).is_integer() or
                                                   default == 0)  # fmt: skip
    return isinstance(value, list) == (type(default).__name__ in ("ListConfig", "list")) or not isinstance(value, str)


def sizes(case: Case, cfg: Any, problems: registries.Problems) -> None:
    """Batches that do not divide, groups of one, and fewer logical CPUs than verl waits for."""
    actor, generated = cfg.actor_rollout_ref.actor, cfg.actor_rollout_ref.rollout
    batch, mini = cfg.data.train_batch_size, actor.ppo_mini_batch_size
    gpus = cfg.trainer.n_gpus_per_node * cfg.trainer.nnodes
    if mini > batch or batch % mini:
        problems.add("actor_rollout_ref.actor.ppo_mini_batch_size", f"train_batch_size {batch} is no multiple of "
                     f"{mini}", "choose a divisor")  # fmt: skip
    if mini * generated.n % gpus:
        problems.add("actor_rollout_ref.actor.ppo_mini_batch_size", f"{mini} prompts times {generated.n} responses are "
                     f"no multiple of {gpus} GPUs", "choose a multiple")  # fmt: skip
    if cfg.algorithm.adv_estimator not in ONE_BY_ONE and generated.n < 2:
        problems.add("actor_rollout_ref.rollout.n", f"{cfg.algorithm.adv_estimator} compares the responses of a "
                     "prompt, and there is one", "set it to 2 or more")  # fmt: skip
    given = cfg.ray_kwargs.ray_init.num_cpus
    if given is not None and given < case["cpus"]:
        problems.add("ray_kwargs.ray_init.num_cpus", f"verl reserves {case['cpus']} logical CPUs and would wait for "
                     f"ever with {given}", f"remove it, or set at least {case['cpus']}")  # fmt: skip
    storage = cfg.transfer_queue.backend.SimpleStorage
    if storage.total_storage_size < case["room"]:
        problems.add("transfer_queue.backend.SimpleStorage.total_storage_size", f"two steps and a validation are "
                     f"{case['room']:,} samples, and {storage.total_storage_size:,} fit",
                     f"remove it, or set at least {case['room']}")  # fmt: skip


def shared(case: Case, cfg: Any, problems: registries.Problems) -> None:
    from verl.utils.tracking import Tracking

    logger = cfg.trainer.logger
    for name in [logger] if isinstance(logger, str) else logger:
        problems.unknown("trainer.logger", name, Tracking.supported_backend, "logger")
    rows, batch, total = case["data"]["train"], cfg.data.train_batch_size, cfg.trainer.total_training_steps
    steps = rows // batch * cfg.trainer.total_epochs
    if rows < batch:
        problems.add("data.train_batch_size", f"{rows} rows are less than one batch of {batch}, and verl drops the "
                     "last incomplete batch", "choose a smaller one, or train on more rows")  # fmt: skip
    elif total is not None and total > steps:
        problems.add("trainer.total_training_steps", f"verl ends after {cfg.trainer.total_epochs} epochs, which are "
                     f"{steps} steps, and saves nothing at its end then", "raise trainer.total_epochs")  # fmt: skip


def scored(case: Case, cfg: Any, problems: registries.Problems) -> None:
    """There is a reward: a function that can be loaded, or a reward model."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    function = cfg.reward.custom_reward_function
    if function.path:
        problems.tried("reward.custom_reward_function", lambda: get_custom_reward_fn(cfg),
                       "the reward function cannot be loaded")  # fmt: skip
    elif not cfg.reward.reward_model.enable:
        problems.add("reward", "nothing scores the responses: verl would take functions of its own by the name of the "
                     "source", "add rewards to the run, or set reward.custom_reward_function.path")  # fmt: skip


def sft(case: Case, cfg: Any, problems: registries.Problems) -> None:
    from verl.workers.engine import EngineRegistry

    data = cfg.data
    problems.unknown("data.pad_mode", data.pad_mode, ("right", "no_padding"), "padding")
    problems.unknown("data.truncation", data.truncation, ("error", "left", "right"), "truncation of conversations")
    if data.truncation == "left" and data.pad_mode == "no_padding":
        problems.add("data.truncation", "'left' is dead without padding: verl cuts on the right there",
                     "set pad_mode: right, or truncation: right")  # fmt: skip
    engines = EngineRegistry._engines.get("language_model", {})
    problems.unknown("engine.strategy", cfg.engine.strategy, engines, "engine")
    gpus = cfg.trainer.n_gpus_per_node * cfg.trainer.nnodes
    if data.train_batch_size % gpus:
        problems.add("data.train_batch_size", f"{data.train_batch_size} is no multiple of {gpus} GPUs",
                     "choose a multiple")  # fmt: skip


def rl(case: Case, cfg: Any, problems: registries.Problems) -> None:
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    if "data.truncation" in case["settings"]:
        problems.add("data.truncation", "is dead: verl never reads it and keeps the end of a prompt that is too long",
                     "remove it")  # fmt: skip
    for check in (sizes, registries.registered, scored):
        problems.tried(check.__name__, functools.partial(check, case, cfg, problems), "cannot be checked")
    if not problems:
        arguments = {"use_reference_policy": need_reference_policy(cfg), "use_critic": need_critic(cfg)}
        problems.tried("verl", lambda: validate_config(config=cfg, **arguments), "verl refuses its configuration")


def checked(case: Case) -> tuple[registries.Problems, Any]:
    """The problems of one case, and its configuration where it can be composed."""
    problems = registries.Problems()
    base = untouched(CONFIG[case["entry"]])
    names(case, base, problems)
    for name in case["settings"]:
        root = name.partition(".")[0]
        if root in ("custom_reward_function", "reward_model", "sandbox_fusion"):
            problems.add(name, "is where verl read it once: today it is taken and never read",
                         f"write reward.{name}")  # fmt: skip
    wrong = {item["key"] for item in problems}
    taken = [line for name, line in zip(case["settings"], case["arguments"], strict=True) if name not in wrong]
    try:
        cfg = composed(CONFIG[case["entry"]], taken)
    except Exception as error:
        problems.add("verl", f"Hydra cannot compose it: {str(error).strip().splitlines()[0][:300]}")
        return problems, None
    if case["entry"] == "rl":
        registries.modes(cfg, problems)
    case["critic"] = case["entry"] == "rl" and (
        cfg.critic.enable is True or (cfg.critic.enable is None and cfg.algorithm.adv_estimator == "gae"))  # fmt: skip
    for check in (shared, registries.attention, rl if case["entry"] == "rl" else sft):
        problems.tried(check.__name__, functools.partial(check, case, cfg, problems), "cannot be checked")
    return problems, cfg


def cluster() -> dict[str, Any]:
    """What the Ray cluster of this node has."""
    import ray

    try:
        ray.init(address="auto", log_to_driver=False)
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return {"resources": {}, "problem": f"no Ray cluster answers: {said}"}
    return {"resources": ray.cluster_resources(), "problem": ""}


def answer(case: Case) -> dict[str, Any]:
    if case["entry"] == "cluster":
        return cluster()
    problems, cfg = checked(case)
    found: dict[str, Any] = {"problems": problems, "lengths": {}, "differing": []}
    if not problems and "tokenizer" in case:
        found["lengths"], found["differing"] = verl_rows.lengths(case, cfg)
    return found


if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps({name: answer(case) for name, case in cases.items()}))
