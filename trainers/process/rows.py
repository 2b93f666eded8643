"""Frozen rows as TRL's trainers take them: one record per row, in training order, tools and template kwargs beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from trainers.process import Job

Row = dict[str, Any]


def frozen(parts: list[str]) -> Iterator[Row]:
    """The rows of frozen Parquet files, in their order."""
    import pyarrow.parquet as pq

    for part in parts:
        for batch in pq.ParquetFile(part).iter_batches(1024):
            yield from batch.to_pylist()


def of(job: Job, parts: list[str]) -> Iterator[Row]:
    """The rows of parts that a process takes: all, or of a rehearsal's training rows the ones that it names."""
    only = job.get("rehearsal", {}).get("only") if parts == job["parts"] else None
    wanted = None if only is None else set(only)
    return (row for position, row in enumerate(frozen(parts)) if wanted is None or position in wanted)


def conversations(job: Job, parts: list[str]) -> Any:
    """`messages`, `prompt` and `completion`, or `text`: the rows of mid-training and SFT."""
    from curation.rendering import template_messages
    from curation.rendering.render import split_completion

    def taken() -> Iterator[Row]:
        for row in of(job, parts):
            if row.get("messages") is None:
                yield {"text": row["text"]}
            elif job["path"] == "trl_prompt_completion":
                prompt, completion = map(template_messages, split_completion(row["messages"]))
                yield {"prompt": prompt, "completion": completion} | _beside(row, job)
            else:
                yield {"messages": template_messages(row["messages"])} | _beside(row, job)

    return dataset(taken())


def pairs(job: Job, parts: list[str]) -> Any:
    """`prompt`, `chosen` and `rejected`; for a reward model `margin` too, where every row has one."""
    from curation.rendering import template_messages

    found = [
        {name: template_messages(row[name]) for name in ("prompt", "chosen", "rejected")}
        | ({"margin": row["margin"]} if job["trainer"] == "trl_reward" else {}) | _beside(row, job)
        for row in of(job, parts)
    ]  # fmt: skip
    if any(row.get("margin") is None for row in found):
        for row in found:
            row.pop("margin", None)
    return dataset(iter(found))


def sides(job: Job, parts: list[str]) -> Any:
    """`prompt`, `completion` and `label`: each side of a pair that is there, the chosen one labelled true."""
    from curation.rendering import template_messages

    return dataset(
        {"prompt": template_messages(row["prompt"]), "completion": template_messages(row[side]),
         "label": side == "chosen"} | _beside(row, job)
        for row in of(job, parts) for side in ("chosen", "rejected") if row[side] is not None
    )  # fmt: skip


def prompts(job: Job, parts: list[str]) -> Any:
    """`prompt`, and what a reward reads of the row: row_id, ground_truth and verifier."""
    from curation.rendering import template_messages

    return dataset(
        {"prompt": template_messages(row["prompt"]), "row_id": _hex(row["row_id"]),
         "ground_truth": row.get("ground_truth"), "verifier": row.get("verifier")}
        for row in of(job, parts)
    )  # fmt: skip


def dataset(rows: Iterator[Row]) -> Any:
    """Records as a `datasets.Dataset`."""
    import datasets

    return datasets.Dataset.from_list(list(rows))


def _beside(row: Row, job: Job) -> Row:
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    return tools | ({"chat_template_kwargs": job["kwargs"]} if job["kwargs"] else {})


def _hex(row_id: UUID | str) -> str:
    return row_id.hex if isinstance(row_id, UUID) else row_id
