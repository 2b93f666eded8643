"""Frozen rows as verl's datasets read them. What is too long for verl never reaches it: it is left out here, each row
with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.catalog import write_parquet
from trainers.process.rows import frozen

Job = dict[str, Any]
Row = dict[str, Any]

EXTRA = pa.struct([("split", pa.string()), ("index", pa.int64()), ("row_id", pa.string()), ("verifier", pa.string()),
                   ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))])  # fmt: skip
REWARD = pa.struct([("style", pa.string()), ("ground_truth", pa.string())])


def write(job: Job, entry: str, folder: Path) -> tuple[dict[str, int], list[Row]]:
    """Write train and held-out rows; returns the number of rows written of each split (`train`, `val`) and the rows
    left out: row_id, source, split, tokens, reason. SFT rows whose messages have other keys get files of their own: in
    one file each would have the keys of all. A rehearsal has the training rows that it names, and none held out."""
    limit = _limit(job, entry)
    only = set(job["rehearsal"]["only"]) if "rehearsal" in job else None
    held_out = job["held_out"] if only is None else []
    lengths, out = {}, []
    for split, parts, fates in (("train", job["parts"], _audited(job)), ("val", held_out, _rendered(job, held_out))):
        kept: list[Row] = []
        for position, (row, fate) in enumerate(zip(frozen(parts), fates, strict=True)):
            if only is not None and position not in only:
                continue
            reason = _reason(fate, limit)
            if reason is None:
                kept.append(_rl(row, split, len(kept)) if entry == "rl" else _sft(row))
            else:
                out.append({"row_id": row["row_id"], "source": row["source"], "split": split,
                            "tokens": fate["tokens"], "reason": reason})  # fmt: skip
        lengths[split] = len(kept)
        if kept:
            _write(kept, entry, folder / f"{split}.parquet")
    (folder / "left_out.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in out))
    columns = ["row_id", "tokens", "ids_hash"]
    write_parquet(folder / "audited.parquet", pq.read_table(job["fates"], columns=columns))
    return lengths, out


def _limit(job: Job, entry: str) -> tuple[str, int] | None:
    """The option that bounds a row and its value; None where verl cuts longer rows instead of stopping at them."""
    if entry == "rl":
        return "max_prompt_length", int(job["config"].get("data.max_prompt_length", 512))
    if job["config"].get("data.truncation", "error") == "error":
        return "max_length", int(job["config"].get("data.max_length", 1024))
    return None


def _reason(fate: Row, limit: tuple[str, int] | None) -> str | None:
    if fate["tokens"] == 0:
        return fate.get("error") or "the chat template raises on it, or writes nothing"
    if limit is not None and fate["tokens"] > limit[1]:
        return f"{fate['tokens']:,} tokens are more than {limit[0]} {limit[1]:,}"
    return "the audit says that verl drops it" if fate["fate"] == "dropped" else None


def taken(job: Job, entry: str) -> list[int]:
    """Positions of the training rows that are not left out, ascending."""
    limit = _limit(job, entry)
    return [position for position, fate in enumerate(_audited(job)) if _reason(fate, limit) is None]


def _audited(job: Job) -> Iterator[Row]:
    yield from pq.read_table(job["fates"], columns=["tokens", "fate"]).to_pylist()


def _rendered(job: Job, parts: list[str]) -> Iterator[Row]:
    """The lengths of held-out rows, which no audit has seen, under the audited tokenizer and template."""
    from curation.fingerprint import hash_bytes
    from curation.rendering import Rendering, Template, load_tokenizer

    if not parts:
        return
    text = job["template"]
    template = None if text is None else Template("audited", text, hash_bytes(text.encode()))
    rendering = Rendering(load_tokenizer(None, job["tokenizer"]), template, job["path"], job["kwargs"])
    prompts = job["stage"] == "rlvr"
    for row in frozen(parts):
        made = rendering.render_prompts([row])[0] if prompts else rendering.render(row, job["stage"])
        yield {"tokens": len(made.ids), "fate": "whole", "error": made.error}


def _rl(row: Row, split: str, index: int) -> Row:
    from curation.rendering import template_messages

    prompt = template_messages(row["prompt"])
    extra = {"split": split, "index": index, "row_id": row["row_id"], "verifier": row["verifier"], "prompt": prompt}
    return {"data_source": row["source"], "prompt": prompt, "ability": row["verifier"] or "",
            "reward_model": {"style": "rule", "ground_truth": row["ground_truth"]}, "extra_info": extra}  # fmt: skip


def _sft(row: Row) -> Row:
    from curation.rendering.per_message import parquet_row

    return parquet_row(row) | {"row_id": row["row_id"]}


def _write(rows: list[Row], entry: str, path: Path) -> None:
    if entry == "rl":
        table = pa.Table.from_pylist(rows)
        for name, kind in (("extra_info", EXTRA), ("reward_model", REWARD)):
            at = table.column_names.index(name)
            table = table.set_column(at, name, pa.array([row[name] for row in rows], kind))
        write_parquet(path, table)
        return
    groups: dict[str, list[Row]] = {}
    for row in rows:
        kinds = [str(pa.array([row[name]]).type) for name in ("messages", "tools") if name in row]
        groups.setdefault(" ".join(kinds), []).append(row)
    tools = any("tools" in row for row in rows)
    for number, group in enumerate(groups.values()):
        # verl raises on null where only some rows of a run have tools
        filled = [{"tools": [], **row} for row in group] if tools else group
        write_parquet(path.with_stem(f"{path.stem}-{number:05d}"), pa.Table.from_pylist(filled))


def files(folder: Path, split: str) -> list[str]:
    """The files of a split, in order."""
    return [str(path) for path in sorted(folder.glob(f"{split}*.parquet"))]
