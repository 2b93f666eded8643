"""Logs of runs for the tests of monitors: healthy ones along published curves, and the same with a planted fault."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainers.monitors.names import names_of
from trainers.monitors.readings import Readings

Metrics = dict[str, np.ndarray]


def readings(metrics: Metrics, trainer: str, every: int = 1, evaluations: Metrics | None = None,
             between: int = 20) -> Readings:  # fmt: skip
    """A log whose metrics are arrays over log steps `every` apart; `evaluations` are logged `between` steps apart."""
    run = Readings(names_of(trainer))
    count = len(next(iter(metrics.values())))
    for index in range(count):
        step = (index + 1) * every
        run.add({"step": step, "max_steps": count * every} | {name: float(of[index]) for name, of in metrics.items()})
        place = step // between - 1
        if step % between == 0:
            for name, of in (evaluations or {}).items():
                if place < len(of):
                    run.add({"step": step, name: float(of[place])})
    return run


def line(*points: tuple[int, float], steps: int) -> np.ndarray:
    """A curve through (step, value) points, at steps 1..steps."""
    at, values = zip(*points, strict=True)
    return np.interp(np.arange(1, steps + 1), at, values)


def noisy(curve: np.ndarray, share: float, seed: int) -> np.ndarray:
    """With relative Gaussian noise."""
    return curve * (1 + share * np.random.default_rng(seed).standard_normal(len(curve)))


def published_rl(entropy: np.ndarray, seed: int = 0) -> Readings:
    """400 steps of GRPO under the published curve of reward, .2 to .6 (llama32_single_node.rl); held-out accuracy rises
    with it, lengths, gradients and shares are those of a quiet run (assumed: not published)."""
    steps, reward = 400, line((1, 0.2), (400, 0.6), steps=400)
    metrics = {
        "loss": np.random.default_rng(seed + 1).normal(0, 0.02, steps), "entropy": noisy(entropy, 0.05, seed),
        "reward": noisy(reward, 0.08, seed + 2), "grad_norm": np.exp(noisy(np.full(steps, -1.0), 0.25, seed + 3)),
        "kl": noisy(0.05 * np.sqrt(line((1, 0.0), (400, 1.0), steps=400)), 0.1, seed + 4),
        "completions/mean_length": noisy(line((1, 300.0), (400, 520.0), steps=400), 0.05, seed + 5),
        "completions/clipped_ratio": np.clip(noisy(line((1, 0.2), (400, 0.05), steps=400), 0.3, seed + 6), 0, 1),
        "clip_ratio/region_mean": np.abs(noisy(np.full(steps, 0.15), 0.2, seed + 7)),
        "frac_reward_zero_std": np.clip(noisy(line((1, 0.3), (400, 0.5), steps=400), 0.2, seed + 8), 0, 1),
        "rollouts/distinct_ngrams": noisy(line((1, 0.8), (400, 0.7), steps=400), 0.03, seed + 9),
        "rollouts/unique_answers": np.clip(noisy(line((1, 0.7), (400, 0.5), steps=400), 0.1, seed + 10), 0, 1),
        "sampling/sampling_logp_difference/mean": np.abs(noisy(np.full(steps, 0.012), 0.2, seed + 11)),
    }  # fmt: skip
    held = {"eval_reward": noisy(line((1, 0.2), (20, 0.58), steps=20), 0.04, seed + 12)}
    return readings(metrics, "trl_grpo", evaluations=held)


GSPO = line((1, 0.75), (50, 0.75), (70, 0.45), (180, 0.45), (200, 0.5), (400, 0.5), steps=400)
SAPO = 0.70 + 0.05 * np.sin(np.linspace(0, 12, 400))


def published_sft(start: float = 1.3, end: float = 0.85, seed: int = 0) -> Readings:
    """1,000 steps of SFT whose loss falls as published (llama32_single_node.sft: 1.3 to .85), steeply at first."""
    steps = 1000
    loss = end + (start - end) * np.exp(-np.arange(steps) / 150)
    norm = 0.2 + 0.8 * np.exp(-np.arange(steps) / 20)
    metrics = {"loss": noisy(loss, 0.03, seed), "grad_norm": noisy(norm, 0.12, seed + 1),
               "epoch": np.linspace(0.004, 4, steps)}  # fmt: skip
    return readings(metrics, "trl_sft")


def published_apo(seed: int = 0) -> Readings:
    """2,000 steps of APO whose loss falls from 1.0 to .25 within 1,000 (llama32_single_node.apo); chosen answers become
    likelier, held-out pairs follow at some distance (assumed)."""
    steps = 2000
    share = 1 - np.exp(-np.arange(1, steps + 1) / 500)
    noise = np.random.default_rng(seed).normal(0, 0.1, (2, steps))
    metrics = {
        "loss": noisy(0.2 + 0.8 * np.exp(-np.arange(steps) / 370), 0.04, seed + 1),
        "grad_norm": noisy(np.full(steps, 0.3), 0.15, seed + 2), "epoch": np.linspace(0.0005, 1, steps),
        "rewards/chosen": 0.6 * share + noise[0], "rewards/margins": 1.5 * share + noise[1],
        "rewards/accuracies": noisy(0.5 + 0.35 * share, 0.05, seed + 3),
        "logps/chosen": noisy(-200 + 10 * share, 0.05, seed + 4),
    }  # fmt: skip
    behind = 1 - np.exp(-np.arange(1, 21) / 5)
    held = {"eval_rewards/accuracies": 0.5 + 0.3 * behind, "eval_rewards/margins": noisy(1.1 * behind, 0.02, seed + 5)}
    run = readings(metrics, "trl_dpo", evaluations=held, between=100)
    run.num_held_out = 500
    tokens = np.random.default_rng(seed + 6).lognormal(5.5, 0.5, (2, 400))
    run.lengths = tokens.astype(np.int64)
    return run


def changed(run: Readings, metric: str, change: Callable[[int, float], float]) -> Readings:
    """The same log with a metric's values changed, or made where it has none from its steps of the loss."""
    steps = run.values.get(metric) or dict.fromkeys(run.values["loss"], 0.0)
    run.values[metric] = {step: change(step, value) for step, value in steps.items()}
    run.cached.clear()
    return run
