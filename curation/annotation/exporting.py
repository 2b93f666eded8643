"""Preference rows in the shapes that others read: TRL's, ultrafeedback-binarized's and dpo-mix's.

What is written is read again before it counts: a row stands in a file only where `kedge add` makes the same payload of
it. A shape that cannot hold a row leaves it out and says so in `export.json`.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from curation import identity
from curation.config import shown
from curation.conversations import Rejected, json_text
from curation.errors import UserError
from curation.outputs import write_atomically
from curation.shapes import SHAPES

Row = Mapping[str, Any]
Record = dict[str, Any]
SUMMARY = "export.json"
ROWS_AT_ONCE = 4096
ONE_SIDE, NOT_HELD = "has one side only", "the shape cannot hold it"


def export(rows: pa.Table, folder: Path) -> dict[str, Path]:
    """Write preference rows (of the lake, or of a frozen mixture) into `folder`; returns the file of each shape:

    - `trl`: prompt, chosen, rejected (messages), tools (JSON text), margin (where every row has one), as DPOTrainer and
      RewardTrainer read them;
    - `trl_unpaired`, where there are rows of one side: prompt, completion, label, as KTOTrainer reads them;
    - `ultrafeedback_binarized`: source, prompt (the text of its last user turn), chosen and rejected (whole
      conversations), chosen-rating, chosen-model, rejected-rating, rejected-model;
    - `dpo_mix`: dataset, chosen, rejected (whole conversations), chosen_rating, rejected_rating.

    Ratings are the rows' scores and models come from meta; both are null where they are not known. Whole conversations
    do not say where the prompt ends, so a row whose answers begin alike with a turn and another question stays out of
    the last two. `export.json` has the rows of each file and what was left out, by reason. Raises UserError where there
    is nothing to write, or a folder that cannot be written.
    """
    if not rows.num_rows:
        raise UserError("there are no rows to export", "look at what became of the votes: kedge annotate report JOB")
    lines: dict[str, list[bytes]] = {}
    counts: dict[str, Counter[str]] = {}
    if "margin" in rows.column_names and rows["margin"].null_count:
        rows = rows.drop_columns(["margin"])  # RewardTrainer wants a margin of every row or of none
    for row in itertools.chain.from_iterable(batch.to_pylist() for batch in rows.to_batches(ROWS_AT_ONCE)):
        fields = _fields(row)
        meta = json.loads(row.get("meta") or "{}")
        for name, (shape, write) in FORMS.items():
            record = write(fields, row, meta)
            if record is None and name == UNPAIRED:
                continue
            reason = ONE_SIDE if record is None else "" if _same(record, shape, fields) else NOT_HELD
            counts.setdefault(name, Counter())[reason] += 1
            if not reason:
                lines.setdefault(name, []).append(orjson.dumps(record))
    return _write(lines, counts, folder)


def _write(lines: Mapping[str, list[bytes]], counts: Mapping[str, Counter[str]], folder: Path) -> dict[str, Path]:
    summary = {name: {"rows": count.pop("", 0), "left_out": dict(sorted(count.items()))}
               for name, count in counts.items()}  # fmt: skip
    written = {name: folder / f"{name}.jsonl" for name in FORMS if name in lines}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FORMS:
            if name in lines:
                write_atomically(written[name], b"\n".join(lines[name]) + b"\n")
            else:
                (folder / f"{name}.jsonl").unlink(missing_ok=True)  # what an earlier export wrote is no part of this
        write_atomically(folder / SUMMARY, orjson.dumps(summary, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", "name another folder", where=shown(folder)) from error
    return written


def _fields(row: Row) -> dict[str, Any]:
    """The payload of a row, nulls dropped."""
    return {name: _dense(row[name]) for name in ("prompt", "chosen", "rejected", "tools") if row.get(name) is not None}


def _dense(value: Any) -> Any:
    if isinstance(value, list):
        return [{key: item for key, item in turn.items() if item is not None} for turn in value]
    return value


def _same(record: Record, shape: str, fields: Mapping[str, Any]) -> bool:
    """Whether a record becomes the payload that it was made of, read from JSON by the shape that recognises it."""
    read = orjson.loads(orjson.dumps(record))
    first = next((item.name for item in SHAPES.values() if item.matches(read)), None)
    try:
        again = SHAPES[shape].parse(read, "preference")[0]
        return first == shape and identity.payload_bytes(again, "preference") == identity.payload_bytes(
            dict(fields), "preference")  # fmt: skip
    except Rejected:
        return False


def turns(messages: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Messages with role and content (null where a turn only calls tools); reasoning and tool calls as OpenAI's form
    and chat templates name them."""
    found = []
    for message in messages:
        turn: Record = {"role": message["role"], "content": message.get("content")}
        if "reasoning" in message:
            turn["reasoning_content"] = message["reasoning"]
        if "tool_calls" in message:
            turn["tool_calls"] = _calls(message["tool_calls"])
        found.append(turn | {key: message[key] for key in ("tool_call_id", "name") if key in message})
    return found


def _calls(text: str) -> Any:
    calls = orjson.loads(text)
    return calls if json_text(calls) == text else text


def _trl(fields: Mapping[str, Any], row: Row, meta: Mapping[str, Any]) -> Record | None:
    if "chosen" not in fields or "rejected" not in fields:
        return None
    record = {name: turns(fields[name]) for name in ("prompt", "chosen", "rejected")}
    more = {"tools": fields.get("tools"), "margin": row.get("margin")}
    return record | {key: value for key, value in more.items() if value is not None}


def _unpaired(fields: Mapping[str, Any], row: Row, meta: Mapping[str, Any]) -> Record | None:
    sides = [name for name in ("chosen", "rejected") if name in fields]
    if len(sides) != 1:
        return None
    record = {"prompt": turns(fields["prompt"]), "completion": turns(fields[sides[0]]), "label": sides[0] == "chosen"}
    return record | ({"tools": fields["tools"]} if "tools" in fields else {})


def _whole(fields: Mapping[str, Any]) -> dict[str, list[Record]] | None:
    if "chosen" not in fields or "rejected" not in fields:
        return None
    return {name: turns([*fields["prompt"], *fields[name]]) for name in ("chosen", "rejected")}


def _ultrafeedback(fields: Mapping[str, Any], row: Row, meta: Mapping[str, Any]) -> Record | None:
    sides = _whole(fields)
    if sides is None:
        return None
    asked = next((turn.get("content") or "" for turn in reversed(fields["prompt"]) if turn["role"] == "user"), "")
    record: Record = {"source": meta.get("source") or row.get("source"), "prompt": asked}
    for name in ("chosen", "rejected"):
        model = next((meta[key] for key in (f"{name}_model", f"{name}-model") if meta.get(key)), None)
        record |= {name: sides[name], f"{name}-rating": row.get(f"{name}_score"), f"{name}-model": model}
    return record | ({"tools": fields["tools"]} if "tools" in fields else {})


def _dpo_mix(fields: Mapping[str, Any], row: Row, meta: Mapping[str, Any]) -> Record | None:
    sides = _whole(fields)
    if sides is None:
        return None
    record: Record = {"dataset": meta.get("dataset") or meta.get("source") or row.get("source"), **sides}
    record |= {f"{name}_rating": row.get(f"{name}_score") for name in sides}
    return record | ({"tools": fields["tools"]} if "tools" in fields else {})


UNPAIRED = "trl_unpaired"
FORMS: dict[str, tuple[str, Callable[[Mapping[str, Any], Row, Mapping[str, Any]], Record | None]]] = {
    "trl": ("preference", _trl),
    UNPAIRED: ("kto", _unpaired),
    "ultrafeedback_binarized": ("preference", _ultrafeedback),
    "dpo_mix": ("preference", _dpo_mix),
}
