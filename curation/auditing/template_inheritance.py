"""May a stage extend its parent's template? Only where all that the parent was trained on still reads the same.

A stage often adds special tokens and text for tools or code to the template of the stage before. The model then keeps
what it learned only if every conversation that the parent's template could render gives the same ids, loss mask and
generation prompt, and no token that it knows got another id or text.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson

from curation.errors import Problem
from curation.rendering import Rendered, Rendering, Template, Tokenizer, template_messages
from curation.rendering.adapting import UNUSED
from curation.rendering.properties import (
    ANSWER,
    LATER,
    LATER_THOUGHT,
    LONG,
    LONG_PLAIN,
    PLAIN,
    PROBE_DATES,
    QUESTION,
    REASONING,
    SECOND,
    THOUGHT,
    at_date,
    user,
)
from curation.rendering.render import template_errors

Fitted = tuple[Template, Tokenizer]
Pair = tuple[Rendering, Rendering]
SHOWN_TOKENS = 24
ROWS_AT_ONCE = 256
SYSTEM = {"role": "system", "content": "SYSTEM-TEXT"}
FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
FROM_PARENT = "adapt the child's template from the parent: kedge template adapt CHILD --tokenizer PARENT --to DIR"
ONLY_MORE = (
    "let the child's template write other text only where the parent's could not (new arguments, roles or tools), and "
    "add no token whose text the parent's conversations spell"
)
MARKS = "mark in it what the assistant says: {% generation %} ... {% endgeneration %}"
MODES: tuple[dict[str, Any], ...] = ({}, {"enable_thinking": True}, {"enable_thinking": False})


@dataclass(frozen=True)
class Probe:
    """A conversation of one kind. The parent's template renders the kind where `needs` stand in its text."""

    kind: str
    messages: list[dict[str, Any]]
    needs: tuple[str, ...]
    tools: str | None = None


@dataclass(frozen=True)
class Difference:
    """The first conversation that renders otherwise. `part`: ids, loss mask, generation prompt, or an error of the
    child. `parent` and `child` are their texts from some tokens before the divergence, `at` its token."""

    kind: str
    part: str
    kwargs: dict[str, Any]
    at: int
    parent: str
    child: str


@dataclass(frozen=True)
class Inheritance:
    """Whether a template and tokenizer extend another. `same`: nothing differs; `extends`: only new tokens, or text
    that no conversation of the parent meets; `breaks`: `problems` say why and what to do. `kinds` of conversations were
    compared, `skipped` ones the parent cannot render. `new_tokens` text -> id. `changes` are reported and break
    nothing."""

    verdict: Literal["same", "extends", "breaks"]
    kinds: list[str]
    skipped: list[str]
    num_compared: int
    num_different: int
    new_tokens: dict[str, int]
    changes: list[str]
    difference: Difference | None
    problems: list[Problem]


def compare(parent: Fitted, child: Fitted, rows: Iterable[list[dict[str, Any]]] = ()) -> Inheritance:
    """Compare on probe conversations of every kind that the parent renders, in both thinking modes where it has them,
    and on `rows` (message lists as they lie in the lake). Each pair of renderings uses its own tokenizer and the same
    date."""
    problems, changes, new_tokens = _tokens(parent[1], child[1])
    differences: list[Difference] = []
    kinds: dict[str, None] = {}
    compared = 0
    if parent[0].has_generation and not child[0].has_generation:
        problems.append(Problem("the child's template has no generation tags, the parent's has", MARKS))
    pairs = [_renderings(parent, child, mode) for mode in MODES]
    with at_date(PROBE_DATES[0]):
        for pair, probes in zip(pairs, _renderable(pairs), strict=True):
            kinds |= dict.fromkeys(probe.kind for probe in probes)
            compared += len(probes)
            differences += _differences(pair, probes)
        numbered = enumerate(rows, 1)
        while block := list(itertools.islice(numbered, ROWS_AT_ONCE)):
            kinds["given rows"] = None
            compared += len(block)
            given = [Probe(f"row {number}", _as_lake(messages), ()) for number, messages in block]
            differences += _differences(pairs[0], given)
    if differences:
        what = (f"{len(differences)} of {compared} conversations that the parent was trained on render otherwise, "
                f"first '{differences[0].kind}': {differences[0].part}")  # fmt: skip
        problems.insert(0, Problem(what, ONLY_MORE))
    alike = parent[0].text == child[0].text and not new_tokens and not changes
    verdict: Literal["same", "extends", "breaks"] = "breaks" if problems else "same" if alike else "extends"
    skipped = [probe.kind for probe in _probes() if probe.kind not in kinds]
    return Inheritance(verdict, list(kinds), skipped, compared, len(differences), new_tokens, changes,
                       differences[0] if differences else None, problems)  # fmt: skip


def _renderings(parent: Fitted, child: Fitted, kwargs: dict[str, Any]) -> Pair:
    marked = parent[0].has_generation and child[0].has_generation
    first, second = (Rendering(tokenizer, template, "trl_assistant" if marked else "whole", kwargs)
                     for template, tokenizer in (parent, child))  # fmt: skip
    return first, second


def _probes() -> list[Probe]:
    """Conversations of all kinds, as rows of the lake."""
    thinking = [user(QUESTION), {"role": "assistant", "content": ANSWER, "reasoning": THOUGHT}]
    later = [user(SECOND), {"role": "assistant", "content": LATER, "reasoning": LATER_THOUGHT}]
    call = orjson.dumps([{"type": "function", "function": {"name": "add_up", "arguments": {"a": 1, "b": 2}}}]).decode()
    function = {"name": "add_up", "description": "Add.", "parameters": {"type": "object", "properties": {}}}
    tools = orjson.dumps([{"type": "function", "function": function}]).decode()
    calling = [user(QUESTION), {"role": "assistant", "content": "", "tool_calls": call},
               {"role": "tool", "content": "TOOL-OUTPUT", "name": "add_up"},
               {"role": "assistant", "content": ANSWER}]  # fmt: skip
    spelled = [
        user("def f(x):\n\treturn {'a': x}  # ключ 東京 🙂"),
        {"role": "assistant", "content": "```py\nf(1)\n```"},
    ]
    plain, text = list[dict[str, Any]](PLAIN), list[dict[str, Any]](REASONING)
    return [
        Probe("plain", plain, (QUESTION, ANSWER)),
        Probe("system", [SYSTEM, *plain], ("SYSTEM-TEXT",)),
        Probe("several turns", [SYSTEM, *LONG_PLAIN], (ANSWER, LATER)),
        Probe("code and other scripts", spelled, ("東京",)),
        Probe("thoughts in the text", text, (THOUGHT,)),
        Probe("thoughts in the text of earlier turns", list(LONG), (LATER_THOUGHT,)),
        Probe("thoughts in the field reasoning", thinking, (THOUGHT,)),
        Probe("thoughts in the field reasoning of earlier turns", [*thinking, *later], (LATER_THOUGHT,)),
        Probe("thoughts in an earlier turn alone", [*thinking, *LONG_PLAIN[2:]], (ANSWER, LATER)),
        Probe("tools", plain, ("add_up",), tools),
        Probe("tools beside a system turn", [SYSTEM, *plain], ("add_up", "SYSTEM-TEXT"), tools),
        Probe("tool calls", calling, ("add_up", "TOOL-OUTPUT")),
        Probe("tools, calls and thoughts", [*calling[:-1], thinking[1]], ("add_up", "TOOL-OUTPUT", THOUGHT), tools),
    ]


def _renderable(pairs: list[Pair]) -> list[list[Probe]]:
    """Of each mode, the probes that the parent renders with all that they hold, where the mode changes anything."""
    found: list[list[Probe]] = [[] for _ in pairs]
    for probe in _probes():
        seen: list[tuple[str | None, str | None]] = []
        for number, (parent, _) in enumerate(pairs):
            text, prompt = (_text(parent, probe, prompt=ask) for ask in (False, True))
            if text is not None and all(need in text for need in probe.needs) and (text, prompt) not in seen:
                seen.append((text, prompt))
                found[number].append(probe)
    return found


def _text(rendering: Rendering, probe: Probe, *, prompt: bool) -> str | None:
    """The rendering of a probe, or of what stands before its last answer with the generation prompt; None where the
    template raises."""
    messages = template_messages(probe.messages)
    if prompt and messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    try:
        return rendering.chat(messages, probe.tools, prompt=prompt)[0]
    except template_errors():
        return None


def _differences(pair: Pair, probes: list[Probe]) -> list[Difference]:
    """The first difference of each probe; a probe on which the parent raises has none."""
    rows = [{"messages": probe.messages, "tools": probe.tools} for probe in probes]
    found = []
    for probe, mine, theirs in zip(probes, *(rendering.render_many(rows, "sft") for rendering in pair), strict=True):
        if mine.error:
            continue
        difference = _difference(pair, mine, theirs)
        prompts = [_text(rendering, probe, prompt=True) for rendering in pair]
        if difference is None and prompts[0] is not None:
            ids = [np.array(_ids(rendering, text or "")) for rendering, text in zip(pair, prompts, strict=True)]
            if not np.array_equal(ids[0], ids[1]):
                difference = ("generation prompt", *_around(pair, ids[0], ids[1]))
        if difference is not None:
            found.append(Difference(probe.kind, difference[0], pair[0].kwargs, *difference[1:]))
    return found


def _difference(pair: Pair, mine: Rendered, theirs: Rendered) -> tuple[str, int, str, str] | None:
    if theirs.error:
        return f"the child's template raises: {theirs.error}", 0, mine.text, ""
    if not np.array_equal(mine.ids, theirs.ids):
        return ("ids", *_around(pair, mine.ids, theirs.ids))
    if not np.array_equal(mine.mask, theirs.mask):
        at = int(np.flatnonzero(mine.mask != theirs.mask)[0])
        text = pair[0].tokenizer.hf.decode(mine.ids[at : at + SHOWN_TOKENS].tolist())
        said = [f"{'trained' if rendered.mask[at] else 'not trained'}: {text}" for rendered in (mine, theirs)]
        return "loss mask", at, said[0], said[1]
    return None


def _ids(rendering: Rendering, text: str) -> list[int]:
    return list(rendering.tokenizer.hf.encode(text, add_special_tokens=False))


def _around(pair: Pair, mine: Any, theirs: Any) -> tuple[int, str, str]:
    """The first token that differs, and both texts from four tokens before it."""
    length = min(len(mine), len(theirs))
    differ = np.flatnonzero(mine[:length] != theirs[:length])
    at = int(differ[0]) if len(differ) else length
    window = slice(max(0, at - 4), at + SHOWN_TOKENS)
    shown = [[rendering.tokenizer.hf.decode([number]) for number in ids[window].tolist()]
             for rendering, ids in zip(pair, (mine, theirs), strict=True)]  # fmt: skip
    joined = ["".join(texts) for texts in shown]
    alike = joined[0].startswith(joined[1]) or joined[1].startswith(joined[0])
    between = "·" if alike else ""  # the same text, split otherwise
    return at, between.join(shown[0]), between.join(shown[1])


def _as_lake(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with tool calls as JSON text, however they were given."""
    found = []
    for turn in messages:
        calls = turn.get("tool_calls")
        found.append(turn | {"tool_calls": orjson.dumps(calls).decode()} if isinstance(calls, list) else turn)
    return found


def _tokens(parent: Tokenizer, child: Tokenizer) -> tuple[list[Problem], list[str], dict[str, int]]:
    """(problems, changes, new tokens) between two tokenizers. An unused token that got a text is a new one."""
    changes = [
        f"{role}: {getattr(parent.hf, role)} -> {getattr(child.hf, role)}"
        for role in ("bos_token", "eos_token", "pad_token", "unk_token")
        if getattr(parent.hf, role) != getattr(child.hf, role)
    ]
    if parent.stop_ids != child.stop_ids:
        changes.append(f"generation stops at: {list(parent.stop_ids)} -> {list(child.stop_ids)}")
    if parent.fingerprint == child.fingerprint:
        return [], changes, {}
    before, after = parent.hf.get_vocab(), child.hf.get_vocab()
    texts = {number: text for text, number in after.items()}
    new = {text: number for text, number in sorted(after.items(), key=lambda item: item[1]) if text not in before}
    roles = {str(value) for value in parent.hf.special_tokens_map.values()}
    flags = [{str(token): [getattr(token, flag) for flag in FLAGS] for token in item.hf.added_tokens_decoder.values()}
             for item in (parent, child)]  # fmt: skip
    problems, dropped, moved = [], [], []
    for text, number in before.items():
        if text not in after and (number not in texts or text in roles or not UNUSED.fullmatch(text)):
            what = f"id {number} is {texts[number]} now" if number in texts else f"id {number} is gone"
            dropped.append(f"{text} ({what})")
        elif text in after and after[text] != number:
            moved.append(f"{text} ({number} -> {after[text]})")
    other = [text for text, flag in flags[0].items() if text in after and flags[1].get(text) != flag]
    for what, names in (("dropped or renamed", dropped), ("moved to another id", moved), ("given other flags", other)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            problems.append(Problem(f"tokens {what}: {', '.join(names[:5])}{more}", FROM_PARENT))
    if _splitting(parent) != _splitting(child):
        problems.append(Problem("the child's tokenizer splits ordinary text by other rules", FROM_PARENT))
    return problems, changes, new


def _splitting(tokenizer: Tokenizer) -> Any:
    """Everything that decides how text is split, without the vocabulary's texts."""
    core = json.loads(tokenizer.hf.backend_tokenizer.to_str())
    model = {name: value for name, value in core["model"].items() if name != "vocab"}
    return [core.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor")], model
