"""Checks D1 to D6: what a cut leaves of the difference between chosen and rejected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.auditing.checks import Check, graded, level
from curation.auditing.judged import Judged


@dataclass(frozen=True)
class Pairs:
    """The N pairs of an audit that have both sides: arrays [2, N], chosen first. `prefix` [N] counts the tokens in
    which both sides begin alike, `prompt` [2, N] those before the answer; `end` is the place in the whole side behind
    the last token that stays, `trained` the answer's tokens that stay."""

    tokens: np.ndarray
    kept: np.ndarray
    end: np.ndarray
    trained: np.ndarray
    prompt: np.ndarray
    stops: np.ndarray
    keeps_stop: np.ndarray
    thinks: np.ndarray
    dropped: np.ndarray
    prefix: np.ndarray
    prompt_only: np.ndarray

    @classmethod
    def of(cls, anatomy: pa.Table, row: np.ndarray, side: np.ndarray, judged: Judged) -> Pairs:
        """From the pair anatomy [rows], the sequences' rows and sides, and the sequences as judged."""
        count = np.bincount(row, minlength=anatomy.num_rows)
        of = [np.flatnonzero((side == number) & (count[row] == 2)) for number in (0, 1)]
        place = np.stack([indices[np.argsort(row[indices], kind="stable")] for indices in of])
        rows = row[place[0]]
        prompt = np.minimum(anatomy["chosen_prompt_tokens"].to_numpy(), anatomy["rejected_prompt_tokens"].to_numpy())
        fates = judged.fates
        end = np.zeros(len(row), np.int64)
        np.maximum.at(end, fates.row, fates.start + fates.length)
        return cls(
            tokens=judged.tokens[place], kept=judged.kept[place], end=end[place],
            trained=judged.kept_trained[place], prompt=np.broadcast_to(prompt[rows], place.shape),
            stops=judged.has_stop[place], keeps_stop=judged.keeps_stop[place], thinks=judged.thinks[place],
            dropped=judged.dropped[place], prefix=anatomy["common_prefix"].to_numpy()[rows],
            prompt_only=anatomy["prompt_only_tokens"].to_numpy()[rows],
        )  # fmt: skip


def pair_checks(pairs: Pairs, limit: int | None) -> Iterator[Check]:
    """Every D check."""
    stay: np.ndarray = ~np.any(pairs.dropped, axis=0)
    total = max(1, int(stay.sum()))
    yield _identical(pairs, stay, total)
    yield _asymmetric(pairs, stay, total)
    yield from _shared(pairs)
    value = float((pairs.prompt[0] >= limit).mean()) if limit is not None and pairs.prompt.size else 0.0
    yield graded("D4", "prompt fills the context", value, (0.0, 1.0),
                 f"the prompts of {value:.1%} of the pairs alone fill {limit} tokens", "every prompt leaves room",
                 "raise max_length, or leave long prompts out by a rule")  # fmt: skip
    yield _length_bias(pairs, stay)
    value = float((pairs.thinks[0] != pairs.thinks[1]).mean()) if pairs.thinks.size else 0.0
    yield graded("D6", "mode mixed", value, (0.0, 0.0),
                 f"in {value:.1%} of the pairs one side thinks and the other does not: the loss teaches the mode",
                 "both sides of every pair are of one mode",
                 "pair answers of one mode, or leave such pairs out")  # fmt: skip


def _identical(pairs: Pairs, stay: np.ndarray, total: int) -> Check:
    """D1: both sides are the same tokens after the cut; their loss is log 2 and their gradient zero."""
    alike = (pairs.kept[0] == pairs.kept[1]) & (pairs.end[0] == pairs.end[1])
    same = stay & alike & (pairs.end[0] <= pairs.prefix)
    value = float(same.sum() / total)
    before = int(((pairs.tokens[0] == pairs.tokens[1]) & (pairs.tokens[0] <= pairs.prefix)).sum())
    return graded("D1", "identical sides", value, (0.0, 0.001),
                  f"{int(same.sum()):,} pairs are the same tokens on both sides after the cut ({before:,} were "
                  "before): they train nothing", "the sides of every pair differ",
                  "raise max_length, or leave such pairs out")  # fmt: skip


def _asymmetric(pairs: Pairs, stay: np.ndarray, total: int) -> Check:
    """D2: one side is cut, or loses its stop, and the other does not."""
    cut = pairs.kept < pairs.tokens
    stops = pairs.stops & pairs.keeps_stop
    one = stay & ((cut[0] != cut[1]) | ((stops[0] != stops[1]) & (pairs.stops[0] == pairs.stops[1])))
    value = float(one.sum() / total)
    unlearned = int((one & stops[1] & ~stops[0]).sum())
    gaps = [float((each[0] - each[1])[stay].mean()) if stay.any() else 0.0 for each in (pairs.tokens, pairs.kept)]
    return graded("D2", "one side cut", value, (0.01, 0.05),
                  f"{value:.1%} of the pairs are cut on one side alone; in {unlearned:,} the rejected answer stops and "
                  f"the chosen one no longer does; the mean length gap goes from {gaps[0]:+.0f} to {gaps[1]:+.0f}",
                  "no pair is cut on one side alone",
                  "raise max_length, or leave pairs with a long side out by a rule")  # fmt: skip


def _shared(pairs: Pairs) -> Iterator[Check]:
    """D3: how much of the shorter answer both sides share, and whether the rendered rows go on from the prompt."""
    answers = np.minimum(pairs.tokens[0], pairs.tokens[1]) - pairs.prompt[0]
    of = answers > 0
    share = np.where(of, np.clip(pairs.prefix - pairs.prompt[0], 0, None) / np.where(of, answers, 1), 0.0)
    value = float(share[of].mean()) if of.any() else 0.0
    astray = int((pairs.prompt[0] < pairs.prompt_only).sum())
    yield graded("D3", "shared beginning", value, (0.5, 1.0),
                 f"{value:.1%} of the shorter answer's tokens are the same on both sides and carry no gradient",
                 f"{value:.1%} of the answers' tokens are shared",
                 "the last answer may be paired with an earlier question: check the source's mapping")  # fmt: skip
    share_astray = astray / max(1, len(pairs.prefix))
    yield graded(
        "T1",
        "prompt is a prefix",
        share_astray,
        (0.0, 0.0),
        f"in {astray:,} pairs the rendered row does not "
        "go on from the rendered prompt: what is trained differs from what is asked",
        "every rendered row goes on from its prompt",
        "use a template whose prompt is a prefix of the row",
    )


def _length_bias(pairs: Pairs, stay: np.ndarray) -> Check:
    """D5: the mean of ln(chosen / rejected answer length), before and after."""
    ratios = []
    for lengths, of in ((pairs.tokens - pairs.prompt, np.ones(len(stay), bool)), (pairs.trained, stay)):
        answers = np.clip(lengths, 1, None)
        ratios.append(float(np.log(answers[0][of] / answers[1][of]).mean()) if of.any() else 0.0)
    value = abs(ratios[1] - ratios[0])
    said = f"the mean log length ratio of chosen to rejected is {ratios[0]:+.2f} before and {ratios[1]:+.2f} after"
    return Check("D5", "length bias", level(value, 0.1, 1e9), value, 1e9, said,
                 "raise max_length, or re-balance" if value > 0.1 else "")  # fmt: skip
