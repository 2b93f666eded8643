"""How much of an RLVR run can teach anything: groups with a gradient, and the arithmetic of rollout batches.

GRPO's advantage is the reward minus the mean of its group (Shao et al., arXiv 2402.03300, section 4.1): a group of G
answers that are all right or all wrong has no advantage and no gradient. With pass rate p that is p^G + (1 - p)^G of
the groups (those that DAPO's dynamic sampling throws away, arXiv 2503.14476, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation.errors import Problem, UserError

LARGEST_GROUP = 64
HALF = 0.5


def gradient_share(pass_rates: ArrayLike, group_size: int) -> NDArray[np.float64]:
    """Probability (0..1) that a group of `group_size` answers holds both a right and a wrong one: 1 - p^G - (1-p)^G,
    elementwise over pass rates of any shape (0..1; NaN stays NaN). Assumes independent answers and a binary reward."""
    rates = np.asarray(pass_rates, dtype=np.float64)
    return np.asarray(1.0 - rates**group_size - (1.0 - rates) ** group_size, dtype=np.float64)


@dataclass(frozen=True)
class Signal:
    """What N pass rates promise at one group size. Shares are 0..1 and weighted where weights were given; every figure
    but the counts is None where no pass rate is known. `share` is the expected share of groups with a gradient,
    `smallest_group` the smallest size up to 64 at which half of the groups have one (None: no such size), `band` the
    lowest and highest pass rate whose groups have one at least half of the time, `num_in_band` the rows within it."""

    group_size: int
    num_rows: int
    num_known: int
    share: float | None
    smallest_group: int | None
    band: tuple[float, float] | None
    num_in_band: int | None


def signal(pass_rates: ArrayLike | None, group_size: int, weights: ArrayLike | None = None) -> Signal:
    """The signal of N pass rates (shares 0..1, NaN where unknown) for groups of `group_size` >= 2; `weights` (N, >= 0)
    say how often a row is drawn. Unknown rows count in `num_rows` alone. A measured rate k/m understates the share a
    little, since 1 - p^G - (1-p)^G is concave. Raises UserError for rates, weights or a group out of range."""
    rates = np.asarray([] if pass_rates is None else pass_rates, dtype=np.float64).ravel()
    known = ~np.isnan(rates)
    share_of = np.ones(len(rates)) if weights is None else np.asarray(weights, dtype=np.float64).ravel()
    if problems := list(_problems(rates[known], share_of, len(rates), group_size)):
        raise UserError(problems)
    rates, share_of = rates[known], share_of[known]
    if not len(rates) or share_of.sum() == 0:
        return Signal(group_size, len(known), len(rates), None, None, None, None)
    shares = {size: float(np.average(gradient_share(rates, size), weights=share_of))
              for size in {group_size, *range(2, LARGEST_GROUP + 1)}}  # fmt: skip
    enough = [size for size in range(2, LARGEST_GROUP + 1) if shares[size] >= HALF]
    low, high = band(group_size)
    return Signal(
        group_size=group_size, num_rows=len(known), num_known=len(rates), share=shares[group_size],
        smallest_group=min(enough, default=None), band=(low, high),
        num_in_band=int(((rates >= low) & (rates <= high)).sum()),
    )  # fmt: skip


def _problems(rates: NDArray[np.float64], weights: NDArray[np.float64], rows: int, size: int) -> Iterator[Problem]:
    if size < 2:
        yield Problem(f"a group of {size} has no advantage", "give at least 2 answers a prompt", key="group_size")
    if outside := int(((rates < 0) | (rates > 1)).sum()):
        yield Problem(f"{outside:,} pass rates lie outside 0..1", "give shares, not percent", key="pass_rates")
    if len(weights) != rows:
        yield Problem(f"{len(weights):,} weights for {rows:,} rows", "give one weight a row", key="weights")
    elif not (np.isfinite(weights) & (weights >= 0)).all():
        yield Problem("a weight is negative or no number", "give 0 or more", key="weights")


def band(group_size: int) -> tuple[float, float]:
    """The lowest and highest pass rate at which at least half of the groups of `group_size` >= 2 have a gradient: by
    bisection in exact fractions down to neighbouring floats. The share rises to 1 - 2^(1-G) >= 1/2 at p = 1/2 and is
    symmetric."""
    outside, inside = 0.0, 0.5
    while outside < (middle := (outside + inside) / 2) < inside:
        rate = Fraction(middle)
        if 2 * (rate**group_size + (1 - rate) ** group_size) <= 1:
            inside = middle
        else:
            outside = middle
    return inside, 1.0 - inside


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """One iteration of verl's PPO trainer (GRPO included), in its terms: `train_batch_size` prompts are answered `n`
    times each; `ppo_mini_batch_size` counts prompts too, `ppo_micro_batch_size_per_gpu` answers on one device. Without
    sequence or model parallelism."""

    train_batch_size: int
    n: int
    ppo_mini_batch_size: int
    ppo_micro_batch_size_per_gpu: int
    num_devices: int
    ppo_epochs: int = 1

    @property
    def samples_per_iteration(self) -> int:
        """Answers sampled before the weights move."""
        return self.train_batch_size * self.n

    @property
    def samples_per_update(self) -> int:
        """Answers behind one optimiser update."""
        return self.ppo_mini_batch_size * self.n

    @property
    def updates_per_iteration(self) -> Fraction:
        """Optimiser updates on one batch of rollouts; whole where `problems` is empty. Above one, the later updates are
        off-policy."""
        return Fraction(self.train_batch_size * self.ppo_epochs, self.ppo_mini_batch_size)

    @property
    def micro_batches_per_update(self) -> Fraction:
        """Forward and backward passes of each device before an update (gradient accumulation)."""
        return Fraction(self.samples_per_update, self.num_devices * self.ppo_micro_batch_size_per_gpu)

    def problems(self) -> list[Problem]:
        """Every count below 1, else every division that leaves a remainder. verl 0.9.1 refuses a mini batch above the
        batch and a batch that does not divide over the devices; a mini batch that does not divide it passes in silence,
        and a worker rounds the answers of a device down."""
        if wrong := list(_below_one(self)):
            return wrong
        batch, mini, micro = self.train_batch_size, self.ppo_mini_batch_size, self.ppo_micro_batch_size_per_gpu
        found = []
        if mini > batch:
            found.append(Problem(f"{mini} prompts a mini batch of {batch}", f"give at most {batch}",
                                 key="actor_rollout_ref.actor.ppo_mini_batch_size"))  # fmt: skip
        elif batch % mini:
            found.append(Problem(f"{batch} prompts leave {batch % mini} over in mini batches of {mini}",
                                 f"give a divisor of {batch}",
                                 key="actor_rollout_ref.actor.ppo_mini_batch_size"))  # fmt: skip
        for what, number, key in (
            ("iteration", self.samples_per_iteration, "data.train_batch_size"),
            ("update", self.samples_per_update, "actor_rollout_ref.actor.ppo_mini_batch_size"),
        ):
            if number % self.num_devices:
                found.append(Problem(f"{number} answers an {what} do not divide over {self.num_devices} devices",
                                     f"make prompts x n a multiple of {self.num_devices}", key=key))  # fmt: skip
        here, left = divmod(self.samples_per_update, self.num_devices)
        if not left and here % micro:
            found.append(Problem(f"{here} answers an update on each device do not divide into micro batches of {micro}",
                                 f"give a divisor of {here}",
                                 key="actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"))  # fmt: skip
        return found


def _below_one(batch: Rollouts | GRPOBatch) -> Iterator[Problem]:
    for key, value in vars(batch).items():
        if value is not None and value < 1:
            yield Problem(f"{value} is less than 1", "give a positive number", key=key)


@dataclass(frozen=True, kw_only=True)
class GRPOBatch:
    """One generation of TRL's GRPOTrainer, in the terms and with the defaults of GRPOConfig (1.16), whose batch sizes
    count completions. `num_processes` is the number of devices."""

    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    num_processes: int = 1
    num_generations: int = 8
    steps_per_generation: int | None = None
    generation_batch_size: int | None = None
    num_iterations: int = 1

    @property
    def global_batch_size(self) -> int:
        """Completions in one micro step of all devices."""
        return self.per_device_train_batch_size * self.num_processes

    @property
    def derived(self) -> tuple[int, int]:
        """`generation_batch_size` and `steps_per_generation` as GRPOConfig fills them in."""
        if self.generation_batch_size is not None:
            return self.generation_batch_size, self.generation_batch_size // self.global_batch_size
        steps = self.steps_per_generation
        steps = self.gradient_accumulation_steps if steps is None else steps
        return self.global_batch_size * steps, steps

    @property
    def prompts_per_generation(self) -> Fraction:
        """Prompts answered before the weights move; whole where `problems` is empty."""
        return Fraction(self.derived[0], self.num_generations)

    @property
    def samples_per_update(self) -> int:
        """Completions behind one optimiser update."""
        return self.global_batch_size * self.gradient_accumulation_steps

    @property
    def updates_per_generation(self) -> Fraction:
        """Optimiser updates on one generation. TRL accepts a fraction: an update then mixes completions of two
        generations. Above one, the later updates are off-policy."""
        return Fraction(self.derived[1] * self.num_iterations, self.gradient_accumulation_steps)

    def problems(self) -> list[Problem]:
        """Every reason for which GRPOConfig (1.16) refuses these numbers; empty where it accepts them. Counts below 1
        are told too, though TRL takes some of them."""
        if wrong := list(_below_one(self)):
            return wrong
        given, size = self.generation_batch_size, self.global_batch_size
        found = []
        if given is not None and self.steps_per_generation is not None:
            found.append(Problem("it cannot be given beside steps_per_generation", "give one of the two",
                                 key="generation_batch_size"))  # fmt: skip
        elif given is not None and given % size:
            found.append(Problem(f"{given} completions do not divide into global batches of {size}",
                                 f"give a multiple of {size}", key="generation_batch_size"))  # fmt: skip
        if self.derived[0] % self.num_generations:
            found.append(Problem(f"{self.derived[0]} completions a generation are no whole groups",
                                 f"make per_device_train_batch_size x num_processes x steps a multiple of "
                                 f"{self.num_generations}", key="num_generations"))  # fmt: skip
        if self.num_generations < 2:
            found.append(Problem("a group of 1 has no advantage", "give 2 or more", key="num_generations"))
        return found
