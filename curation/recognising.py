"""Which reader and shape a file or dataset has, told from its name and its first records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation import registry, schema
from curation.config import shown
from curation.errors import UserError
from curation.parsing import first_records
from curation.shapes import SHAPES, prompt_key, recognise
from curation.sources import Source

LOOKED_AT = 200


@dataclass(frozen=True)
class Recognised:
    """Reader, shape and stage of a file; `keys` are the record keys seen."""

    reader: str
    shape: str
    stage: str
    keys: list[str]


def reader_of(path: Path) -> str:
    """The reader whose ending is the longest that fits. Raises UserError naming the known endings."""
    suffixes = {suffix: name for name in registry.entries("sources")
                for suffix in registry.load("sources", name).suffixes}  # type: ignore[attr-defined]  # fmt: skip
    fitting = [suffix for suffix in suffixes if path.name.lower().endswith(suffix)]
    if not fitting:
        raise UserError(f"no reader knows '{path.name}'", f"known endings: {', '.join(sorted(suffixes))}",
                        where=shown(path))  # fmt: skip
    return suffixes[max(fitting, key=len)]


def shape_for(values: list[dict[str, Any]], stage: str | None, name: str) -> str:
    """The shape of the records of `name` for the stage that is wanted, if any. Prompts without an answer that is known
    become rows where stage rlvr is asked for. Raises UserError with the fields and what may be done."""
    shape = schema.BENCHMARK if stage == schema.BENCHMARK else recognise(values)
    prompt = prompt_key(values) if shape is None else None
    if prompt is not None and stage == "rlvr":
        return "prompts"
    if shape is None:
        keys = sorted({key for value in values for key in value})
        step = f"write catalogs/sources/NAME.yaml with shape and fields; shapes: {', '.join(SHAPES)}"
        if prompt is not None:
            step = f"where '{prompt}' is all (to measure it, or for rewards that need no answer): kedge add {name} " \
                   f"--stage rlvr; for items that rows are compared with: --stage benchmark; else {step}"  # fmt: skip
        raise UserError(f"the shape of its records is not known (fields: {', '.join(keys)[:300]})", step, where=name)
    return shape


def recognise_file(path: Path, *, stage: str | None = None, reader: str | None = None) -> Recognised:
    """Look at the first 200 records. `stage` is the one wanted, if any. Raises UserError with what was seen."""
    if path.is_file() and path.stat().st_size == 0:
        raise UserError("is empty", "give a file with records", where=shown(path))
    if not path.exists() and reader != "hf_hub":
        raise UserError("is not there", "check the path", where=shown(path))
    name = reader or reader_of(path)
    source = registry.make("sources", name)
    assert isinstance(source, Source)
    records = list(first_records(path, source, LOOKED_AT))
    values = [record.value for record in records if record.value is not None]
    if not values:
        problem = records[0].problem if records else "it holds no records"
        step = "check the file"
        if name == "hf_hub":
            step = "choose config and split in reader_options of catalogs/sources/NAME.yaml (reader: hf_hub)"
        raise UserError(f"nothing in it can be read: {problem}", step, where=shown(path))
    shape = shape_for(values, stage, shown(path))
    keys = sorted({key for value in values for key in value})
    stages = SHAPES[shape].stages
    if stage is not None and stage not in stages:
        raise UserError(f"its records have the shape '{shape}', which cannot fill {stage} rows", f"use --stage "
                        f"{stages[0]}", where=shown(path))  # fmt: skip
    return Recognised(name, shape, stage or stages[0], keys)
