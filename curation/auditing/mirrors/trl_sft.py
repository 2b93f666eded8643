"""TRL 1.16 SFTTrainer: `_prepare_dataset`, `_pack_bfd` and `_pack_wrapped`, as arithmetic over anatomy.

Order there: tokenise, labels, cut at max_length and drop fully masked rows (only without packing), shuffle, pack per
1,000 rows of the map. Packing keeps rows with nothing left to train. Trained tokens are the labels of the prepared
dataset; the collator never trains the first token of a packed document.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections import defaultdict, deque
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, SPLIT, WHOLE, Fates, Runs
from curation.auditing.mirrors import Mirror
from curation.auditing.mirrors._trl import GONE, VERSIONS, trl_options
from curation.errors import Problem, UserError

PACKED_TOGETHER = 1_000  # rows of one `datasets.map` batch


class TRLSFT(Mirror):
    """TRL's SFTConfig options that decide what becomes of a row, under TRL's names and defaults."""

    version: ClassVar[int] = 3
    package: ClassVar[str] = "trl"
    versions: ClassVar[str] = VERSIONS
    dead_options: ClassVar[dict[str, str]] = GONE | {
        "num_of_sequences": "max_length", "chars_per_token": "nothing",
    }  # fmt: skip

    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {
        "shuffle_dataset": (False,), "dataset_kwargs": (None, {}), "dataset_text_field": ("text",),
        "dataset_num_proc": (None, 1), "chat_template_path": (None,), "eos_token": (None,),
    }  # fmt: skip
    option_files: ClassVar[tuple[tuple[str, str], ...]] = trl_options("sft")
    own_options: ClassVar[frozenset[str]] = frozenset({"dtype", "lora"})

    max_length: int | None = Field(default=1024, ge=1)
    packing: bool = False
    packing_strategy: Literal["bfd", "bfd_split", "wrapped"] = "bfd"
    assistant_only_loss: bool = False
    completion_only_loss: bool | None = None
    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start"
    shuffle_dataset: Literal[False] = False
    padding_free: bool = False

    @property
    def isolates(self) -> bool:
        return self.packing_strategy != "wrapped"

    @classmethod
    def option_problems(cls, options: dict[str, Any], where: str = "") -> list[Problem]:
        found = super().option_problems(options, where)
        if options.get("packing") and options.get("truncation_mode") == "keep_end":
            found.append(Problem("has no effect with packing, which keeps the start", "remove it, or turn packing off",
                                 where, "trainer.truncation_mode"))  # fmt: skip
        if options.get("packing_strategy") and not options.get("packing"):
            found.append(Problem("has no effect without packing", "add packing: true, or remove it", where,
                                 "trainer.packing_strategy"))  # fmt: skip
        if options.get("assistant_only_loss") and options.get("completion_only_loss"):
            found.append(Problem("both losses at once are not mirrored", "keep completion_only_loss (the last answer) "
                                 "or assistant_only_loss (every answer)", where,
                                 "trainer.completion_only_loss"))  # fmt: skip
        return found

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        if "text" in columns:
            for name in ("assistant_only_loss", "completion_only_loss"):
                if getattr(self, name):
                    raise UserError(f"TRL refuses {name} on rows of plain text", f"train text on all tokens: {name}: "
                                    "false", key=f"trainer.{name}")  # fmt: skip
            return "text"
        if self.completion_only_loss:
            return "trl_prompt_completion"
        return "trl_assistant" if self.assistant_only_loss else "whole"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        found = []
        raising = pc.sum(pc.is_valid(anatomy["render_error"])).as_py() or 0
        if raising:
            first = next(text for text in anatomy["render_error"].to_pylist() if text)
            found.append(f"the template raises on {raising:,} rows, and TRL with it ({first})")
        if self.assistant_only_loss:
            untrained = pc.sum(pc.equal(anatomy["trained_tokens"], 0)).as_py() or 0
            if untrained - raising > 0:
                found.append(f"{untrained - raising:,} rows have no assistant token, on which TRL raises")
        if self.packing and self.max_length is None:
            found.append("packing needs a max_length")
        if self.padding_free and not self.packing and self.max_length is not None:
            found.append("padding_free without packing needs max_length: null (TRL does not cut there)")
        return found

    def fates(self, anatomy: pa.Table) -> Fates:
        tokens = anatomy["tokens"].to_numpy().astype(np.int64)
        limit = max(1, int(tokens.max(initial=1))) if self.max_length is None else self.max_length
        runs = Runs.of(anatomy)
        if self.packing and self.packing_strategy != "bfd":
            return _fragments(tokens, limit, runs, self.packing_strategy)
        if self.truncation_mode == "keep_end" and not self.packing and self.max_length is not None:
            return _ends(tokens, limit, runs)
        kept, trained = np.minimum(tokens, limit), runs.before(limit)
        fate = np.where(tokens > limit, CUT, WHOLE)
        if self.packing:
            fate[tokens == 0] = DROPPED
            return Fates.prefixes(fate, kept, trained, pack(kept, limit))
        if self.max_length is not None:
            fate[trained == 0] = DROPPED
            kept[trained == 0] = 0
        return Fates.prefixes(fate, kept, trained)


def _ends(tokens: npt.NDArray[np.int64], limit: int, runs: Runs) -> Fates:
    """The last `limit` tokens of every row; rows without a trained token among them are dropped."""
    row = np.arange(len(tokens))
    length = np.minimum(tokens, limit)
    start = tokens - length
    trained = runs.within(row, start, length)
    fate = np.where(trained == 0, DROPPED, np.where(tokens > limit, CUT, WHOLE)).astype(np.int8)
    of = trained > 0
    return Fates(fate, row[of], start[of], length[of], np.full(int(of.sum()), -1, np.int32), trained[of],
                 np.zeros(len(tokens), bool))  # fmt: skip


def _fragments(tokens: npt.NDArray[np.int64], limit: int, runs: Runs, strategy: str) -> Fates:
    """Rows split over packed sequences: `bfd_split` cuts a long row every `limit` tokens and packs the fragments as
    documents of their own; `wrapped` joins the rows of a map batch and cuts the join every `limit` tokens."""
    first = np.arange(len(tokens)) // PACKED_TOGETHER * PACKED_TOGETHER
    ends = np.concatenate(([0], np.cumsum(tokens)))
    offset = ends[:-1] - ends[first] if strategy == "wrapped" else np.zeros(len(tokens), np.int64)
    blocks = np.where(tokens > 0, (offset + tokens - 1) // limit - offset // limit + 1, 0)
    row = np.repeat(np.arange(len(tokens)), blocks)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    start = np.maximum(0, (offset[row] // limit + nth) * limit - offset[row])
    stop = np.minimum(tokens[row], (offset[row] // limit + nth + 1) * limit - offset[row])
    if strategy == "wrapped":
        sizes = np.add.reduceat(tokens, np.arange(0, len(tokens), PACKED_TOGETHER)) if len(tokens) else tokens
        before = np.concatenate(([0], np.cumsum(-(-sizes // limit))))
        bins = (before[row // PACKED_TOGETHER] + offset[row] // limit + nth).astype(np.int32)
    else:
        bins = pack(stop - start, limit, row // PACKED_TOGETHER)
    fate = np.where(blocks > 1, SPLIT, np.where(tokens > 0, WHOLE, DROPPED)).astype(np.int8)
    return Fates(fate, row, start, stop - start, bins, runs.within(row, start, stop - start),
                 np.zeros(len(tokens), bool))  # fmt: skip


def pack(kept: npt.NDArray[np.int64], limit: int, batch: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int32]:
    """int32[P]: the bin of each document (kept tokens, ascending by batch of the map: 1,000 rows each where `batch` is
    not given) under TRL's best-fit-decreasing packing, numbered in the order TRL writes them; -1 for documents without
    tokens, which it leaves out. Documents of equal length keep their order (Arrow's sort is stable)."""
    bins = np.full(len(kept), -1, dtype=np.int32)
    batch = np.arange(len(kept)) // PACKED_TOGETHER if batch is None else batch
    edges = np.flatnonzero(np.diff(batch, prepend=-1, append=-1))
    total = 0
    for first, last in itertools.pairwise(edges):
        rows = np.flatnonzero(kept[first:last] > 0) + first
        lengths = pa.array(np.minimum(kept[rows], limit))
        order = pc.struct_field(pc.make_struct(lengths, np.arange(len(rows))).sort("descending", by=0), 1).to_numpy()
        free: list[int] = []  # distinct free spaces, ascending
        waiting: dict[int, deque[int]] = defaultdict(deque)
        for index in order:
            length = int(lengths[index].as_py())
            place = bisect_left(free, length)
            if place < len(free):
                space = free[place]
                number = waiting[space].popleft()
                if not waiting[space]:
                    free.pop(place)
            else:
                space, number = limit, total
                total += 1
            bins[rows[index]] = number
            left = space - length
            if left > 0:
                if not waiting[left]:
                    insort(free, left)
                waiting[left].append(number)
    return bins
