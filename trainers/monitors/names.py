"""The frameworks' own names of metrics, as quantities that the monitors read.

TRL 1.16: the `_metrics` of its trainers, what `transformers.Trainer` logs beside, and the same with `eval_` before it
for held-out rows. verl 0.9.1: `trainer/ppo/metric_utils.py`, `workers/utils/losses.py`, `utils/debug/metrics.py`,
`trainer/ppo/rollout_corr_helper.py` and `trainer/sft_trainer.py`. A `*` stands for any text; several names that match
at one step are averaged.
"""

from __future__ import annotations

Names = dict[str, tuple[str, ...]]

# Of every TRL trainer; `entropy` is nats a token.
STEP: Names = {"loss": ("loss",), "gradient": ("grad_norm",), "learning_rate": ("learning_rate",), "epoch": ("epoch",)}
TOKENS: Names = {"entropy": ("entropy",), "tokens": ("num_tokens",)}
PAIRS: Names = {
    "accuracy": ("rewards/accuracies",), "held_out_accuracy": ("eval_rewards/accuracies",),
    "margin": ("rewards/margins",), "held_out_margin": ("eval_rewards/margins",),
    "chosen_logp": ("logps/chosen",), "rejected_logp": ("logps/rejected",),
    "chosen_reward": ("rewards/chosen",), "rejected_reward": ("rewards/rejected",), "held_out_loss": ("eval_loss",),
}  # fmt: skip
UNPAIRED: Names = {name: PAIRS[name] for name in PAIRS if name not in ("accuracy", "held_out_accuracy")}
ROLLOUTS: Names = {
    "reward": ("reward",), "reward_spread": ("reward_std",), "components": ("rewards/*/mean",),
    "equal_groups": ("frac_reward_zero_std",), "length": ("completions/mean_length",),
    "truncated": ("completions/clipped_ratio",), "clipped": ("clip_ratio/region_mean",),
    "held_out_score": ("eval_reward",), "held_out_components": ("eval_rewards/*/mean",),
}  # fmt: skip

# Of the rollouts that reward functions write down (rollouts.py).
EVIDENCE: Names = {
    "components": ("rollouts/components/*",), "equal_groups": ("rollouts/equal_groups",),
    "distinct_ngrams": ("rollouts/distinct_ngrams",), "unique_answers": ("rollouts/unique_answers",),
}  # fmt: skip

# What each trainer logs whatever its options; those for held-out rows only where it evaluates.
LOGGED: dict[str, Names] = {
    "trl_sft": STEP | TOKENS | {"token_accuracy": ("mean_token_accuracy",), "held_out_loss": ("eval_loss",)},
    "trl_dpo": STEP | TOKENS | PAIRS | {"token_accuracy": ("mean_token_accuracy",)},
    "trl_kto": STEP | TOKENS | UNPAIRED | {"kl": ("kl",)},
    "trl_reward": STEP | {"tokens": ("num_tokens",), "accuracy": ("accuracy",), "margin": ("margin",),
                          "held_out_accuracy": ("eval_accuracy",), "held_out_margin": ("eval_margin",),
                          "held_out_loss": ("eval_loss",)},
    "trl_grpo": STEP | TOKENS | ROLLOUTS,
    "trl_rloo": STEP | TOKENS | ROLLOUTS | {"kl": ("kl",)},
    "trl_distillation": STEP | TOKENS | {"held_out_loss": ("eval_loss",)},
    "verl_sft": {"loss": ("train/loss",), "gradient": ("train/grad_norm",), "learning_rate": ("train/lr",),
                 "tokens": ("train/global_tokens",), "held_out_loss": ("val/loss",)},
    "verl_rl": {
        "loss": ("actor/pg_loss",), "gradient": ("actor/grad_norm",), "learning_rate": ("actor/lr",),
        "epoch": ("training/epoch",), "update_kl": ("actor/ppo_kl",), "reward": ("critic/score/mean",),
        "advantage_high": ("critic/advantages/max",), "advantage_low": ("critic/advantages/min",),
        "length": ("response_length/mean",), "truncated": ("response_length/clip_ratio",),
        "clipped": ("actor/pg_clipfrac",),
        "held_out_score": ("val-core/*/acc/mean@*", "val-core/*/reward/mean@*"),
    },
}  # fmt: skip

# What a trainer logs under a condition: names and condition.
SOMETIMES: dict[str, dict[str, tuple[tuple[str, ...], str]]] = {
    "trl_grpo": {
        "kl": (("kl",), "beta above 0"),
        "mismatch": (("sampling/sampling_logp_difference/mean",), "use_vllm with its importance sampling correction"),
        "clipped_is": (("cispo_clip_ratio",), "loss_type cispo"),
    },
    "verl_rl": {
        "entropy": (("actor/entropy", "actor/entropy_loss"), "old log-probabilities by the actor, calculate_entropy "
                    "or an entropy_coeff"),
        "kl": (("actor/kl_loss", "actor/reward_kl_penalty"), "use_kl_loss or use_kl_in_reward"),
        "mismatch": (("rollout_corr/k3_kl", "rollout_corr/kl"), "rollout.calculate_log_probs"),
        "probability_mismatch": (("training/rollout_probs_diff_mean",), "rollout.calculate_log_probs"),
    },
}  # fmt: skip


RL = {"trl_grpo", "trl_rloo", "verl_rl"}


def names_of(trainer: str) -> Names:
    """Names of every quantity that a trainer may log, those to be preferred first; of an unknown trainer those of all
    trainers."""
    wanted = [trainer] if trainer in LOGGED else list(LOGGED)
    found: Names = dict(EVIDENCE) if set(wanted) & RL else {}
    for name in wanted:
        known = LOGGED[name] | {key: names for key, (names, _) in SOMETIMES.get(name, {}).items()}
        for quantity, names in known.items():
            found[quantity] = tuple(dict.fromkeys((*found.get(quantity, ()), *names)))
    return found
