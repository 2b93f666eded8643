"""TRL 1.16 DPOTrainer: `_prepare_dataset` and DataCollatorForPreference, as arithmetic over the anatomy of pairs.

The completion starts where the prompt alone and the two rendered sides first diverge. A pair whose prompt fills
max_length is dropped (keep_start only); each side is then cut alone, in the collator, so one side may lose its end and
the other keep it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.auditing.fates import CUT, WHOLE, Fates
from curation.auditing.mirrors._trl import GONE_PAIRS, PairMirror, right_cut, trl_options
from curation.measures.pair_anatomy import SIDES, sequences


class TRLDPO(PairMirror):
    """TRL's DPOConfig options that decide what becomes of a pair, under TRL's names and defaults."""

    version: ClassVar[int] = 1
    dead_options: ClassVar[dict[str, str]] = GONE_PAIRS | {
        "padding_free": "nothing: DPOTrainer forces it back to false", "max_target_length": "max_length", "rpo_alpha":
        "loss_type: [sigmoid, sft] with loss_weights: [1.0, ALPHA]", "reference_free": "nothing",
        "force_use_ref_model": "nothing: name the run's reference", "ref_model_init_kwargs": "nothing: the reference "
        "is loaded as the policy is", "use_logits_to_keep": "nothing", "model_adapter_name": "nothing",
        "ref_adapter_name": "nothing",
    }  # fmt: skip
    option_files: ClassVar[tuple[tuple[str, str], ...]] = trl_options("dpo")

    max_length: int | None = Field(default=1024, ge=1)
    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start"

    def fates(self, anatomy: pa.Table) -> Fates:
        row, _, sides = sequences(anatomy)
        prompts = np.full(anatomy.num_rows, np.iinfo(np.int32).max)
        for side in SIDES:
            of = anatomy[f"{side}_present"].to_numpy()
            prompts[of] = np.minimum(prompts[of], anatomy[f"{side}_prompt_tokens"].to_numpy()[of])
        prompt, tokens = prompts[row].astype(np.int64), sides["tokens"].to_numpy().astype(np.int64)
        if self.max_length is None:
            return right_cut(tokens, prompt, None, np.zeros(len(row), bool))
        if self.truncation_mode == "keep_end":
            return _ends(tokens, prompt, self.max_length)
        return right_cut(tokens, prompt, self.max_length, prompt >= self.max_length)


def _ends(tokens: np.ndarray, prompt: np.ndarray, limit: int) -> Fates:
    """The last `limit` tokens of every side; nothing is dropped."""
    length = np.minimum(tokens, limit)
    start = tokens - length
    trained = np.minimum(length, tokens - prompt)
    some = length > 0
    return Fates(np.where(tokens > limit, CUT, WHOLE).astype(np.int8), np.flatnonzero(some), start[some], length[some],
                 np.full(int(some.sum()), -1, np.int32), trained[some], np.zeros(len(tokens), bool))  # fmt: skip
