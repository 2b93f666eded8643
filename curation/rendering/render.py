"""One row or many -> rendered text, token ids, loss mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from curation.errors import UserError
from curation.fingerprint import fingerprint
from curation.rendering.templates import Template
from curation.rendering.tokenizers import Tokenizer

Path = Literal["whole", "trl_assistant", "text"]


@dataclass(frozen=True)
class Rendered:
    """`ids` int32[T], `mask` bool[T] (true where trained), the text, and character offsets int32[T, 2] into it.
    `error` says why the template raised; everything else is empty then."""

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]
    text: str
    offsets: npt.NDArray[np.int32]
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


@dataclass(frozen=True)
class Rendering:
    """How rows become tokens. Paths: `whole` trains every token of the rendered chat, `trl_assistant` what the template
    marks with generation tags, `text` the text of a row with the end-of-sequence token added (TRL 1.16)."""

    tokenizer: Tokenizer
    template: Template | None
    path: Path
    kwargs: dict[str, Any]

    def fingerprint(self) -> str:
        """Identity of the ids and masks that this rendering gives, under the installed transformers."""
        import transformers

        template = None if self.path == "text" or self.template is None else self.template.fingerprint
        return fingerprint([self.tokenizer.fingerprint, template, self.path, self.kwargs, transformers.__version__])

    def render(self, row: dict[str, Any], stage: str) -> Rendered:
        """One row (its payload columns as a dict)."""
        return self.render_many([row], stage)[0]

    def render_many(self, rows: Sequence[dict[str, Any]], stage: str) -> list[Rendered]:
        """Rows in order. A row on which the template raises carries the error and no tokens. Raises UserError where the
        path cannot be used with the template at all."""
        texts: list[str] = []
        spans: list[list[tuple[int, int]] | None] = []
        errors: dict[int, str] = {}
        for number, row in enumerate(rows):
            try:
                text, marked = self._text(row, stage)
            except template_errors() as error:
                errors[number] = (str(error).splitlines() or [type(error).__name__])[0][:300]
                text, marked = "", None
            texts.append(text)
            spans.append(marked)
        # Text rows go through the tokenizer with its special tokens (a BOS where it has one), chats never.
        encodings = self.tokenizer.hf.backend_tokenizer.encode_batch(texts, add_special_tokens=self.path == "text")
        found = []
        for number, (text, marked, encoding) in enumerate(zip(texts, spans, encodings, strict=True)):
            ids = np.array(encoding.ids if number not in errors else [], dtype=np.int32)
            offsets = np.array(encoding.offsets if len(ids) else [], dtype=np.int32).reshape(-1, 2)
            mask = np.ones(len(ids), dtype=np.bool_) if marked is None else _mask(encoding, marked, len(ids))
            found.append(Rendered(ids, mask, text, offsets, errors.get(number, "")))
        return found

    def _text(self, row: dict[str, Any], stage: str) -> tuple[str, list[tuple[int, int]] | None]:
        messages = row.get("messages")
        if messages is None:
            text = row.get("text") or ""
            end = self.tokenizer.hf.eos_token or ""
            return (text if text.endswith(end) else text + end), None
        return self.chat(template_messages(messages), row.get("tools"))

    def chat(self, messages: list[dict[str, Any]], tools: str | None = None, *, prompt: bool = False) -> tuple[
        str, list[tuple[int, int]] | None
    ]:  # fmt: skip
        """A chat as text and, on `trl_assistant`, the character spans that are trained. `prompt` adds the generation
        prompt."""
        from transformers.utils.chat_template_utils import render_jinja_template

        if self.template is None:
            raise UserError("a chat needs a template", "name one: template: chatml", key="template")
        marks = self.path == "trl_assistant"
        if marks and not self.template.has_generation:
            raise UserError(f"the template '{self.template.name}' has no generation tags, which assistant_only_loss "
                            "needs", "use a template with {% generation %} (chatml), or train on all tokens",
                            key="template")  # fmt: skip
        special = {name: str(value) for name, value in self.tokenizer.hf.special_tokens_map.items()}
        rendered: list[str]
        indices: list[list[list[int]]]
        rendered, indices = render_jinja_template(  # type: ignore[assignment, str-unpack]
            conversations=[messages], tools=orjson.loads(tools) if tools else None, chat_template=self.template.text,
            return_assistant_tokens_mask=marks, add_generation_prompt=prompt, **(special | self.kwargs),
        )  # fmt: skip
        return rendered[0], [(span[0], span[1]) for span in indices[0]] if marks else None


def template_errors() -> tuple[type[Exception], ...]:
    import jinja2

    return (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)


def _mask(encoding: Any, spans: list[tuple[int, int]], length: int) -> npt.NDArray[np.bool_]:
    """The loss mask as transformers makes it from generation spans (tokenization_utils_base.apply_chat_template)."""
    mask = np.zeros(length, dtype=np.bool_)
    for first, last in spans:
        start, end = encoding.char_to_token(first), encoding.char_to_token(last - 1)
        if start is None:
            break
        mask[start : end + 1 if end else length] = True
    return mask
