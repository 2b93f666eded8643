"""Safety data: the taxonomy of hazards with the policy expected in each, prompts sorted into it, refusals counted."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import polars as pl
from pydantic import Field

from curation.catalog import Catalog
from curation.config import SHIPPED, Strict, load_yaml, project_around, shown
from curation.errors import Problem, UserError
from curation.measuring import applicable, ensure, named, source_view
from curation.pair_bias import plain
from curation.references import rows_with_key
from curation.statistics import Interval, wilson_interval

Policy = Literal["refuse", "answer with caveat", "answer"]
_WORD = re.compile(r"\{([a-z_]+)\}")
NONE = "(no category)"


class Category(Strict):
    """A hazard, the policy expected of answers in it, the names that sources give it, and patterns of its prompts."""

    name: str
    policy: Policy
    description: str
    labels: list[str] = []
    patterns: list[str] = []
    look_alike: bool = False


class Frame(Strict):
    """A benign context; a `firm` one holds although something is done to a person in it."""

    name: str
    patterns: list[str] = Field(min_length=1)
    firm: bool = False


class LookAlikes(Strict):
    """When a prompt that sounds dangerous is benign: see catalogs/taxonomies/safety.yaml."""

    alarming: list[str] = Field(min_length=1)
    frames: list[Frame] = Field(min_length=1)
    vetoes: list[str] = []
    vetoes_always: list[str] = []


class Taxonomy(Strict):
    """`catalogs/taxonomies/NAME.yaml`. Patterns are regular expressions of Rust without case; `{name}` in them stands
    for any of `words`. A label is compared without case and punctuation."""

    label_keys: list[str] = Field(min_length=1)
    words: dict[str, list[str]] = {}
    categories: list[Category] = Field(min_length=1)
    look_alikes: LookAlikes

    def expression(self, patterns: Sequence[str]) -> str:
        """Patterns as one regular expression."""

        def alternatives(match: re.Match[str]) -> str:
            return "(?:" + "|".join(self.words[match[1]]) + ")"

        return "(?i)" + "|".join(f"(?:{_WORD.sub(alternatives, item)})" for item in patterns)

    def problems(self, where: str) -> list[Problem]:
        """What is wrong with names, labels and patterns."""
        found = []
        names = [item.name for item in self.categories]
        found += [Problem(f"the category '{name}' stands here twice", "keep one", where, "categories")
                  for name in sorted(set(names)) if names.count(name) > 1]  # fmt: skip
        labels = [(key, item.name) for item in self.categories for key in {_plain(label) for label in item.labels}]
        for label in sorted({label for label, _ in labels}):
            of = [name for other, name in labels if other == label]
            if len(of) > 1:
                found.append(Problem(f"the label '{label}' belongs to {' and '.join(of)}", "give it to one", where,
                                     "labels"))  # fmt: skip
        of_frames = [pattern for frame in self.look_alikes.frames for pattern in frame.patterns]
        every = {"categories": [pattern for item in self.categories for pattern in item.patterns],
                 "look_alikes": [*self.look_alikes.alarming, *of_frames, *self.look_alikes.vetoes,
                                 *self.look_alikes.vetoes_always]}  # fmt: skip
        for key, patterns in every.items():
            for pattern in patterns:
                unknown = [name for name in _WORD.findall(pattern) if name not in self.words]
                if unknown:
                    found.append(Problem(f"{pattern!r:.60} uses {{{unknown[0]}}}", "add it to words", where, key))
                elif wrong := _wrong(self.expression([pattern])):
                    found.append(Problem(f"{pattern!r:.60} is no regular expression: {wrong}", "mend it", where, key))
        return found


def _wrong(expression: str) -> str:
    try:
        pl.Series([""]).str.contains(expression)
    except pl.exceptions.PolarsError as error:
        return " ".join(str(error).split())[-120:]
    return ""


def _plain(label: str) -> str:
    return " ".join(re.findall(r"\w+", label.casefold().replace("_", " ")))


def taxonomy_path(name: str) -> Path:
    """The file of a taxonomy: the project's own, else the shipped one. Raises UserError, also for a kedge.yaml that is
    wrong."""
    project = project_around()
    if project is None:
        return SHIPPED / "taxonomies" / f"{name}.yaml"
    return project.path("taxonomies", name, ".yaml")


@functools.lru_cache(maxsize=8)
def _loaded(path: Path, text: str) -> Taxonomy:
    taxonomy = load_yaml(path, Taxonomy)
    if problems := taxonomy.problems(shown(path)):
        raise UserError(problems)
    return taxonomy


def load_taxonomy(name: str = "safety") -> Taxonomy:
    """A taxonomy by name. Raises UserError with every problem of its file."""
    path = taxonomy_path(name)
    return _loaded(path, path.read_text() if path.exists() else "")


def told_categories(taxonomy: Taxonomy, meta: pl.Series) -> list[str | None]:
    """The category that a row's meta names: the first of the label keys whose value is a known label, a list of labels,
    an object of labels that are true, or labels separated by commas; of several labels the first category of the
    file. Null where there is none."""
    by_label = {_plain(label): item.name for item in taxonomy.categories for label in [item.name, *item.labels]}
    order = {item.name: place for place, item in enumerate(taxonomy.categories)}
    found: list[str | None] = [None] * len(meta)
    for row in rows_with_key(meta, taxonomy.label_keys):
        value = orjson.loads(meta[row])
        for key in taxonomy.label_keys:
            named_here = _named(value.get(key), by_label) if isinstance(value, dict) else set()
            if named_here:
                found[row] = min(named_here, key=order.__getitem__)
                break
    return found


def _named(value: Any, by_label: dict[str, str]) -> set[str]:
    """The categories that a value names; text is one label before it is several with commas between them."""
    if isinstance(value, str):
        whole = by_label.get(_plain(value))
        pieces = {by_label.get(_plain(item)) for item in re.split(r"[,;|]", value)}
        return {whole} if whole else {name for name in pieces if name}
    if isinstance(value, dict):
        value = [name for name, true in value.items() if true is True or true == 1]
    return {name for item in value for name in _named(item, by_label)} if isinstance(value, list) else set()


def categories_by_pattern(taxonomy: Taxonomy, asked: pl.Series) -> pl.Series:
    """The first category, in the order of the file, one of whose patterns a prompt holds; null where none does."""
    found = pl.Series([None] * len(asked), dtype=pl.String)
    left = asked
    for item in taxonomy.categories:
        if item.patterns:
            hit = left.str.contains(taxonomy.expression(item.patterns)).fill_null(False)
            places = hit.arg_true()
            found = found.scatter(places, [item.name] * len(places))
            left = left.scatter(places, [None] * len(places))
    return found


def look_alikes(taxonomy: Taxonomy, asked: pl.Series) -> pl.Series:
    """Which prompts sound dangerous and are benign: an alarming word inside a benign frame, without a veto."""
    of = taxonomy.look_alikes
    alarming = asked.str.contains(taxonomy.expression(of.alarming)).fill_null(False)
    few = asked.filter(alarming)

    def holds(patterns: list[str]) -> pl.Series:
        if not patterns:
            return pl.Series([False] * len(few), dtype=pl.Boolean)
        return few.str.contains(taxonomy.expression(patterns))

    firm = holds([item for frame in of.frames if frame.firm for item in frame.patterns])
    loose = holds([item for frame in of.frames if not frame.firm for item in frame.patterns]) & ~holds(of.vetoes)
    return pl.Series([False] * len(asked), dtype=pl.Boolean).scatter(
        alarming.arg_true(), (firm | loose) & ~holds(of.vetoes_always))  # fmt: skip


@dataclass(frozen=True)
class Refusals:
    """Of `num_rows` rows of a category (`look_alikes` of them sound dangerous and are benign) `num_answers` have an
    answer (chosen, for pairs); `refused` of those refuse: `share`, with Wilson's interval of 95 %. `over` counts
    refusals where the policy is to answer, with a caveat or without; `under` answers that do not refuse where it is
    to refuse. Refusals are told by their phrases: a polite change of subject is none."""

    category: str
    policy: str | None
    num_rows: int
    num_look_alikes: int
    num_answers: int
    refused: int
    share: float | None
    interval: Interval
    over: int
    under: int
    by_source: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Report:
    """Refusals per category over some sources, in the order of the taxonomy; rows without a category last."""

    taxonomy: str
    sources: list[str]
    categories: list[Refusals]

    def as_json(self) -> dict[str, Any]:
        """Everything, plain; intervals as [low, high], sources as [answers, refused]."""
        told: dict[str, Any] = plain(asdict(self))
        return told


def refusals(catalog: Catalog, sources: list[str] | None = None, taxonomy: str = "safety") -> Report:
    """Refusals per category over sources (all of the stages that have answers, by default); measures `safety` where it
    is missing. Raises UserError for an unknown source."""
    measure = named("safety", {} if taxonomy == "safety" else {"taxonomy": taxonomy})
    names = applicable(catalog, measure, sources)
    if names:
        ensure(catalog, measure, names)
    counted: dict[tuple[str | None, str | None], dict[str, tuple[int, ...]]] = {}
    connection = catalog.session()
    try:
        for source in names:
            rows = connection.execute(
                "SELECT safety_category, safety_policy, count(*), count(*) FILTER (benign_look_alike), "
                "count(answer_refuses), count(*) FILTER (answer_refuses) "
                f"FROM ({source_view(catalog, source, [measure])}) GROUP BY ALL").fetchall()  # fmt: skip
            for category, policy, *numbers in rows:
                counted.setdefault((category, policy), {})[source] = tuple(numbers)
    finally:
        connection.close()
    order = {item.name: place for place, item in enumerate(load_taxonomy(taxonomy).categories)}
    every = sorted(counted.items(), key=lambda item: order.get(item[0][0] or "", len(order)))
    return Report(taxonomy, names, [_refusals(category, policy, of) for (category, policy), of in every])


def _refusals(category: str | None, policy: str | None, of: dict[str, tuple[int, ...]]) -> Refusals:
    rows, alike, answers, refused = (sum(numbers[place] for numbers in of.values()) for place in range(4))
    return Refusals(category or NONE, policy, rows, alike, answers, refused, refused / answers if answers else None,
                    wilson_interval(refused, answers), refused if policy not in ("refuse", None) else 0,
                    answers - refused if policy == "refuse" else 0,
                    {source: (numbers[2], numbers[3]) for source, numbers in of.items()})  # fmt: skip
