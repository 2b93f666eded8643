"""Generation jobs: `catalogs/generations/NAME.yaml`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from curation import registry
from curation.catalog import Catalog
from curation.config import Strict, parse, read_text, read_yaml, shown
from curation.errors import UserError
from curation.generation import Generator, Sampling
from curation.measuring import Needs

STAGES = ("sft", "preference", "rlvr")
NAME = re.compile(r"[a-z0-9_]+")


class Prompts(Strict):
    """Whose prompts are answered, exactly one of: `sql` (a SELECT that returns row_id, over `kept`, `rows_STAGE` and
    `signals` of `stage`, with the columns of the measures in `needs`), `mixture` (its rows of `split`; it is frozen
    where it is not yet) or `source` (its kept rows)."""

    sql: str | None = None
    stage: Literal["sft", "preference", "rlvr"] | None = None
    needs: Needs = []
    mixture: str | None = None
    split: Literal["train", "held_out"] = "train"
    source: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Prompts:
        given = [name for name in ("sql", "mixture", "source") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{'names none' if not given else ' and '.join(given) + ' are several'} of sql, mixture "
                             "and source; write one of them")  # fmt: skip
        if self.sql is not None and self.stage is None:
            raise ValueError(f"sql needs to know the stage of its rows; add stage: {' | '.join(STAGES)}")
        if self.sql is None and (self.stage is not None or self.needs):
            raise ValueError(f"stage and needs belong to sql; leave them out beside {given[0]}")
        if self.mixture is None and "split" in self.model_fields_set:
            raise ValueError(f"split belongs to a mixture; leave it out beside {given[0]}")
        return self


class GenerationFile(Strict):
    """`catalogs/generations/NAME.yaml`. `generator` is `{name: ..., option: ...}` in the generator's own options. `n`
    answers to each prompt at each of `temperatures` (0 gives one, the likeliest, whatever `n`); `limit` keeps so many
    prompts, a smaller limit a subset of a larger one."""

    prompts: Prompts
    generator: dict[str, Any]
    n: int = Field(default=1, ge=1, le=1024)
    temperatures: list[float] = Field(default=[1.0], min_length=1)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    seed: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)

    @field_validator("generator")
    @classmethod
    def _is_named(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("name"), str):
            raise ValueError("has no 'name'; for example: generator: {name: transformers_local, model: FOLDER}")
        return value

    @field_validator("temperatures")
    @classmethod
    def _are_temperatures(cls, value: list[float]) -> list[float]:
        if not all(math.isfinite(item) and 0 <= item <= 10 for item in value):
            raise ValueError("holds what is no temperature; write numbers of 0 or more, 10 at most")
        if len(set(value)) < len(value):
            raise ValueError("holds a temperature twice; raise n for more answers")
        return [float(item) for item in value]


@dataclass(frozen=True)
class GenerationJob:
    """A job file and its generator. `line` is where the file has the text of its query."""

    name: str
    where: str
    file: GenerationFile
    generator: Generator
    line: int = 1

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.file.top_p, self.file.max_tokens)

    def samples(self, temperature: float) -> int:
        """Answers to a prompt at one temperature."""
        return self.file.n if temperature else 1


def load_generation(catalog: Catalog, name: str) -> GenerationJob:
    """The job of a name or path. Raises UserError with "did you mean", with the lines that are wrong, and for options
    that the generator does not take."""
    path = catalog.project.path("generations", name, ".yaml")
    where = shown(path)
    if NAME.fullmatch(path.stem) is None:
        raise UserError(f"'{path.stem}' is no name for a job", "use small letters, digits and _", where=where)
    text = read_text(path)
    value, lines = read_yaml(text, where)
    file = parse(GenerationFile, value, lines, where)
    options = {key: item for key, item in file.generator.items() if key != "name"}
    generator = registry.make("generators", file.generator["name"], options, where=where)
    line = lines.get(("prompts", "sql"), 1)
    block = re.search(r"[|>][-+0-9]*\s*(#.*)?$", text.splitlines()[line - 1]) is not None if text else False
    return GenerationJob(path.stem, where, file, cast(Generator, generator), line + block)
