"""Benchmarks as files: where the items lie, how a question is asked, and how an answer is judged."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
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
from curation.rendering import template_messages
from curation.verifiers import Finder, Judgement, choice, exact, logic, math, named, numeric
from evals.records import data_files, read_records
from evals.rows import held_out_files, row_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_PROBLEMS = 10


class Benchmark(Strict):
    """`catalogs/benchmarks/NAME.yaml`.

    `data` is a file (jsonl, json, parquet; plain or gz) or a folder holding `SPLIT.*`, relative to the project.
    `question` is a Jinja template over an item's fields; `answer` the field with the gold answer, of which
    `answer_pattern` keeps the first group. `id` names the field with the item's id (default: a hash of the question),
    `cluster` the field that says which items are not independent.

    kind `generative`: the model writes, `verifier` judges what `after` and `pattern` find after the thought: `exact`
    (with `ignore_case`), `numeric`, `choice` (a letter), `logic` (who is a knight) or `math` (an expression, compared
    by math-verify in processes that are killed at their limit: state `timeout`).
    kind `choice`: the log-likelihood of every option in the field `choices` decides; `answer` is an option's text, an
    index from 0 or a letter. `before_option` stands between prompt and option (default: a space after a plain prompt).

    kind `reward`: items are rows of stage rlvr (a file, or `mixture`); the model writes, each row's own verifier
    judges, and the score is the share of the answer that is right (partial for `code` and `instructions`).
    kind `pairs`: items are preference rows (a file, or `mixture`). Right is a pair whose chosen answer is more likely
    than the rejected one, by the sum over its tokens or, with `normalise: length`, their mean; a reward model's scores
    are compared as they are. `source` names the field by which a report groups pairs.
    `mixture: NAME` takes the rows held out beside a frozen mixture, in the place of `data`.

    `max_new_tokens` counts generated tokens, thought included. `stop` texts end an answer outside of a thought only.
    `think` is the pair of marks around a thought, null where the model has none.
    """

    data: str | None = None
    mixture: str | None = None
    split: str = "test"
    id: str | None = None
    question: str | None = Field(default=None, validation_alias=AliasChoices("question", "prompt_template"))
    answer: str = "answer"
    answer_pattern: str | None = None
    choices: str | None = None
    before_option: str | None = None
    kind: Literal["generative", "choice", "reward", "pairs"] = "generative"
    verifier: Literal["exact", "numeric", "choice", "logic", "math"] = "exact"
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
    normalise: Literal["length"] | None = None
    source: str = "source"
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
    def _is_template(cls, value: str | None) -> str | None:
        try:
            ENVIRONMENT.from_string(value or "")
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(f"is no Jinja template: {error.message}") from error
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Benchmark:
        if (self.data is None) == (self.mixture is None):
            raise ValueError("give exactly one of 'data' (a file or folder) and 'mixture' (a frozen mixture's held-out "
                             "rows)")  # fmt: skip
        if self.of_rows and self.question is not None:
            raise ValueError(f"kind {self.kind} has no 'question'; its items are rows with a prompt of their own")
        if not self.of_rows and self.mixture is not None:
            raise ValueError(f"kind {self.kind} takes no 'mixture'; name 'data', or kind reward or pairs")
        if not self.of_rows and self.question is None:
            raise ValueError(f"kind {self.kind} needs 'question'; write a template over an item's fields")
        if self.kind == "pairs" and (self.prompt == "plain" or self.repeats > 1):
            raise ValueError("kind pairs has neither plain prompts nor repeats; pairs are rendered as TRL renders them")
        if self.normalise is not None and self.kind != "pairs":
            raise ValueError(f"kind {self.kind} has no 'normalise'; remove it")
        if self.kind == "choice" and self.choices is None:
            raise ValueError("kind choice needs 'choices'; name the field that holds the options")
        if self.kind == "choice" and self.repeats > 1:
            raise ValueError("kind choice has no repeats; a log-likelihood does not vary")
        if self.repeats > 1 and self.temperature == 0:
            raise ValueError("repeats need a temperature above 0; greedy answers would all be equal")
        return self

    @property
    def of_rows(self) -> bool:
        """Whether items are rows of a stage, with messages of their own."""
        return self.kind in ("reward", "pairs")

    @property
    def writes(self) -> bool:
        """Whether the model writes an answer."""
        return self.kind in ("generative", "reward")

    def judge(self, text: str, gold: str) -> Judgement | math.Comparison:
        """The verdict on the text after the thought; of `math`, where text alone does not decide, what math-verify is
        to compare. Raises ValueError where `gold` is none of the verifier's."""
        finder = Finder(self.after, self.pattern)
        if self.verifier == "math":
            found = finder.find(text)
            return math.settle("" if found is None else found, gold)
        if self.verifier == "exact":
            return exact.judge(text, gold, finder, ignore_case=self.ignore_case)
        return {"numeric": numeric, "choice": choice, "logic": logic}[self.verifier].judge(text, gold, finder)

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
    are the texts of kind `choice`, and `gold_index` which of them is right. Of kind `reward`, `messages` are the
    prompt, `tools` its JSON text, and `verifier` is one of verifiers.named."""

    sample_id: str
    question: str
    gold: str
    cluster: str
    options: tuple[str, ...] = ()
    gold_index: int = 0
    messages: tuple[dict[str, Any], ...] = ()
    tools: str | None = None
    verifier: str | None = None


@dataclass(frozen=True)
class Task:
    """A benchmark with its items, in file order. `fingerprint` covers the file's settings, the bytes of its data and
    the verifiers' version (for `math` also the release of math-verify), never paths."""

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
    return identity_of(benchmark, data_of(catalog, name, benchmark))


def load_task(catalog: Catalog, name: str) -> Task:
    """A benchmark with its items. Raises UserError with every item that cannot be asked or has no gold answer."""
    benchmark = load_benchmark(catalog, name)
    files = data_of(catalog, name, benchmark)
    items, problems = [], []
    for where, record in limited(read_records(files), benchmark.limit):
        try:
            items.append(_prompt_item(benchmark, record) if benchmark.of_rows else _item(benchmark, record))
        except (ValueError, jinja2.TemplateError) as error:
            problems.append(Problem(str(error), f"mend the item or catalogs/benchmarks/{name}.yaml", where))
    require_items(name, [item.sample_id for item in items], problems)
    return Task(name, benchmark, tuple(items), identity_of(benchmark, files))


def require_items(name: str, sample_ids: list[str], problems: list[Problem]) -> None:
    """Raises UserError with the first problems of a benchmark's items, ids that stand twice, or that there are none."""
    twins = [sample_id for sample_id, count in Counter(sample_ids).items() if count > 1]
    if twins:
        what = f"{len(twins)} ids stand twice (first: {twins[0]})"
        problems.append(Problem(what, "name a field with unique ids", name, "id"))
    if not sample_ids and not problems:
        problems.append(Problem("holds no items", "check 'data' and 'split'", name, "data"))
    if problems:
        more = [Problem(f"and {len(problems) - MAX_PROBLEMS} more")] if len(problems) > MAX_PROBLEMS else []
        raise UserError(problems[:MAX_PROBLEMS] + more)


def identity_of(benchmark: Benchmark, files: list[Path]) -> str:
    """The identity of a benchmark with its files. Settings that only kind pairs has are no part of another's."""
    left_out = ("data", "split", "mixture") + (() if benchmark.kind == "pairs" else ("normalise", "source"))
    settings = {key: getattr(benchmark, key) for key in Benchmark.model_fields if key not in left_out}
    parser = {"math_verify": version("math-verify")} if benchmark.verifier == "math" or benchmark.kind == "reward" \
        else {}  # fmt: skip
    return fingerprint({"settings": settings, "data": [hash_file(path) for path in files],
                        "verifiers": verifiers.VERSION} | parser)  # fmt: skip


def data_of(catalog: Catalog, name: str, benchmark: Benchmark) -> list[Path]:
    """The files with a benchmark's items. Raises UserError where there are none, or where a mixture has no held-out
    rows of the stage that the kind asks for."""
    if benchmark.mixture is not None:
        return held_out_files(catalog, name, benchmark.mixture, "preference" if benchmark.kind == "pairs" else "rlvr")
    assert benchmark.data is not None
    path = Path(benchmark.data)
    path = path if path.is_absolute() else catalog.project.root / path
    files = data_files(path, benchmark.split)
    if not files:
        where = shown(catalog.project.path("benchmarks", name, ".yaml"))
        raise UserError(f"there is no data at {shown(path)}", f"put '{benchmark.split}.jsonl' or the file there, or "
                        "change 'data'", where=where, key="data")  # fmt: skip
    return files


def limited(records: Iterator[tuple[str, dict[str, Any]]], limit: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The first `limit` records."""
    for index, record in enumerate(records):
        if limit is not None and index >= limit:
            return
        yield record


def field_of(record: dict[str, Any], name: str, setting: str) -> Any:
    """A field of a record. Raises ValueError naming the setting where it is absent."""
    if record.get(name) is None:
        raise ValueError(f"has no field '{name}' (setting '{setting}')")
    return record[name]


def _item(benchmark: Benchmark, record: dict[str, Any]) -> Item:
    question = ENVIRONMENT.from_string(benchmark.question or "").render(record | {"record": record})
    if not question.strip():
        raise ValueError("the question is empty")
    gold = str(field_of(record, benchmark.answer, "answer")).strip()
    if benchmark.answer_pattern is not None:
        match = re.search(benchmark.answer_pattern, gold, re.DOTALL)
        if match is None:
            raise ValueError(f"answer_pattern does not occur in the field '{benchmark.answer}'")
        gold = (match[1] if match.re.groups else match[0]).strip()
    if benchmark.id is None:
        sample_id = hash_bytes(question.encode("utf-8", "surrogatepass"))
    else:
        sample_id = str(field_of(record, benchmark.id, "id"))
    cluster = sample_id if benchmark.cluster is None else str(field_of(record, benchmark.cluster, "cluster"))
    if benchmark.choices is not None:
        options = tuple(str(option) for option in field_of(record, benchmark.choices, "choices"))
        index = _gold_index(gold, options)
        letter = LETTERS[index] if index < len(LETTERS) else str(index)
        return Item(sample_id, question, letter, cluster, options, index)
    empty = benchmark.judge("", gold)  # raises where the gold is none of the verifier's
    if isinstance(empty, Judgement) and empty.state == "right":
        raise ValueError("an empty answer would be right")
    return Item(sample_id, question, gold, cluster)


def _prompt_item(benchmark: Benchmark, record: dict[str, Any]) -> Item:
    """A row of stage rlvr: a frozen one, or a record of a shape that has prompts with a ground truth."""
    row = row_of(record, ("verl", "verifiable"))
    verifier = named.canonical(row.get("verifier"))
    if verifier is None:
        raise ValueError(f"has no verifier that kedge knows ({row.get('verifier')!r:.40})")
    named.check(verifier, row["ground_truth"])
    messages = tuple(template_messages(row["prompt"]))
    text = json.dumps([messages, row["ground_truth"]], sort_keys=True)
    own = "row_id" if benchmark.id is None and record.get("row_id") else benchmark.id
    sample_id = hash_bytes(text.encode("utf-8", "surrogatepass")) if own is None else str(field_of(record, own, "id"))
    cluster = sample_id if benchmark.cluster is None else str(field_of(record, benchmark.cluster, "cluster"))
    question = "\n\n".join(str(turn.get("content") or "") for turn in messages)
    return Item(sample_id, question, row["ground_truth"], cluster, messages=messages, tools=row.get("tools"),
                verifier=verifier)  # fmt: skip


def _gold_index(gold: str, options: tuple[str, ...]) -> int:
    if gold in options:
        return options.index(gold)
    if gold.isdecimal() and int(gold) < len(options):
        return int(gold)
    if len(gold) == 1 and gold.upper() in LETTERS[: len(options)]:
        return LETTERS.index(gold.upper())
    raise ValueError(f"the gold answer {gold!r:.40} is no option, index or letter of {len(options)} options")
