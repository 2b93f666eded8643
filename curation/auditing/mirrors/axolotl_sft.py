"""axolotl 0.18.0, supervised fine-tuning: `handle_long_seq_in_dataset` as arithmetic over anatomy.

A row longer than sequence_len is dropped (the default, told at INFO alone), cut on the right, or stops the run; rows
shorter than min_sample_len are dropped. The filter named "Drop Samples with Zero Trainable Tokens" compares a list with
a number and so drops nothing: rows with nothing to train stay.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, WHOLE, Fates, Integers, Runs
from curation.auditing.mirrors import Mirror
from curation.auditing.mirrors.trl_sft import pack
from curation.errors import Problem, UserError

VERSIONS = ">=0.18,<0.19"
READ = (
    "read in axolotl 0.18.0 @067b021; not run, because it needs an environment of its own (it pins torch, "
    "transformers and trl)"
)
DEAD = {
    "max_packed_sequence_len": "sequence_len with sample_packing", "max_seq_length": "sequence_len",
    "max_length": "sequence_len", "cutoff_len": "sequence_len", "excess_token_handling": "excess_length_strategy",
    "sequence_len_overflow_handling": "excess_length_strategy", "packing": "sample_packing",
}  # fmt: skip
ATTENTION = ("flash_attention", "sdp_attention", "flex_attention", "xformers_attention")
ISOLATING = ("flash_attention_2", "flash_attention_3", "sdpa", "flex_attention", "xformers")
MIN_SAMPLE_LEN = 2


class AxolotlSFT(Mirror):
    """axolotl's options that decide what becomes of a row, under its names and defaults.

    Approximated: the mask is that of a template with generation tags, while axolotl finds each turn by rendering the
    conversation without it; prompt types that write their own text (`alpaca`, ...) are rendered as chats (they cut
    prompt and answer at sequence_len each beforehand, which drops and cuts the same rows); packed sequences hold
    sequence_len tokens here and are packed best-fit in the frozen order, while axolotl shuffles first and fills
    micro_batch_size of them at once, so their number is right within a few per cent, not their members."""

    version: ClassVar[int] = 1
    limits: ClassVar[str] = "sequence_len"
    package: ClassVar[str] = "axolotl"
    versions: ClassVar[str] = VERSIONS
    read_not_run: ClassVar[str] = READ
    dead_options: ClassVar[dict[str, str]] = DEAD
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {
        "roles_to_train": (None, ["assistant"], ["gpt"]), "train_on_eos": (None, "turn"),
        "dataset_exact_deduplication": (None, False), "curriculum_sampling": (None, False), "use_pose": (None, False),
    }  # fmt: skip
    depends_on: ClassVar[tuple[str, ...]] = ("curation/auditing/mirrors/trl_sft.py",)

    sequence_len: int = Field(default=512, ge=1)
    excess_length_strategy: Literal["drop", "truncate", "raise"] | None = None
    min_sample_len: int | None = Field(default=None, ge=0)
    sample_packing: bool | None = None
    train_on_inputs: bool | None = None
    skip_prepare_dataset: bool | None = None
    streaming: bool | None = None
    flash_attention: bool | None = None
    sdp_attention: bool | None = None
    flex_attention: bool | None = None
    xformers_attention: bool | None = None
    attn_implementation: str | None = None

    @classmethod
    def option_problems(cls, options: dict[str, Any], where: str = "") -> list[Problem]:
        found = super().option_problems(options, where)
        if options.get("excess_length_strategy") and (options.get("streaming") or options.get("skip_prepare_dataset")):
            found.append(Problem("has no effect on a dataset that is streamed or not prepared: nothing is cut or "
                                 "dropped there", "remove it", where, "trainer.excess_length_strategy"))  # fmt: skip
        return found

    @property
    def packs(self) -> bool:
        return bool(self.sample_packing)

    @property
    def isolates(self) -> bool:
        """Without one of these attentions axolotl warns that packed samples see each other."""
        return not self.packs or isolating(self.model_dump())

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        if "text" in columns:
            raise UserError("these rows are plain text, which axolotl trains as type completion or as "
                            "pretraining_dataset", "use the mirror axolotl_pretrain", key="trainer.name")  # fmt: skip
        return "whole" if self.train_on_inputs else "turns"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        found = raising(anatomy)
        long = int((anatomy["tokens"].to_numpy() > self.sequence_len).sum())
        if self.excess_length_strategy == "raise" and long and not self._untouched:
            found.append(f"{long:,} rows are longer than sequence_len {self.sequence_len}, and excess_length_strategy: "
                         "raise stops there")  # fmt: skip
        return found

    @property
    def _untouched(self) -> bool:
        return bool(self.skip_prepare_dataset or self.streaming)

    def fates(self, anatomy: pa.Table) -> Fates:
        tokens, runs = anatomy["tokens"].to_numpy().astype(np.int64), Runs.of(anatomy)
        kept = tokens.copy()
        if not self._untouched:
            kept[tokens < (self.min_sample_len or MIN_SAMPLE_LEN)] = 0
            if self.excess_length_strategy == "truncate":
                kept = np.minimum(kept, self.sequence_len)
            elif self.excess_length_strategy != "raise":
                kept[tokens > self.sequence_len] = 0
        fate = np.where(kept == 0, DROPPED, np.where(kept < tokens, CUT, WHOLE))
        trained = runs.within(np.arange(len(tokens)), np.zeros_like(tokens), kept)
        return Fates.prefixes(fate, kept, trained, bins(kept, self.sequence_len) if self.packs else None)


def isolating(options: dict[str, Any]) -> bool:
    """Whether axolotl's attention options keep packed samples apart."""
    return any(options.get(name) for name in ATTENTION) or options.get("attn_implementation") in ISOLATING


def bins(lengths: Integers, limit: int) -> np.ndarray:
    """int32[P]: packed sequences of `limit` tokens for documents (tokens), best-fit over all; -1 for those without
    tokens. Documents that are longer lie alone."""
    return pack(lengths, limit, np.zeros(len(lengths), np.int64))


def raising(anatomy: pa.Table) -> list[str]:
    """Why axolotl stops: rows on which the template raises."""
    count = pc.sum(pc.is_valid(anatomy["render_error"])).as_py() or 0
    first = next((text for text in anatomy["render_error"].to_pylist() if text), "") if count else ""
    return [f"the template raises on {count:,} rows, and axolotl with it ({first})"] if count else []
