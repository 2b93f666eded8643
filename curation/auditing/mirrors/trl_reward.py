"""TRL 1.16 RewardTrainer: nothing is cut, a pair is dropped where either side is longer than max_length."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.auditing.fates import Fates
from curation.auditing.mirrors._trl import GONE_PAIRS, PairMirror, right_cut, trl_options
from curation.measures.pair_anatomy import sequences


class TRLReward(PairMirror):
    """TRL's RewardConfig options that decide what becomes of a pair, under TRL's names and defaults. The score is read
    at the last token; the answer's tokens count as trained."""

    version: ClassVar[int] = 1
    dead_options: ClassVar[dict[str, str]] = GONE_PAIRS | {
        "truncation_mode": "nothing: RewardTrainer drops long pairs, it never cuts",
    }  # fmt: skip
    only_at: ClassVar[dict[str, tuple[Any, ...]]] = {"dataset_num_proc": (None, 1), "chat_template_path": (None,),
                                                     "eos_token": (None,)}  # fmt: skip
    option_files: ClassVar[tuple[tuple[str, str], ...]] = trl_options("reward")

    max_length: int | None = Field(default=1024, ge=1)

    def fates(self, anatomy: pa.Table) -> Fates:
        row, _, sides = sequences(anatomy)
        tokens = sides["tokens"].to_numpy().astype(np.int64)
        prompt = sides["prompt_tokens"].to_numpy().astype(np.int64)
        dropped = np.zeros(len(row), bool)
        if self.max_length is not None:
            long = np.zeros(anatomy.num_rows, bool)
            long[row[tokens > self.max_length]] = True
            dropped = long[row]
        return right_cut(tokens, prompt, None, dropped)
