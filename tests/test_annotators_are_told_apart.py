"""What each annotator does is measured; who answers at random, by position or the wrong way round is found."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from curation.statistics import Interval, wilson_interval
from curation.voting.annotator_changes import calibration_changes, difference
from curation.voting.annotator_figures import Annotator
from curation.voting.annotators import annotators, entropy_bits, longest_run
from curation.voting.vote_arrays import arrays
from curation.voting.vote_consensus import match, others
from tests.voters import Simulated, item, simulate, tables, vote


def of(made: Simulated) -> list[Annotator]:
    return annotators(arrays(made.items, made.votes))


def flags(made: Simulated) -> Counter:
    return Counter((made.habits[one.name], flag.name) for one in of(made) for flag in one.flags)


def by_habit(made: Simulated, habit: str) -> Annotator:
    return next(one for one in of(made) if made.habits[one.name] == habit)


@pytest.mark.parametrize(("per_item", "num_items"), [(3, 400), (8, 80)])
def test_the_random_the_position_biased_and_the_adversarial_are_found_and_no_good_one_is_flagged(per_item, num_items):
    found, right = Counter(), {"random": "random", "position": "position_biased", "adversarial": "adversarial"}
    for seed in range(10):
        of_seed = flags(simulate(num_items=num_items, per_item=per_item, seed=seed))
        found.update(of_seed.keys())
    assert not [habit for habit, _ in found if habit == "good"]
    assert all(found[habit, flag] >= 9 for habit, flag in right.items()), found


def test_nobody_is_flagged_where_all_are_good_alike():
    for seed in range(8):
        assert not flags(simulate(("good",) * 6, num_items=150, seed=seed, ties=0.1))


def test_few_votes_prove_nothing_against_the_good():
    for seed in range(8):
        assert not [habit for habit, _ in flags(simulate(num_items=30, per_item=3, seed=seed)) if habit == "good"]


def test_fewer_than_ten_votes_are_never_flagged():
    made = simulate(("good",) * 3 + ("constant", "adversarial"), num_items=9, per_item=5)
    assert not flags(made)


def test_one_who_always_says_a_and_one_who_never_reads_are_found():
    made = simulate(("good",) * 5 + ("constant", "hasty"), num_items=200, seed=2)
    assert set(flags(made)) == {("constant", "constant"), ("constant", "position_biased"), ("hasty", "fast")}
    constant = by_habit(made, "constant")
    assert constant.top_answer == "A" and constant.top.value == 1.0 and constant.entropy_bits == 0.0
    assert constant.longest_run == constant.num_votes and constant.slot_a.share.value == 1.0
    assert by_habit(made, "hasty").too_fast.value == 1.0 and by_habit(made, "good").too_fast.value == 0.0
    assert 1 <= by_habit(made, "hasty").median_seconds <= 2


def test_a_flag_says_why_in_figures():
    made = simulate(("good",) * 5 + ("constant",), num_items=100, seed=2)
    one = by_habit(made, "constant")
    assert {flag.why for flag in one.flags} == {
        f"chose slot A in {one.num_votes} of {one.num_votes} choices",
        f"gave the answer A in {one.num_votes} of {one.num_votes} votes",
    }
    assert all(flag.p_value < 0.05 for flag in one.flags)


def test_slots_that_always_hold_the_better_answer_make_nobody_position_biased():
    """Where slots were not drawn, all choose A; the others' votes on the same items explain it."""
    rng = np.random.default_rng(0)
    items = [item(f"i{number:03}") for number in range(120)]
    cast = [vote(row["item_id"], who, "a" if rng.random() < 0.9 else "b", slots=["a", "b"])
            for row in items for who in "wxyz"]  # fmt: skip
    found = annotators(arrays(*tables(items, cast)))
    assert all(one.slot_a.share.value > 0.8 and one.slot_a.expected > 0.8 for one in found)
    assert not [flag for one in found for flag in one.flags]


def test_consensus_is_that_of_the_others_alone():
    """x is alone against y and z; for y and z the others are divided, so nothing is held against them."""
    cast = [vote("i1", "x", "a"), vote("i1", "y", "b"), vote("i1", "z", "b"), vote("i2", "x", "a")]
    found = {one.name: one for one in annotators(arrays(*tables([item("i1"), item("i2")], cast)))}
    assert found["x"].consensus[:2] == (0, 1) and found["x"].num_votes == 2
    assert found["y"].consensus[:2] == (0, 0) and found["y"].consensus.value is None


def test_agreement_beyond_chance_matches_dealing_the_same_answers_at_random():
    """Chance and its standard deviation, by shuffling one annotator's answers over the same items 4,000 times."""
    made = simulate(("good",) * 4, num_items=60, ties=0.2, skill=0.7, seed=3)
    votes = arrays(made.items, made.votes)
    beside = others(votes)
    found = match(votes, beside, votes.annotators_V == 0)
    used = np.flatnonzero((votes.annotators_V == 0) & (beside.weight_VL.sum(axis=1) > 0))
    rng = np.random.default_rng(1)
    dealt = np.array([beside.weight_VL[used, rng.permutation(votes.labels_V[used])].sum() for _ in range(4_000)])
    dealt /= beside.weight_VL[used].sum()
    assert found.chance == pytest.approx(dealt.mean(), abs=0.004)
    assert (found.seen - found.chance) / found.z == pytest.approx(dealt.std(), rel=0.05)


def test_bad_annotators_weigh_little_against_the_others():
    made = simulate(num_items=400, seed=5)
    votes = arrays(made.items, made.votes)
    weights = dict(zip(votes.annotators, others(votes).weights_A, strict=True))
    good = [weights[name] for name, habit in made.habits.items() if habit == "good"]
    bad = [weights[name] for name, habit in made.habits.items() if habit != "good"]
    assert min(good) > 1.5 * max(bad)


def test_gold_items_are_scored_with_wilsons_interval():
    items = [item(f"i{number}", gold="a", role="gold") for number in range(10)] + [item("plain")]
    cast = [vote(f"i{number}", "x", "a" if number < 7 else "tie") for number in range(10)] + [vote("plain", "x", "b")]
    (one,) = annotators(arrays(*tables(items, cast)))
    assert one.gold == (7, 10, 0.7, wilson_interval(7, 10)) and one.num_votes == 11
    assert one.ties.hits == 3 and one.both_bad.hits == 0


def test_a_retest_compares_an_annotators_own_answers_and_sees_who_follows_the_slot():
    items = [item("i1", ("a", "b")), item("i2", ("b", "a"), role="retest", of_item="i1")]
    slots = {"i1": ["a", "b"], "i2": ["b", "a"]}
    said = {"steady": ("a", "a"), "slotted": ("a", "b"), "once": ("a", None)}
    cast = [vote(name, who, verdict, slots=slots[name]) for who, both in said.items()
            for name, verdict in zip(("i1", "i2"), both, strict=True) if verdict]  # fmt: skip
    found = {one.name: one for one in annotators(arrays(*tables(items, cast)))}
    assert found["steady"].retest[:2] == (1, 1) and found["steady"].retest_same_slot[:2] == (0, 1)
    assert found["slotted"].retest[:2] == (0, 1) and found["slotted"].retest_same_slot[:2] == (1, 1)
    assert found["once"].retest.num == 0 and found["once"].retest.value is None


def test_good_annotators_repeat_themselves_more_often_than_random_ones():
    made = simulate(num_items=300, per_item=8, retest_share=0.3, seed=1)
    assert by_habit(made, "good").retest.value > 0.6 and by_habit(made, "random").retest.value < 0.65
    assert by_habit(made, "position").retest_same_slot.value > 0.6
    assert by_habit(made, "good").retest_same_slot.value < 0.4


def test_one_who_prefers_the_longer_answer_stands_out_against_the_others():
    made = simulate(("good",) * 5 + ("long",), num_items=300, seed=4)
    *good, long = of(made)
    assert made.habits[long.name] == "long"
    assert long.longer.share.value > 0.8 and long.longer.p_value < 0.001
    interval = long.logit.coefficients["length"][1]
    assert interval.low > 0.5 and long.slot_a.p_value > 0.01
    for one in good:
        assert abs(one.longer.share.value - one.longer.expected) < 0.15
        assert one.logit.coefficients["length"][0] < interval.low


def test_several_candidates_are_chosen_from_slot_a_as_often_as_there_are_slots():
    rng = np.random.default_rng(0)
    items, cast, names = [], [], ["g1", "g2", "g3", "g4"]
    for number in range(160):
        keys, right = tuple(rng.permutation(names).tolist()), str(rng.choice(names))
        items.append(item(f"i{number:03}", keys))
        cast += [vote(f"i{number:03}", who, right if rng.random() < 0.8 else str(rng.choice(names)), slots=list(keys))
                 for who in "xyz"]  # fmt: skip
        cast.append(vote(f"i{number:03}", "first", keys[0], slots=list(keys)))
    found = {one.name: one for one in annotators(arrays(*tables(items, cast)))}
    assert found["x"].slot_a.by_chance == 0.25 and found["x"].match.kappa > 0.5
    assert not [flag for name in "xyz" for flag in found[name].flags]
    assert {flag.name for flag in found["first"].flags} >= {"position_biased", "constant"}


def test_where_nobody_agrees_nobody_is_held_to_the_others():
    """Answers that do not depend on the item at all: the typical annotator does not agree above chance."""
    for seed in range(4):
        made = simulate(("random",) * 5 + ("adversarial",), num_items=100, seed=seed)
        assert not [flag for _, flag in flags(made) if flag in ("random", "weak", "adversarial")]


def test_a_judge_is_measured_against_people_and_people_are_not_measured_against_judges():
    cast = [vote("i1", who, "a") for who in "xyz"] + [vote("i1", f"judge-{n}", "b", kind="judge") for n in range(5)]
    found = {one.name: one for one in annotators(arrays(*tables([item("i1")], cast)))}
    assert found["judge-0"].judge and found["judge-0"].consensus[:2] == (0, 1)
    assert found["x"].consensus[:2] == (1, 1)


def test_discards_are_counted_for_one_who_submits_nothing():
    (one,) = annotators(arrays(*tables([item("i1")], [vote("i1", "x", None, status="discarded")])))
    assert (one.num_votes, one.num_discarded) == (0, 1) and one.match.kappa is None and one.flags == ()
    assert one.median_seconds is None and one.top_answer is None and one.entropy_bits is None


def test_runs_and_entropy_of_answers():
    assert longest_run(np.array([0, 1, 1, -1, 1, 0])) == 3 and longest_run(np.array([-1])) == 0
    assert entropy_bits(np.array([0, 1, 0, 1])) == pytest.approx(1.0) and entropy_bits(np.array([2, 2])) == 0.0


def test_a_difference_of_two_shares_has_newcombes_interval():
    """Newcombe 1998, table II, method 10: 56/70 less 48/80 is .20 (.0524 to .3339)."""
    after, before = wilson_interval(56, 70), wilson_interval(48, 80)
    found = difference(48 / 80, before, 56 / 70, after)
    assert found.difference == pytest.approx(0.2) and found.interval == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference(None, None, 0.5, Interval(0.4, 0.6)).difference is None


def test_what_calibration_changed_is_told_for_each_and_for_all():
    before = simulate(("good",) * 4, num_items=60, per_item=4, skill=0.65, gold_share=0.5, seed=1,
                      round_name="calibration-1")  # fmt: skip
    after = simulate(("good",) * 4, num_items=200, per_item=3, skill=0.95, gold_share=0.2, seed=2)
    found = calibration_changes(arrays(pa.concat_tables([before.items, after.items]),
                                       pa.concat_tables([before.votes, after.votes])))  # fmt: skip
    assert [one.annotator for one in found] == ["all", *sorted(after.habits)]
    everybody = found[0]
    assert everybody.num_before == 240 and everybody.num_after == 600
    assert everybody.agreement.interval.low > 0 and everybody.gold.interval.low > 0
    assert everybody.gold.before < 0.75 and everybody.gold.after > 0.9
    assert all(one.agreement.difference > 0 for one in found)


def test_without_a_calibration_round_nothing_is_said_about_it():
    made = simulate(num_items=20)
    assert calibration_changes(arrays(made.items, made.votes)) == []
