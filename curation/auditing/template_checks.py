"""Checks T1 to T12: what a chat template and a tokenizer do to training text, against what the model is given later.

Each check looks at renderings of the probe conversations of rendering/properties.py. `value` is the number of probes
that fail, 0 where all hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from curation.auditing.checks import Check, Level
from curation.rendering import Rendering, Template, Tokenizer
from curation.rendering.properties import (
    ANSWER,
    LATER_THOUGHT,
    LONG,
    LONG_PLAIN,
    PLAIN,
    QUESTION,
    REASONING,
    SECOND,
    THINK,
    THOUGHT,
    Properties,
    Renderer,
    Turn,
    adds_system,
    assistant,
    changes_with_date,
    properties,
    user,
)

TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object",
        "properties": {"a": {"type": "integer"}}}}}  # fmt: skip
MARK = re.compile(r"<\|[A-Za-z0-9_]+\|>|</?[a-z_]+>|<｜[^｜]+｜>")
SHOWN = 24


# Check -> its name, and what to do where it fails.
TEXTS = {
    1: (
        "prompt is a prefix",
        "pass the same enable_thinking in training and inference, or train on a template that writes the same",
    ),
    2: (
        "history as inference sends it",
        "use the template of inference, or leave thoughts out of earlier turns in both",
    ),
    3: (
        "reasoning survives",
        "train on the template's training variant, or split conversations so that each thought is last",
    ),
    4: ("one think block a turn", "set enable_thinking by what the row holds"),
    5: ("beginning of sequence", "remove bos_token from the template or the tokenizer"),
    6: ("default system prompt", "give evaluation and serving the same text, or write the system turn yourself"),
    7: ("same every day", "pin the date in the template or in template_kwargs"),
    8: ("special tokens", "add them to the tokenizer as special tokens and train their embeddings"),
    9: ("end of turn", "set eos_token and eos_token_id of generation_config.json to it"),
    10: (
        "train = eval = serve",
        "let every path tokenise the rendered text without adding tokens, and let the template close what it opens",
    ),
    11: ("per message = whole", "do not use trainers that render per message (verl SFT) with this template"),
    12: ("prompt boundary", "end the prompt with a special token, or with text that the tokenizer never merges"),
}


@dataclass(frozen=True)
class TemplateReport:
    """The verdict on a template under a tokenizer: its line of the matrix and its checks."""

    template: str
    tokenizer: str
    kwargs: dict[str, Any]
    properties: Properties
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return not any(check.level == "error" for check in self.checks)


@dataclass(frozen=True)
class Subject:
    """A template, a tokenizer and the arguments that training and inference pass."""

    template: Template
    tokenizer: Tokenizer
    kwargs: dict[str, Any]

    @cached_property
    def render(self) -> Renderer:
        special = {name: str(value) for name, value in self.tokenizer.hf.special_tokens_map.items()}
        return Renderer(self.template.text, special, self.kwargs)

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of rendered text; `special` lets the tokenizer add its own, as for plain text."""
        return list(self.tokenizer.hf(text, add_special_tokens=special)["input_ids"])

    def tokens(self, ids: list[int]) -> str:
        """A few tokens as text, for messages."""
        return repr(self.tokenizer.hf.decode(ids[:8]))[:SHOWN]


def check_template(template: Template, tokenizer: Tokenizer, kwargs: dict[str, Any], folder: Path | None = None) -> \
        TemplateReport:  # fmt: skip
    """All checks of a template. `folder` is a model's, whose generation_config.json takes part in T9."""
    subject = Subject(template, tokenizer, kwargs)
    checks = [check(subject) for check in (_t1, _t2, _t3, _t4, _t5, _t6, _t7, _t8)]
    checks += [_t9(subject, folder), *(check(subject) for check in (_t10, _t11, _t12))]
    return TemplateReport(template.name, tokenizer.reference, kwargs, properties(subject.render), checks)


def _made(number: int, problems: list[str], good: str, bad: Level = "error") -> Check:
    name, step = TEXTS[number]
    return Check(
        f"T{number}",
        name,
        bad if problems else "ok",
        float(len(problems)),
        0.0,
        "; ".join(problems) or good,
        step if problems else "",
    )


def _t1(subject: Subject) -> Check:
    """The ids of the generation prompt are a prefix of the ids of the training row."""
    problems = []
    for name, turns in (("a row with a thought", REASONING), ("a row without", PLAIN), ("a second turn", LONG_PLAIN)):
        row, prompt = subject.render.attempt(turns), subject.render.attempt(turns[:-1], prompt=True)
        if row is None or prompt is None:
            problems.append(f"{name}: the template raises")
            continue
        trained, given = subject.ids(row), subject.ids(prompt)
        if trained[: len(given)] != given:
            at = next((i for i, (a, b) in enumerate(zip(trained, given, strict=False)) if a != b), len(trained))
            problems.append(
                f"{name}: after {at} tokens training has {subject.tokens(trained[at:])}, inference "
                f"{subject.tokens(given[at:])}"
            )
    return _made(1, problems, "the generation prompt begins every training row")


def _t2(subject: Subject) -> Check:
    """The text of an earlier turn in training is the text that inference sends again."""
    whole = subject.render.attempt(LONG)
    again = subject.render.attempt(LONG[:-1], prompt=True)
    problems = []
    if whole is None or again is None:
        problems.append("the template raises on two turns")
    else:
        trained, sent = (text[: text.find(SECOND)] for text in (whole, again))
        if trained != sent:
            kept = [name for name, text in (("training", trained), ("inference", sent)) if THOUGHT in text]
            what = f"only {kept[0]} keeps the thought" if len(kept) == 1 else "the texts differ"
            problems.append(f"an earlier turn is rendered otherwise: {what}")
    return _made(2, problems, "earlier turns read the same in training and inference")


def _t3(subject: Subject) -> Check:
    """Thoughts of the source stand in the text that is trained."""
    problems = []
    row, long = subject.render.attempt(REASONING), subject.render.attempt(LONG)
    if row is not None and THOUGHT not in row:
        problems.append("the thought of the last turn is gone")
    if long is not None and LATER_THOUGHT in long and THOUGHT not in long:
        problems.append("the thought of an earlier turn is gone, and its answer is trained without it")
    spans = _trained_text(subject, REASONING)
    if spans is not None and row is not None and THOUGHT in row and THOUGHT not in spans:
        problems.append("the thought lies outside of the generation tags")
    return _made(3, problems, "thoughts stay in the trained text")


def _trained_text(subject: Subject, turns: list[Turn]) -> str | None:
    """The text between generation tags; None where the template has none."""
    if not subject.template.has_generation:
        return None
    rendering = Rendering(subject.tokenizer, subject.template, "trl_assistant", subject.kwargs)
    text, spans = rendering.chat([dict(turn) for turn in turns])
    return "".join(text[first:last] for first, last in spans or [])


def _t4(subject: Subject) -> Check:
    """enable_thinking and the thought in a row agree; no turn has two think blocks."""
    problems = []
    for flag, turns in ((True, PLAIN), (False, REASONING), (True, REASONING), (False, PLAIN)):
        text = subject.render.attempt(turns, enable_thinking=flag)
        if text is not None and text[text.rfind(turns[0]["content"]) :].count(THINK) > 1:
            problems.append(f"enable_thinking={str(flag).lower()} gives a turn two think blocks")
    return _made(4, problems, "no setting gives a turn two think blocks")


def _t5(subject: Subject) -> Check:
    """One beginning-of-sequence token where the template writes one, none elsewhere."""
    bos = subject.tokenizer.hf.bos_token_id
    text = subject.render.attempt(PLAIN)
    if bos is None or text is None:
        return _made(5, [], "the tokenizer has no beginning-of-sequence token")
    chat, retokenised = (subject.ids(text, special=special)[:2].count(bos) for special in (False, True))
    problems = [f"a rendered row begins with {chat} of them"] if chat > 1 else []
    twice = retokenised > 1 and chat == 1
    good = f"a rendered row begins with {chat}" + (
        "; tokenising its text again as plain text would make it 2 (kedge and TRL do not)" if twice else ""
    )
    return _made(5, problems, good)


def _t6(subject: Subject) -> Check:
    """What stands where no system turn is given."""
    found = adds_system(subject.render)
    problems = ["a row without a system turn gets one from the template"] if found else []
    return _made(6, problems, "nothing is added where no system turn is given", "warn")


def _t7(subject: Subject) -> Check:
    """The same text on every day."""
    problems = ["the text changes with the date"] if changes_with_date(subject.render) else []
    return _made(7, problems, "the text does not depend on the date")


def _t8(subject: Subject) -> Check:
    """Each special string of the template is one token of the tokenizer."""
    vocabulary = subject.tokenizer.hf.get_vocab()
    special = {str(token) for token in subject.tokenizer.hf.all_special_tokens} | set(
        map(str, subject.tokenizer.hf.added_tokens_decoder.values())
    )
    written = sorted({mark for mark in MARK.findall(subject.template.text) if mark.startswith(("<|", "<｜"))})
    problems = [f"{mark} is {len(subject.ids(mark))} tokens" for mark in written
                if mark not in vocabulary or len(subject.ids(mark)) != 1]  # fmt: skip
    unmarked = [mark for mark in written if mark in vocabulary and mark not in special]
    problems += [f"{mark} is an ordinary token, which text may spell" for mark in unmarked]
    return _made(8, problems, f"{len(written)} special strings are one token each")


def _t9(subject: Subject, folder: Path | None) -> Check:
    """The token that ends an answer is the tokenizer's end of sequence and among the stop ids of generation."""
    text = subject.render.attempt(PLAIN)
    tail = subject.ids((text or "")[(text or "").rfind(ANSWER) + len(ANSWER) :].strip())
    if not tail:
        return _made(9, ["nothing ends the last answer"], "")
    end = tail[0]
    problems = []
    if end not in subject.tokenizer.stop_ids:
        stops = ", ".join(subject.tokens([stop]) for stop in subject.tokenizer.stop_ids) or "none"
        problems.append(f"answers end with {subject.tokens([end])}, generation stops at {stops}")
    elif end != subject.tokenizer.hf.eos_token_id:
        problems.append(f"the tokenizer's eos_token is another token than {subject.tokens([end])}")
    listed = generation_stops(folder)
    if folder is not None and listed is None:
        problems.append("the model has no generation_config.json, so servers stop at eos_token alone")
    elif listed is not None and end not in listed:
        problems.append(f"generation_config.json does not stop at {subject.tokens([end])}")
    failing = end not in subject.tokenizer.stop_ids or (listed is not None and end not in listed)
    return _made(9, problems, f"answers end with {subject.tokens([end])}, where generation stops",
                 "error" if failing else "warn")  # fmt: skip


def generation_stops(folder: Path | None) -> list[int] | None:
    """The eos ids of a model folder's generation_config.json; None where it has no such file."""
    path = None if folder is None else folder / "generation_config.json"
    if path is None or not path.is_file():
        return None
    value = json.loads(path.read_text()).get("eos_token_id")
    return value if isinstance(value, list) else [] if value is None else [value]


def _t10(subject: Subject) -> Check:
    """The trainer's, the harness's and a chat server's path give the same prompt ids, and every turn that is opened in
    them is closed: a system block that runs into the next turn is no text that a sibling template or a server writes
    (SmolLM3 as released)."""
    turns = LONG_PLAIN[:-1]
    text = subject.render.attempt(turns, prompt=True)
    if text is None:
        return _made(10, ["the template raises"], "")
    hf = subject.tokenizer.hf
    harness = hf.apply_chat_template(
        turns, chat_template=subject.template.text, tokenize=False, add_generation_prompt=True, **subject.kwargs
    )
    served = hf.apply_chat_template(turns, chat_template=subject.template.text, add_generation_prompt=True,
                                    return_dict=True, **subject.kwargs)["input_ids"]  # fmt: skip
    paths = {"evaluation": subject.ids(str(harness)), "a chat server": list(served)}
    problems = [f"{name} gives other ids than training" for name, ids in paths.items() if ids != subject.ids(text)]
    return _made(10, problems + list(_unclosed(subject.render)), "training, evaluation and serving give the same ids")


def _unclosed(render: Renderer) -> Iterator[str]:
    """Turns that run into the next one, where the template puts the same two marks around what users and assistants
    say (`<|im_start|>`, `<|im_end|>`); other templates have no mark that closes a turn."""
    text = render.attempt(LONG_PLAIN) or ""
    asked = MARK.findall(text[text.find(QUESTION) : text.find(ANSWER)])[:2]
    answered = MARK.findall(text[text.find(ANSWER) : text.find(SECOND)])[:2]
    if len(set(asked)) < 2 or asked != answered:
        return
    close, begin = asked
    system = {"role": "system", "content": "Be brief."}
    probes: dict[str, tuple[list[Turn], dict[str, Any]]] = {
        "a system turn": ([system, *LONG_PLAIN], {}), "tools": (LONG_PLAIN, {"tools": [TOOL]}),
        "both": ([system, *LONG_PLAIN], {"tools": [TOOL]}), "neither system turn nor tools": (LONG_PLAIN, {}),
    }  # fmt: skip
    for name, (turns, more) in probes.items():
        found = render.attempt(turns, **more) or ""
        waiting = None
        for mark in re.finditer(f"{re.escape(begin)}|{re.escape(close)}", found):
            if mark.group() == begin and waiting is not None:
                start = found[waiting : waiting + SHOWN].splitlines()[0]
                yield f"with {name}, the turn that {start!r} opens is never closed"
            waiting = mark.start() if mark.group() == begin else None


def _t11(subject: Subject) -> Check:
    """Messages rendered alone and joined are the whole rendering (what trainers that render per message rely on)."""
    problems = []
    for name, turns in (("plain turns", LONG_PLAIN), ("turns with thoughts", LONG)):
        whole = subject.render.attempt(turns)
        single = [subject.render.attempt([turn]) for turn in turns]
        if whole is None or None in single:
            problems.append(f"{name}: a turn cannot be rendered alone")
        elif "".join(map(str, single)) != whole:
            problems.append(f"{name}: rendered one by one they differ from the whole")
    return _made(11, problems, "turns rendered one by one join to the whole", "warn")


def _t12(subject: Subject) -> Check:
    """The ids of the prompt are a prefix of the ids of prompt and answer together."""
    problems = []
    for answer in ("4", " four", "\nfour", "</think>x"):
        turns = [user("2+2?"), assistant(answer)]
        row, prompt = subject.render.attempt(turns), subject.render.attempt(turns[:1], prompt=True)
        if row is None or prompt is None or not row.startswith(prompt):
            continue
        given = subject.ids(prompt)
        if subject.ids(row)[: len(given)] != given:
            problems.append(f"an answer that begins with {answer[:4]!r} merges with the end of the prompt")
    return _made(12, problems, "no answer merges with the end of the prompt", "warn")


def pairs_of(report: TemplateReport) -> list[tuple[str, str]]:
    """The matrix as (property, yes | no | raises | text)."""
    words = {True: "yes", False: "no", None: "raises"}
    found = []
    for name in Properties.__dataclass_fields__:
        value = getattr(report.properties, name)
        found.append((name, repr(value) if isinstance(value, str) else words[value]))
    return found
