"""Coefficients of agreement equal other libraries' and worked examples, and say so where they are undefined."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.voting.agreement import Agreement, Coefficient, agreement_on
from curation.voting.coefficients import cohen_statistic, kendalls_w
from curation.voting.item_bootstrap import bootstrap
from curation.voting.vote_arrays import RANKING, Answers
from tests.voters import answers_of

FEW = 50
COEFFICIENTS = ("pairwise", "cohen", "fleiss", "alpha", "alpha_ordinal", "alpha_interval", "cohen_weighted")

# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, sections A, B and C to E
BINARY = ["0100000010", "1110010000"]
LETTERS = ["aabbdcccedda", "babbbccceddd"]
MISSING = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
# Fleiss 1971, Measuring nominal scale agreement among many raters: diagnoses of 30 patients by 6 psychiatrists each
DIAGNOSES = (
    "444444222555233335555555222444113333333355113334114444555555144444124444222333144444224445"
    "333335111455111112224444133555555555244444224555114444144445222224111155224444133333555555"
)  # six digits a patient


def rows(texts: list[str], missing: str = ".") -> list[list[str | int | None]]:
    return [[None if char == missing else int(char) if char.isdigit() else char for char in text] for text in texts]


def figures(found: Agreement) -> dict[str, float | None]:
    return {name: getattr(found, name).value for name in COEFFICIENTS if getattr(found, name) is not None}


def random_answers(rng: np.random.Generator, raters: int, units: int, values: int, missing: float = 0.0) -> list[list]:
    truth = rng.integers(0, values, units)
    drawn = np.where(rng.random((raters, units)) < 0.6, truth, rng.integers(0, values, (raters, units)))
    return [[None if rng.random() < missing else int(value) for value in row] for row in drawn]


def test_alpha_of_two_observers_equals_krippendorffs_examples():
    assert agreement_on(answers_of(rows(BINARY)), resamples=FEW).alpha.value == pytest.approx(0.095, abs=5e-4)
    assert agreement_on(answers_of(rows(LETTERS)), resamples=FEW).alpha.value == pytest.approx(0.692, abs=5e-4)


def test_alpha_with_missing_answers_equals_krippendorffs_example_at_every_level():
    found = agreement_on(answers_of(rows(MISSING), ordinal=True), resamples=FEW)
    assert found.alpha.value == pytest.approx(0.743, abs=5e-4)
    assert found.alpha_ordinal.value == pytest.approx(0.815, abs=5e-4)
    assert found.alpha_interval.value == pytest.approx(0.849, abs=5e-4)
    assert found.num_units == 12 and found.num_shared == 11 and found.num_answers == 41


def test_alpha_of_sparse_answers_equals_the_example_of_three_coders():
    coders = ["*****34121133*3", "1*213343*******", "**21344*21133*4"]
    found = agreement_on(answers_of(rows(coders, "*"), ordinal=True), resamples=FEW)
    assert found.alpha.value == pytest.approx(0.691, abs=5e-4)
    assert found.alpha_interval.value == pytest.approx(0.811, abs=5e-4)


def test_fleiss_kappa_equals_his_table_of_diagnoses():
    columns = [[int(char) for char in DIAGNOSES[place::6]] for place in range(6)]
    found = agreement_on(answers_of(columns), resamples=FEW)
    assert found.fleiss.value == pytest.approx(0.430, abs=5e-4)
    assert found.pairwise.value == pytest.approx(0.5556, abs=5e-4)


def test_cohens_kappa_equals_his_example():
    confusion = np.array([[88, 10, 2], [14, 40, 6], [18, 10, 12]])  # Cohen 1960: kappa .492
    one, other = np.repeat(np.indices((3, 3)).reshape(2, -1), confusion.ravel(), axis=1).tolist()
    found = agreement_on(answers_of([one, other]), resamples=FEW)
    assert found.cohen.value == pytest.approx(0.492, abs=5e-4) and found.num_pairs == 1
    assert found.pairs[0].num_units == 200


@pytest.mark.parametrize("seed", range(4))
def test_cohens_kappa_equals_scikit_learns_with_and_without_weights(seed: int):
    metrics = pytest.importorskip("sklearn.metrics")
    drawn = random_answers(np.random.default_rng(seed), 3, 40, 4, missing=0.2)
    found = agreement_on(answers_of(drawn, ordinal=True), ("x", "y", "z"), resamples=FEW)
    theirs = []
    for pair, (one, other) in zip(found.pairs, combinations(range(3), 2), strict=True):
        both = [at for at in range(40) if drawn[one][at] is not None and drawn[other][at] is not None]
        sides = [[drawn[who][at] for at in both] for who in (one, other)]
        assert pair.annotators == ("xyz"[one], "xyz"[other]) and pair.num_units == len(both)
        theirs.append((metrics.cohen_kappa_score(*sides, labels=range(4)), len(both)))
        assert pair.kappa.value == pytest.approx(theirs[-1][0], abs=1e-12)
        assert pair.weighted.value == pytest.approx(
            metrics.cohen_kappa_score(*sides, labels=range(4), weights="quadratic"), abs=1e-12)  # fmt: skip
        confusion = metrics.confusion_matrix(*sides, labels=range(4)).astype(float)
        linear = cohen_statistic(1, np.arange(4.0), 1)(confusion.ravel())[0]
        assert linear == pytest.approx(metrics.cohen_kappa_score(*sides, labels=range(4), weights="linear"), abs=1e-12)
    assert found.cohen.value == pytest.approx(np.average(np.array(theirs)[:, 0], weights=np.array(theirs)[:, 1]))


@pytest.mark.parametrize("seed", range(4))
def test_fleiss_kappa_equals_statsmodels(seed: int):
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    drawn = random_answers(np.random.default_rng(seed), 5, 30, 3)
    table, _ = inter_rater.aggregate_raters(np.array(drawn).T)
    found = agreement_on(answers_of(drawn), resamples=FEW)
    assert found.fleiss.value == pytest.approx(inter_rater.fleiss_kappa(table), abs=1e-12)


def test_fleiss_kappa_of_unequal_numbers_of_answers_is_gwets():
    """Three units with 3, 2 and 1 answers: observed (1/3 + 1) / 2, chance from the mean of the units' shares."""
    found = agreement_on(answers_of([["a", "a", "b"], ["a", "a", None], ["b", None, None]]), resamples=FEW)
    share = (2 / 3 + 1 + 0) / 3
    chance = share**2 + (1 - share) ** 2
    assert found.fleiss.value == pytest.approx(((1 / 3 + 1) / 2 - chance) / (1 - chance))
    assert found.pairwise.value == pytest.approx((1 + 1) / (3 + 1)) and found.num_shared == 2


def test_kendalls_w_equals_siegels_example_and_corrects_for_ties():
    applicants = np.array([[1, 6, 3, 2, 5, 4], [1, 5, 6, 4, 2, 3], [6, 3, 2, 5, 4, 1]])  # Siegel 1956: W = .16
    units, who = np.tile(np.arange(6), 3), np.repeat(np.arange(3), 6)
    ranked = Answers(RANKING, "ordinal", units, who, applicants.ravel() - 1, np.zeros(6, dtype=np.int64),
                     (1, 2, 3, 4, 5, 6))  # fmt: skip
    assert kendalls_w(ranked)[1] == pytest.approx([0.162], abs=5e-4)
    assert agreement_on(ranked, resamples=FEW).kendall_w.value == pytest.approx(0.162, abs=5e-4)
    tied = np.array([[1, 1, 2, 3], [1, 2, 2, 3], [2, 1, 3, 3]])
    mean_ranks = np.array([[1.5, 1.5, 3, 4], [1, 2.5, 2.5, 4], [2, 1, 3.5, 3.5]])
    units, who = np.tile(np.arange(4), 3), np.repeat(np.arange(3), 4)
    ranked = Answers(RANKING, "ordinal", units, who, tied.ravel() - 1, np.zeros(4, dtype=np.int64), (1, 2, 3))
    spread = ((mean_ranks.sum(axis=0) - 7.5) ** 2).sum()
    assert kendalls_w(ranked)[1] == pytest.approx([12 * spread / (9 * 60 - 3 * 3 * 6)])


def test_rankings_that_leave_out_a_candidate_do_not_count_for_w():
    units, who, ranks = np.array([0, 1, 2, 0, 1, 2, 0, 1]), np.array([0, 0, 0, 1, 1, 1, 2, 2]), [0, 1, 2, 0, 1, 2, 1, 0]
    items, found = kendalls_w(Answers(RANKING, "ordinal", units, who, np.array(ranks), np.zeros(3, dtype=np.int64),
                                      (1, 2, 3)))  # fmt: skip
    assert items.tolist() == [0] and found == pytest.approx([1.0])


def matrices(size: tuple[int, int]) -> st.SearchStrategy[list[list[int | None]]]:
    raters, units = size
    row = st.lists(st.sampled_from([None, 1, 2, 3]), min_size=units, max_size=units)
    return st.lists(row, min_size=raters, max_size=raters)


MATRICES = st.tuples(st.integers(2, 4), st.integers(3, 8)).flatmap(matrices)


@settings(max_examples=60, deadline=None)
@given(MATRICES, st.randoms(use_true_random=False))
def test_renaming_annotators_and_reordering_items_changes_nothing(answers_AU: list[list], random):
    found = figures(agreement_on(answers_of(answers_AU, ordinal=True), resamples=5))
    shuffled = [list(row) for row in random.sample(answers_AU, len(answers_AU))]
    order = random.sample(range(len(shuffled[0])), len(shuffled[0]))
    other = figures(
        agreement_on(answers_of([[row[at] for at in order] for row in shuffled], ordinal=True), resamples=5)
    )
    assert found.keys() == other.keys()
    for name, value in found.items():
        assert other[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name


@settings(max_examples=60, deadline=None)
@given(MATRICES, st.permutations([1, 2, 3]))
def test_renaming_labels_changes_no_nominal_coefficient(answers_AU: list[list], names: list[int]):
    found = figures(agreement_on(answers_of(answers_AU), resamples=5))
    renamed = [[None if value is None else names[value - 1] for value in row] for row in answers_AU]
    for name, value in figures(agreement_on(answers_of(renamed), resamples=5)).items():
        assert found[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name


@settings(max_examples=60, deadline=None)
@given(MATRICES)
def test_coefficients_lie_between_their_bounds_and_inside_no_interval_beyond_them(answers_AU: list[list]):
    found = agreement_on(answers_of(answers_AU, ordinal=True), resamples=25)
    for name in COEFFICIENTS:
        value, interval, reason = getattr(found, name)
        assert (value is None or interval is None) == (reason is not None)
        assert value is None or -6 <= value <= 1 + 1e-9
        assert interval is None or interval.low <= interval.high <= 1 + 1e-9


def reasons(found: Agreement) -> set[str | None]:
    return {getattr(found, name).reason for name in ("fleiss", "alpha", "cohen")}


def test_one_annotator_gives_a_reason_and_no_number():
    found = agreement_on(answers_of([["a", "b", "a"]]), resamples=FEW)
    assert reasons(found) == {"no unit has answers of two annotators"} and found.pairwise.value is None
    assert found.num_shared == 0 and found.num_annotators == 1


def test_one_vote_per_item_gives_a_reason_and_no_number():
    found = agreement_on(answers_of([["a", "b", None], [None, None, "a"]]), resamples=FEW)
    assert reasons(found) == {"no unit has answers of two annotators"} and found.num_annotators == 2


def test_kappa_is_undefined_and_not_1_where_everybody_always_says_the_same():
    found = agreement_on(answers_of([["a"] * 5, ["a"] * 5], ordinal=False), resamples=FEW)
    assert reasons(found) == {"every answer is the same, so that chance alone agrees as well"}
    assert found.pairwise.value == 1.0 and found.fleiss.value is None and found.alpha.value is None
    assert found.num_pairs == 0 and len(found.pairs) == 1


def test_perfect_agreement_on_few_items_does_not_prove_perfect_agreement():
    found = agreement_on(answers_of([["a", "b"] * 10, ["a", "b"] * 10]), resamples=FEW)
    for coefficient in (found.pairwise, found.fleiss, found.alpha, found.cohen):
        assert coefficient.value == pytest.approx(1.0) and coefficient.interval.high == pytest.approx(1.0)
        assert 0.4 < coefficient.interval.low < 0.9


def test_a_single_shared_item_has_a_value_and_no_interval():
    found = agreement_on(answers_of([["a"], ["b"]]), resamples=FEW)
    assert found.pairwise == Coefficient(0.0, None, "too few items for an interval")


def test_no_answers_at_all_are_no_crash():
    found = agreement_on(answers_of([[None, None], [None, None]]), resamples=FEW)
    assert found.num_answers == 0 and found.alpha.value is None and found.cohen.reason


def test_the_interval_of_a_mean_is_that_of_the_bca_bootstrap():
    from scipy import stats

    values = np.random.default_rng(3).exponential(size=80)
    features = np.stack([values, np.ones(80)], axis=1)
    _, (interval,), still = bootstrap(features, lambda sums: sums[..., :1] / sums[..., 1:], resamples=9_999)
    theirs = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(5)).confidence_interval
    assert interval == pytest.approx(tuple(theirs), abs=0.02) and not still[0]


def test_the_intervals_cover_what_they_should():
    """150 samples of 60 items with three votes: the interval of 95 % holds the coefficient of all items."""
    rng = np.random.default_rng(11)
    everything = random_answers(rng, 3, 60 * 150, 3, missing=0.1)
    true = figures(agreement_on(answers_of(everything), resamples=2))
    held = dict.fromkeys(true, 0)
    for begin in range(0, 60 * 150, 60):
        part = agreement_on(answers_of([row[begin : begin + 60] for row in everything]), resamples=399)
        for name in held:
            interval = getattr(part, name).interval
            held[name] += interval.low <= true[name] <= interval.high
    assert all(135 <= count <= 150 for count in held.values()), held
