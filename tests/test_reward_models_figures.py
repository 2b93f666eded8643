"""Figures of reward models on numbers whose answer is known: calibration, shape, length, probes, ensembles, steps."""

from __future__ import annotations

import math
import uuid

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from curation.statistics import wilson_interval
from evals.reward_models import (
    accuracy,
    annotation_query,
    by_policy_step,
    calibration,
    combine,
    length,
    normalised,
    probe,
    sarle,
    shape,
    spearman,
    without_length,
)

DRAW = np.random.default_rng


def drawn(n: int, scale: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose differences are the true logits: chosen wins as often as it says."""
    draw = DRAW(seed)
    one, other = draw.normal(size=n) * 1.5, draw.normal(size=n) * 1.5
    first = draw.random(n) < 1 / (1 + np.exp(other - one))
    return scale * np.where(first, one, other), scale * np.where(first, other, one)


def test_accuracy_is_a_share_with_wilsons_interval_and_a_tie_is_wrong():
    made = accuracy(np.array([2.0, 1, 0, 3]), np.array([1.0, 1, 1, 0]))
    assert (made.n, made.count, made.share, made.method) == (4, 2, 0.5, "wilson")
    assert made.interval == pytest.approx(wilson_interval(2, 4))


def test_pairs_of_one_prompt_are_no_independent_evidence():
    chosen, rejected = np.tile([1.0, 0, 1, 1], 20), np.tile([0.0, 1, 0, 0], 20)
    alone = accuracy(chosen, rejected)
    together = accuracy(chosen, rejected, np.tile([0, 1, 2, 3], 20))
    assert together.method == "cluster-robust"
    assert together.interval.high - together.interval.low > 2 * (alone.interval.high - alone.interval.low)


def test_true_logits_are_calibrated_and_doubled_ones_are_overconfident():
    calm, loud = calibration(*drawn(20_000)), calibration(*drawn(20_000, 3.0))
    assert calm.error < 0.015 < 0.05 < loud.error
    assert sum(item.n for item in calm.bins) == 20_000
    assert all(item.stated > item.observed for item in loud.bins if item.n > 200 and item.stated > 0.6)


def test_the_calibration_error_is_the_mean_gap_of_the_bins_weighted_by_pairs():
    differences = np.array([0.1, 0.1, 0.1, -0.1, 3.0, 3.0])  # sigmoid: 0.525 and 0.953
    made = calibration(differences, np.zeros(6))
    low, high = 1 / (1 + math.exp(-0.1)), 1 / (1 + math.exp(-3))
    assert [(item.n, item.observed) for item in made.bins] == [(4, 0.75), (2, 1.0)]
    assert made.error == pytest.approx((4 * abs(0.75 - low) + 2 * abs(1 - high)) / 6)


def test_a_constant_head_has_collapsed():
    made = shape(np.full(30, 0.7), np.full(30, 0.7))
    assert made.collapsed == "30 of 30 pairs tie" and not made.bimodal and math.isnan(made.bimodality)


def test_scores_that_hardly_differ_have_collapsed():
    chosen, rejected = drawn(100, 1e-4)
    assert "logits only" in shape(chosen, rejected).collapsed


def test_scores_that_depend_on_the_prompt_alone_have_collapsed():
    chosen, rejected = drawn(100, 0.05)
    offset = DRAW(1).normal(size=100) * 40
    assert "the prompt decides" in shape(chosen + offset, rejected + offset).collapsed
    assert not shape(*drawn(100)).collapsed


def test_two_groups_of_scores_are_bimodal_and_one_is_not():
    draw = DRAW(3)
    two = np.concatenate([draw.normal(-4, 1, 200), draw.normal(4, 1, 200)])
    made = shape(draw.permutation(two)[:200], draw.permutation(two)[:200])
    assert made.bimodal and made.bimodality > 0.7
    assert not shape(*drawn(200)).bimodal
    assert sarle(draw.normal(size=50_000)) == pytest.approx(1 / 3, abs=0.02)
    assert sarle(draw.random(50_000)) == pytest.approx(5 / 9, abs=0.02)


def test_spearman_is_scipys_and_its_interval_holds_the_truth_as_often_as_it_says():
    draw, inside = DRAW(4), 0
    truth = 6 / math.pi * math.asin(0.5 / 2)  # of two normals with correlation 1/2
    for _ in range(300):
        one = draw.normal(size=60)
        other = 0.5 * one + math.sqrt(0.75) * draw.normal(size=60)
        made = spearman(one, other)
        assert made.value == pytest.approx(stats.spearmanr(one, other).statistic)
        inside += made.interval.low <= truth <= made.interval.high
    assert 0.91 <= inside / 300 <= 0.985


def test_length_that_only_follows_correctness_is_no_longer_seen_once_that_is_fixed():
    draw = DRAW(5)
    chosen, rejected = draw.normal(3, 1, 400), draw.normal(0, 1, 400)
    made = length(chosen, rejected, draw.normal(200, 20, 400), draw.normal(100, 20, 400))
    assert made.correlation.interval.low > 0.5
    assert made.given_correctness.interval.low < 0 < made.given_correctness.interval.high


def test_taking_length_off_repairs_a_model_that_counts_tokens():
    draw = DRAW(6)
    tokens = draw.integers(10, 300, 400).astype(float), draw.integers(10, 300, 400).astype(float)
    quality = draw.normal(0.7, 0.3, 400)
    chosen, rejected = quality + 0.02 * tokens[0], 0.02 * tokens[1]
    made = normalised(chosen, rejected, *tokens)
    assert made.slope == pytest.approx(0.02, abs=0.002)
    assert accuracy(chosen, rejected).interval.high < 0.8 < 0.95 < made.accuracy.share
    assert made.interval.low > 0 and made.p < 0.001
    assert made.difference == pytest.approx(made.accuracy.share - accuracy(chosen, rejected).share)


def test_equal_lengths_leave_scores_as_they_are():
    chosen, rejected = drawn(50)
    slope, one, other = without_length(chosen, rejected, np.full(50, 7.0), np.full(50, 7.0))
    assert slope == 0 and (one == chosen).all() and (other == rejected).all()


def test_a_probe_tells_preference_aversion_and_neither():
    plain = np.zeros(24)
    assert probe("length", plain, plain + 1).verdict == "prefers"
    assert probe("length", plain, plain - 1).verdict == "rejects"
    assert probe("length", plain, np.tile([1.0, -1.0], 12)).verdict == "undecided"
    ties = probe("length", plain, plain)
    assert (ties.verdict, ties.num_ties, ties.preferred.n) == ("undecided", 24, 0)


def test_an_ensemble_is_the_mean_or_the_least_of_standardised_scores():
    one = np.array([1.0, 3.0]), np.array([5.0, 7.0])  # mean 4, sd sqrt(5)
    other = np.array([30.0, 10.0]), np.array([20.0, 40.0])  # mean 25, sd sqrt(125)
    z_one, z_other = np.array([-3, -1, 1, 3]) / math.sqrt(5), np.array([5, -15, -5, 15]) / math.sqrt(125)
    assert np.concatenate(combine([one, other], "mean")) == pytest.approx((z_one + z_other) / 2)
    assert np.concatenate(combine([one, other], "min")) == pytest.approx(np.minimum(z_one, z_other))
    constant = np.full(2, 9.0), np.full(2, 9.0)
    assert np.concatenate(combine([one, constant], "mean")) == pytest.approx(z_one / 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_an_ensemble_does_not_depend_on_the_scale_of_its_members(seed: int, scale: float, shift: float):
    one, other = drawn(20, seed=seed), drawn(20, seed=seed + 1)
    moved = one[0] * scale + shift, one[1] * scale + shift
    for reward in ("mean", "min"):
        for a, b in zip(combine([one, other], reward), combine([moved, other], reward), strict=True):
            assert a == pytest.approx(b, abs=1e-6)


def test_accuracy_that_falls_with_the_policy_proposes_annotation():
    steps = np.repeat([0, 500, 1000], 100)
    right = np.concatenate([np.arange(100) < 90, np.arange(100) < 75, np.arange(100) < 55])
    made = by_policy_step("held", right, steps, np.arange(300))
    assert [(step, item.count) for step, item in made.steps] == [(0, 90), (500, 75), (1000, 55)]
    assert "fell from 90.0 %" in made.proposal and "kedge annotate push" in made.proposal
    still = by_policy_step("held", np.ones(300, bool), steps, np.arange(300))
    assert (still.proposal, still.query) == ("", "")


def test_the_job_that_is_proposed_lists_pairs_of_rollouts_of_the_policies_that_had_the_reward_model():
    """The view `rollouts` has more columns; tests/test_rollouts_come_back_as_evidence.py makes one."""
    connection = duckdb.connect()
    connection.execute("CREATE TABLE rollouts (run VARCHAR, row_id UUID, split VARCHAR, step BIGINT, sample INTEGER, "
                       "reward DOUBLE, components VARCHAR)")  # fmt: skip
    one, other, alike = (uuid.UUID(int=number) for number in (1, 2, 3))
    model, answer = '{"reward_model":0.5}', '{"answer":1.0}'
    connection.executemany("INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?)", [
        *(("rl", one, "train", 1000, sample, reward, model) for sample, reward in enumerate([0.5, 2.0, 1.0])),
        *(("rl", other, "train", 1200, sample, reward, model) for sample, reward in enumerate([5.0, 1.0])),
        *(("rl", alike, "train", 1000, sample, 1.0, model) for sample in range(2)),
        *(("rl", one, "train", 500, sample, float(sample), model) for sample in range(2)),
        *(("rl", alike, "val", 1000, sample, float(sample), model) for sample in range(2)),
        *(("it's", one, "train", 1000, sample, float(sample), answer) for sample in range(2)),
    ])  # fmt: skip
    mine = [("rl", other, 1200, 0, 1, 4.0), ("rl", one, 1000, 1, 0, 1.5)]
    assert connection.execute(annotation_query(1000, 10)).fetchall() == mine
    assert connection.execute(annotation_query(1000, 1)).fetchall() == mine[:1]
    assert connection.execute(annotation_query(1000, 9, ["it's"])).fetchall() == [("it's", one, 1000, 1, 0, 1.0)]
    steps, right = np.repeat([0, 1000], 100), np.concatenate([np.arange(100) < 90, np.arange(100) < 50])
    made = by_policy_step("held", right, steps, np.arange(200), ["rl"])
    assert made.query == annotation_query(1000, 100, ["rl"]) and f'kedge sql "{made.query}"' in made.proposal
    assert "have 100 pairs of answers of step 1000 annotated" in made.proposal
