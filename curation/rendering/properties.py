"""What a chat template does, as properties seen in its renderings of a few probe conversations."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

Turn = dict[str, str]
THINK = "<think>"
PROBE_DATES = (datetime.datetime(2001, 2, 3), datetime.datetime(2033, 11, 12))

QUESTION, ANSWER, THOUGHT = "QUESTION-ONE?", "ANSWER-ONE", "THOUGHT-ONE"
SECOND, LATER, LATER_THOUGHT = "QUESTION-TWO?", "ANSWER-TWO", "THOUGHT-TWO"


def user(text: str) -> Turn:
    return {"role": "user", "content": text}


def assistant(answer: str, thought: str = "") -> Turn:
    """A turn with its thought in the text, as most datasets have it."""
    return {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n{answer}" if thought else answer}


PLAIN = [user(QUESTION), assistant(ANSWER)]
REASONING = [user(QUESTION), assistant(ANSWER, THOUGHT)]
LONG = [*REASONING, user(SECOND), assistant(LATER, LATER_THOUGHT)]
LONG_PLAIN = [*PLAIN, user(SECOND), assistant(LATER)]


@dataclass(frozen=True)
class Renderer:
    """A template's text with the special tokens and arguments that it is given."""

    text: str
    special: dict[str, str]
    kwargs: dict[str, Any]

    def __call__(self, messages: list[Turn], *, prompt: bool = False, **more: Any) -> str:
        """The rendered text; with `prompt`, up to where the assistant begins. Raises jinja2.TemplateError and whatever
        else a template raises."""
        from transformers.utils.chat_template_utils import render_jinja_template

        given = {"add_generation_prompt": prompt} | self.special | self.kwargs | more
        rendered: Any = render_jinja_template(conversations=[messages], chat_template=self.text, **given)
        return str(rendered[0][0])

    def attempt(self, messages: list[Turn], *, prompt: bool = False, **more: Any) -> str | None:
        """The rendered text, or None where the template raises."""
        from curation.rendering.render import template_errors

        try:
            return self(messages, prompt=prompt, **more)
        except template_errors():
            return None


@contextmanager
def at_date(date: datetime.datetime) -> Iterator[None]:
    """Inside the block, the date that templates see (`strftime_now`) is `date`."""
    from transformers.utils import chat_template_utils

    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return date

    with mock.patch.object(chat_template_utils, "datetime", Frozen):
        yield


@dataclass(frozen=True)
class Properties:
    """One line of the matrix. None means that the template raises on the probe.

    bos: it writes the beginning-of-sequence token. system: it adds text where no system turn is given. date: its text
    changes with the date. generation: it marks assistant text for the loss. history, last: the thought of an earlier,
    of the last turn survives. empty_think: a think mark appears in a row without thought. lone: an assistant turn
    rendered alone keeps its thought. prefix: two turns are a prefix of four. prompt_in_reasoning, prompt_in_plain:
    the generation prompt is a prefix of the training text of a row with, without thought. nothink_in_plain: so is the
    prompt under enable_thinking=false for a row without thought. switch: enable_thinking changes the prompt. tail: what
    follows the last answer."""

    bos: bool | None
    system: bool | None
    date: bool | None
    generation: bool
    history: bool | None
    last: bool | None
    empty_think: bool | None
    lone: bool | None
    prefix: bool | None
    prompt_in_reasoning: bool | None
    prompt_in_plain: bool | None
    nothink_in_plain: bool | None
    switch: bool | None
    tail: str


def properties(render: Renderer) -> Properties:
    """Look at a template through its renderings."""
    from curation.rendering.templates import GENERATION

    plain, reasoning, long = (render.attempt(turns) for turns in (PLAIN, REASONING, LONG))
    prompt = render.attempt([user(QUESTION)], prompt=True)
    nothink = render.attempt([user(QUESTION)], prompt=True, enable_thinking=False)
    thinking = render.attempt([user(QUESTION)], prompt=True, enable_thinking=True)
    lone = render.attempt([assistant(ANSWER, THOUGHT)])
    bos = render.special.get("bos_token")
    return Properties(
        bos=None if plain is None else bool(bos) and str(bos) in plain,
        system=adds_system(render),
        date=changes_with_date(render),
        generation=GENERATION.search(render.text) is not None,
        history=None if long is None else THOUGHT in long,
        last=None if reasoning is None or long is None else THOUGHT in reasoning and LATER_THOUGHT in long,
        empty_think=None if plain is None else THINK in plain,
        lone=None if lone is None else THOUGHT in lone,
        prefix=_begins(long, reasoning),
        prompt_in_reasoning=_begins(reasoning, prompt),
        prompt_in_plain=_begins(plain, prompt),
        nothink_in_plain=_begins(plain, nothink),
        switch=None if nothink is None or thinking is None else nothink != thinking,
        tail="" if plain is None else plain[plain.rfind(ANSWER) + len(ANSWER) :],
    )


def _begins(text: str | None, start: str | None) -> bool | None:
    return None if text is None or start is None else text.startswith(start)


def adds_system(render: Renderer) -> bool | None:
    """Whether text other than the turn's own header stands before the first user turn."""
    text = render.attempt(LONG_PLAIN)
    if text is None:
        return None
    bos = render.special.get("bos_token") or ""
    before = text[: text.find(QUESTION)].replace(bos, "") if bos else text[: text.find(QUESTION)]
    between = text[text.find(ANSWER) + len(ANSWER) : text.find(SECOND)]
    return not between.replace(" ", "").endswith(before.replace(" ", ""))


def changes_with_date(render: Renderer) -> bool | None:
    """Whether two dates give two texts, of a row or of a prompt."""
    texts = []
    for date in PROBE_DATES:
        with at_date(date):
            texts.append((render.attempt(PLAIN), render.attempt([user(QUESTION)], prompt=True)))
    return None if texts[0] == (None, None) else texts[0] != texts[1]
