"""What the scores of a reward model are worth: pure functions over the scores of N pairs.

`chosen_N` and `rejected_N` are rewards in the logits of Bradley and Terry's model, in which P(chosen preferred) is
sigmoid(chosen - rejected). Pairs of one cluster (one prompt) are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from curation import statistics
from curation.statistics import ALPHA, Interval

Floats = NDArray[np.float64]
NUM_BINS = 10
MIN_DIFFERENCE = 0.01  # root mean square of the differences inside pairs from which a model says anything
MIN_SHARE_OF_PAIRS = 0.05  # spread inside pairs over spread of all scores, below which the prompt alone decides
BIMODAL = 5 / 9  # of Sarle's coefficient: that of a uniform distribution
MIN_FOR_SHAPE = 20  # scores that a shape is told from


@dataclass(frozen=True)
class Share:
    """`count` of `n` pairs with a 95 % interval (statistics.share_interval, which names its `method`)."""

    n: int
    count: int
    share: float | None
    interval: Interval
    method: str


@dataclass(frozen=True)
class Bin:
    """Pairs whose stated probability lies in low..high: their mean probability and how often it came true."""

    low: float
    high: float
    n: int
    stated: float
    observed: float
    interval: Interval


@dataclass(frozen=True)
class Calibration:
    """`error` is the expected calibration error: the mean over pairs of |observed - stated| of their bin."""

    bins: list[Bin]
    error: float


@dataclass(frozen=True)
class Shape:
    """How scores lie. `differences` is the root mean square of chosen - rejected, `inside` the spread inside pairs over
    that of all scores (at most 1). `collapsed` says why the model tells no answer from another, else it is empty;
    `bimodality` is Sarle's coefficient, NaN where it cannot be told."""

    mean: float
    sd: float
    differences: float
    inside: float
    num_ties: int
    bimodality: float
    collapsed: str
    bimodal: bool


@dataclass(frozen=True)
class Correlation:
    """A correlation with a 95 % interval; `n` is the number of independent groups that the interval counts."""

    value: float
    interval: Interval
    n: int


@dataclass(frozen=True)
class Length:
    """Spearman's correlation of score and answer length (tokens), and the same with which side is chosen held fixed."""

    correlation: Correlation
    given_correctness: Correlation


@dataclass(frozen=True)
class Normalised:
    """Accuracy once `slope` (reward per token, least squares over all answers) times the length is taken off every
    score, and the paired difference to the accuracy before, with McNemar's exact p-value."""

    slope: float
    accuracy: Share
    difference: float
    interval: Interval
    p: float


@dataclass(frozen=True)
class Probe:
    """How often the side with what is probed (the rejected one) scores higher, ties apart. `verdict`:
    `prefers`, `rejects`, or `undecided` where the interval holds one half."""

    name: str
    preferred: Share
    num_ties: int
    mean_difference: float  # probed side - other side

    @property
    def verdict(self) -> str:
        low, high = self.preferred.interval
        return "prefers" if low > 0.5 else "rejects" if high < 0.5 else "undecided"


@dataclass(frozen=True)
class PolicySteps:
    """Accuracy by the step of the policy that wrote the answers. Where it fell `proposal` is what to do and `query`
    lists what to annotate, over the view `rollouts`; else both are empty."""

    steps: list[tuple[int, Share]]
    proposal: str
    query: str = ""


@dataclass(frozen=True)
class Figures:
    """Everything of one benchmark and reward model."""

    benchmark: str
    accuracy: Share
    sources: dict[str, Share]
    mean_margin: float
    margin_interval: Interval
    calibration: Calibration
    shape: Shape
    length: Length
    normalised: Normalised
    policy: PolicySteps | None = None
    known_margin: Correlation | None = None
    num_errors: int = 0
    scores: dict[str, list[float]] = field(default_factory=dict)  # chosen and rejected, for the histogram


def share(hits_N: ArrayLike, clusters_N: ArrayLike | None = None) -> Share:
    """The share of hits (bool[N]), whose interval is cluster-robust where clusters repeat."""
    hits = np.asarray(hits_N, dtype=bool)
    interval, method = statistics.share_interval(hits, clusters_N)
    return Share(len(hits), int(hits.sum()), float(hits.mean()) if len(hits) else None, interval, method)


def accuracy(chosen_N: Floats, rejected_N: Floats, clusters_N: ArrayLike | None = None) -> Share:
    """The share of pairs with chosen > rejected; a tie is wrong."""
    return share(chosen_N > rejected_N, clusters_N)


def calibration(chosen_N: Floats, rejected_N: Floats) -> Calibration:
    """Stated against observed: every pair is told with the side that the model prefers, at P = sigmoid(|difference|),
    which lies in 1/2..1, and came true where that is the chosen one (a tie by half). Ten bins of equal width; expected
    calibration error as Guo et al. 2017 (arXiv 1706.04599) define it. Empty bins are left out."""
    differences = chosen_N - rejected_N
    stated = 1 / (1 + np.exp(-np.minimum(np.abs(differences), 500.0)))
    true = np.where(differences > 0, 1.0, np.where(differences < 0, 0.0, 0.5))
    edges = np.linspace(0.5, 1.0, NUM_BINS + 1)
    place = np.clip(np.searchsorted(edges, stated, side="right") - 1, 0, NUM_BINS - 1)
    bins = []
    for number in range(NUM_BINS):
        mine = place == number
        n = int(mine.sum())
        if n:
            observed = float(true[mine].mean())
            bins.append(Bin(float(edges[number]), float(edges[number + 1]), n, float(stated[mine].mean()), observed,
                            statistics.wilson_interval(round(observed * n), n)))  # fmt: skip
    return Calibration(bins, sum(item.n * abs(item.observed - item.stated) for item in bins) / len(differences))


def sarle(values_N: Floats) -> float:
    """Sarle's bimodality coefficient with the corrections for finite samples (Pfister et al. 2013, doi
    10.3389/fpsyg.2013.00700): (g1^2 + 1) / (g2 + 3 (n-1)^2 / ((n-2)(n-3))), g1 the skewness and g2 the excess kurtosis.
    5/9 for a uniform distribution, 1/3 for a normal one; above 5/9 it points to two modes, or to strong skew. NaN below
    20 values and where all are equal."""
    from scipy import stats

    n = len(values_N)
    if n < MIN_FOR_SHAPE or np.ptp(values_N) == 0:
        return math.nan
    skew = float(stats.skew(values_N, bias=False))
    kurtosis = float(stats.kurtosis(values_N, bias=False))
    return (skew**2 + 1) / (kurtosis + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))


def shape(chosen_N: Floats, rejected_N: Floats) -> Shape:
    """How the 2N scores lie, and whether they have collapsed: most pairs tie; the differences are below 0.01 logits,
    which moves no probability by more than a quarter of a point; or they are small against the spread of all scores,
    so that the prompt decides and not the answer."""
    scores = np.concatenate([chosen_N, rejected_N])
    differences = chosen_N - rejected_N
    sd, rms = float(scores.std()), float(np.sqrt((differences**2).mean()))
    inside = min(1.0, rms / 2 / sd) if sd > 0 else 0.0  # two scores of one pair deviate from their mean by half of it
    ties = int((differences == 0).sum())
    why = ""
    if ties > len(differences) / 2:
        why = f"{ties:,} of {len(differences):,} pairs tie"
    elif rms < MIN_DIFFERENCE:
        why = f"the scores of a pair differ by {rms:.2g} logits only"
    elif inside < MIN_SHARE_OF_PAIRS:
        why = f"answers to one prompt differ by {100 * inside:.1f} % of the spread of all scores: the prompt decides"
    coefficient = sarle(scores)
    return Shape(float(scores.mean()), sd, rms, inside, ties, coefficient, why, coefficient > BIMODAL)


def spearman(a_N: Floats, b_N: Floats, num_groups: int | None = None, given_N: Floats | None = None) -> Correlation:
    """Spearman's correlation (partial where `given_N` is held fixed: Pearson's partial formula over ranks) with the
    interval of Bonett and Wright 2000 (doi 10.1007/BF02294183): Fisher's z with variance (1 + r^2/2) / (G - 3 - k), k
    the number of variables held fixed. G is `num_groups`, the independent ones among the values. NaN and -1..1 where a
    side is constant or there are too few."""
    from scipy import stats

    fixed = 0 if given_N is None else 1
    groups = len(a_N) if num_groups is None else num_groups
    if groups < 5 or np.ptp(a_N) == 0 or np.ptp(b_N) == 0:
        return Correlation(math.nan, Interval(-1.0, 1.0), groups)
    ranks = [stats.rankdata(values) for values in (a_N, b_N, *([] if given_N is None else [given_N]))]
    table = np.corrcoef(ranks)
    value = float(table[0, 1])
    if fixed:
        room = (1 - table[0, 2] ** 2) * (1 - table[1, 2] ** 2)
        if not np.isfinite(room) or room <= 0:
            return Correlation(math.nan, Interval(-1.0, 1.0), groups)
        value = float((value - table[0, 2] * table[1, 2]) / math.sqrt(room))
    value = max(-1.0, min(1.0, value))
    if abs(value) == 1:
        return Correlation(value, Interval(value, value), groups)
    half = float(stats.norm.ppf(1 - ALPHA / 2)) * math.sqrt((1 + value**2 / 2) / (groups - 3 - fixed))
    return Correlation(value, Interval(math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)),
                       groups)  # fmt: skip


def length(chosen_N: Floats, rejected_N: Floats, chosen_tokens_N: Floats, rejected_tokens_N: Floats,
           clusters_N: ArrayLike | None = None) -> Length:  # fmt: skip
    """How scores follow the length of answers; all answers to one prompt count as one for the intervals."""
    scores = np.concatenate([chosen_N, rejected_N])
    tokens = np.concatenate([chosen_tokens_N, rejected_tokens_N]).astype(float)
    right = np.repeat([1.0, 0.0], len(chosen_N))
    groups = len(chosen_N) if clusters_N is None else len(np.unique(np.asarray(clusters_N)))
    return Length(spearman(scores, tokens, groups), spearman(scores, tokens, groups, right))


def without_length(chosen_N: Floats, rejected_N: Floats, chosen_tokens_N: Floats,
                   rejected_tokens_N: Floats) -> tuple[float, Floats, Floats]:  # fmt: skip
    """(slope, chosen, rejected) with what a straight line through all scores says of length taken off: the linear form
    of post-hoc reward calibration (Huang et al. 2024, arXiv 2409.17407, who fit it locally)."""
    scores = np.concatenate([chosen_N, rejected_N])
    tokens = np.concatenate([chosen_tokens_N, rejected_tokens_N]).astype(float)
    centred = tokens - tokens.mean()
    spread = float((centred**2).sum())
    slope = float((centred * (scores - scores.mean())).sum()) / spread if spread else 0.0
    return slope, chosen_N - slope * chosen_tokens_N, rejected_N - slope * rejected_tokens_N


def normalised(chosen_N: Floats, rejected_N: Floats, chosen_tokens_N: Floats, rejected_tokens_N: Floats,
               clusters_N: ArrayLike | None = None) -> Normalised:  # fmt: skip
    """What length normalisation does to accuracy."""
    slope, chosen, rejected = without_length(chosen_N, rejected_N, chosen_tokens_N, rejected_tokens_N)
    before, after = chosen_N > rejected_N, chosen > rejected
    losses, gains = int((before & ~after).sum()), int((after & ~before).sum())
    n = len(before)
    return Normalised(
        slope,
        share(after, clusters_N),
        (gains - losses) / n,
        statistics.bonett_price_interval(losses, gains, n),
        statistics.mcnemar_exact(losses, gains),
    )


def probe(name: str, plain_N: Floats, probed_N: Floats) -> Probe:
    """How often the probed side is preferred among the pairs that do not tie; pairs are independent."""
    differences = probed_N - plain_N
    differ = differences != 0
    return Probe(name, share(differences[differ] > 0), int((~differ).sum()), float(differences.mean()))


def combine(members: Sequence[tuple[Floats, Floats]], reward: str) -> tuple[Floats, Floats]:
    """(chosen, rejected) of an ensemble over the same N pairs: every member's scores are standardised over its 2N
    scores (a constant member is 0), then their mean or least is taken (Coste et al. 2023, arXiv 2310.02743)."""
    standard = []
    for chosen, rejected in members:
        scores = np.concatenate([chosen, rejected])
        sd = scores.std()
        standard.append((scores - scores.mean()) / sd if sd > 0 else np.zeros_like(scores))
    combined = np.min(standard, axis=0) if reward == "min" else np.mean(standard, axis=0)
    half = len(combined) // 2
    return combined[:half], combined[half:]


def by_policy_step(benchmark: str, right_N: NDArray[np.bool_], steps_N: NDArray[np.int64], clusters_N: ArrayLike,
                   policies: Sequence[str] = ()) -> PolicySteps:  # fmt: skip
    """Accuracy per step in ascending order. Where the last step's interval lies below the first's, an annotation job is
    proposed: pairs of what the policy answers now (in the runs `policies`, else in any that had a reward model), as
    many as the first step has."""
    clusters = np.asarray(clusters_N)
    found = [(int(step), share(right_N[steps_N == step], clusters[steps_N == step])) for step in np.unique(steps_N)]
    (first, before), (last, now) = found[0], found[-1]
    if now.interval.high >= before.interval.low:
        return PolicySteps(found, "")
    told = [f"{100 * (item.share or 0):.1f} % [{100 * item.interval.low:.1f}, {100 * item.interval.high:.1f}]"
            for item in (before, now)]  # fmt: skip
    query = annotation_query(last, before.n, policies)
    return PolicySteps(found, f"{benchmark}: accuracy fell from {told[0]} on answers of policy step {first} to "
                       f"{told[1]} on those of step {last}: the policy has left what the reward model knows; have "
                       f"{before.n:,} pairs of answers of step {last} annotated (kedge annotate push), add them to the "
                       f'mixture and train the reward model again; the pairs: kedge sql "{query}"', query)  # fmt: skip


def annotation_query(step: int, num_pairs: int, policies: Sequence[str] = ()) -> str:
    """A SELECT over the view `rollouts`: of every prompt, from policy step `step` on, the two rollouts (their numbers
    `high` and `low`) between which the reward differs most, as a wrong order of them moves the policy most; the widest
    first."""
    runs = ", ".join("'" + name.replace("'", "''") + "'" for name in policies)
    which = f"run IN ({runs})" if runs else "contains(components, 'reward_model')"
    return ("SELECT run, row_id, step, arg_max(sample, reward) AS high, arg_min(sample, reward) AS low, "
            f"max(reward) - min(reward) AS apart FROM rollouts WHERE split = 'train' AND step >= {step} AND {which} "
            "GROUP BY run, row_id, step HAVING max(reward) > min(reward) "
            f"ORDER BY apart DESC, run, row_id, step LIMIT {num_pairs}")  # fmt: skip
