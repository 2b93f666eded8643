"""verl's reinforcement learning (`verl.trainer.main_ppo`): GRPO, GSPO, SAPO, DAPO, PPO with a critic, ..."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from curation.auditing.mirrors import verl_rl
from curation.errors import did_you_mean
from trainers._verl import RESERVED, VerlTrainer

ACTOR = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
CORRECTION = "algorithm.rollout_correction"
# What group-relative methods share. The number of responses of a prompt is TRL's default: papers use 8 to 64.
GROUPS = {"algorithm.adv_estimator": "grpo", f"{ROLLOUT}.n": 8, f"{ACTOR}.use_kl_loss": False,
          "algorithm.use_kl_in_reward": False}  # fmt: skip

# Each in verl's own keys; explicit options of the run win.
PRESETS: dict[str, dict[str, Any]] = {
    # arXiv 2402.03300: the mean over tokens, then over responses; rewards over the deviation of their group; a KL term
    # in the loss (the paper's coefficient is 0.04; verl's examples use 0.001).
    "grpo": GROUPS | {"algorithm.norm_adv_by_std_in_grpo": True, f"{ACTOR}.policy_loss.loss_mode": "vanilla",
                      f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean", f"{ACTOR}.use_kl_loss": True,
                      f"{ACTOR}.kl_loss_coef": 0.001, f"{ACTOR}.kl_loss_type": "low_var_kl"},
    # arXiv 2507.18071, section 5: the ratio of a whole response, clipped at 3e-4 and 4e-4.
    "gspo": GROUPS | {f"{ACTOR}.policy_loss.loss_mode": "gspo", f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean",
                      f"{ACTOR}.clip_ratio_low": 3e-4, f"{ACTOR}.clip_ratio_high": 4e-4},
    # arXiv 2511.20347: a soft gate in the place of clipping, tighter for negative advantages.
    "sapo": GROUPS | {f"{ACTOR}.policy_loss.loss_mode": "sapo", f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean",
                      f"{ACTOR}.tau_pos": 1.0, f"{ACTOR}.tau_neg": 1.05},
    # arXiv 2503.14476: clip-higher, the mean over all tokens, groups without variance drawn again, a penalty for long
    # responses (over the last fifth of max_response_length, the paper's 4,096 of 20,480 tokens), no KL.
    "dapo": GROUPS | {f"{ACTOR}.policy_loss.loss_mode": "vanilla", f"{ACTOR}.loss_agg_mode": "token-mean",
                      f"{ACTOR}.clip_ratio_low": 0.2, f"{ACTOR}.clip_ratio_high": 0.28, f"{ACTOR}.clip_ratio_c": 10.0,
                      f"{ROLLOUT}.n": 16, "algorithm.filter_groups.enable": True,
                      "algorithm.filter_groups.metric": "acc", "reward.reward_manager.name": "dapo",
                      "reward.reward_kwargs.overlong_buffer_cfg.enable": True,
                      "reward.reward_kwargs.overlong_buffer_cfg.penalty_factor": 1.0,
                      "reward.reward_kwargs.overlong_buffer_cfg.log": True},
    # arXiv 2512.01374: rewards minus the mean of their group, the sum over tokens, clipping against the policy before
    # the step, and each token weighted by training over rollout probability, truncated at 5.
    "minirl": GROUPS | {"algorithm.norm_adv_by_std_in_grpo": False, f"{ACTOR}.policy_loss.loss_mode": "vanilla",
                        f"{ACTOR}.loss_agg_mode": "seq-mean-token-sum", f"{ACTOR}.clip_ratio_low": 0.2,
                        f"{ACTOR}.clip_ratio_high": 0.27, f"{ROLLOUT}.calculate_log_probs": True,
                        f"{CORRECTION}.rollout_is": "token", f"{CORRECTION}.rollout_is_threshold": 5.0,
                        f"{CORRECTION}.rollout_rs": None, f"{CORRECTION}.bypass_mode": False},
    # PPO with a critic; the KL term in the reward, as InstructGPT (arXiv 2203.02155) has it.
    "ppo": {"algorithm.adv_estimator": "gae", "algorithm.gamma": 1.0, "algorithm.lam": 1.0,
            "algorithm.use_kl_in_reward": True, "algorithm.kl_ctrl.type": "fixed", "algorithm.kl_ctrl.kl_coef": 0.001,
            f"{ACTOR}.use_kl_loss": False, f"{ACTOR}.policy_loss.loss_mode": "vanilla",
            f"{ACTOR}.loss_agg_mode": "token-mean", f"{ACTOR}.clip_ratio_low": 0.2, f"{ACTOR}.clip_ratio_high": 0.2,
            f"{ROLLOUT}.n": 1},
}  # fmt: skip
OVERLONG_SHARE = 0.2


class VerlRLTrainer(VerlTrainer):
    """Options of verl's `ppo_trainer.yaml` under its own names. `preset` names a method, whose keys are filled in
    unless the run gives them itself. The critic of PPO starts from the policy's weights unless `critic.model.path`
    says otherwise."""

    version: ClassVar[int] = 1
    uses: ClassVar[frozenset[str]] = frozenset({"rewards", "reward_model"})
    entry: ClassVar[str] = "rl"
    data_options: ClassVar[frozenset[str]] = verl_rl.VerlRL.data_options
    reserved: ClassVar[dict[str, str]] = RESERVED | {
        "data.tokenizer": "the run's tokenizer", "actor_rollout_ref.model.path": "the run's base or parent",
        "actor_rollout_ref.model.tokenizer_path": "the run's tokenizer",
        "actor_rollout_ref.model.custom_chat_template": "the run's template",
        "actor_rollout_ref.model.trust_remote_code": "the run's trust_remote_code",
    }  # fmt: skip

    preset: str | None = None

    @model_validator(mode="after")
    def _possible(self) -> VerlRLTrainer:
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"there is no preset '{self.preset}'; {did_you_mean(self.preset, PRESETS)}")
        if "truncation" in (self.model_extra or {}):
            raise ValueError("'truncation' is dead: verl never reads it and keeps the end of a prompt that is too "
                             "long; remove it, kedge leaves such prompts out")  # fmt: skip
        return self

    def config(self) -> dict[str, Any]:
        """verl's options under their full names: those of the preset, then the run's own."""
        given = super().config()
        found = PRESETS.get(self.preset or "", {}) | given
        if self.preset == "dapo":
            length = int(given.get("data.max_response_length", 512))
            kept = {"max_resp_len": length, "overlong_buffer_cfg.len": max(1, round(OVERLONG_SHARE * length))}
            found = {f"reward.reward_kwargs.{name}": value for name, value in kept.items()} | found
        return found
