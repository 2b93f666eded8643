"""LLaMA-Factory 0.9.6.dev0, stages dpo, rm and kto: `infer_seqlen` over prompt and answers, as arithmetic over the
anatomy of pairs. The prompt is cut on the right like the answers, so it loses the header of the answer first."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, WHOLE, Fates
from curation.auditing.mirrors import Mirror
from curation.auditing.mirrors.llama_factory_sft import DEAD, READ, VERSIONS, infer_seqlen, merged
from curation.measures.pair_anatomy import complete, sequences


class LlamaFactoryDPO(Mirror):
    """LLaMA-Factory's options that decide what becomes of a pair, under its names and defaults. Stages dpo and rm give
    both answers the length that the longer one gets beside the prompt; kto treats every answer alone. The end of
    sequence of every template is added before the cut here, so no stop is false.

    Approximated: rows are rendered by a Jinja template, while LLaMA-Factory formats by its own code, and drops the
    thoughts of earlier turns there."""

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("preference",)
    limits: ClassVar[str] = "cutoff_len"
    package: ClassVar[str] = "llamafactory"
    versions: ClassVar[str] = VERSIONS
    read_not_run: ClassVar[str] = READ
    dead_options: ClassVar[dict[str, str]] = DEAD | {
        "packing": "nothing: pairs are not packed", "neat_packing": "nothing: LLaMA-Factory refuses it here",
        "mask_history": "nothing: LLaMA-Factory refuses it here",
        "train_on_prompt": "nothing: LLaMA-Factory refuses it here",
    }  # fmt: skip
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {"streaming": (False,), "mix_strategy": ("concat",)}
    depends_on: ClassVar[tuple[str, ...]] = ("curation/auditing/mirrors/llama_factory_sft.py",)

    stage: Literal["dpo", "rm", "kto"] = "dpo"
    template: str | None = None
    cutoff_len: int = Field(default=2048, ge=2)

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        return "trl_prompt_completion"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        missing = anatomy.num_rows - complete(anatomy)
        if missing and self.stage != "kto":
            return [f"{missing:,} rows lack their chosen or rejected side (they suit kto)"]
        return []

    def fates(self, anatomy: pa.Table) -> Fates:
        row, _, sides = sequences(anatomy)
        tokens, prompt = (sides[name].to_numpy().astype(np.int64) for name in ("tokens", "prompt_tokens"))
        lone, longest = np.zeros(len(row), bool), tokens - prompt
        if self.stage != "kto":
            shared = np.full(anatomy.num_rows, np.iinfo(np.int64).max)
            np.minimum.at(shared, row, prompt)
            prompt = shared[row]
            most = np.zeros(anatomy.num_rows, np.int64)
            np.maximum.at(most, row, tokens - prompt)
            longest = most[row]
            lone = np.bincount(row, minlength=anatomy.num_rows)[row] < 2
        kept_prompt, kept = infer_seqlen(prompt, longest, np.full(len(row), self.cutoff_len))
        kept = np.minimum(kept, tokens - prompt)
        gone = (tokens == 0) | lone
        kept_prompt[gone], kept[gone] = 0, 0
        piece = np.repeat(np.arange(len(row)), 2)
        start = np.stack((np.zeros_like(prompt), prompt), axis=1).ravel()
        length = np.stack((kept_prompt, kept), axis=1).ravel()
        piece, start, length = merged(piece[length > 0], start[length > 0], length[length > 0])
        fate = np.where(gone, DROPPED, np.where(kept_prompt + kept < tokens, CUT, WHOLE)).astype(np.int8)
        trained = np.clip(start + length - np.maximum(start, prompt[piece]), 0, None)
        return Fates(fate, piece, start, length, np.full(len(piece), -1, np.int32), trained, np.zeros(len(row), bool))
