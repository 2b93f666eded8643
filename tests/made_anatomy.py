"""Anatomy made by hand, for mirrors whose trainers do not run here, and how their fates read."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curation.auditing.fates import FATES, Fates
from curation.auditing.mirrors.axolotl_dpo import AxolotlDPO
from curation.auditing.mirrors.axolotl_pretrain import AxolotlPretrain
from curation.auditing.mirrors.axolotl_sft import AxolotlSFT
from curation.auditing.mirrors.llama_factory_dpo import LlamaFactoryDPO
from curation.auditing.mirrors.llama_factory_sft import (
    LlamaFactorySFT,
    infer_seqlen,
)  # fmt: skip
from curation.measures.pair_anatomy import OF_SIDE, SIDES

ALL = (LlamaFactorySFT, LlamaFactoryDPO, AxolotlSFT, AxolotlDPO, AxolotlPretrain)
Turns = list[tuple[int, int]]  # (source, target) tokens of each turn pair of a row


def anatomy(rows: list[Turns], errors: list[str | None] | None = None) -> pa.Table:
    """Rows of turn pairs as columns of the anatomy measure; every target is trained."""
    starts, lengths, tokens = [], [], []
    for turns in rows:
        ends = np.cumsum([source + target for source, target in turns], dtype=int).tolist()
        starts.append([end - target for end, (_, target) in zip(ends, turns, strict=True)])
        lengths.append([target for _, target in turns])
        tokens.append(ends[-1] if ends else 0)
    kind = pa.list_(pa.int32())
    return pa.table({
        "tokens": pa.array(tokens, pa.int32()), "trained_tokens": pa.array([sum(item) for item in lengths], pa.int32()),
        "mask_starts": pa.array(starts, kind), "mask_lengths": pa.array(lengths, kind),
        "render_error": pa.array(errors or [None] * len(rows), pa.string()),
    })  # fmt: skip


def texts(tokens: list[int]) -> pa.Table:
    """Texts of so many tokens, their end of sequence with them; all are trained."""
    return anatomy([[(0, count)] if count else [] for count in tokens])


def pairs(rows: list[tuple[int, int | None, int | None]]) -> pa.Table:
    """(prompt, chosen, rejected) tokens as columns of the pair anatomy; None: the side is absent."""
    columns: dict[str, pa.Array] = {"render_error": pa.nulls(len(rows), pa.string())}
    for number, side in enumerate(SIDES):
        answers = [row[1 + number] for row in rows]
        columns[f"{side}_present"] = pa.array([answer is not None for answer in answers], pa.bool_())
        values = {"prompt_tokens": [0 if a is None else row[0] for row, a in zip(rows, answers, strict=True)],
                  "tokens": [0 if a is None else row[0] + a for row, a in zip(rows, answers, strict=True)],
                  "trained_tokens": [a or 0 for a in answers]}  # fmt: skip
        for name, kind in OF_SIDE:
            columns[f"{side}_{name}"] = pa.array(values.get(name, [0] * len(rows)), kind)
    return pa.table(columns)


def positions(fates: Fates, row: int) -> list[int]:
    """The source tokens of a row that stay, in order of its pieces."""
    return [start + index for of, start, length in zip(fates.row, fates.start, fates.length, strict=True)
            if of == row for index in range(length)]  # fmt: skip


def names(fates: Fates) -> list[str]:
    return [FATES[code] for code in fates.fate]


def kept_of(source: int, target: int, cutoff: int) -> tuple[int, int]:
    kept = infer_seqlen(np.array([source]), np.array([target]), np.array([cutoff]))
    return int(kept[0][0]), int(kept[1][0])
