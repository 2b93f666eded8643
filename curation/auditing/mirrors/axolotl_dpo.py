"""axolotl 0.18.0, DPO, IPO, ORPO, SimPO and KTO: `utils/data/rl.py` as arithmetic over the anatomy of pairs.

A pair with a side longer than sequence_len is dropped (the default, told at WARNING per dataset). With `truncate` the
answers are cut to what the prompt leaves, each alone, and a pair whose prompt leaves nothing is dropped.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.auditing.fates import CUT, DROPPED, WHOLE, Fates
from curation.auditing.mirrors import Mirror
from curation.auditing.mirrors.axolotl_sft import DEAD, READ, VERSIONS, raising
from curation.measures.pair_anatomy import complete, sequences


class AxolotlDPO(Mirror):
    """axolotl's options that decide what becomes of a pair, under its names and defaults.

    Approximated: answers that are cut are decoded to text and tokenised again later, so a cut side may end a token
    earlier or later; white space at the end of an answer, which axolotl strips, is counted."""

    version: ClassVar[int] = 1
    stages: ClassVar[tuple[str, ...]] = ("preference",)
    limits: ClassVar[str] = "sequence_len"
    package: ClassVar[str] = "axolotl"
    versions: ClassVar[str] = VERSIONS
    read_not_run: ClassVar[str] = READ
    dead_options: ClassVar[dict[str, str]] = DEAD | {
        "dpo_beta": "rl_beta", "dpo_norm_loss": "nothing: axolotl refuses it", "rpo_alpha": "nothing: axolotl refuses "
        "it", "dpo_use_logits_to_keep": "nothing: axolotl refuses it",
        "dpo_generate_during_eval": "nothing: axolotl refuses it", "sample_packing": "nothing: axolotl refuses packed "
        "pairs",
    }  # fmt: skip
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {"dataset_exact_deduplication": (None, False)}
    depends_on: ClassVar[tuple[str, ...]] = ("curation/auditing/mirrors/axolotl_sft.py",)

    rl: Literal["dpo", "ipo", "orpo", "simpo", "kto"] = "dpo"
    sequence_len: int = Field(default=512, ge=1)
    excess_length_strategy: Literal["drop", "truncate", "raise"] | None = None
    skip_prepare_dataset: bool | None = None

    def rendering_path(self, stage: str, columns: list[str]) -> str:
        return "trl_prompt_completion"

    def refuses(self, anatomy: pa.Table) -> list[str]:
        found = raising(anatomy)
        missing = anatomy.num_rows - complete(anatomy)
        if missing and self.rl != "kto":
            found.append(f"{missing:,} rows lack their chosen or rejected side (they suit rl: kto)")
        row, _, sides = sequences(anatomy)
        long = len(np.unique(row[sides["tokens"].to_numpy() > self.sequence_len]))
        if long and self.excess_length_strategy == "raise" and not self.skip_prepare_dataset:
            found.append(f"{long:,} rows are longer than sequence_len {self.sequence_len}, and excess_length_strategy: "
                         "raise stops there")  # fmt: skip
        return found

    def fates(self, anatomy: pa.Table) -> Fates:
        row, side, sides = sequences(anatomy)
        tokens, prompt = (sides[name].to_numpy().astype(np.int64) for name in ("tokens", "prompt_tokens"))
        gone, kept = np.zeros(len(row), bool), tokens
        if not self.skip_prepare_dataset and self.excess_length_strategy != "raise":
            gone = tokens > self.sequence_len
            if self.excess_length_strategy == "truncate":
                gone &= prompt >= self.sequence_len
                kept = np.minimum(tokens, self.sequence_len)
        # KTO's answers are rows of their own; elsewhere a side falls with the other.
        pair = row + side * anatomy.num_rows if self.rl == "kto" else row
        fallen = np.zeros(2 * anatomy.num_rows, bool)
        fallen[pair[gone | (tokens == 0)]] = True
        kept = np.where(fallen[pair], 0, kept)
        fate = np.where(fallen[pair], DROPPED, np.where(kept < tokens, CUT, WHOLE))
        return Fates.prefixes(fate, kept, np.clip(kept - prompt, 0, None))
