"""What annotators see: conversations as chat messages, candidates as Markdown.

A page that shows Markdown hides or runs what it takes for HTML. Here every text is shown as what it is: `<think>` and
any other tag stay visible, pictures are not fetched (they would tell a stranger who reads), line breaks stay, and
`\\(x\\)` and `\\[x\\]` become the dollars that pages know. Nothing is cut: what is too long for one chat message goes
on in the next, and an item that is too long altogether is refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

RENDERING = 1  # raised where the same item would look different: annotators of one round see one rendering
MAX_MESSAGES = 500  # of a chat field
MESSAGE_CHARS = 15_000  # a chat message holds 20,000; marks and joiners come on top of the text
JOINER = "\u2060"  # seen by nobody; after `<` it keeps a browser from reading a tag
EMPTY = "*(empty)*"
ROLE_CHARS = 20

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_PICTURE = re.compile(r"!(?=\[)")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")
_CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_BLOCK = re.compile(r"^(\s*$| {4}|\t|\s{0,3}(#|>|\||[-*+=_]|\d+[.)]|`{3}|~{3}|\$\$|<))")
_INLINE_MATH = re.compile(r"(?<!\\)\\\((.+?)(?<!\\)\\\)")
_DISPLAY_MATH = re.compile(r"(?<!\\)\\\[(.+?)(?<!\\)\\\]", re.DOTALL)
_DOLLARS = re.compile(r"\$[^$\n]+\$")


def chat(prompt: Sequence[Mapping[str, Any]], tools: str | None = None) -> list[dict[str, str]]:
    """A conversation as messages of a chat field: {role, content}, both never empty, roles of at most 20 characters and
    contents of at most 20,000. Tool definitions come first, under the role `tools`. A message that is too long for one
    goes on in the next (`user 1/3`, `user 2/3`, ...)."""
    shown = []
    if tools:
        shown += _pieces("tools", "The assistant may call these tools:\n\n", tools)
    for message in prompt:
        body = "\n\n".join(_blocks(message)) or EMPTY
        pieces = _cut(body)
        for number, piece in enumerate(pieces, 1):
            role = str(message.get("role") or "user")
            if len(pieces) > 1:
                role += f" {number}/{len(pieces)}"
            shown.append({"role": role[:ROLE_CHARS], "content": piece})
    return shown


def candidate(messages: Sequence[Mapping[str, Any]]) -> str:
    """A candidate as Markdown: the text of one answer, or its turns one after another, each under its role."""
    blocks = []
    for message in messages:
        if len(messages) > 1 or message.get("role") != "assistant":
            blocks.append(f"**{_shown(str(message.get('role')))}**")
        blocks += _blocks(message) or [EMPTY]
    return "\n\n".join(blocks) or EMPTY


def plain(messages: Sequence[Mapping[str, Any]]) -> str:
    """The words of an answer as they are, to be edited: the content of its messages, without reasoning or calls."""
    return "\n\n".join(str(message["content"]) for message in messages if message.get("content"))


def as_written(text: str) -> str:
    """What an annotator wrote, without the marks that rendering put into texts they may have copied from."""
    return text.replace(JOINER, "")


def refusal(item: Mapping[str, Any], max_chars: int | None = None) -> str | None:
    """Why an item (a record of ITEMS) cannot be shown; None where it can: more than MAX_MESSAGES chat messages, or more
    than `max_chars` characters."""
    count = len(chat(item["prompt"] or [], item["tools"]))
    if count > MAX_MESSAGES:
        return f"its prompt has {count:,} messages, more than the {MAX_MESSAGES} of a chat"
    chars = num_chars(item)
    if max_chars is not None and chars > max_chars:
        return f"it has {chars:,} characters, more than {max_chars:,}"
    return None


def num_chars(item: Mapping[str, Any]) -> int:
    """Characters of an item's texts: prompt, tools and candidates, with reasoning and tool calls."""
    turns = [turn for one in item["candidates"] or [] for turn in one["messages"] or []]
    texts = [turn.get(key) for turn in [*(item["prompt"] or []), *turns]
             for key in ("content", "reasoning", "tool_calls")]  # fmt: skip
    return len(item["tools"] or "") + sum(len(text) for text in texts if text)


def markdown(text: str) -> str:
    """A text as Markdown that shows it: code stays code, mathematics is shown, HTML is text, no picture is fetched."""
    parts: list[str] = []
    run: list[str] = []
    fence = ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        match = _FENCE.match(line)
        opens = match is not None and not (match[1][0] == "`" and "`" in match[2])
        if not fence and match and opens:
            parts += [_prose("\n".join(run))] if run else []
            fence, run = match[1], [line]
            continue
        run.append(line)
        if fence and match and match[1].startswith(fence) and not match[2].strip():
            parts.append(_shown("\n".join(run)))
            fence, run = "", []
    if fence:  # never closed: what comes after the text must not become code
        return "\n".join([*parts, _shown("\n".join(run)), fence])
    return "\n".join([*parts, _prose("\n".join(run))] if run else parts)


def _shown(text: str) -> str:
    """A text without anything that a browser would take for a tag or a picture to fetch."""
    return _PICTURE.sub("!" + JOINER, _TAG.sub("<" + JOINER, text))


def _prose(text: str) -> str:
    """Text outside of fences."""
    text = _DISPLAY_MATH.sub(lambda match: f"\n\n$$\n{match[1].strip()}\n$$\n\n", text)
    pieces, end = [], 0
    for match in _CODE.finditer(text):
        pieces += [_words(text[end : match.start()]), _shown(match[0])]
        end = match.end()
    return _broken("".join([*pieces, _words(text[end:])]))


def _words(text: str) -> str:
    """Text outside of code: mathematics keeps its `<`, and what would be an entity stays what was written."""
    text = _INLINE_MATH.sub(lambda match: f" ${match[1].strip()}$ ", text)
    text = _DOLLARS.sub(lambda match: _TAG.sub("< ", match[0]), text)
    return _shown(_ENTITY.sub("&amp;", text))


def _broken(text: str) -> str:
    """Text whose line breaks stay: Markdown joins the lines of a paragraph unless one ends in a backslash."""
    lines = text.split("\n")
    display = False
    for place, (line, after) in enumerate(itertools.pairwise(lines)):
        display ^= line.strip() == "$$"
        if not (display or _BLOCK.match(line) or _BLOCK.match(after) or line.rstrip().endswith("\\")):
            lines[place] = line.rstrip() + "\\"
    return "\n".join(lines)


def _blocks(message: Mapping[str, Any]) -> list[str]:
    """The parts of a message: who speaks, reasoning, content, tool calls; none where it says nothing."""
    blocks = []
    known = [message[key] for key in ("name", "tool_call_id") if message.get(key)]
    if known:
        blocks.append("*" + _shown(" · ".join(map(str, known))).replace("*", "\\*") + "*")
    content = str(message.get("content") or "")
    if message.get("reasoning"):
        blocks += ["*Reasoning:*", markdown(str(message["reasoning"]))]
        blocks += ["*Answer:*"] if content.strip() else []
    if content.strip():
        blocks.append(markdown(content))
    if message.get("tool_calls"):
        blocks += ["*Tool calls:*", _fenced(_calls(str(message["tool_calls"])))]
    return blocks


def _calls(text: str) -> str:
    """Tool calls, one a line: `name(arguments)`; text that is no list of calls as it is."""
    try:
        calls = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    lines = []
    for call in calls if isinstance(calls, list) else [calls]:
        asked = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(asked, dict) or not isinstance(asked.get("name"), str):
            return text
        given = asked.get("arguments", {})
        lines.append(f"{asked['name']}({given if isinstance(given, str) else orjson.dumps(given).decode()})")
    return "\n".join(lines)


def _fenced(text: str) -> str:
    """A text as a code block that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{_shown(text)}\n{fence}"


def _pieces(role: str, head: str, text: str) -> list[dict[str, str]]:
    """A text that is shown as code, in as many messages as it needs."""
    text = _shown(text)
    cut = [text[start : start + MESSAGE_CHARS] for start in range(0, len(text), MESSAGE_CHARS)]
    return [{"role": role if len(cut) == 1 else f"{role} {number}/{len(cut)}", "content": head + _fenced(piece)}
            for number, piece in enumerate(cut, 1)]  # fmt: skip


def _cut(text: str) -> list[str]:
    """Markdown in pieces of at most MESSAGE_CHARS, cut where a line or a word ends; a fence is closed and opened again
    around a cut."""
    pieces: list[str] = []
    opened = ""
    while len(opened) + len(text) > MESSAGE_CHARS:
        room = MESSAGE_CHARS - len(opened)
        place = max(text.rfind("\n", room // 2, room), 0) or max(text.rfind(" ", room // 2, room), 0) or room
        piece = opened + text[:place]
        text = text[place:].removeprefix("\n") if text[place : place + 1] == "\n" else text[place:]
        fence = _open_fence(piece)
        pieces.append(piece + (f"\n{fence}" if fence else ""))
        opened = f"{fence}\n" if fence else ""
    return [*pieces, opened + text]


def _open_fence(text: str) -> str:
    """The fence that is open at the end of a text; empty where none is."""
    fence = ""
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if match and not fence and not (match[1][0] == "`" and "`" in match[2]):
            fence = match[1]
        elif match and fence and match[1].startswith(fence) and not match[2].strip():
            fence = ""
    return fence
