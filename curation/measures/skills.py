"""Which skill a row trains: what its data says, else a reviewed map of words, else a classifier."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pyarrow as pa
from pydantic import model_validator

from curation import schema
from curation.config import SHIPPED, Project, load_yaml, project_around
from curation.measures import PartMeasure
from curation.measures._asked import ANSWERED_IN, ASKED_IN, bounded, last_answer, longest_asked
from curation.measures._skill_map import SkillMap, skill_by_map
from curation.measures.classifier import Classifier
from curation.outputs import finished, read_manifest
from curation.texts import joined

LABEL_KEYS = ("skill", "domain", "topic", "category", "ability")


class Skills(PartMeasure):
    """skill: `skill` of the row's meta; else the label of its source in `sources` (by default `skill`, else `domain` of
    the source file as it was ingested); else the first of `domain`, `topic`, `category`, `ability` that its meta has
    as text; else what the map of words says (`map` is a name in catalogs/skills or a path); else the label that
    `classifier` gives its prompt; else null. skill_by: which of these it was (meta, source, map, classifier)."""

    version: ClassVar[int] = 2
    depends_on: ClassVar[tuple[str, ...]] = (
        "curation/measures/_asked.py", "curation/measures/_skill_map.py", "curation/measures/classifier.py",
        "curation/texts.py",
    )  # fmt: skip
    columns: ClassVar[pa.Schema] = pa.schema([("skill", pa.string()), ("skill_by", pa.string())])

    map: str = "general"
    words: SkillMap = SkillMap(skills={})
    sources: dict[str, str] = {}
    classifier: Classifier | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_map(cls, given: Any) -> Any:
        if isinstance(given, dict) and "words" not in given:
            path = map_path(given.get("map", "general"))
            given = given | {"words": _read(path, path.stat().st_mtime_ns)}
        if isinstance(given, dict) and "sources" not in given:
            given = given | {"sources": source_labels()}
        return given

    def identity(self) -> dict[str, Any]:
        """The map by its content: its name and place do not matter."""
        from curation.fingerprint import hash_bytes

        of = None if self.classifier is None else self.classifier.identity()
        words = hash_bytes(self.words.model_dump_json().encode())
        config = {"map": self.map, "words": words, "sources": self.sources, "classifier": of}
        return {"plugin": self.plugin_name(), "version": self.version, "config": config}

    def reads(self, stage: str) -> tuple[str, ...]:
        names = ("source", "meta", ASKED_IN[stage], *ANSWERED_IN[stage], "tools", "verifier")
        return tuple(dict.fromkeys(name for name in names if name in schema.rows(stage).names))

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        seen = evidence(rows, stage)
        by_source = _column(rows, "source").replace_strict(self.sources, default=None, return_dtype=pl.String)
        layers = [("meta", label_of_meta(rows, LABEL_KEYS[:1])), ("source", by_source),
                  ("meta", label_of_meta(rows, LABEL_KEYS[1:])), ("map", skill_by_map(self.words, seen))]  # fmt: skip
        if self.classifier is not None:
            layers.append(("classifier", pl.Series(self.classifier.measure(rows, stage).column(0), dtype=pl.String)))
        found = pl.DataFrame([labels.alias(str(place)) for place, (_, labels) in enumerate(layers)])
        by = [pl.when(pl.col(str(place)).is_not_null()).then(pl.lit(name)) for place, (name, _) in enumerate(layers)]
        told = found.select(pl.coalesce(found.columns).alias("skill"), pl.coalesce(by).alias("skill_by"))
        return told.to_arrow().cast(self.columns)


@functools.lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> SkillMap:
    """Read once per state of the file: a command loads its rules several times."""
    return load_yaml(path, SkillMap)


def map_path(name: str) -> Path:
    """The file of a map: of the project around the working directory, else a shipped one. Raises UserError."""
    return (project_around() or Project(SHIPPED.parent)).path("skills", name, ".yaml")


def source_labels() -> dict[str, str]:
    """The skill (else the domain) of the ingested sources whose file names one, of the project around the working
    directory."""
    project = project_around()
    if project is None:
        return {}
    folders = finished(str(project.lake / "rows"))
    told = [manifest for folder in folders if (manifest := read_manifest(Path(folder) / "manifest.json"))]
    labels = {item.name: item.parameters.get("skill") or item.parameters.get("domain") for item in told}
    return {name: str(label) for name, label in sorted(labels.items()) if label}


def label_of_meta(rows: pa.Table, keys: Sequence[str] = LABEL_KEYS) -> pl.Series:
    """The first label of `keys` that the rows' meta has as text."""
    meta = _column(rows, "meta")
    if not meta.str.contains_any([f'"{key}"' for key in keys]).any():
        return pl.Series([None] * len(meta), dtype=pl.String)
    values = [meta.str.json_path_match(f"$.{key}") for key in keys]
    texts = [pl.when(value.str.contains(r'^\s*[^\s\[{"\d]')).then(value.str.strip_chars()) for value in values]
    return pl.select(pl.coalesce(texts))[:, 0]


def evidence(rows: pa.Table, stage: str) -> pl.DataFrame:
    """What the map reads of N rows: asked (longest user turn) and answered (last answer, solution or page), each of at
    most 2,000 characters; verifier; calls (a tool is called) and tools (tools are offered)."""
    talks = [name for name in ("messages", "prompt", "chosen", "rejected") if name in rows.column_names]
    called = joined(rows, talks, ("tool_calls",), roles=("assistant",), separator="")
    return pl.DataFrame({
        "asked": bounded(longest_asked(rows, stage)), "answered": bounded(last_answer(rows, stage)),
        "verifier": _column(rows, "verifier"),
        "calls": pl.Series(called).str.len_bytes() > len("[]"),
        "tools": _column(rows, "tools").str.len_bytes().fill_null(0) > len("[]"),
    })  # fmt: skip


def _column(rows: pa.Table, name: str) -> pl.Series:
    """A column of text; nulls where the stage has none."""
    if name in rows.column_names:
        return pl.Series(rows[name].combine_chunks().cast(pa.string()), dtype=pl.String)
    return pl.Series([None] * rows.num_rows, dtype=pl.String)
