"""A sequence classifier by path: toxicity, quality, domain, or whatever a model of the user's tells."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from curation.config import Project, find_project
from curation.errors import UserError, did_you_mean
from curation.measures import PartMeasure
from curation.measures._asked import ANSWERED_IN, ASKED_IN, last_answer
from curation.measures._sequence_models import load_model, locate, model_hash
from curation.texts import SIDES, joined

DEFAULT = "classifier"
DECIMALS = 4


class Classifier(PartMeasure):
    """The labels of a model under `path`, relative to the project: a transformers folder (safetensors, its own code is
    never run; on CUDA where there is one), or a fastText file (.bin, .ftz). `name` begins the names of the columns, so
    that one rule can read several; without a path it is looked up in `classifiers` of kedge.yaml.

    NAME_label: the likeliest label (null of a model with one output, a regression); NAME_score: the probability of
    `label`, by default of the likeliest (0..1; of a regression its raw value); NAME_scores: of every label in the
    model's order. Rounded to 4 decimals; null where the row has no such text or the
    model knows no word of it, and everywhere while no model is named.

    `text` is the last answer (of a pair the chosen one), the user turns, or everything; `max_tokens` of it are read
    from its begin (words for fastText). Rows go through the model one by one, in float32 and on one thread, so that a
    row's value depends on that row alone. A `batch_size` above 1 is for CUDA: batches of one fixed shape, filled up
    with copies; about one value in a thousand may then differ by 0.0001 with its place in the batch."""

    version: ClassVar[int] = 1
    depends_on: ClassVar[tuple[str, ...]] = ("curation/measures/_asked.py", "curation/measures/_sequence_models.py",
                                             "curation/texts.py")  # fmt: skip

    name: str = Field(default=DEFAULT, pattern=r"^[a-z][a-z0-9_]*$")
    path: str = Field(default="", exclude=True)
    model: str = ""
    text: Literal["answer", "prompt", "whole"] = "answer"
    max_tokens: int = Field(default=512, ge=1)
    label: str | None = None
    batch_size: int = Field(default=1, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _find_model(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("model"):
            return given
        if not given.get("path"):
            given = _of_project(given)
        if not given.get("path"):
            return given
        place = locate(str(given["path"]))
        return given | {"path": str(place), "model": model_hash(place, given.get("label"))}

    @property
    def columns(self) -> pa.Schema:  # type: ignore[override]
        """The signal columns, which begin with `name`."""
        return pa.schema([(f"{self.name}_label", pa.string()), (f"{self.name}_score", pa.float64()),
                          (f"{self.name}_scores", pa.list_(pa.float64()))])  # fmt: skip

    def identity(self) -> dict[str, Any]:
        config = {name: getattr(self, name) for name in type(self).model_fields if name != "path"}
        return {"plugin": self.plugin_name(), "version": self.version, "config": config}

    def reads(self, stage: str) -> tuple[str, ...]:
        return {"answer": ANSWERED_IN[stage], "prompt": (ASKED_IN[stage],), "whole": SIDES[stage]}[self.text]

    def measure(self, rows: pa.Table, stage: str) -> pa.Table:
        texts = self._texts(rows, stage)
        places = texts.str.contains(r"\S").fill_null(False).arg_true().to_list() if self.model else []
        labels: list[str | None] = [None] * len(texts)
        scores: list[float | None] = [None] * len(texts)
        every: list[list[float] | None] = [None] * len(texts)
        if places:
            model = load_model(self.path, self.model)
            if self.label is not None and self.label not in model.labels:  # of a fastText file they are known only now
                raise UserError(f"the classifier has no label '{self.label}'", did_you_mean(self.label, model.labels),
                                where=self.path, key="label")  # fmt: skip
            found_NL = model.scores(texts.gather(places).to_list(), self.max_tokens, self.batch_size)
            for place, row in zip(places, found_NL.round(DECIMALS), strict=True):
                if not np.isfinite(row).all():
                    continue
                best = int(np.argmax(row))
                labels[place] = model.labels[best] if len(row) > 1 else None
                scores[place] = float(row[best if self.label is None else model.labels.index(self.label)])
                every[place] = row.tolist()
        found = zip((labels, scores, every), self.columns.types, strict=True)
        return pa.table([pa.array(column, kind) for column, kind in found], schema=self.columns)

    def _texts(self, rows: pa.Table, stage: str) -> pl.Series:
        if self.text == "answer":
            return last_answer(rows, stage)
        if self.text == "prompt":
            return pl.Series(joined(rows, (ASKED_IN[stage],), ("content",), roles=("user",)))
        return pl.Series(joined(rows, SIDES[stage]))


def _of_project(given: dict[str, Any]) -> dict[str, Any]:
    """What kedge.yaml says of a classifier of this name, under what is given. Raises UserError where it says nothing,
    but for the default name."""
    name = given.get("name", DEFAULT)
    try:
        known = named_classifiers(find_project())
    except UserError:
        known = {}
    if name not in known:
        if name == DEFAULT:
            return given
        example = f"needs: [{{classifier: {{name: {name}, path: models/{name}}}}}]"
        raise UserError(f"kedge.yaml names no classifier '{name}'", f"{did_you_mean(name, known)}, or give its path: "
                        + example, key="classifiers")  # fmt: skip
    return known[name] | given


def named_classifiers(project: Project) -> dict[str, dict[str, Any]]:
    """`classifiers` of kedge.yaml: name -> options; a text is the path."""
    entries = project.file.classifiers
    return {name: {"path": entry} if isinstance(entry, str) else dict(entry) for name, entry in entries.items()}


def classifier_for(project: Project, name: str) -> Classifier:
    """The classifier that kedge.yaml names. Raises UserError for an unknown name, and a model that cannot be used."""
    known = named_classifiers(project)
    if name not in known:
        raise UserError(f"kedge.yaml names no classifier '{name}'", did_you_mean(name, known), key="classifiers")
    options = known[name]
    return Classifier(**(options | {"name": name, "path": str(project.root / options.get("path", ""))}))
