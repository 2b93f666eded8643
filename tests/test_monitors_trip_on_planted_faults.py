"""Every monitor trips on the fault that it is for and on no other; published healthy runs trip none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.monitored import GSPO, SAPO, changed, published_apo, published_rl, published_sft
from trainers.monitors.readings import Readings
from trainers.monitors.rules import MONITORS, judge, rules_for


def found(run: Readings, stage: str) -> list[str]:
    return [f"{item.name}@{item.step}" for item in judge(run, rules_for(stage))]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "entropy"), [("GSPO", GSPO), ("SAPO", SAPO)])
def test_the_published_rl_runs_trip_nothing(name: str, entropy: np.ndarray, seed: int):
    assert found(published_rl(entropy, 20 * seed), "rlvr") == []


@pytest.mark.parametrize("seed", range(5))
def test_the_published_sft_and_apo_runs_trip_nothing(seed: int):
    assert found(published_sft(seed=20 * seed), "sft") == []
    assert found(published_sft(1.4, 1.0, seed=20 * seed), "midtrain") == []
    assert found(published_apo(20 * seed), "preference") == []


Change = Callable[[int, float], float]
RL: list[tuple[str, str, Change]] = [
    ("entropy_collapse", "entropy", lambda step, value: value if step < 200 else value * 0.3),
    ("kl_runaway", "kl", lambda step, value: value if step < 250 else 0.05 * 1.05 ** min(step - 250, 100)),
    ("length_drift", "completions/mean_length", lambda step, value: value / 4 if step > 200 else value),
    ("clip_share", "clip_ratio/region_mean", lambda step, value: value + (0.4 if step > 300 else 0)),
    ("truncation_share", "completions/clipped_ratio", lambda step, value: value + (0.5 if step > 300 else 0)),
    ("advantage_collapse", "frac_reward_zero_std", lambda step, value: 0.95 if step > 300 else value),
    ("distinct_ngrams", "rollouts/distinct_ngrams", lambda step, value: value * (0.2 if step > 300 else 1)),
    ("unique_answers", "rollouts/unique_answers", lambda step, value: value * (0.2 if step > 300 else 1)),
    ("rollout_mismatch", "sampling/sampling_logp_difference/mean", lambda step, value: 0.1 if step > 300 else value),
    ("reward_hacking", "eval_reward", lambda step, value: value if step < 100 else 0.27 + 0.002 * (step % 3)),
    ("gradient_spike", "grad_norm", lambda step, value: value * (60 if step == 300 else 1)),
    ("non_finite", "grad_norm", lambda step, value: math.nan if step >= 300 else value),
    ("non_finite", "reward", lambda step, value: math.inf if step == 300 else value),
]  # fmt: skip


@pytest.mark.parametrize(("monitor", "metric", "change"), RL, ids=[f"{item[0]}-{item[1]}" for item in RL])
def test_a_fault_of_reinforcement_learning_trips_its_monitor_alone_and_once(monitor: str, metric: str, change: Change):
    run = changed(published_rl(GSPO), metric, change)
    if monitor == "length_drift":
        run = changed(run, "reward", lambda step, value: value if step < 20 else 0.25 + 0.001 * (step % 7))
        run = changed(run, "eval_reward", lambda step, value: 0.25)
    seen = found(run, "rlvr")
    assert [item.partition("@")[0] for item in seen] == [monitor]
    assert 100 < int(seen[0].partition("@")[2]) <= 400


PAIRS: list[tuple[str, str, Change]] = [
    ("falling_chosen", "rewards/chosen", lambda step, value: value if step < 500 else -1.2 + 0.01 * (step % 5)),
    ("held_out_margin", "eval_rewards/margins", lambda step, value: value if step < 500 else 0.7 - step / 10_000),
    ("held_out_accuracy", "eval_rewards/accuracies", lambda step, value: 0.51),
    ("second_epoch", "epoch", lambda step, value: value * 1.5),
    ("loss_spike", "loss", lambda step, value: value * (3 if 1200 <= step < 1206 else 1)),
]


@pytest.mark.parametrize(("monitor", "metric", "change"), PAIRS, ids=[item[0] for item in PAIRS])
def test_a_fault_of_preference_training_trips_its_monitor_alone_and_once(monitor: str, metric: str, change: Change):
    seen = found(changed(published_apo(), metric, change), "preference")
    assert [item.partition("@")[0] for item in seen] == [monitor]


def test_chosen_answers_that_are_longer_are_told_before_the_first_step():
    run = published_apo()
    assert run.lengths is not None
    run.lengths = np.stack([run.lengths[0] * 3 // 2, run.lengths[1]])
    [finding] = judge(run, rules_for("preference"))
    assert (finding.name, finding.step) == ("length_bias", 0)
    assert 1.3 < finding.value < 1.7


def test_a_loss_that_spikes_in_sft_is_told_at_its_step():
    run = changed(published_sft(), "loss", lambda step, value: value * (2 if step == 444 else 1))
    assert found(run, "sft") == ["loss_spike@444"]


def test_faults_of_sft_are_judged_by_no_monitor_of_reinforcement_learning():
    names = {rule.name for rule in rules_for("sft")}
    assert names == {"non_finite", "loss_spike", "gradient_spike"}


def test_a_dip_that_recovers_is_no_collapse_and_one_that_stays_is():
    def dip(end: int) -> Readings:
        return changed(published_rl(SAPO), "entropy", lambda step, value: 0.2 if 150 <= step < end else value)

    assert found(dip(190), "rlvr") == []
    assert found(dip(230), "rlvr") == ["entropy_collapse@201"]


def test_an_infinite_gradient_counts_from_the_third_in_a_row():
    def run(count: int) -> Readings:
        return changed(published_sft(), "grad_norm", lambda step, value: math.inf if step < 10 + count <= 19 and
                       step >= 10 else value)  # fmt: skip

    assert found(run(2), "sft") == []
    assert found(run(3), "sft") == ["non_finite@12"]


def test_length_that_grows_with_the_reward_is_no_drift():
    run = changed(published_rl(SAPO), "completions/mean_length", lambda step, value: 300 + 5.0 * step)
    assert found(run, "rlvr") == []


def test_every_monitor_has_a_planted_fault():
    told = {item[0] for item in RL + PAIRS} | {"length_bias"}
    assert told == set(MONITORS)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), fault=st.sampled_from(RL), step=st.integers(10, 399))
def test_what_is_said_of_the_beginning_of_a_run_is_still_said_at_its_end(seed: int, fault, step: int):
    run = changed(published_rl(GSPO, seed), fault[1], fault[2])
    whole = judge(run, rules_for("rlvr"))
    before = judge(run.up_to(step), rules_for("rlvr"))
    assert [str(item) for item in before] == [str(item) for item in whole if item.step <= step]


@settings(max_examples=12, deadline=None)
@given(values=st.lists(st.floats(0.01, 10), min_size=1, max_size=60), scale=st.floats(0.01, 100))
def test_spikes_do_not_depend_on_the_unit_of_a_loss(values: list[float], scale: float):
    from trainers.monitors.trends import spikes

    of = [list(spikes(np.array(values) * factor, 8, 20, 5, 0.02)) for factor in (1, 2.0 ** round(math.log2(scale)))]
    assert of[0] == of[1]
