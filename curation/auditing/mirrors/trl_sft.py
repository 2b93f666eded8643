"""TRL 1.16 SFTTrainer: `_prepare_dataset` and `_pack_bfd`, as arithmetic over anatomy.

Order there: tokenise, labels, cut at max_length and drop fully masked rows (only without packing), shuffle, pack per
1,000 rows of the map. Packing keeps rows with nothing left to train.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict, deque
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation.auditing.mirrors import FATES, Mirror
from curation.errors import UserError

PACKED_TOGETHER = 1_000  # rows of one `datasets.map` batch


class TRLSFT(Mirror):
    """TRL's SFTConfig options that decide what becomes of a row, under TRL's names and defaults."""

    version: ClassVar[int] = 2
    package: ClassVar[str] = "trl"
    versions: ClassVar[str] = ">=1.16,<1.17"
    dead_options: ClassVar[dict[str, str]] = {
        "max_seq_length": "max_length", "tokenizer": "processing_class (kedge sets it)", "group_by_length": "packing",
        "no_cuda": "use_cpu", "overwrite_output_dir": "nothing (kedge decides)", "dataset_batch_size": "nothing",
    }  # fmt: skip

    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {
        "packing_strategy": ("bfd",), "truncation_mode": ("keep_start",), "shuffle_dataset": (False,),
        "padding_free": (False,), "completion_only_loss": (None, False), "dataset_kwargs": (None, {}),
        "dataset_text_field": ("text",), "dataset_num_proc": (None, 1), "chat_template_path": (None,),
        "eos_token": (None,),
    }  # fmt: skip
    option_files: ClassVar[tuple[tuple[str, str], ...]] = (
        ("trl", "trainer/sft_config.py"), ("trl", "trainer/base_config.py"), ("transformers", "training_args.py"),
    )  # fmt: skip
    own_options: ClassVar[frozenset[str]] = frozenset({"dtype", "lora"})

    max_length: int | None = Field(default=1024, ge=1)
    packing: bool = False
    packing_strategy: Literal["bfd"] = "bfd"
    assistant_only_loss: bool = False
    truncation_mode: Literal["keep_start"] = "keep_start"
    shuffle_dataset: Literal[False] = False
    padding_free: Literal[False] = False

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        if "text" in columns:
            if self.assistant_only_loss:
                raise UserError("TRL refuses assistant_only_loss on rows of plain text", "train text on all tokens: "
                                "assistant_only_loss: false", key="trainer.assistant_only_loss")  # fmt: skip
            return "text"
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
        return found

    def fates(self, anatomy: pa.Table) -> pa.Table:
        tokens = anatomy["tokens"].to_numpy().astype(np.int64)
        limit = int(tokens.max(initial=0)) if self.max_length is None else self.max_length
        kept = np.minimum(tokens, limit)
        trained = trained_before(anatomy, limit)
        fate = np.where(tokens > limit, 1, 0)
        bins = np.full(len(tokens), -1, dtype=np.int32)
        if self.packing:
            bins = pack(kept, limit)
            fate[tokens == 0] = 2
        elif self.max_length is not None:
            fate[trained == 0] = 2
        kept[fate == 2] = 0
        trained[fate == 2] = 0
        names = pa.DictionaryArray.from_arrays(pa.array(fate, pa.int32()), list(FATES)).cast(pa.string())
        return pa.table({"fate": names, "kept_tokens": pa.array(kept, pa.int32()),
                         "kept_trained_tokens": pa.array(trained, pa.int32()), "bin": pa.array(bins)})  # fmt: skip


def trained_before(anatomy: pa.Table, limit: int) -> npt.NDArray[np.int64]:
    """int64[N]: trained tokens among the first `limit` of each row, from the mask's runs."""
    starts = anatomy["mask_starts"].combine_chunks()
    values = pc.list_flatten(starts).to_numpy(zero_copy_only=False)
    lengths = pc.list_flatten(anatomy["mask_lengths"].combine_chunks()).to_numpy(zero_copy_only=False)
    inside = np.clip(limit - values, 0, lengths)
    sizes = pc.list_value_length(starts).to_numpy(zero_copy_only=False)
    edges = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
    running = np.concatenate(([0], np.cumsum(inside, dtype=np.int64)))
    return running[edges[1:]] - running[edges[:-1]]


def pack(kept: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int32]:
    """int32[N]: the bin of each row under TRL's best-fit-decreasing packing, numbered in the order TRL writes them;
    -1 for rows without tokens, which it leaves out. Rows of equal length keep their order (Arrow's sort is stable)."""
    bins = np.full(len(kept), -1, dtype=np.int32)
    total = 0
    for first in range(0, len(kept), PACKED_TOGETHER):
        rows = np.flatnonzero(kept[first : first + PACKED_TOGETHER] > 0) + first
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
