"""verl 0.9.1, supervised fine-tuning: `MultiTurnSFTDataset.__getitem__` as arithmetic over anatomy.

A row that is too long raises when it is drawn (truncation: error, the default; no option filters rows), else it is cut.
Without padding (the default) the cut is always on the right, whatever `truncation` says. Rows with nothing left to
train stay in their batch.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, WHOLE, Fates, Runs
from curation.auditing.mirrors._verl import ABSENT, VerlMirror, longest, raised, too_few
from curation.errors import Problem, UserError
from curation.rendering.per_message import ENABLE_THINKING_DEFAULT, VERL


class VerlSFT(VerlMirror):
    """verl's data options that decide what becomes of a row, under its names and the defaults of
    `trainer/config/sft_trainer_engine.yaml`; `ulysses_sequence_parallel_size` stands below `engine.`, not `data.`.

    `enable_thinking_default: none` is no null in that YAML but the text 'none', which verl turns into true: every row
    is rendered with enable_thinking unless it is null or false."""

    version: ClassVar[int] = 1
    data_options: ClassVar[frozenset[str]] = frozenset({
        "train_batch_size", "micro_batch_size_per_gpu", "max_token_len_per_gpu", "use_dynamic_bsz", "train_files",
        "val_files", "train_max_samples", "val_max_samples", "messages_key", "tools_key", "enable_thinking_key",
        "enable_thinking_default", "pad_mode", "max_length", "truncation", "balance_dp_token", "custom_cls", "use_shm",
        "apply_chat_template_kwargs", "num_workers", "ignore_input_ids_mismatch",
    })  # fmt: skip
    dead_options: ClassVar[dict[str, str]] = {
        "balance_dp_token": "nothing (verl never reads it)", "multiturn": "messages_key and tools_key",
        "prompt_key": "messages_key", "response_key": "messages_key",
    }  # fmt: skip
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {
        "train_max_samples": (-1,), "custom_cls": ABSENT, "messages_key": ("messages",), "tools_key": ("tools",),
    }  # fmt: skip

    max_length: int = Field(default=1024, ge=1)
    truncation: Literal["error", "left", "right"] = "error"
    pad_mode: Literal["no_padding", "right"] = "no_padding"
    ignore_input_ids_mismatch: bool = False
    enable_thinking_default: bool | Literal["none"] | None = ENABLE_THINKING_DEFAULT
    train_batch_size: int = Field(default=256, ge=1)
    use_dynamic_bsz: bool = True
    max_token_len_per_gpu: int = Field(default=8192, ge=1)
    ulysses_sequence_parallel_size: int = Field(default=1, ge=1)

    @classmethod
    def option_problems(cls, options: dict[str, Any], where: str = "") -> list[Problem]:
        found = super().option_problems(options, where)
        if options.get("truncation") == "left" and options.get("pad_mode", "no_padding") == "no_padding":
            found.append(Problem("'left' is dead without padding: verl cuts on the right there", "set pad_mode: right, "
                                 "or truncation: right", where, "trainer.truncation"))  # fmt: skip
        return found

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        if "text" in columns:
            raise UserError("these rows are plain text, and verl's SFT trains conversations alone",
                            "use the trainer trl_sft, or turn the text into messages", key="trainer.name")  # fmt: skip
        return "per_message"

    def rendering_kwargs(self, template_kwargs: dict[str, Any]) -> dict[str, Any]:
        """The kwargs of a Rendering on the path `per_message`: the run's own and verl's options that change ids. Raises
        UserError where verl would override the run's enable_thinking, and shift its loss mask by doing so."""
        default = self.enable_thinking_default
        if "enable_thinking" in template_kwargs and default is not None:
            asked = bool(template_kwargs["enable_thinking"])
            if asked != bool(default):
                raise UserError(f"verl renders rows with enable_thinking {bool(default)} (enable_thinking_default: "
                                f"{default}) and measures the generation prompt with {asked}",
                                f"set enable_thinking_default: {str(asked).lower()}",
                                key="trainer.enable_thinking_default")  # fmt: skip
        own = {"enable_thinking_default": default, "ignore_input_ids_mismatch": self.ignore_input_ids_mismatch}
        return template_kwargs | {VERL: own}

    def refuses(self, anatomy: pa.Table) -> list[str]:
        tokens = anatomy["tokens"].to_numpy()
        found = list(too_few(len(tokens), self.train_batch_size))
        count, first = raised(anatomy)
        if count:
            found.append(f"{count:,} rows raise when verl draws them ({first})")
        over = int((tokens > self.max_length).sum())
        if over and self.truncation == "error":
            found.append(f"{over:,} rows are longer than max_length {self.max_length:,} (the longest has "
                         f"{longest(tokens):,} tokens), and verl stops when it draws one")  # fmt: skip
        room = self.max_token_len_per_gpu * self.ulysses_sequence_parallel_size
        widest = self.max_length if self.pad_mode == "right" else min(longest(tokens), self.max_length)
        if self.use_dynamic_bsz and widest > room:
            found.append(f"sequences of {widest:,} tokens do not fit into a micro-batch of max_token_len_per_gpu "
                         f"{room:,}")  # fmt: skip
        return found

    def fates(self, anatomy: pa.Table) -> Fates:
        """Rows on which verl stops are left whole; those on which the rendering raises have nothing to keep."""
        tokens, runs = anatomy["tokens"].to_numpy().astype(np.int64), Runs.of(anatomy)
        kept = tokens if self.truncation == "error" else np.minimum(tokens, self.max_length)
        fate = np.where(tokens == 0, DROPPED, np.where(kept < tokens, CUT, WHOLE)).astype(np.int8)
        left = self.truncation == "left" and self.pad_mode == "right"
        row = np.flatnonzero(kept)
        start = (tokens - kept)[row] if left else np.zeros(len(row), np.int64)
        return Fates(fate, row, start, kept[row], np.full(len(row), -1, np.int32), runs.within(row, start, kept[row]),
                     np.zeros(len(tokens), bool))  # fmt: skip
