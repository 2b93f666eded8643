"""Which turns of a row are judged as its answer."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def with_answer(rows: pa.Table, stage: str) -> pa.Table:
    """`rows`; those of pairs with a column `answer` in place of `chosen` and `rejected`: a pair is judged by its chosen
    side (the rejected one may loop), a lone bad answer by the rejected one."""
    if stage != "preference":
        return rows
    answer = rows["chosen"]
    if answer.null_count:
        lone = pc.is_null(answer).to_numpy()
        both = pa.concat_arrays([*answer.chunks, *rows["rejected"].chunks])
        number = pc.add(pa.array(range(len(answer)), pa.int64()), pa.array(lone * len(answer), pa.int64()))
        answer = pa.chunked_array([both.take(number)])
    return rows.drop_columns(["chosen", "rejected"]).append_column("answer", answer)
