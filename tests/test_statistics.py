"""Estimators against worked examples, other implementations and properties."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar

from curation import statistics as s


@pytest.fixture(scope="module", autouse=True)
def what_lives_before_is_left_alone() -> Iterator[None]:
    """statsmodels collects garbage at every correction for several tests, and would walk all that the session holds."""
    gc.freeze()
    yield
    gc.unfreeze()


def test_the_paired_error_is_the_plain_one_where_every_item_is_its_own_cluster():
    d = np.array([0.0, 1, -1, 0, 1, 1, 0, 0.5])
    assert s.clustered_mean(d).se == pytest.approx(d.std(ddof=1) / math.sqrt(len(d)))
    assert s.clustered_mean(d, list("abcdefgh")) == s.clustered_mean(d)


def test_the_clustered_error_is_that_of_a_regression_on_a_constant():
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 12, 80)
    d = rng.normal(size=80) + rng.normal(size=12)[clusters]
    fit = sm.OLS(d, np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    groups = len(set(clusters))
    assert s.clustered_mean(d, clusters).se == pytest.approx(float(fit.bse[0]) * math.sqrt(groups / (groups - 1)))


def test_copies_of_an_item_in_one_cluster_do_not_shrink_the_error():
    d = np.array([1.0, 0, -1, 0, 1, 0])
    copied = s.clustered_mean(np.repeat(d, 10), np.repeat(np.arange(6), 10))
    assert copied.se == pytest.approx(s.clustered_mean(d).se)
    assert s.clustered_mean(np.repeat(d, 10)).se < copied.se / 2


@pytest.mark.parametrize(("losses", "gains", "p"), [(1, 0, 1.0), (3, 0, 0.25), (5, 0, 0.0625), (8, 2, 0.109),
                                                    (20, 9, 0.061), (0, 0, 1.0)])  # fmt: skip
def test_the_sign_test_is_exact_where_a_wald_test_is_certain_of_nothing(losses: int, gains: int, p: float):
    assert s.mcnemar_exact(losses, gains) == pytest.approx(p, abs=5e-4)
    table = [[5, losses], [gains, 5]]
    assert s.mcnemar_exact(losses, gains) == pytest.approx(float(mcnemar(table, exact=True).pvalue))


@pytest.mark.parametrize(("n", "psi", "points"), [(30, 0.05, 11.4), (198, 0.20, 8.9), (500, 0.10, 4.0),
                                                  (1319, 0.30, 4.2), (14042, 0.10, 0.7)])  # fmt: skip
def test_the_smallest_detectable_difference_is_that_of_the_published_table(n: int, psi: float, points: float):
    assert 100 * s.smallest_detectable_binary(psi, n) == pytest.approx(points, abs=0.06)


def test_an_interval_keeps_its_width_where_nothing_differs():
    interval = s.bonett_price_interval(0, 0, 100)
    assert interval.low == pytest.approx(-interval.high)
    assert 0.02 < interval.high < 0.04
    assert s.bca_interval(np.zeros(50), np.arange(50)).low < -0.05


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 400))
def test_swapping_the_checkpoints_mirrors_the_interval(losses: int, gains: int, same: int):
    n = losses + gains + same
    there, back = s.bonett_price_interval(losses, gains, n), s.bonett_price_interval(gains, losses, n)
    assert there.low == pytest.approx(-back.high)
    assert there.low <= (gains - losses) / n <= there.high
    assert -1 <= there.low < there.high <= 1


def test_the_interval_of_a_paired_difference_covers_as_often_as_it_says():
    rng = np.random.default_rng(5)
    for lost, won in ((0.05, 0.02), (0.02, 0.02), (0.2, 0.1)):
        drawn = rng.multinomial(100, [lost, won, 1 - lost - won], size=2_000)
        inside = [low <= won - lost <= high for low, high in (s.bonett_price_interval(a, b, 100) for a, b, _ in drawn)]
        assert np.mean(inside) > 0.93


def test_the_bootstrap_agrees_with_the_normal_interval_on_many_items():
    d = np.random.default_rng(2).normal(0.1, 1, 2_000)
    plain, boot = s.t_interval(s.clustered_mean(d)), s.bca_interval(d)
    assert boot.low == pytest.approx(plain.low, abs=0.01)
    assert boot.high == pytest.approx(plain.high, abs=0.01)
    assert s.bca_interval(d) == boot


def test_flipping_signs_by_cluster_is_less_sure_than_by_item():
    clusters = np.repeat(np.arange(10), 20)
    d = np.array([1.0] * 7 + [-1.0] * 3)[clusters]
    assert s.sign_flip_test(d) < 0.001 < s.sign_flip_test(d, clusters)
    assert s.sign_flip_test(np.zeros(5)) == 1.0


def test_holm_steps_down_and_stops_at_the_first_that_is_kept():
    adjusted, levels = s.holm([0.03, 0.001, 0.02, 0.9])
    assert adjusted == pytest.approx([0.06, 0.004, 0.06, 0.9])
    assert levels == pytest.approx([0.05 / 3, 0.05 / 4, 0.05 / 3, 0.05 / 3])
    assert s.holm([0.04])[1] == pytest.approx([0.05])
    assert len(s.holm([])[0]) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_a_smaller_p_value_never_gets_a_wider_level_than_a_larger_one(p_values: list[float]):
    adjusted, levels = s.holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(levels[order]) >= 0).all()
    assert (np.diff(adjusted[order]) >= 0).all()
    assert (levels >= 0.05 / len(p_values) - 1e-12).all() and (levels <= 0.05 + 1e-12).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_are_those_of_statsmodels(p_values: list[float]):
    from statsmodels.stats.multitest import multipletests

    assert s.holm(p_values)[0] == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


def test_samples_and_items_that_would_decide():
    assert s.items_needed(0.03, 200, 0.05) == math.ceil(200 * (2.8016 * 0.03 / 0.05) ** 2)
    assert s.samples_needed(0.05, 30, between=0.5, within=0.2) is None
    assert s.samples_needed(0.05, 2_000, between=0.1, within=0.5) == 1
    few = s.samples_needed(0.05, 400, between=0.1, within=0.5)
    assert few is not None and few > 1
    with pytest.raises(ValueError, match="above 0"):
        s.items_needed(0.03, 200, 0.0)


def test_published_tables_give_the_published_intervals():
    low, high = s.unpaired_interval(0.862, 0.839, 164, 164)  # Tulu 3 8B, HumanEval, SFT to DPO
    assert (100 * low, 100 * high) == (pytest.approx(-10.0, abs=0.1), pytest.approx(5.4, abs=0.1))
    low, high = s.unpaired_interval(0.786, 0.691, 805, 805)  # OLMo 3 32B Think, AlpacaEval, DPO to 3.1
    assert (100 * low, 100 * high) == (pytest.approx(-13.8, abs=0.1), pytest.approx(-5.2, abs=0.1))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n: int, data: st.DataObject):
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    expected = 1 - math.comb(n - right, k) / math.comb(n, k)
    assert s.pass_at_k(n, right, k) == pytest.approx(expected)


def test_wilson_at_zero_has_an_upper_bound():
    assert s.wilson_interval(0, 100).high == pytest.approx(0.037, abs=0.001)
    assert s.wilson_interval(0, 0) == (0.0, 1.0)
