"""Dawid and Skene's model, Bradley and Terry's, and majorities, against the literature, peers and simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.voting.aggregating import lead_confidence, majority, pair_agreement
from curation.voting.bradley_terry import bradley_terry, wins_matrix
from curation.voting.dawid_skene import dawid_skene

# Dawid and Skene 1979, table 1: 45 patients, five anaesthetists, the first of whom saw each patient three times.
ANAESTHETISTS = (
    "111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|222 2 2 2 3|"
    "232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|111 1 1 1 1|111 1 1 1 1|"
    "222 2 2 2 1|222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|111 1 1 1 1|111 1 1 1 1|232 2 2 2 2|"
    "111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|111 1 1 1 1|333 3 2 3 3|111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3|"
    "221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1|111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2"
)
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
# Games won in the American League of 1987 (Agresti, Categorical Data Analysis, section 10.6).
WINS = np.array([[0, 7, 9, 7, 7, 9, 11], [6, 0, 7, 5, 11, 9, 9], [4, 6, 0, 7, 7, 8, 12], [6, 8, 6, 0, 6, 7, 10],
                 [6, 2, 6, 7, 0, 7, 12], [4, 4, 5, 6, 6, 0, 6], [2, 4, 1, 3, 1, 7, 0]], float)  # fmt: skip
SWAPPED = [[0, 1], [1, 0]]


def anaesthetists() -> list[tuple[int, int, int]]:
    return [(patient, doctor, int(mark) - 1) for patient, row in enumerate(ANAESTHETISTS.split("|"))
            for doctor, marks in enumerate(row.split()) for mark in marks]  # fmt: skip


def simulated(seed: int, num_items: int = 300, good: int = 5, per_item: int = 4) -> tuple[np.ndarray, ...]:
    """(items, voters, key labels, slot labels, frames, truth): good voters are right in 85 %; the last three are one
    at random, one who takes slot A in 90 %, and one who is wrong in 85 %."""
    rng = np.random.default_rng(seed)
    truth, frames = rng.integers(0, 2, num_items), rng.integers(0, 2, num_items)
    found = []
    for place in range(num_items):
        for voter in rng.choice(good + 3, per_item, replace=False):
            right = rng.random() < 0.85
            said = truth[place] if right else 1 - truth[place]
            if voter == good:
                said = rng.integers(2)
            elif voter == good + 1:
                said = frames[place] if rng.random() < 0.9 else 1 - frames[place]
            elif voter == good + 2:
                said = 1 - said
            found.append((place, voter, said, said ^ frames[place], frames[place]))
    return (*np.array(found).T, truth)


def test_the_anaesthetists_of_the_paper_come_out_as_printed():
    items, voters, labels = zip(*anaesthetists(), strict=True)
    found = dawid_skene(items, voters, labels, 4, smoothing=0, max_iterations=500, tolerance=1e-9)
    assert found.prior_L == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005), "table 2 of the paper"
    assert found.confusion_ALL[0, 0] == pytest.approx([0.89, 0.11, 0, 0], abs=0.005)
    assert found.confusion_ALL[1, 1] == pytest.approx([0.05, 0.63, 0.31, 0], abs=0.01)
    assert found.converged and found.posteriors_IL.sum(axis=1) == pytest.approx(1)


def test_dawid_skene_equals_crowd_kit():
    crowdkit = pytest.importorskip("crowdkit.aggregation", reason="crowd-kit is not installed")
    import pandas

    items, voters, labels, *_ = simulated(1)
    frame = pandas.DataFrame({"task": items, "worker": voters, "label": labels})
    theirs = crowdkit.DawidSkene(n_iter=500, tol=1e-12).fit_predict_proba(frame).sort_index()[[0, 1]].to_numpy()
    ours = dawid_skene(items, voters, labels, 2, smoothing=0, max_iterations=500, tolerance=1e-9)
    assert ours.posteriors_IL == pytest.approx(theirs, abs=1e-3)


def test_dawid_skene_beats_the_majority_among_bad_voters():
    """One random, one position-biased and one adversarial voter among five good ones, over 20 simulations."""
    shares = []
    for seed in range(20):
        items, voters, keys, slots, frames, truth = simulated(seed)
        said = majority(items, keys, len(truth), 2).labels_I
        guessed = np.where(said < 0, 0.5, said == truth)
        found = dawid_skene(items, voters, slots, 2, frames_V=frames, frames_FL=SWAPPED, alike=(0, 1))
        shares.append((guessed.mean(), (found.posteriors_IL.argmax(axis=1) == truth).mean()))
    by_majority, by_voters = np.mean(shares, axis=0)
    assert by_voters > by_majority + 0.05
    assert all(ours > theirs for theirs, ours in shares), "in every single one"


def test_the_matrices_tell_the_three_bad_voters_apart():
    items, voters, _, slots, frames, _ = simulated(3, per_item=6)
    found = dawid_skene(items, voters, slots, 2, frames_V=frames, frames_FL=SWAPPED, alike=(0, 1)).confusion_ALL
    assert np.abs(found[5] - 0.5).max() < 0.2, "chance"
    assert found[6, :, 0].min() > 0.8, "slot A, whatever is better"
    assert found[7, 0, 1] > 0.7 and found[7, 1, 0] > 0.7, "the opposite"
    assert min(found[voter, label, label] for voter in range(5) for label in range(2)) > 0.7


def test_an_opposite_frame_is_the_same_vote():
    """A vote on slot B of a swapped item is a vote on the first key: only the matrices differ, not the classes."""
    items, voters, keys, _, _, _ = simulated(4)
    plain = dawid_skene(items, voters, keys, 2, alike=(0, 1))
    turned = dawid_skene(items, voters, 1 - keys, 2, frames_V=np.ones_like(keys), frames_FL=SWAPPED, alike=(0, 1))
    assert turned.posteriors_IL == pytest.approx(plain.posteriors_IL)
    assert turned.confusion_ALL == pytest.approx(plain.confusion_ALL[:, ::-1, ::-1])


def test_known_classes_stay_and_teach():
    """One good voter and one who reverses: without known items nothing says which is which."""
    items, voters, keys, _, _, truth = simulated(5, good=1)
    known = np.where(np.arange(len(truth)) < 150, truth, -1)
    found = dawid_skene(items, voters, keys, 2, known_I=known)
    assert (found.posteriors_IL[:150].argmax(axis=1) == truth[:150]).all()
    blind = dawid_skene(items, voters, keys, 2)
    rest = slice(150, None)
    assert (found.posteriors_IL[rest].argmax(axis=1) == truth[rest]).mean() > \
        (blind.posteriors_IL[rest].argmax(axis=1) == truth[rest]).mean()  # fmt: skip


def test_items_without_votes_have_the_prior_and_little_data_is_told():
    found = dawid_skene([0, 0], [0, 1], [1, 1], 3, num_items=2, num_annotators=3)
    assert found.posteriors_IL[1] == pytest.approx(found.prior_L, abs=1e-3)
    assert found.problem is not None and "2 voters are too few" in found.problem
    assert dawid_skene([], [], [], 2).problem == "there are no votes"
    assert "4 votes or fewer" in str(dawid_skene([0, 1, 2, 3] * 3, [0] * 4 + [1] * 4 + [2] * 4, [0] * 12, 2).problem)
    assert "no item has two votes" in str(dawid_skene(range(30), [0, 1, 2] * 10, [0] * 30, 2).problem)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        dawid_skene([0], [0], [2], 2)
    with pytest.raises(ValueError, match="equal length"):
        dawid_skene([0], [0, 1], [0], 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_neither_the_order_of_votes_nor_names_change_dawid_skene(seed: int, random):
    items, voters, keys, *_ = simulated(seed, num_items=40)
    order = list(range(len(items)))
    random.shuffle(order)
    names = np.array(random.sample(range(8), 8))
    one = dawid_skene(items, voters, keys, 2)
    other = dawid_skene(items[order], names[voters[order]], keys[order], 2)
    assert other.posteriors_IL == pytest.approx(one.posteriors_IL, abs=1e-6)
    assert other.confusion_ALL[names] == pytest.approx(one.confusion_ALL, abs=1e-6)


def test_baseball_teams_have_the_strengths_of_the_textbook():
    found = bradley_terry(WINS, ridge=0)
    strengths = found.strength_GK[0] - found.strength_GK[0, TEAMS.index("Baltimore")]
    assert strengths == pytest.approx([1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0], abs=0.001)
    assert found.components_G.tolist() == [1] and found.finite_G.tolist() == [True]


def test_strengths_equal_those_of_statsmodels_and_its_errors():
    import statsmodels.api as sm

    rows = [(i, j) for i, j in itertools.permutations(range(7), 2) for _ in range(int(WINS[i, j]))]
    design = np.zeros((len(rows), 7))
    for place, (winner, loser) in enumerate(rows):
        design[place, winner], design[place, loser] = 1, -1
    signs = np.where(np.arange(len(rows)) % 2 == 0, 1, -1)
    fit = sm.Logit(signs > 0, design[:, :6] * signs[:, None]).fit(disp=0)
    found = bradley_terry(WINS, ridge=0)
    assert found.strength_GK[0, :6] - found.strength_GK[0, 6] == pytest.approx(fit.params, abs=1e-6)
    of = found.covariance_GKK[0]
    errors = [math.sqrt(of[team, team] + of[6, 6] - 2 * of[team, 6]) for team in range(6)]
    assert errors == pytest.approx(fit.bse, abs=1e-6)
    low, high = found.interval()[0, 0]
    assert low < found.strength_GK[0, 0] < high


def test_strengths_equal_those_of_choix():
    choix = pytest.importorskip("choix", reason="choix is not installed")
    rows = [(i, j) for i, j in itertools.permutations(range(7), 2) for _ in range(int(WINS[i, j]))]
    assert bradley_terry(WINS, ridge=0).strength_GK[0] == pytest.approx(choix.opt_pairwise(7, rows), abs=1e-5)
    theirs = choix.opt_pairwise(7, rows, alpha=0.15)  # its penalty is alpha * |s|^2
    assert bradley_terry(WINS, ridge=0.3).strength_GK[0] == pytest.approx(theirs, abs=1e-5)


def test_many_tournaments_at_once_are_each_as_alone():
    wins = np.random.default_rng(0).integers(0, 4, (20, 5, 5)).astype(float)
    together = bradley_terry(wins)
    for place in range(20):
        assert together.strength_GK[place] == pytest.approx(bradley_terry(wins[place]).strength_GK[0], abs=1e-8)


def test_ties_are_half_wins_and_parts_that_never_met_are_told():
    tied = bradley_terry(wins_matrix([0, 0], [1, 1], [0.5, 0.5], 2))
    assert tied.strength_GK[0] == pytest.approx([0, 0]) and tied.beats([0], [1]) == pytest.approx([0.5])
    apart = bradley_terry(wins_matrix([0, 2], [1, 3], [1, 1], 4))
    assert apart.components_G.tolist() == [2] and apart.finite_G.tolist() == [False]
    assert bradley_terry(np.zeros((1, 3, 3))).components_G.tolist() == [3]
    with pytest.raises(ValueError, match="ridge above 0"):
        bradley_terry(wins_matrix([0], [1], [1], 2), ridge=0)


def test_the_chance_of_being_better_grows_with_the_votes():
    chances = [float(bradley_terry([[0, a], [b, 0]]).beats([0], [1])[0]) for a, b in ((2, 1), (1, 0), (2, 0), (3, 0))]
    assert chances == sorted(chances) and chances[0] == pytest.approx(0.709, abs=0.001)


def test_a_majority_needs_a_lead_votes_and_a_margin():
    items, labels = [0, 0, 0, 1, 1, 2, 3, 3, 3], [0, 0, 1, 0, 1, 1, 0, 1, 2]
    assert majority(items, labels, 5, 3).labels_I.tolist() == [0, -1, 1, -1, -1]
    assert majority(items, labels, 5, 3, min_votes=2).labels_I.tolist() == [0, -1, -1, -1, -1]
    assert majority(items, labels, 5, 3, min_margin=0.34).labels_I.tolist() == [-1, -1, 1, -1, -1]
    weighed = majority(items, labels, 5, 3, weights_V=[0.2, 0.2, 1, 1, 0.5, 0, 1, 1, 1])
    assert weighed.labels_I.tolist() == [1, 0, -1, -1, -1]
    margins = majority(items, labels, 5, 3).margin_I
    assert margins[:4] == pytest.approx([1 / 3, 0, 1, 0]) and np.isnan(margins[4])


def test_the_confidence_of_a_lead_is_the_posterior_of_a_coin():
    """P(Beta(a + 1, b + 1) > 1/2) is P(Binomial(a + b + 1, 1/2) <= a)."""
    for a, b in itertools.product(range(6), repeat=2):
        size = a + b + 1
        expected = sum(math.comb(size, k) for k in range(a + 1)) / 2**size
        assert float(lead_confidence(a, b)) == pytest.approx(expected)


def test_agreement_of_an_item_is_the_share_of_agreeing_pairs():
    found = pair_agreement([[3, 0], [2, 1], [1, 1], [1, 0], [0, 0]])
    assert found[:3] == pytest.approx([1, 1 / 3, 0]) and np.isnan(found[3:]).all()
