"""Which groups of rollouts carry a gradient, and what a rollout batch is made of, held against GRPOConfig."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.auditing.rl_signal import GRPOBatch, Rollouts, band, gradient_share, signal
from curation.errors import UserError

MANY = settings(max_examples=150, deadline=None)
RATES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def test_three_percent_right_in_pairs_gives_under_six_percent_of_groups_a_gradient():
    found = signal([0.03], 2)
    assert found.share == pytest.approx(0.0582, abs=5e-5)
    assert found.num_in_band == 0


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("numerator", [0, 1, 3, 8, 10])
def test_the_share_is_that_of_counting_all_groups(size, numerator):
    rate = Fraction(numerator, 10)
    mixed = Fraction(0)
    for answers in product([True, False], repeat=size):
        chance = Fraction(1)
        for right in answers:
            chance *= rate if right else 1 - rate
        mixed += chance * (0 < sum(answers) < size)
    assert gradient_share(float(rate), size) == pytest.approx(float(mixed), abs=1e-12)


def test_simulated_groups_have_the_foreseen_share():
    generator = np.random.default_rng(7)
    rates = generator.beta(0.5, 1.5, size=2_000)
    right = (generator.random((2_000, 50, 8)) < rates[:, None, None]).sum(axis=2)
    assert signal(rates, 8).share == pytest.approx(((right > 0) & (right < 8)).mean(), abs=0.005)


def test_unknown_pass_rates_stay_unknown():
    for nothing in (None, [], [np.nan, np.nan]):
        found = signal(nothing, 8)
        assert (found.share, found.smallest_group, found.band, found.num_in_band) == (None,) * 4
        assert found.num_known == 0
    some = signal([0.5, np.nan], 2)
    assert (some.num_rows, some.num_known, some.share, some.num_in_band) == (2, 1, 0.5, 1)


def test_weights_say_how_often_a_row_is_drawn():
    assert signal([0.5, 0.0], 2, weights=[3, 1]).share == pytest.approx(0.375)
    assert signal([0.5, 0.0, np.nan], 2, weights=[1, 1, 8]).share == pytest.approx(0.25)
    assert signal([0.5], 2, weights=[0]).share is None


def test_the_smallest_group_is_the_first_that_reaches_half():
    assert signal([0.5], 8).smallest_group == 2
    assert signal([0.03], 2).smallest_group == 23  # 1 - 0.97^23 = 0.504
    assert signal([0.0, 1.0, 0.5], 8).smallest_group is None
    assert signal([0.5, 0.0, 1.0, 0.0], 8).share == pytest.approx(0.25, abs=0.01)
    assert signal([0.03], 512).share == pytest.approx(1.0, abs=1e-6)


def test_rates_weights_and_groups_out_of_range_are_told_at_once():
    with pytest.raises(UserError) as told:
        signal([50.0, -1.0], 1, weights=[1])
    assert {problem.key for problem in told.value.problems} == {"group_size", "pass_rates", "weights"}
    with pytest.raises(UserError, match="negative"):
        signal([0.5], 2, weights=[-1])


def test_the_band_of_pairs_is_one_half_and_widens_with_the_group():
    assert band(2) == (0.5, 0.5)
    assert band(3)[0] == pytest.approx((1 - 3**-0.5) / 2)  # 3 p (1 - p) = 1/2
    bands = [band(size) for size in range(2, 65)]
    assert bands == sorted(bands, reverse=True)
    assert band(64)[0] == pytest.approx(1 - 2 ** (-1 / 64), rel=1e-6)


@MANY
@given(st.integers(2, 128))
def test_the_band_ends_where_half_of_the_groups_carry_a_gradient(size):
    def exact(rate: float) -> Fraction:
        return 1 - Fraction(rate) ** size - (1 - Fraction(rate)) ** size

    low, high = band(size)
    assert exact(low) >= Fraction(1, 2) > exact(float(np.nextafter(low, 0)))
    assert high == 1 - low


@MANY
@given(RATES, st.integers(2, 64))
def test_a_signal_is_a_share_that_grows_with_the_group(rates, size):
    found, larger = signal(rates, size), signal(rates, size + 1)
    assert 0 <= found.share <= larger.share + 1e-12 <= 1 + 1e-12
    assert found.num_in_band == sum(found.band[0] <= rate <= found.band[1] for rate in rates)
    assert found.num_in_band <= larger.num_in_band
    if found.share >= 0.5:
        assert found.smallest_group <= size
    assert signal([1 - rate for rate in rates], size).share == pytest.approx(found.share, abs=1e-9)


def test_the_arithmetic_of_a_verl_iteration():
    batch = Rollouts(train_batch_size=1024, n=8, ppo_mini_batch_size=256, ppo_micro_batch_size_per_gpu=4,
                     num_devices=16, ppo_epochs=2)  # fmt: skip
    assert batch.problems() == []
    assert (batch.samples_per_iteration, batch.samples_per_update) == (8192, 2048)
    assert (batch.updates_per_iteration, batch.micro_batches_per_update) == (8, 32)


@pytest.mark.parametrize(("changes", "keys"), [
    ({"ppo_mini_batch_size": 3}, ["actor.ppo_mini_batch_size", "actor.ppo_mini_batch_size"]),
    ({"ppo_mini_batch_size": 16}, ["actor.ppo_mini_batch_size"]),
    ({"num_devices": 5}, ["data.train_batch_size", "actor.ppo_mini_batch_size"]),
    ({"ppo_micro_batch_size_per_gpu": 3}, ["actor.ppo_micro_batch_size_per_gpu"]),
    ({"n": 0, "num_devices": 0}, ["n", "num_devices"]),
])  # fmt: skip
def test_every_division_with_a_remainder_is_told_in_the_terms_of_verl(changes, keys):
    sound: dict[str, Any] = {"train_batch_size": 8, "n": 2, "ppo_mini_batch_size": 4, "num_devices": 4,
                             "ppo_micro_batch_size_per_gpu": 2}  # fmt: skip
    assert Rollouts(**sound).problems() == []
    told = [problem.key.removeprefix("actor_rollout_ref.") for problem in Rollouts(**{**sound, **changes}).problems()]
    assert told == keys


@MANY
@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 64), st.integers(1, 8), st.integers(1, 8))
def test_a_sound_iteration_is_whole_everywhere(prompts, n, mini, micro, devices):
    batch = Rollouts(train_batch_size=prompts, n=n, ppo_mini_batch_size=mini, ppo_micro_batch_size_per_gpu=micro,
                     num_devices=devices)  # fmt: skip
    whole = batch.updates_per_iteration.denominator == batch.micro_batches_per_update.denominator == 1
    assert (batch.problems() == []) == (whole and prompts * n % devices == 0 and mini <= prompts)


def combinations(number: int) -> list[dict[str, Any]]:
    """Random settings of the seven numbers; half give neither of the two optional ones."""
    choose = random.Random(11)
    found = []
    for _ in range(number):
        steps, given = choose.choice([(None, None), (None, None), (1, None), (None, 1), (1, 1)])
        found.append({
            "per_device_train_batch_size": choose.choice([1, 2, 3, 4, 6, 8]),
            "gradient_accumulation_steps": choose.choice([1, 2, 3, 4]), "num_processes": choose.choice([1, 2, 3, 4, 8]),
            "num_generations": choose.choice([1, 2, 3, 4, 6, 8, 16]), "num_iterations": choose.choice([1, 2]),
            "steps_per_generation": steps and choose.choice([1, 2, 3, 4, 6]),
            "generation_batch_size": given and choose.choice([1, 2, 4, 6, 8, 12, 16, 24, 48, 64, 96]),
        })  # fmt: skip
    return found


def test_grpo_config_refuses_exactly_what_is_foreseen_and_derives_the_same(monkeypatch, tmp_path):
    from trl import GRPOConfig

    processes = 1
    monkeypatch.setattr(GRPOConfig, "world_size", property(lambda config: processes))
    accepted = refused = 0
    for numbers in combinations(400):
        processes = numbers["num_processes"]
        options = {key: value for key, value in numbers.items() if key != "num_processes"}
        foreseen = GRPOBatch(**numbers)
        try:
            real = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, report_to=[], **options)
        except ValueError as refusal:
            refused += 1
            assert foreseen.problems(), (numbers, refusal)
        else:
            accepted += 1
            assert not foreseen.problems(), numbers
            assert foreseen.derived == (real.generation_batch_size, real.steps_per_generation), numbers
    assert min(accepted, refused) > 100


def test_the_defaults_are_those_of_grpo_config():
    from dataclasses import fields

    from trl import GRPOConfig

    real = {one.name: one.default for one in fields(GRPOConfig)}
    for one in fields(GRPOBatch):
        if one.name != "num_processes":
            assert real[one.name] == one.default, one.name


def test_the_arithmetic_of_a_trl_generation():
    batch = GRPOBatch(per_device_train_batch_size=4, gradient_accumulation_steps=8, num_processes=8, num_generations=16)
    assert batch.problems() == []
    assert batch.derived == (256, 8)
    assert (batch.prompts_per_generation, batch.samples_per_update, batch.updates_per_generation) == (16, 256, 1)
    mixed = GRPOBatch(per_device_train_batch_size=4, gradient_accumulation_steps=2, num_generations=4,
                      steps_per_generation=3, num_iterations=2)  # fmt: skip
    assert mixed.problems() == []
    assert mixed.updates_per_generation == 3
    assert GRPOBatch(steps_per_generation=1, gradient_accumulation_steps=2).updates_per_generation == Fraction(1, 2)


def test_every_reason_of_trl_is_told_at_once():
    batch = GRPOBatch(generation_batch_size=9, steps_per_generation=2, num_generations=4)
    assert [problem.key for problem in batch.problems()] == ["generation_batch_size", "num_generations"]
    assert [problem.key for problem in GRPOBatch(num_generations=0, num_processes=0).problems()] == [
        "num_processes", "num_generations"]  # fmt: skip
