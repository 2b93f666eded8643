"""LLaMA-Factory 0.9.6.dev0, stages sft and pt: `infer_seqlen` over turn pairs, `greedy_knapsack` packing, and the
blocks of pre-training, as arithmetic over anatomy.

A turn pair is a source (what lies before a trained run) and a target (the run; what follows the last run goes with it).
Turn pair by turn pair the budget that is left is shared between both, and both are cut on the right: a source loses the
header of its answer, and the answer follows in the middle of the question.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, SPLIT, WHOLE, Fates, Flags, Integers, Runs
from curation.auditing.mirrors import Mirror
from curation.errors import Problem, UserError

VERSIONS = ">=0.9.6.dev0,<0.10"
READ = (
    "read in LLaMA-Factory 0.9.6.dev0 @ff6d4d1; not run, because it needs an environment of its own (it holds "
    "transformers and trl at other versions)"
)
# Templates that append the end-of-sequence token after the cut and train it (data/template.py, efficient_eos=True).
EFFICIENT_EOS = frozenset({
    "bailing", "bailing_v2", "breeze", "chatglm3", "dots_ocr", "falcon", "fewshot", "gemma2", "glm4", "glm4_moe",
    "glm4v", "glm4_5v", "glm_ocr", "glm4_7", "glmz1", "gpt_oss", "index", "hy_dense_1_8b", "hy_dense_7b", "solar",
    "yi_vl", "aeva",
})  # fmt: skip
DEAD = {
    "max_source_length": "cutoff_len", "max_target_length": "cutoff_len", "reserved_label_len": "cutoff_len",
    "sft_packing": "packing", "max_seq_length": "cutoff_len", "max_length": "cutoff_len",
}  # fmt: skip


class LlamaFactorySFT(Mirror):
    """LLaMA-Factory's options that decide what becomes of a row, under its names and defaults.

    Approximated: rows are rendered by a Jinja template, while LLaMA-Factory formats each turn by its own code, so the
    white space between turns may count to the other side, and a default system prompt may differ; rows whose roles do
    not alternate, which it drops with a warning, are not told from others; with train_on_prompt the turns cannot be
    told apart and a row is cut on the right as one; with mask_history the answers of earlier turns count as trained
    before and as lost after; the BOS that stage pt writes over the first token of a block is
    not counted; batches of the map are taken in the frozen order."""

    version: ClassVar[int] = 1
    limits: ClassVar[str] = "cutoff_len"
    package: ClassVar[str] = "llamafactory"
    versions: ClassVar[str] = VERSIONS
    read_not_run: ClassVar[str] = READ
    dead_options: ClassVar[dict[str, str]] = DEAD
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {
        "streaming": (False,), "mix_strategy": ("concat",), "tokenized_path": (None,),
        "resize_vocab": (False,), "new_special_tokens": (None,), "add_special_tokens": (None,),
    }  # fmt: skip

    stage: Literal["sft", "pt"] = "sft"
    template: str | None = None
    cutoff_len: int = Field(default=2048, ge=2)
    packing: bool | None = None
    neat_packing: bool = False
    mask_history: bool = False
    train_on_prompt: bool = False
    preprocessing_batch_size: int = Field(default=1000, ge=1)

    @classmethod
    def option_problems(cls, options: dict[str, Any], where: str = "") -> list[Problem]:
        found = super().option_problems(options, where)
        if options.get("mask_history") and options.get("train_on_prompt"):
            found.append(Problem("LLaMA-Factory refuses mask_history together with train_on_prompt", "keep one of them",
                                 where, "trainer.mask_history"))  # fmt: skip
        for name in ("neat_packing", "mask_history", "train_on_prompt"):
            if options.get(name) and options.get("stage", "sft") != "sft":
                found.append(Problem("LLaMA-Factory refuses this outside of stage sft", "remove it", where,
                                     f"trainer.{name}"))  # fmt: skip
        return found

    @property
    def packs(self) -> bool:
        """Packing is automatic in stage pt."""
        return self.neat_packing or (self.stage == "pt" if self.packing is None else self.packing)

    @property
    def isolates(self) -> bool:
        """neat_packing alone numbers the documents in the attention mask; otherwise the mask is all ones."""
        return self.neat_packing or not self.packs

    @property
    def efficient_eos(self) -> bool:
        """Whether the template appends the end of sequence after the cut."""
        return self.template in EFFICIENT_EOS

    @property
    def budget(self) -> int:
        """Tokens of a row or block: packing that is asked for takes one off cutoff_len (hparams/data_args.py)."""
        return self.cutoff_len - bool(self.packing or self.neat_packing)

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        if ("text" in columns) != (self.stage == "pt"):
            raise UserError(f"LLaMA-Factory's stage {self.stage} does not train these rows",
                            "plain text wants stage: pt, chats want stage: sft", key="trainer.stage")  # fmt: skip
        if self.stage == "pt":
            return "text"
        return "whole" if self.train_on_prompt else "turns"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        count = pc.sum(pc.is_valid(anatomy["render_error"])).as_py() or 0
        return [f"the template raises on {count:,} rows (LLaMA-Factory formats by its own code and may "
                "not)"] if count else []  # fmt: skip

    def fates(self, anatomy: pa.Table) -> Fates:
        tokens, runs = anatomy["tokens"].to_numpy().astype(np.int64), Runs.of(anatomy)
        if self.stage == "pt":
            return self._blocks(tokens, runs) if self.packs else self._right_cut(tokens, runs)
        source, target = turn_pairs(tokens, runs)
        stop = self.efficient_eos & (runs.edges[1:] > runs.edges[:-1])
        last = runs.edges[1:][stop] - 1
        target[last] -= 1  # the appended end of sequence is no part of what is cut
        kept_source, kept_target = self._kept(source, target, runs, stop)
        false_stop = stop & self._ends_early(kept_source + kept_target, kept_target < target, runs)
        ended = (kept_target[last] == target[last]) & (kept_source[last] + kept_target[last] > 0)
        target[last] += 1
        kept_target[last] += ended
        made = self._fates(tokens, runs, (source, kept_source), (target, kept_target), false_stop)
        if not self.packs:
            return made
        appended = np.zeros(len(tokens), np.int64)
        appended[np.flatnonzero(stop)[~ended]] = 1  # an end of sequence that no token of the row stands for
        bins = knapsack(made.kept + appended, self.budget, self.preprocessing_batch_size)
        return Fates(made.fate, made.row, made.start, made.length, bins[made.row], made.trained, false_stop)

    def _kept(self, source: Integers, target: Integers, runs: Runs, stop: Flags) -> tuple[Integers, Integers]:
        """Tokens of each turn pair's source and target that stay, in order of priority: the first turns, or with
        mask_history the last."""
        kept_source, kept_target = np.zeros_like(source), np.zeros_like(target)
        turns = np.diff(runs.edges)
        left = np.full(len(turns), self.budget, np.int64) - stop
        for nth in range(int(turns.max(initial=0))):
            row = np.flatnonzero((turns > nth) & (left > 0))
            pair = runs.edges[row + 1] - 1 - nth if self.mask_history else runs.edges[row] + nth
            kept_source[pair], kept_target[pair] = infer_seqlen(source[pair], target[pair], left[row])
            left[row] -= kept_source[pair] + kept_target[pair]
        return kept_source, kept_target

    def _ends_early(self, kept: Integers, cut: Flags, runs: Runs) -> Flags:
        """bool[N]: whether what stays of a row ends in a target that is cut, given of each turn pair the tokens that
        stay and whether its target is cut."""
        if not len(kept):
            return np.zeros(len(runs.edges) - 1, bool)
        latest = np.maximum.accumulate(np.where(kept > 0, np.arange(len(kept)), -1))
        last = latest[np.maximum(runs.edges[1:] - 1, 0)]
        return (last >= runs.edges[:-1]) & (runs.edges[1:] > runs.edges[:-1]) & cut[last]

    def _fates(self, tokens: Integers, runs: Runs, source: tuple[Integers, Integers],
               target: tuple[Integers, Integers], false_stop: Flags) -> Fates:  # fmt: skip
        """(tokens, kept tokens) of each turn pair's source and target as the fates of the rows."""
        owner = np.repeat(np.arange(len(tokens)), np.diff(runs.edges))
        begins = runs.start - source[0]
        row = np.repeat(owner, 2)
        start = np.stack((begins, runs.start), axis=1).ravel()
        length = np.stack((source[1], target[1]), axis=1).ravel()
        row, start, length = merged(row[length > 0], start[length > 0], length[length > 0])
        kept = np.bincount(row, weights=length, minlength=len(tokens)).astype(np.int64)
        fate = np.where(kept == 0, DROPPED, np.where(kept < tokens, CUT, WHOLE)).astype(np.int8)
        counted = last_runs(runs) if self.mask_history else runs
        return Fates(fate, row, start, length, np.full(len(row), -1, np.int32), counted.within(row, start, length),
                     false_stop)  # fmt: skip

    def _right_cut(self, tokens: Integers, runs: Runs) -> Fates:
        """Stage pt without packing: the first tokens of each text."""
        kept = np.minimum(tokens, self.budget)
        fate = np.where(tokens == 0, DROPPED, np.where(kept < tokens, CUT, WHOLE))
        return Fates.prefixes(fate, kept, runs.before(self.budget))

    def _blocks(self, tokens: Integers, runs: Runs) -> Fates:
        """Stage pt with packing: the texts of a map batch joined and cut every `budget` tokens; the last block of a
        batch, where it is not full, is lost."""
        size, limit = self.preprocessing_batch_size, self.budget
        batch = np.arange(len(tokens)) // size
        ends = np.concatenate(([0], np.cumsum(tokens)))
        offset = ends[:-1] - ends[batch * size]
        sums = np.add.reduceat(tokens, np.arange(0, len(tokens), size)) if len(tokens) else tokens
        whole = sums // limit  # full blocks of each batch
        stay = np.clip(np.minimum(offset + tokens, whole[batch] * limit) - offset, 0, None)
        count = np.where(stay > 0, (offset + stay - 1) // limit - offset // limit + 1, 0)
        row = np.repeat(np.arange(len(tokens)), count)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        block = offset[row] // limit + nth
        start = np.maximum(0, block * limit - offset[row])
        length = np.minimum(stay[row], (block + 1) * limit - offset[row]) - start
        before = np.concatenate(([0], np.cumsum(whole)))
        fate = np.where(count == 0, DROPPED, np.where(count > 1, SPLIT, np.where(stay < tokens, CUT, WHOLE)))
        return Fates(fate.astype(np.int8), row, start, length, (before[batch[row]] + block).astype(np.int32),
                     runs.within(row, start, length), np.zeros(len(tokens), bool))  # fmt: skip


def infer_seqlen(source: Integers, target: Integers, cutoff: Integers) -> tuple[Integers, Integers]:
    """Tokens that stay of M sources and targets under a budget above 0 each (LLaMA-Factory processor_utils.py, all
    int64[M]): a target below half the budget stays whole and the source gives way, else a source below half of it stays
    whole, else both shrink in proportion. Together they fill the budget wherever they can."""
    total = np.maximum(source + target, 1)
    both = (cutoff * (target / total)).astype(np.int64)  # in floating point, as there
    most = np.where(2 * target < cutoff, cutoff, np.where(2 * source < cutoff, cutoff - source, both))
    kept = np.minimum(most, target)
    return np.minimum(np.maximum(cutoff - kept, 0), source), kept


def turn_pairs(tokens: Integers, runs: Runs) -> tuple[Integers, Integers]:
    """(source, target) tokens of every turn pair, one per trained run; together they cover their rows."""
    edges = runs.edges
    some = edges[1:] > edges[:-1]
    ends = np.concatenate((runs.start[1:], [0])) if len(runs.start) else runs.start
    closes = runs.start + runs.length
    ends[edges[1:][some] - 1] = tokens[some]
    starts = np.concatenate(([0], closes[:-1])) if len(closes) else closes
    starts[edges[:-1][some]] = 0
    target = runs.length.copy()
    target[edges[1:][some] - 1] = (ends - runs.start)[edges[1:][some] - 1]
    return runs.start - starts, target


def last_runs(runs: Runs) -> Runs:
    """The last trained run of each sequence alone."""
    some = runs.edges[1:] > runs.edges[:-1]
    last = runs.edges[1:][some] - 1
    return Runs(runs.start[last], runs.length[last], np.concatenate(([0], np.cumsum(some))))


def merged(row: Integers, start: Integers, length: Integers) -> tuple[Integers, Integers, Integers]:
    """Pieces (ascending by row and start) with those that touch joined into one."""
    if not len(row):
        return row, start, length
    fresh = np.r_[True, (row[1:] != row[:-1]) | (start[1:] != (start + length)[:-1])]
    first = np.flatnonzero(fresh)
    return row[first], start[first], np.add.reduceat(length, first)


def knapsack(lengths: Integers, capacity: int, batch_size: int) -> np.ndarray:
    """int32[N]: the packed sequence of each row (tokens) by LLaMA-Factory's greedy knapsack per map batch: the longest
    row that fits goes in until none does, then the next is begun; among equal rows the last comes first. -1 for rows
    without tokens."""
    bins = np.full(len(lengths), -1, np.int32)
    total = itertools.count()
    for first in range(0, len(lengths), batch_size):
        rows: dict[int, list[int]] = defaultdict(list)
        for index in range(first, min(first + batch_size, len(lengths))):
            if lengths[index] > 0:
                rows[int(lengths[index])].append(index)
        waiting = sorted(rows)  # distinct lengths that are left
        while waiting:
            number, space = next(total), capacity
            while place := bisect_right(waiting, space):
                length = waiting[place - 1]
                bins[rows[length].pop()] = number
                space -= length
                if not rows[length]:
                    waiting.pop(place - 1)
            if space == capacity:
                raise ValueError(f"a row of {waiting[0]} tokens does not fit into {capacity}")
    return bins
