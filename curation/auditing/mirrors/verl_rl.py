"""verl 0.9.1, reinforcement learning: `RLHFDataset` and the agent loop's `_cap_text_prompt_length`.

Prompts longer than max_prompt_length are dropped by filter_overlong_prompts; without it (the default of the YAML) the
agent loop keeps their last tokens: the system prompt and the beginning of the question go, with a warning in the log of
a worker. The filter also drops every row on which the template raises, with a traceback on the terminal; without it the
agent loop tries such a row again behind an empty user message, and the run dies where that raises too.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, WHOLE, Fates
from curation.auditing.mirrors._verl import ABSENT, VerlMirror, raised, too_few
from curation.errors import Problem
from curation.rendering.per_message import VERL


class VerlRL(VerlMirror):
    """verl's data options that bound prompts and responses, under its names and the defaults of
    `trainer/config/data/legacy_data.yaml`. Prompts are text: verl raises on a prompt with images that is too long. The
    tools of a row do not reach verl's prompt, which takes them from tool_config_path alone."""

    version: ClassVar[int] = 1
    own_options: ClassVar[frozenset[str]] = frozenset({"preset"})
    stages: ClassVar[tuple[str, ...]] = ("rlvr",)
    limits: ClassVar[str] = "max_prompt_length"
    data_options: ClassVar[frozenset[str]] = frozenset({
        "tokenizer", "use_shm", "train_files", "val_files", "train_max_samples", "val_max_samples", "prompt_key",
        "reward_fn_key", "max_prompt_length", "max_response_length", "train_batch_size", "gen_batch_size",
        "val_batch_size", "tool_config_path", "function_tool_path", "return_raw_input_ids", "return_raw_chat",
        "return_full_prompt", "shuffle", "seed", "dataloader_num_workers", "image_patch_size", "validation_shuffle",
        "filter_overlong_prompts", "filter_overlong_prompts_workers", "truncation", "image_key", "video_key",
        "audio_key", "trust_remote_code", "custom_cls", "return_multi_modal_inputs", "apply_chat_template_kwargs",
        "mm_processor_kwargs",
    })  # fmt: skip
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {
        "train_max_samples": (-1,), "prompt_key": ("prompt",), "custom_cls": ABSENT, "tool_config_path": (None,),
        "function_tool_path": (None,), "tokenizer": (None,),
    }  # fmt: skip

    max_prompt_length: int = Field(default=512, ge=1)
    max_response_length: int = Field(default=512, ge=1)
    filter_overlong_prompts: bool = False
    filter_overlong_prompts_workers: int | None = Field(default=1, ge=1)
    train_batch_size: int = Field(default=1024, ge=1)

    @classmethod
    def option_problems(cls, options: dict[str, Any], where: str = "") -> list[Problem]:
        found = super().option_problems(options, where)
        if options.get("truncation", "error") != "error":
            found.append(Problem("this option is dead: verl never reads it and keeps the end of a prompt that is too "
                                 "long", "remove it, and set filter_overlong_prompts: true or raise max_prompt_length",
                                 where, "trainer.truncation"))  # fmt: skip
        return found

    @property
    def response_length(self) -> int:
        """Tokens that a response may have: verl keeps the first of them."""
        return self.max_response_length

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        return "per_message"

    def rendering_kwargs(self, template_kwargs: dict[str, Any]) -> dict[str, Any]:
        """The kwargs of a Rendering on the path `per_message`: the run's own, and whether rows pass the filter."""
        return template_kwargs | {VERL: {"filter_overlong_prompts": self.filter_overlong_prompts}}

    def refuses(self, anatomy: pa.Table) -> list[str]:
        if self.filter_overlong_prompts:
            return list(too_few(int((~self.fates(anatomy).dropped).sum()), self.train_batch_size))
        found = list(too_few(anatomy.num_rows, self.train_batch_size))
        count, first = raised(anatomy)
        if count:
            found.append(f"{count:,} prompts raise in verl's agent loop ({first})")
        return found

    def fates(self, anatomy: pa.Table) -> Fates:
        tokens = anatomy["tokens"].to_numpy().astype(np.int64)
        over = tokens > self.max_prompt_length
        fate = np.where(over, CUT, WHOLE).astype(np.int8)
        if self.filter_overlong_prompts:
            fate[over | pc.is_valid(anatomy["render_error"]).to_numpy()] = DROPPED
        row = np.flatnonzero((fate != DROPPED) & (tokens > 0))
        length = np.minimum(tokens, self.max_prompt_length)[row]
        return Fates(fate, row, tokens[row] - length, length, np.full(len(row), -1, np.int32),
                     np.zeros(len(row), np.int64), np.zeros(len(tokens), bool))  # fmt: skip
