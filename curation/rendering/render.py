"""One row or many -> rendered text, token ids, loss mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from curation.errors import UserError
from curation.fingerprint import fingerprint
from curation.rendering.encoding import EMPTY, Encoded, Encoder, encoder_of
from curation.rendering.templates import Template
from curation.rendering.tokenizers import Tokenizer

Path = Literal["whole", "trl_assistant", "trl_prompt_completion", "text", "per_message", "turns"]
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Rendered:
    """`mask` bool[T] (true where trained) over the tokens of `encoded`, and the text they lie in. `error` says why the
    template raised; everything else is empty then."""

    encoded: Encoded
    mask: npt.NDArray[np.bool_]
    text: str
    error: str = ""

    @property
    def ids(self) -> npt.NDArray[np.int32]:
        """int32[T]."""
        return self.encoded.ids


@dataclass(frozen=True)
class RenderedPair:
    """A preference row as TRL 1.16 prepares it. `prompt` int32[P]: ids of the prompt alone with the generation prompt;
    the sides hold prompt and answer, tokenised together, and train what follows their common prefix with `prompt`; an
    absent side is None. `error` says why the template raised."""

    prompt: npt.NDArray[np.int32]
    chosen: Rendered | None
    rejected: Rendered | None
    error: str = ""


def template_messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages of a row as a chat template receives them: nulls dropped, tool calls parsed, `reasoning` under the name
    that templates read, `reasoning_content`; a turn that only calls tools has the content ''."""
    found = []
    for message in messages:
        turn = {key: value for key, value in message.items() if value is not None}
        if "reasoning" in turn:
            turn["reasoning_content"] = turn.pop("reasoning")
        if "tool_calls" in turn:
            turn["tool_calls"] = orjson.loads(turn["tool_calls"])
        turn.setdefault("content", "")
        found.append(turn)
    return found


def split_completion(messages: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(prompt, completion) of a conversation: the completion is its last assistant turn and what follows it, empty
    where no assistant speaks."""
    last = max((number for number, turn in enumerate(messages) if turn["role"] == "assistant"), default=len(messages))
    return list(messages[:last]), list(messages[last:])


@dataclass(frozen=True)
class Rendering:
    """How rows become tokens. Paths: `whole` trains every token of the rendered chat, `trl_assistant` what the template
    marks with generation tags, `trl_prompt_completion` what follows the prompt of the last assistant turn, `text` the
    text of a row with the end-of-sequence token added (all TRL 1.16), `per_message` the assistant's turns, each turn
    rendered alone (verl 0.9), `turns` the assistant's turns without generation tags: what each adds to the rendering of
    the turns before it and the generation prompt."""

    tokenizer: Tokenizer
    template: Template | None
    path: Path
    kwargs: dict[str, Any]

    def fingerprint(self) -> str:
        """Identity of the ids and masks that this rendering gives, under the installed transformers."""
        import transformers

        template = None if self.path == "text" or self.template is None else self.template.fingerprint
        return fingerprint([self.tokenizer.fingerprint, template, self.path, self.kwargs, transformers.__version__])

    @cached_property
    def _encoder(self) -> Encoder:
        # Text rows go through the tokenizer with its special tokens (a BOS where it has one), chats never.
        return encoder_of(self.tokenizer, self.path == "text")

    def render(self, row: dict[str, Any], stage: str) -> Rendered:
        """One row (its payload columns as a dict)."""
        return self.render_many([row], stage)[0]

    def render_many(self, rows: Sequence[dict[str, Any]], stage: str) -> list[Rendered]:
        """Rows of midtrain or sft in order. A row on which the template raises carries the error and no tokens. Raises
        UserError where the path cannot be used with the template at all."""
        if self.path == "trl_prompt_completion":
            split = [split_completion(row["messages"]) for row in rows]
            pairs = self.render_completions([(prompt, [answer], row.get("tools"))
                                             for (prompt, answer), row in zip(split, rows, strict=True)])  # fmt: skip
            return [sides[0] for _, sides in pairs]
        if self.path == "per_message":
            from curation.rendering.per_message import render_per_message

            return [render_per_message(self, row) for row in rows]
        texts, spans, errors = self._attempt([(row, stage) for row in rows], self._text)
        found = []
        for text, marked, error, encoded in zip(texts, spans, errors, self._encoder.encode(texts), strict=True):
            if error:
                found.append(_failed(error))
                continue
            length = len(encoded.ids)
            mask = np.ones(length, dtype=np.bool_) if marked is None else _mask(encoded, marked, length)
            found.append(Rendered(encoded, mask, text))
        return found

    def render_pairs(self, rows: Sequence[dict[str, Any]]) -> list[RenderedPair]:
        """Preference rows in order, both sides over their prompt. A row on which the template raises carries the
        error."""
        asked = [(row["prompt"], [row[side] for side in ("chosen", "rejected") if row[side] is not None],
                  row.get("tools")) for row in rows]  # fmt: skip
        found = []
        for row, (prompt, sides) in zip(rows, self.render_completions(asked), strict=True):
            error = next((side.error for side in sides if side.error), "")
            given = iter(sides)
            chosen, rejected = (next(given) if row[side] is not None else None for side in ("chosen", "rejected"))
            found.append(RenderedPair(prompt, None if error else chosen, None if error else rejected, error))
        return found

    def render_prompts(self, rows: Sequence[dict[str, Any]]) -> list[Rendered]:
        """Prompts of rlvr rows in order, up to where the assistant begins; nothing of them is trained."""
        if self.path == "per_message":
            from curation.rendering import per_message

            return per_message.render_prompts(self, rows)
        texts, _, errors = self._attempt([(row["prompt"], row.get("tools"), True) for row in rows], self._chat)
        return [_failed(error) if error else Rendered(encoded, np.zeros(len(encoded.ids), np.bool_), text)
                for text, error, encoded in zip(texts, errors, self._encoder.encode(texts), strict=True)]  # fmt: skip

    def render_completions(
        self, asked: Sequence[tuple[list[dict[str, Any]], list[list[dict[str, Any]]], str | None]]
    ) -> list[tuple[npt.NDArray[np.int32], list[Rendered]]]:
        """Of each (prompt, completions, tools): ids of the prompt alone, and every completion rendered with its prompt
        and trained from where the two diverge (TRL 1.16 `common_prefix_length`)."""
        plan: list[tuple[Any, ...]] = []
        for prompt, completions, tools in asked:
            plan += [(prompt, tools, True), *(([*prompt, *completion], tools, False) for completion in completions)]
        texts, _, errors = self._attempt(plan, self._chat)
        encoded = self._encoder.encode(texts)
        found, at = [], 0
        for _, completions, _ in asked:
            alone, sides = encoded[at], range(at + 1, at + 1 + len(completions))
            error = next((errors[index] for index in (at, *sides) if errors[index]), "")
            at = sides.stop
            if error:
                found.append((EMPTY.ids, [_failed(error) for _ in sides]))
                continue
            starts = [common_prefix(alone.ids, encoded[index].ids) for index in sides]
            found.append((alone.ids, [
                Rendered(encoded[index], np.arange(len(encoded[index].ids)) >= start, texts[index])
                for index, start in zip(sides, starts, strict=True)]))  # fmt: skip
        return found

    def _attempt(self, given: Sequence[tuple[Any, ...]], make: Any) -> tuple[list[str], list[Spans | None], list[str]]:
        """(texts, spans, errors) of calls to `make`; a call that raises gives '' and says why."""
        texts: list[str] = []
        spans: list[Spans | None] = []
        errors: list[str] = []
        caught = template_errors()
        for arguments in given:
            error, text, marked = "", "", None
            try:
                text, marked = make(*arguments)
            except caught as problem:
                error = (str(problem).splitlines() or [type(problem).__name__])[0][:300] or type(problem).__name__
            texts.append(text)
            spans.append(marked)
            errors.append(error)
        return texts, spans, errors

    def _text(self, row: dict[str, Any], stage: str) -> tuple[str, Spans | None]:
        messages = row.get("messages")
        if messages is None:
            text = row.get("text") or ""
            end = self.tokenizer.hf.eos_token or ""
            return (text if text.endswith(end) else text + end), None
        if self.path == "turns":
            return self._turns(template_messages(messages), row.get("tools"))
        return self.chat(template_messages(messages), row.get("tools"))

    def _turns(self, messages: list[dict[str, Any]], tools: str | None) -> tuple[str, Spans]:
        """The whole chat, and of each assistant turn where its rendering goes beyond that of its prompt."""
        whole, _ = self.chat(messages, tools)
        spans = []
        for number, turn in enumerate(messages):
            if turn["role"] != "assistant":
                continue
            before, _ = self.chat(messages[:number], tools, prompt=True)
            upto, _ = self.chat(messages[: number + 1], tools)
            start, end = _shared(whole, before), _shared(whole, upto)
            if end > start:
                spans.append((start, end))
        return whole, spans

    def _chat(self, messages: Sequence[dict[str, Any]], tools: str | None, prompt: bool) -> tuple[str, None]:
        return self.chat(template_messages(messages), tools, prompt=prompt, marks=False)[0], None

    @cached_property
    def _compiled(self) -> Any:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        if self.template is None:
            raise UserError("a chat needs a template", "name one: template: chatml", key="template")
        return _compile_jinja_template(self.template.text)

    @cached_property
    def _given(self) -> dict[str, Any]:
        special = {name: str(value) for name, value in self.tokenizer.hf.special_tokens_map.items()}
        return special | self.kwargs

    @cached_property
    def _marks(self) -> bool:
        marks = self.path == "trl_assistant"
        if marks and self.template is not None and not self.template.has_generation:
            raise UserError(f"the template '{self.template.name}' has no generation tags, which assistant_only_loss "
                            "needs", "use a template with {% generation %} (chatml), or train on all tokens",
                            key="template")  # fmt: skip
        return marks

    def chat(self, messages: list[dict[str, Any]], tools: str | None = None, *, prompt: bool = False,
             marks: bool | None = None) -> tuple[str, Spans | None]:  # fmt: skip
        """A chat (plain dicts, lists, strings and numbers) as text and, with `marks` (the default on `trl_assistant`),
        the character spans that are trained. `prompt` adds the generation prompt. The template runs in the sandbox of
        transformers, given what its apply_chat_template gives it."""
        from transformers.utils.chat_template_utils import _alias_reasoning_fields, _render_with_assistant_indices

        compiled = self._compiled
        given = {"messages": _alias_reasoning_fields(messages), "tools": orjson.loads(tools) if tools else None,
                 "documents": None, "add_generation_prompt": prompt}  # fmt: skip
        if not (self._marks if marks is None else marks):
            return compiled.render(**given, **self._given), None
        text, spans = _render_with_assistant_indices(compiled_template=compiled, **given, **self._given)
        return text, [(span[0], span[1]) for span in spans]


def _shared(a: str, b: str) -> int:
    """Length of the common beginning of two texts."""
    if a.startswith(b):
        return len(b)
    differing = (number for number, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1])
    return next(differing, min(len(a), len(b)))


def _failed(error: str) -> Rendered:
    return Rendered(EMPTY, np.empty(0, np.bool_), "", error)


def template_errors() -> tuple[type[Exception], ...]:
    import jinja2

    return (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)


def common_prefix(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> int:
    """Length of the common prefix of two id sequences."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def _mask(encoded: Encoded, spans: Spans, length: int) -> npt.NDArray[np.bool_]:
    """The loss mask as transformers makes it from generation spans (tokenization_utils_base.apply_chat_template)."""
    mask = np.zeros(length, dtype=np.bool_)
    for first, last in spans:
        start, end = encoded.holding(first), encoded.holding(last - 1)
        if start is None:
            break
        mask[start : end + 1 if end else length] = True
    return mask
