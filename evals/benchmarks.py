"""Benchmarks as files: where the items lie, how a question is asked, and how an answer is judged."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AliasChoices, Field, field_validator, model_validator

from curation import verifiers
from curation.catalog import Catalog
from curation.config import Strict, load_yaml, shown
from curation.errors import Problem, UserError
from curation.fingerprint import fingerprint, hash_bytes, hash_file
from curation.verifiers import Finder, Judgement, choice, exact, numeric
from evals.records import data_files, read_records

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_PROBLEMS = 10


class Benchmark(Strict):
    """`catalogs/benchmarks/NAME.yaml`.

    `data` is a file (jsonl, json, parquet; plain or gz) or a folder holding `SPLIT.*`, relative to the project.
    `question` is a Jinja template over an item's fields; `answer` the field with the gold answer, of which
    `answer_pattern` keeps the first group. `id` names the field with the item's id (default: a hash of the question),
    `cluster` the field that says which items are not independent.

    kind `generative`: the model writes, `verifier` judges what `after` and `pattern` find after the thought.
    kind `choice`: the log-likelihood of every option in the field `choices` decides; `answer` is an option's text, an
    index from 0 or a letter. `before_option` stands between prompt and option (default: a space after a plain prompt).

    `max_new_tokens` counts generated tokens, thought included. `stop` texts end an answer outside of a thought only.
    `think` is the pair of marks around a thought, null where the model has none.
    """

    data: str
    split: str = "test"
    id: str | None = None
    question: str = Field(validation_alias=AliasChoices("question", "prompt_template"))
    answer: str = "answer"
    answer_pattern: str | None = None
    choices: str | None = None
    before_option: str | None = None
    kind: Literal["generative", "choice"] = "generative"
    verifier: Literal["exact", "numeric", "choice"] = "exact"
    ignore_case: bool = False
    after: str | None = None
    pattern: str | None = None
    think: tuple[str, str] | None = ("<think>", "</think>")
    system: str | None = None
    prompt: Literal["chat", "plain"] = "chat"
    max_new_tokens: int = Field(default=512, ge=1)
    stop: list[str] = []
    repeats: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    cluster: str | None = None
    limit: int | None = Field(default=None, ge=1)

    @field_validator("answer_pattern", "pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from error
        return value

    @field_validator("question")
    @classmethod
    def _is_template(cls, value: str) -> str:
        try:
            ENVIRONMENT.from_string(value)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"is no Jinja template: {error.message}") from error
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Benchmark:
        if self.kind == "choice" and self.choices is None:
            raise ValueError("kind choice needs 'choices'; name the field that holds the options")
        if self.kind == "choice" and self.repeats > 1:
            raise ValueError("kind choice has no repeats; a log-likelihood does not vary")
        if self.repeats > 1 and self.temperature == 0:
            raise ValueError("repeats need a temperature above 0; greedy answers would all be equal")
        return self

    def judge(self, text: str, gold: str) -> Judgement:
        """The verdict on the text after the thought."""
        finder = Finder(self.after, self.pattern)
        if self.verifier == "numeric":
            return numeric.judge(text, gold, finder)
        if self.verifier == "choice":
            return choice.judge(text, gold, finder)
        return exact.judge(text, gold, finder, ignore_case=self.ignore_case)

    def continuation(self, option: str) -> str:
        """An option as the text whose log-likelihood is taken."""
        before = self.before_option
        return (before if before is not None else " " if self.prompt == "plain" else "") + option

    def sampling(self) -> dict[str, Any]:
        """What decides how tokens are drawn; part of the conditions of a score."""
        if self.temperature == 0:
            return {"temperature": 0.0}
        return {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}


ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@dataclass(frozen=True)
class Item:
    """One question of a benchmark. `gold` is the answer as text (a letter for kind and verifier `choice`); `options`
    are the texts of kind `choice`, and `gold_index` which of them is right."""

    sample_id: str
    question: str
    gold: str
    cluster: str
    options: tuple[str, ...] = ()
    gold_index: int = 0


@dataclass(frozen=True)
class Task:
    """A benchmark with its items, in file order. `fingerprint` covers the file's settings, the bytes of its data and
    the verifiers' version, never paths."""

    name: str
    benchmark: Benchmark
    items: tuple[Item, ...]
    fingerprint: str

    @property
    def num_samples(self) -> int:
        return len(self.items) * self.benchmark.repeats


def load_benchmark(catalog: Catalog, name: str) -> Benchmark:
    """The settings of a benchmark. Raises UserError with `file:line`, or "did you mean"."""
    return load_yaml(catalog.project.path("benchmarks", name, ".yaml"), Benchmark)


def benchmark_fingerprint(catalog: Catalog, name: str) -> str:
    """The identity of a benchmark: settings, data bytes, verifiers' version."""
    benchmark = load_benchmark(catalog, name)
    return _identity(benchmark, _files(catalog, name, benchmark))


def load_task(catalog: Catalog, name: str) -> Task:
    """A benchmark with its items. Raises UserError with every item that cannot be asked or has no gold answer."""
    benchmark = load_benchmark(catalog, name)
    files = _files(catalog, name, benchmark)
    items, problems = [], []
    for where, record in _limited(read_records(files), benchmark.limit):
        try:
            items.append(_item(benchmark, record))
        except (ValueError, jinja2.TemplateError) as error:
            problems.append(Problem(str(error), f"mend the item or catalogs/benchmarks/{name}.yaml", where))
    counts = Counter(item.sample_id for item in items)
    twins = [sample_id for sample_id, count in counts.items() if count > 1]
    if twins:
        what = f"{len(twins)} ids stand twice (first: {twins[0]})"
        problems.append(Problem(what, "name a field with unique ids", name, "id"))
    if not items and not problems:
        problems.append(Problem("holds no items", "check 'data' and 'split'", name, "data"))
    if problems:
        more = [Problem(f"and {len(problems) - MAX_PROBLEMS} more")] if len(problems) > MAX_PROBLEMS else []
        raise UserError(problems[:MAX_PROBLEMS] + more)
    return Task(name, benchmark, tuple(items), _identity(benchmark, files))


def _identity(benchmark: Benchmark, files: list[Path]) -> str:
    settings = {key: getattr(benchmark, key) for key in Benchmark.model_fields if key not in ("data", "split")}
    return fingerprint({"settings": settings, "data": [hash_file(path) for path in files],
                        "verifiers": verifiers.VERSION})  # fmt: skip


def _files(catalog: Catalog, name: str, benchmark: Benchmark) -> list[Path]:
    path = Path(benchmark.data)
    path = path if path.is_absolute() else catalog.project.root / path
    files = data_files(path, benchmark.split)
    if not files:
        where = shown(catalog.project.path("benchmarks", name, ".yaml"))
        raise UserError(f"there is no data at {shown(path)}", f"put '{benchmark.split}.jsonl' or the file there, or "
                        "change 'data'", where=where, key="data")  # fmt: skip
    return files


def _limited(records: Iterator[tuple[str, dict[str, Any]]], limit: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, record in enumerate(records):
        if limit is not None and index >= limit:
            return
        yield record


def _field(record: dict[str, Any], name: str, setting: str) -> Any:
    if record.get(name) is None:
        raise ValueError(f"has no field '{name}' (setting '{setting}')")
    return record[name]


def _item(benchmark: Benchmark, record: dict[str, Any]) -> Item:
    question = ENVIRONMENT.from_string(benchmark.question).render(record | {"record": record})
    if not question.strip():
        raise ValueError("the question is empty")
    gold = str(_field(record, benchmark.answer, "answer")).strip()
    if benchmark.answer_pattern is not None:
        match = re.search(benchmark.answer_pattern, gold, re.DOTALL)
        if match is None:
            raise ValueError(f"answer_pattern does not occur in the field '{benchmark.answer}'")
        gold = (match[1] if match.re.groups else match[0]).strip()
    if benchmark.id is None:
        sample_id = hash_bytes(question.encode("utf-8", "surrogatepass"))
    else:
        sample_id = str(_field(record, benchmark.id, "id"))
    cluster = sample_id if benchmark.cluster is None else str(_field(record, benchmark.cluster, "cluster"))
    if benchmark.choices is not None:
        options = tuple(str(option) for option in _field(record, benchmark.choices, "choices"))
        index = _gold_index(gold, options)
        letter = LETTERS[index] if index < len(LETTERS) else str(index)
        return Item(sample_id, question, letter, cluster, options, index)
    if benchmark.judge("", gold).state == "right":  # also raises where a numeric gold holds no number
        raise ValueError("an empty answer would be right")
    return Item(sample_id, question, gold, cluster)


def _gold_index(gold: str, options: tuple[str, ...]) -> int:
    if gold in options:
        return options.index(gold)
    if gold.isdecimal() and int(gold) < len(options):
        return int(gold)
    if len(gold) == 1 and gold.upper() in LETTERS[: len(options)]:
        return LETTERS.index(gold.upper())
    raise ValueError(f"the gold answer {gold!r:.40} is no option, index or letter of {len(options)} options")
