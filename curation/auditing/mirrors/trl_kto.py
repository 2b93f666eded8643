"""TRL 1.16 KTOTrainer: a pair becomes two rows, each cut on the right in the collator and dropped where its prompt
alone fills max_length. The mismatched completions of the KL term are cut alike; they train nothing."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curation.auditing.fates import Fates
from curation.auditing.mirrors._trl import GONE_PAIRS, PairMirror, raising, right_cut, trl_options
from curation.measures.pair_anatomy import sequences


class TRLKTO(PairMirror):
    """TRL's KTOConfig options that decide what becomes of a row, under TRL's names and defaults. A row may have one
    side alone."""

    version: ClassVar[int] = 1
    dead_options: ClassVar[dict[str, str]] = GONE_PAIRS | {
        "truncation_mode": "nothing: KTOTrainer cuts on the right",
    }  # fmt: skip
    option_files: ClassVar[tuple[tuple[str, str], ...]] = trl_options("kto")

    max_length: int | None = Field(default=1024, ge=1)

    def refuses(self, anatomy: pa.Table) -> list[str]:
        return raising(anatomy)

    def fates(self, anatomy: pa.Table) -> Fates:
        _, _, sides = sequences(anatomy)
        prompt, tokens = (sides[name].to_numpy().astype(np.int64) for name in ("prompt_tokens", "tokens"))
        full = np.zeros(len(tokens), bool) if self.max_length is None else prompt >= self.max_length
        return right_cut(tokens, prompt, self.max_length, full)
