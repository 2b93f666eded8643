"""A template fitted to a base tokenizer: its special strings take the places of unused special tokens, or new ids."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from curation.errors import Problem, UserError
from curation.rendering.properties import ANSWER, PLAIN, QUESTION, SECOND, THOUGHT, Renderer, assistant, user
from curation.rendering.render import template_errors
from curation.rendering.templates import Template
from curation.rendering.tokenizers import Tokenizer

Place = Literal["kept", "marked", "renamed", "padded", "new"]

# What models reserve: <|reserved_special_token_3|>, <unused12>, [UNUSED3], <extra_id_0>, <|dummy_0|>, <SPECIAL_20>.
UNUSED = re.compile(
    r"[<\[]\|?(?:reserved|unused|dummy|placeholder|extra|spare|special)(?:[_\- ]?(?:special|tokens?|id))*"
    r"[_\- ]?\d+\|?[>\]]", re.IGNORECASE)  # fmt: skip
CONTROL = re.compile(r"<\|[^\s|<>]+\|?>|<[a-z_]+\|>|<｜[^\s｜<>]+｜>")
TAG = re.compile(r"</?[a-z][a-z_]*>")
PAD = "<|pad|>"
KNOWN_PADS = (PAD, "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<｜▁pad▁｜>", "<|PAD_TOKEN|>")
ROWS_MULTIPLE = 64
ORDINARY = (
    "Ordinary text, 1 + 1 = 2.\n\n\tdef f(x): return x[0]  # <b>bold</b> & 'quotes'\r\n", "naïve café — ключ 東京 🙂🏽",
    "system user assistant tool think no_think </s> [INST] 3.14e-7   ", "    if (a<b && c>d) { x |= 1; } // <- | ->",
)  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """Where one special string of the template stands. `place`: `kept`, the tokenizer has it as one token; `marked`, an
    ordinary token of that text became an added one; `renamed`, an unused token got this text (`was` is its old one);
    `padded`, a new id on an embedding row that the model has already; `new`, an id that needs a new row."""

    text: str
    id: int
    place: Place
    was: str | None = None


@dataclass(frozen=True)
class Adaptation:
    """What becomes of a tokenizer. `tokens` in the order in which the template writes them, a reserved pad last;
    `terminator` ends an answer (None where the template writes no token there, and eos stays); `stop_ids` are the new
    and the old ends; `embedding_rows` the rows that the model has (without a model: the tokenizer's ids) and
    `rows_needed` those it must have, the next multiple of 64 where it must grow; `begins` the token that
    the base puts before every text and the template does not write."""

    tokens: tuple[Placed, ...]
    terminator: str | None
    eos: tuple[str, int] | None
    stop_ids: tuple[int, ...]
    pad: tuple[str, int] | None
    embedding_rows: int
    rows_needed: int
    begins: str | None

    @property
    def changed(self) -> list[Placed]:
        """Tokens whose text or id is not the base's, the pad left out: the rows of these must be trained."""
        pad = self.pad[0] if self.pad else None
        return [token for token in self.tokens if token.place not in ("kept", "marked") and token.text != pad]


def special_strings(template: Template, tokenizer: Tokenizer) -> list[str]:
    """The strings that must be one token each, in the order of the template's text: `<|x|>` wherever it is written, and
    tags like `<think>` that stand in turns (not in the system block: `<tools>` there is ordinary text), with their
    partners. Raises UserError where the template is no Jinja or raises on every conversation."""
    import jinja2
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(template.text)
        parts = [value for _, kind, value in jinja2.Environment().lex(template.text) if kind in ("string", "data")]
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"is no Jinja template: {error.message}", "mend the line",
                        where=f"{template.name}:{error.lineno}", key="template") from error  # fmt: skip
    texts = list(_renderings(template, tokenizer))
    if not texts:
        raise UserError(f"raises on every conversation, on a plain one with: {_complaint(template, tokenizer)}",
                        "mend it, or give the tokenizer the special tokens that it uses", where=template.name,
                        key="template")  # fmt: skip
    found = dict.fromkeys(mark for text in (*parts, *texts) for mark in CONTROL.findall(text))
    written = "".join([*parts, *texts])
    for tag in dict.fromkeys(tag for text in texts for tag in TAG.findall(text[text.find(QUESTION) :])):
        name = tag.strip("</>")
        if f"<{name}>" in written:  # else it closes <function=name>, which is many tokens
            found |= dict.fromkeys([f"<{name}>", *([f"</{name}>"] if f"</{name}>" in written else [])])
    order = {mark: "".join(parts).find(mark) for mark in found}
    return sorted(found, key=lambda mark: (order[mark] < 0, order[mark]))


def _renderings(template: Template, tokenizer: Tokenizer) -> Iterator[str]:
    """The probes that the template can render: plain, with thoughts, with tools, and prompts in both modes."""
    render = renderer(template, tokenizer)
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    tools = [{"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {}}}]
    thinking: list[Any] = [user(QUESTION), assistant(ANSWER) | {"reasoning_content": THOUGHT}]
    calling = [*thinking[:1], thinking[1] | {"tool_calls": [call]}, {"role": "tool", "content": "2"}, thinking[1]]
    chats = ([*PLAIN, user(SECOND)], [{"role": "system", "content": "Be kind."}, *thinking, user(SECOND)])
    for chat in (*chats, calling, calling[:2]):
        for mode in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
            for more in ({}, {"tools": tools}):
                text = render.attempt(chat, prompt=chat[-1]["role"] == "user", **mode, **more)
                if text is not None:
                    yield text


def _complaint(template: Template, tokenizer: Tokenizer) -> str:
    try:
        return renderer(template, tokenizer)(PLAIN)
    except template_errors() as error:
        return str(error)


def renderer(template: Template, tokenizer: Tokenizer) -> Renderer:
    """The template with the tokenizer's special tokens."""
    return Renderer(template.text, {name: str(value) for name, value in tokenizer.hf.special_tokens_map.items()}, {})


def unused_tokens(tokenizer: Tokenizer) -> dict[int, str]:
    """Id -> text of the tokens that a base reserves and no text uses, by id: their names say so, they have no role
    (bos, eos, ...), and they are added tokens or no text is encoded to them."""
    hf, core = tokenizer.hf, json.loads(tokenizer.hf.backend_tokenizer.to_str())
    added = {str(token) for token in hf.added_tokens_decoder.values()}
    taken = json.dumps(core.get("post_processor"), ensure_ascii=False)
    roles = {str(value) for value in hf.special_tokens_map.values()}
    merged = {_joined(pair) for pair in core["model"].get("merges", [])}
    found = {}
    for text, number in hf.get_vocab().items():
        if not UNUSED.fullmatch(text) or text in roles or text in taken:
            continue
        contexts = (text, f" {text}", f"a{text}b", text + text, f"\n{text}.")
        if text in added or (
            text not in merged and not any(number in hf.encode(one, add_special_tokens=False) for one in contexts)
        ):
            found[number] = text
    return dict(sorted(found.items()))


def _joined(pair: str | list[str]) -> str:
    return "".join(pair) if isinstance(pair, list) else pair.replace(" ", "", 1)


def adapt(template: Template, tokenizer: Tokenizer, embedding_rows: int | None = None) -> Adaptation:
    """Place every special string of the template: where the tokenizer has it, else on an unused token (lowest id
    first), else on a padded row of the model, else on a new id. `embedding_rows` are the model's, None where it is not
    known. Changes nothing. Raises UserError as special_strings."""
    vocabulary = tokenizer.hf.get_vocab()
    added = {str(token) for token in tokenizer.hf.added_tokens_decoder.values()}
    size = max(vocabulary.values()) + 1
    rows = embedding_rows or size
    strings = special_strings(template, tokenizer)
    unused = {number: text for number, text in unused_tokens(tokenizer).items() if text not in strings}
    places = _places(unused, size, rows)
    tokens = [Placed(text, vocabulary[text], "kept" if text in added else "marked") if text in vocabulary
              else Placed(text, *next(places)) for text in strings]  # fmt: skip
    end = _terminator(template, tokenizer, [*strings, *added])
    eos = end or tokenizer.hf.eos_token
    pad = _pad(tokenizer, eos, added, tokens, len(unused))
    if pad == PAD and PAD not in vocabulary and PAD not in strings:
        tokens.append(Placed(PAD, *next(places)))
    ids = vocabulary | {token.text: token.id for token in tokens}
    stops = dict.fromkeys([*([ids[eos]] if eos else []), *tokenizer.stop_ids])
    needed = max(token.id for token in tokens) + 1 if tokens else 0
    needed = rows if needed <= rows else -(-needed // ROWS_MULTIPLE) * ROWS_MULTIPLE
    return Adaptation(tuple(tokens), end, (eos, ids[eos]) if eos else None, tuple(stops),
                      (pad, ids[pad]) if pad else None, rows, needed, _begins(template, tokenizer))  # fmt: skip


def _places(unused: dict[int, str], size: int, rows: int) -> Iterator[tuple[int, Place, str | None]]:
    for number, text in unused.items():
        yield number, "renamed", text
    for number in itertools.count(size):
        yield number, "padded" if number < rows else "new", None


def _terminator(template: Template, tokenizer: Tokenizer, known: Iterable[str]) -> str | None:
    """The token that follows the answer of a plain row; None where none does."""
    text = renderer(template, tokenizer).attempt(PLAIN) or ""
    tail = text[text.rfind(ANSWER) + len(ANSWER) :].lstrip() if ANSWER in text else ""
    return max((mark for mark in known if tail.startswith(mark)), key=len, default=None)


def _begins(template: Template, tokenizer: Tokenizer) -> str | None:
    bos, text = tokenizer.hf.bos_token, renderer(template, tokenizer).attempt(PLAIN)
    adds = bos is not None and tokenizer.hf.encode("a")[0] == tokenizer.hf.bos_token_id
    return str(bos) if adds and bos not in (text or "") else None


def _pad(tokenizer: Tokenizer, eos: str | None, added: set[str], tokens: list[Placed], num_unused: int) -> str | None:
    """The pad token: the base's own or one that it holds ready, a reserved one, the former end of sequence, a new one
    where ids are added anyway, and the end of sequence where none of these can be had."""
    own, former = tokenizer.hf.pad_token, tokenizer.hf.eos_token
    ready = [text for text in (own, *KNOWN_PADS) if text in added and text not in (eos, former)]
    if ready or num_unused > sum(token.place == "renamed" for token in tokens):
        return ready[0] if ready else PAD
    if others := [text for text in (own, former) if text and text != eos]:
        return str(others[0])
    return PAD if any(token.place in ("padded", "new") for token in tokens) else eos


def write_adapted(adaptation: Adaptation, template: Template, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the adapted tokenizer whole into an empty folder: tokenizer.json, tokenizer_config.json,
    chat_template.jinja and generation_config.json. Raises UserError where what was written encodes ordinary text
    otherwise than the base, or a special string as anything but its one token."""
    tokenizer.hf.save_pretrained(folder)
    shutil.rmtree(folder / "additional_chat_templates", ignore_errors=True)
    for name, edit in (("tokenizer.json", _edit_tokenizer), ("tokenizer_config.json", _edit_config)):
        value = json.loads((folder / name).read_text())
        edit(value, adaptation)
        (folder / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    (folder / "chat_template.jinja").write_text(template.text)
    path = Path(tokenizer.reference) / "generation_config.json"
    generation = json.loads(path.read_text()) if path.is_file() else {}
    stops = list(adaptation.stop_ids)
    generation["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    if adaptation.pad:
        generation["pad_token_id"] = adaptation.pad[1]
    if tokenizer.hf.bos_token_id is not None:
        generation["bos_token_id"] = tokenizer.hf.bos_token_id
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2, sort_keys=True) + "\n")
    _verify(adaptation, tokenizer, folder)


def _edit_tokenizer(core: dict[str, Any], adaptation: Adaptation) -> None:
    """Rename in the vocabulary and among the added tokens, ids unchanged, and append what is new."""
    renamed = {token.was: token.text for token in adaptation.tokens if token.was is not None}
    placed = {token.id: token for token in adaptation.tokens if token.place != "kept"}
    vocabulary = core["model"]["vocab"]
    if isinstance(vocabulary, dict):
        core["model"]["vocab"] = {renamed.get(text, text): number for text, number in vocabulary.items()}
    else:  # Unigram: [text, score] by id
        core["model"]["vocab"] = [[renamed.get(text, text), score] for text, score in vocabulary]
    entries = [entry for entry in core["added_tokens"] if entry["id"] not in placed]
    # Tags are added but not "special", as in Qwen3 and SmolLM3: decoding without special tokens keeps the thoughts.
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    entries += [{"id": token.id, "content": token.text, **plain, "special": not TAG.fullmatch(token.text)}
                for token in placed.values()]  # fmt: skip
    core["added_tokens"] = sorted(entries, key=lambda entry: int(entry["id"]))


def _edit_config(config: dict[str, Any], adaptation: Adaptation) -> None:
    renamed = {token.was: token.text for token in adaptation.tokens if token.was is not None}
    for name in ("chat_template", "is_local", "local_files_only", "added_tokens_decoder"):
        config.pop(name, None)  # where it was loaded from, and what tokenizer.json and chat_template.jinja say
    for name in ("extra_special_tokens", "additional_special_tokens"):
        if isinstance(config.get(name), list):
            texts = [renamed.get(text, text) for text in config[name]]
            config[name] = [text for text in texts if not TAG.fullmatch(text) or text not in renamed.values()]
    if adaptation.eos:
        config["eos_token"] = adaptation.eos[0]
    if adaptation.pad:
        config["pad_token"] = adaptation.pad[0]


def _verify(adaptation: Adaptation, tokenizer: Tokenizer, folder: Path) -> None:
    from transformers import AutoTokenizer

    written, base = AutoTokenizer.from_pretrained(folder), tokenizer.hf
    renamed = {token.was for token in adaptation.tokens}
    problems = [Problem(f"{token.text} became {written.encode(token.text, add_special_tokens=False)}, not {token.id}")
                for token in adaptation.tokens
                if written.encode(token.text, add_special_tokens=False) != [token.id]]  # fmt: skip
    now = written.get_vocab()
    moved = [text for text, number in base.get_vocab().items() if text not in renamed and now.get(text) != number]
    problems += [Problem(f"{len(moved)} tokens changed their ids, {moved[0]!r} first")] if moved else []
    other = [text for text in ORDINARY if written.encode(text) != base.encode(text)]
    problems += [Problem(f"{text!r} is encoded otherwise") for text in other]
    if problems:
        last = Problem("the base tokenizer cannot be adapted", "save it again with transformers (save_pretrained) and "
                       "adapt that folder", where=tokenizer.reference)  # fmt: skip
        raise UserError([*problems, last])
