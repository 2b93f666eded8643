"""Lengths of a row's text: what any later rule asks first."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
import pyarrow as pa

from curation.measures import PartMeasure

TURN_COLUMNS = ("messages", "prompt", "chosen", "rejected")


class TextStatistics(PartMeasure):
    """Characters are Unicode code points, words are runs of non-space. `answer_chars` counts the last assistant turn
    (of `chosen`, else of `rejected`, for pairs; 0 where there is none), `prompt_chars` every turn before the last."""

    version: ClassVar[int] = 1
    columns: ClassVar[pa.Schema] = pa.schema(
        [
            ("chars", pa.int32()),
            ("words", pa.int32()),
            ("turns", pa.int32()),
            ("prompt_chars", pa.int32()),
            ("answer_chars", pa.int32()),
        ]
    )

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        frame = pl.from_arrow(rows.select([name for name in self.reads(stage) if name in rows.column_names]))
        assert isinstance(frame, pl.DataFrame)
        have = [name for name in TURN_COLUMNS if name in frame.columns]
        if have:
            turns = pl.concat_list([pl.col(name).fill_null([]) for name in have])
            if stage == "preference":  # a pair is judged by its chosen side, a lone bad answer by the rejected one
                answer = pl.when(pl.col("chosen").is_null()).then(pl.col("rejected")).otherwise(pl.col("chosen"))
                turns = pl.concat_list([pl.col("prompt").fill_null([]), answer.fill_null([])])
            texts = turns.list.eval(pl.element().struct.field("content").fill_null(""))
            thoughts = turns.list.eval(pl.element().struct.field("reasoning").fill_null(""))
        else:
            texts = pl.concat_list([pl.col("text")]).list.eval(pl.element())
            thoughts = pl.concat_list([pl.lit("")])
        if stage == "midtrain" and "text" in frame.columns:
            texts = pl.when(pl.col("text").is_null()).then(texts).otherwise(pl.concat_list([pl.col("text")]))
        measured = frame.select(texts.alias("texts"), thoughts.alias("thoughts")).with_columns(
            lengths=pl.col("texts").list.eval(pl.element().str.len_chars().cast(pl.Int64)),
            thought_chars=pl.col("thoughts").list.eval(pl.element().str.len_chars().cast(pl.Int64)).list.sum(),
        )
        whole = pl.col("lengths").list.sum()
        last = pl.col("lengths").list.last().fill_null(0)
        result = measured.select(
            (whole + pl.col("thought_chars")).cast(pl.Int32).alias("chars"),
            pl.col("texts").list.join(" ").str.count_matches(r"\S+").cast(pl.Int32).alias("words"),
            pl.col("texts").list.len().cast(pl.Int32).alias("turns"),
            (whole - last).cast(pl.Int32).alias("prompt_chars"),
            last.cast(pl.Int32).alias("answer_chars"),
        )
        return result.to_arrow().cast(self.columns)
