"""Names that verl looks up in a registry of its own once it is too late; runs inside verl's environment, for
verl_check.py."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from typing import Any

Case = dict[str, Any]
ENGINES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt_llm"}


class Problems(list[dict[str, Any]]):
    """Problems of one case."""

    def add(self, key: str, what: str, next: str = "", name: Any = "", known: Iterable[Any] = ()) -> None:
        self.append({"key": key, "what": what, "next": next, "name": str(name), "known": sorted(map(str, known))})

    def unknown(self, key: str, value: Any, known: Iterable[Any], what: str) -> None:
        if value not in known:
            self.add(key, f"verl has no {what} '{value}'", name=value, known=known)

    def tried(self, key: str, call: Callable[[], Any], what: str) -> None:
        """Add what `call` raises."""
        try:
            call()
        except BaseException as error:
            said = " ".join(str(error).split()) or type(error).__name__
            self.add(key, f"{what}: {said[:400]}")


def registered(case: Case, cfg: Any, problems: Problems) -> None:
    """Names that verl looks up in a registry of its own, once it is too late."""
    import verl.experimental.reward_loop.reward_manager  # noqa: F401  fills its registry
    import verl.trainer.ppo.v1.trainer_base as v1
    from verl.experimental.reward_loop.reward_manager.registry import REWARD_MANAGER
    from verl.trainer.ppo import core_algos
    from verl.workers.engine import EngineRegistry

    actor, algorithm = cfg.actor_rollout_ref.actor, cfg.algorithm
    problems.unknown("actor_rollout_ref.actor.policy_loss.loss_mode", actor.policy_loss.loss_mode,
                     core_algos.POLICY_LOSS_REGISTRY, "policy loss")  # fmt: skip
    estimators = [str(getattr(name, "value", name)) for name in core_algos.ADV_ESTIMATOR_REGISTRY]
    problems.unknown("algorithm.adv_estimator", algorithm.adv_estimator, estimators, "advantage estimator")
    manager = cfg.reward.reward_manager
    problems.unknown("reward.reward_manager.source", manager.source, ("register", "importlib"), "source")
    if manager.source == "register":
        problems.unknown("reward.reward_manager.name", manager.name, REWARD_MANAGER, "reward manager")
    problems.unknown("trainer.v1.trainer_mode", cfg.trainer.v1.trainer_mode, v1.TRAINER_REGISTRY, "trainer")
    engines = EngineRegistry._engines.get("language_model", {})
    problems.unknown("actor_rollout_ref.actor.strategy", actor.strategy, engines, "engine")
    if case["critic"]:
        problems.unknown("critic.strategy", cfg.critic.strategy, engines, "engine")
    for key, name in (("actor_rollout_ref.actor.kl_loss_type", actor.kl_loss_type),
                      ("algorithm.kl_penalty", algorithm.kl_penalty)):  # fmt: skip
        estimator(key, str(name), core_algos, problems)
    problems.tried("algorithm.kl_ctrl", lambda: core_algos.get_kl_controller(algorithm.kl_ctrl),
                   f"verl cannot control the KL term by '{algorithm.kl_ctrl.type}'")  # fmt: skip
    rollout(case, cfg, problems)
    correction(cfg, problems)


def estimator(key: str, name: str, core_algos: Any, problems: Problems) -> None:
    import torch

    zero = torch.zeros(1)
    try:
        core_algos.kl_penalty_forward(zero, zero, name.removesuffix("+"))
    except NotImplementedError:
        known = ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3")
        problems.add(key, f"verl has no estimator of the KL divergence '{name}'", name=name, known=known)


def rollout(case: Case, cfg: Any, problems: Problems) -> None:
    import verl
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY

    key, name = "actor_rollout_ref.rollout.name", cfg.actor_rollout_ref.rollout.get("name")
    known = [engine for engine, _ in _ROLLOUT_REGISTRY]
    if name == "hf":
        problems.add(key, "verl has no rollout 'hf' any more", f"use {' or '.join(known)}")
    elif name is None:
        problems.add(key, "is missing", f"use {' or '.join(known)}")
    elif name not in known:
        problems.unknown(key, name, known, "rollout")
    elif not case.get("elsewhere") and importlib.util.find_spec(ENGINES.get(name, "verl")) is None:
        step = f"install it there: {sys.executable} -m pip install 'verl[{name}]=={verl.__version__}'"
        problems.add(key, f"{name} is not installed in verl's environment", step)


def correction(cfg: Any, problems: Problems) -> None:
    from verl.trainer.ppo import rollout_corr_helper as helper

    given, key = cfg.algorithm.rollout_correction, "algorithm.rollout_correction"
    problems.unknown(f"{key}.rollout_is", given.rollout_is, (None, "token", "sequence"), "importance sampling")
    problems.unknown(f"{key}.loss_type", given.loss_type, ("ppo_clip", "reinforce"), "loss of the bypass mode")
    if given.rollout_is is not None:
        threshold = given.rollout_is_threshold
        problems.tried(f"{key}.rollout_is_threshold", lambda: helper._parse_rollout_is_threshold(threshold),
                       f"{threshold!r} is no threshold")  # fmt: skip
    if given.rollout_rs is not None:
        chosen = [name.strip() for name in str(given.rollout_rs).split(",")]
        for name in chosen:
            problems.unknown(f"{key}.rollout_rs", name, helper.SUPPORTED_ROLLOUT_RS_OPTIONS, "rejection sampling")
        threshold = given.rollout_rs_threshold
        if helper.SUPPORTED_ROLLOUT_RS_OPTIONS.issuperset(chosen):
            problems.tried(f"{key}.rollout_rs_threshold",
                           lambda: helper._parse_rollout_rs_thresholds(chosen, threshold),
                           f"{threshold!r} is no threshold of {given.rollout_rs}")  # fmt: skip
    corrected = given.rollout_is is not None or given.rollout_rs is not None or given.bypass_mode
    if corrected and not cfg.actor_rollout_ref.rollout.calculate_log_probs:
        problems.add("actor_rollout_ref.rollout.calculate_log_probs", "rollout correction compares with the "
                     "probabilities of the rollout, which are not kept", "set it to true")  # fmt: skip


def modes(cfg: Any, problems: Problems) -> None:
    """How losses are averaged, asked of the class that refuses unknown names."""
    from verl.workers.config import ActorConfig

    def accepted(name: str) -> bool:
        try:
            ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, loss_agg_mode=name)
        except ValueError:
            return False
        return True

    mode = cfg.actor_rollout_ref.actor.loss_agg_mode
    if not accepted(mode):
        levels = ("token", "seq-mean-token", "seq-sum-token")
        ways = [f"{level}-{way}" for level in levels for way in ("mean", "sum", "sum-norm")]
        problems.add("actor_rollout_ref.actor.loss_agg_mode", f"verl has no aggregation '{mode}'", name=mode,
                     known=filter(accepted, ways))  # fmt: skip


def attention(case: Case, cfg: Any, problems: Problems) -> None:
    """verl loads models under FlashAttention 2 unless it is told otherwise, and a critic under nothing else."""
    from verl.plugin.platform import get_platform

    if case.get("elsewhere"):
        return
    if get_platform().vendor_name != "nvidia" or importlib.util.find_spec("flash_attn") is not None:
        return
    install = f"{sys.executable} -m pip install flash-attn --no-build-isolation"
    model = "actor_rollout_ref.model" if case["entry"] == "rl" else "model"
    given = case["settings"].get(f"{model}.override_config.attn_implementation", "flash_attention_2")
    if given == "flash_attention_2":
        problems.add(f"{model}.override_config.attn_implementation", "verl takes flash_attention_2, which is not "
                     "installed in its environment", f"set it to sdpa, or: {install}")  # fmt: skip
    if case["critic"] and str(cfg.critic.strategy).startswith("fsdp"):
        problems.add("critic", "verl loads a critic under flash_attention_2 alone, which is not installed in its "
                     "environment", install)  # fmt: skip
