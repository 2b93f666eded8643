"""Questions as the token ids a checkpoint is given, with its own tokenizer and the template of its run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from curation import checkpoints
from curation.catalog import Catalog
from curation.checkpoints import Checkpoint
from curation.errors import UserError
from curation.rendering.turn_ends import TURN, end_of_turn
from curation.runs import Run
from evals import Request, RequestSet
from evals.benchmarks import Task

if TYPE_CHECKING:
    from curation.rendering import Template, Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


@dataclass(frozen=True)
class Prompting:
    """How a checkpoint is asked. `template` is None where there is none, which only plain prompts can do without."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    template: Template | None
    kwargs: dict[str, Any]
    folder: Path  # where the tokenizer's files lie
    model: Path  # where config.json lies
    stop_ids: tuple[int, ...]

    def text(self, messages: Sequence[dict[str, Any]], prompt: str, tools: str | None = None) -> str:
        """The rendered prompt; `tools` is JSON text. A plain prompt is the messages' text after the
        beginning-of-sequence token that the tokenizer would put before it; a chat prompt ends where the assistant
        begins."""
        hf = self.tokenizer.hf
        if prompt == "plain":
            ids = hf("a")["input_ids"]
            begins = hf.bos_token_id is not None and bool(ids) and ids[0] == hf.bos_token_id
            contents = (str(message.get("content") or "") for message in messages)
            return (hf.bos_token if begins else "") + "\n\n".join(contents)
        if self.template is None:
            raise UserError(
                f"{self.checkpoint.id} has no chat template",
                "set 'template' in its run file, or 'prompt: plain' in the benchmark",
            )
        try:
            given = None if not tools else json.loads(tools)
            rendered = hf.apply_chat_template(list(messages), tools=given, chat_template=self.template.text,
                                              tokenize=False, add_generation_prompt=True, **self.kwargs)  # fmt: skip
        except jinja2.TemplateError as error:
            raise UserError(f"the template '{self.template.name}' raises: {error}", "mend the template or the "
                            "benchmark's messages") from error  # fmt: skip
        return str(rendered)

    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of rendered text; nothing is added to it."""
        return tuple(self.tokenizer.hf(text, add_special_tokens=False)["input_ids"])


def prompting(catalog: Catalog, checkpoint: Checkpoint, run: Run | None, others: list[Checkpoint]) -> Prompting:
    """How `checkpoint` is asked when it is judged for `run`: the tokenizer saved with it (an adapter's base's where it
    has none), the run's template, else its own, else that of `others`, the checkpoints judged beside it."""
    from curation.rendering import load_template, load_tokenizer

    project = catalog.project
    folder = tokenizer_folder(catalog, checkpoint)
    tokenizer = load_tokenizer(project, str(folder))
    reference = "tokenizer" if run is None else run.template_reference()
    kwargs = {} if run is None else dict(run.file.template_kwargs)
    source = tokenizer
    if reference == "tokenizer" and not tokenizer.hf.chat_template:
        for other in others:
            candidate = load_tokenizer(project, str(tokenizer_folder(catalog, other)))
            if candidate.hf.chat_template:
                source = candidate
                break
    has_template = reference != "tokenizer" or bool(source.hf.chat_template)
    template = load_template(project, reference, source) if has_template else None
    model = checkpoint.base_folder(catalog) or checkpoint.folder(catalog)
    stops = stop_ids(tokenizer, template, kwargs, model)
    return Prompting(checkpoint, tokenizer, template, kwargs, folder, model, stops)


def tokenizer_folder(catalog: Catalog, checkpoint: Checkpoint) -> Path:
    """The folder with the tokenizer of a checkpoint: its own, else its base's. Raises UserError where there is none."""
    for folder in (checkpoint.folder(catalog), checkpoint.base_folder(catalog)):
        if folder is not None and any((folder / name).is_file() for name in TOKENIZER_FILES):
            return folder
    raise UserError(f"{checkpoint.id} has no tokenizer beside its weights", "save the tokenizer in its folder",
                    where=str(checkpoint.folder(catalog)))  # fmt: skip


def stop_ids(tokenizer: Tokenizer, template: Template | None, kwargs: dict[str, Any], model: Path) -> tuple[int, ...]:
    """Ids that end an answer, ascending: the tokenizer's end of sequence, those of the model's generation_config.json,
    and the special token with which the template ends an assistant's turn."""
    hf = tokenizer.hf
    found: set[int] = set() if hf.eos_token_id is None else {int(hf.eos_token_id)}
    config = model / "generation_config.json"
    if config.is_file():
        ends = json.loads(config.read_text()).get("eos_token_id")
        found |= set(ends) if isinstance(ends, list) else {ends} if ends is not None else set()
    if template is not None:
        found |= _end_of_turn(hf, template.text, kwargs)
    if not found:
        raise UserError("the tokenizer names no end token", "set eos_token in tokenizer_config.json")
    return tuple(sorted(found))


def _end_of_turn(hf: Any, template: str, kwargs: dict[str, Any]) -> set[int]:
    try:
        text = str(hf.apply_chat_template(list(TURN), chat_template=template, tokenize=False, **kwargs))
    except jinja2.TemplateError:
        return set()
    return end_of_turn(hf, text)


def request_set(task: Task, asked: Prompting) -> RequestSet:
    """Every sample of a benchmark, rendered. Raises UserError where a prompt and its budget exceed the positions of
    the model: the answer would be cut by the model's size, not by the budget."""
    benchmark = task.benchmark
    system = [] if benchmark.system is None else [{"role": "system", "content": benchmark.system}]
    requests = []
    for item in task.items:
        turns = list(item.messages) or [{"role": "user", "content": item.question}]
        text = asked.text([*system, *turns], benchmark.prompt, item.tools)
        ids = asked.ids(text)
        options = tuple(benchmark.continuation(option) for option in item.options) if benchmark.kind == "choice" else ()
        requests += [Request(item.sample_id, repeat, text, ids, options, item.gold, item.gold_index)
                     for repeat in range(benchmark.repeats)]  # fmt: skip
    longest = max(len(request.prompt_ids) for request in requests)
    if benchmark.kind == "choice":
        longest += max(len(asked.ids(option)) for request in requests for option in request.options)
    require_positions(asked, task.name, longest + (benchmark.max_new_tokens if benchmark.writes else 0))
    return RequestSet(task.name, tuple(requests), benchmark.max_new_tokens, benchmark.sampling(), tuple(benchmark.stop),
                      benchmark.think)  # fmt: skip


def require_positions(asked: Prompting, name: str, needed: int) -> None:
    """Raises UserError where the model has fewer positions than prompt and answer may need."""
    config = json.loads((asked.model / "config.json").read_text())
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions is not None and needed > positions:
        raise UserError(f"{name} needs up to {needed} tokens, {asked.checkpoint.id} has {positions} positions",
                        "lower max_new_tokens in the benchmark")  # fmt: skip


def judged_with(catalog: Catalog, reference: str) -> tuple[str, Run | None, list[Checkpoint]]:
    """(name, run file or None, checkpoints in order) of what a reference means: a run (its start and every checkpoint)
    or one checkpoint. Raises UserError with "did you mean"."""
    known = checkpoints.every(catalog)
    has_file = reference in catalog.project.paths("runs", ".yaml")
    mine = [item for item in known if item.run == reference]
    if not mine and not has_file:
        one = checkpoints.find(catalog, reference)
        run = Run(catalog, one.run) if one.run in catalog.project.paths("runs", ".yaml") else None
        return one.run, run, [one]
    run = Run(catalog, reference) if has_file else None
    if not mine:
        raise UserError(f"the run '{reference}' has no checkpoint yet", f"run: kedge train {reference}")
    parent = mine[0].parent
    if parent is not None:
        start = [checkpoints.find(catalog, parent)]
    else:
        start = [run.start()] if run is not None else []
    return reference, run, [item for item in start if item not in mine] + mine
