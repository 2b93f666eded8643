"""Conversations and prompts as verl 0.9.1 renders them.

In SFT every message is rendered alone, the ids are joined and the answers trained: mirrors
`verl/utils/dataset/multiturn_sft_dataset.py:MultiTurnSFTDataset` with `verl/utils/tokenizer/chat_template.py`, under
the transformers that verl runs (below 5.11: reasoning reaches the template as `reasoning_content` alone).

verl reads SFT rows from Parquet alone: `messages` is a list of structs, `tools` a list of structs (JSON text it cannot
read). There every struct has the keys of all others, null where it lacks them, so a row is rendered as it reads back
from a Parquet file of its own. In a file of several rows the keys of the other rows come as null too; templates that
ask whether a key is there (`is defined`, `in message`) see the difference, and so does the text of tools. In a file
where only some rows have tools the others must hold an empty list: verl raises on null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from curation.rendering.encoding import EMPTY, Encoded
from curation.rendering.render import Rendered, Rendering, template_errors, template_messages

# Rendering.kwargs hold what verl is given as `data.apply_chat_template_kwargs`, and under this key those of verl's own
# options that change ids: `enable_thinking_default`, `ignore_input_ids_mismatch`, `filter_overlong_prompts`.
VERL = "verl"
# What verl's YAML says. `none` is no null there but a text, which verl turns into true.
ENABLE_THINKING_DEFAULT: Final = "none"

DIFFERS = (
    "verl refuses the row: its messages rendered one by one differ from the whole conversation (a template that reads "
    "other messages; ignore_input_ids_mismatch: true trains on the messages as rendered one by one)"
)
_NOBODY = [{"role": "user", "content": [{"type": "text", "text": ""}]}]
_EDGES: dict[tuple[str, str, bytes], tuple[int, int]] = {}


def render_per_message(rendering: Rendering, row: dict[str, Any]) -> Rendered:
    """One row (`messages`, `tools`). Trained are the tokens of each assistant message but its first G, G being the
    length of the generation prompt; from every message but the first, other than system messages, the first S tokens
    are taken off, S being the length of what the template writes before the first message by itself. `error` says why
    verl would raise when it draws the row."""
    kwargs, own = _kwargs(rendering)
    default = own.get("enable_thinking_default", ENABLE_THINKING_DEFAULT)
    given = kwargs if default is None else kwargs | {"enable_thinking": bool(default)}
    try:
        messages, tools = as_read(row)
        before, opening = _edges(rendering, kwargs)
        turns = [_rescued(rendering, [message], None if n else tools, given) for n, message in enumerate(messages)]
        whole = _chat(rendering, messages, tools, given)
    except template_errors() as problem:
        return _failed(problem)
    *pieces, together = rendering._encoder.encode([*(text for text, _ in turns), whole])
    parts, masks = [], []
    for number, (message, (text, skipped), encoded) in enumerate(zip(messages, turns, pieces, strict=True)):
        first = skipped + (before if number and message["role"] != "system" else 0)
        parts.append(_from_token(encoded, text, first))
        place = np.arange(len(parts[-1][0].ids))
        masks.append(place >= (opening if message["role"] == "assistant" else len(place)))
    joined, text = _join(parts)
    if not own.get("ignore_input_ids_mismatch", False) and not np.array_equal(joined.ids, together.ids):
        return Rendered(EMPTY, np.empty(0, np.bool_), "", DIFFERS)
    return Rendered(joined, np.concatenate(masks), text)


def render_prompts(rendering: Rendering, rows: Sequence[dict[str, Any]]) -> list[Rendered]:
    """Prompts (`prompt`) of rlvr rows in order as verl's agent loop renders them, without the tools of the row, which
    verl never reads; nothing of them is trained. Where the template raises, the overlong filter drops the row (so
    `error` says why); without the filter the loop tries again with an empty user message before it. A model of type
    deepseek_v4 writes its prompts without a template and is not mirrored."""
    kwargs, own = _kwargs(rendering)
    filtered = own.get("filter_overlong_prompts", False)
    found: list[Rendered | None] = []
    texts, skips = [], []
    for row in rows:
        try:
            messages, _ = as_read({"messages": row["prompt"]})
            text, skipped = (_chat(rendering, messages, None, kwargs, prompt=True), 0) if filtered else _rescued(
                rendering, messages, None, kwargs, prompt=True)  # fmt: skip
        except template_errors() as problem:
            found.append(_failed(problem))
            continue
        found.append(None)
        texts.append(text)
        skips.append(skipped)
    pieces = map(_from_token, rendering._encoder.encode(texts), texts, skips)
    made = (Rendered(encoded, np.zeros(len(encoded.ids), np.bool_), text) for encoded, text in pieces)
    return [next(made) if item is None else item for item in found]


def _kwargs(rendering: Rendering) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the template is given besides the chat: special tokens and kwargs; verl's own options)."""
    given = dict(rendering._given)
    own = given.pop(VERL, {})
    return given, own


def _failed(problem: Exception) -> Rendered:
    said = (str(problem).splitlines() or [""])[0][:300] or type(problem).__name__
    return Rendered(EMPTY, np.empty(0, np.bool_), "", said)


def parquet_row(row: dict[str, Any]) -> dict[str, Any]:
    """The payload of an sft row in the shape of verl's SFT dataset: `messages` (each with the keys it has) and, where
    the row has tools, `tools` as a list of JSON schemas."""
    found: dict[str, Any] = {"messages": template_messages(row["messages"])}
    if row.get("tools"):
        found["tools"] = orjson.loads(row["tools"])
    return found


def as_read(row: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """(messages, tools) of a row as verl reads them back from a Parquet file of this row alone. Raises ValueError or
    TypeError where Parquet cannot hold them."""
    given = parquet_row(row)
    messages, tools = given["messages"], given.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise ValueError("tools are a list of JSON schemas")
    if any("tool_calls" in message for message in messages):
        messages = _through_arrow(messages)
    else:
        keys = dict.fromkeys(key for message in messages for key in message)
        messages = [{key: message.get(key) for key in keys} for message in messages]
    return messages, None if tools is None else _through_numpy(_through_arrow(tools))


def _through_arrow(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    array = pa.array([values])
    if _empty_struct(array.type):
        raise ValueError("Parquet cannot hold an object without keys ({}), which verl's rows need")
    found: list[dict[str, Any]] = array.to_pylist()[0]
    return found


def _through_numpy(column: list[Any]) -> list[Any]:
    """Values of one Arrow type as pandas gives them to verl (tools alone go this way): whole numbers become floats
    where the same place is null in another value."""
    filled = [item for item in column if item is not None]
    if filled and isinstance(filled[0], dict):
        places = {key: _through_numpy([None if item is None else item[key] for item in column]) for key in filled[0]}
        return [None if item is None else {key: places[key][number] for key in item}
                for number, item in enumerate(column)]  # fmt: skip
    if filled and isinstance(filled[0], list):
        values = iter(_through_numpy([value for item in filled for value in item]))
        return [None if item is None else [next(values) for _ in item] for item in column]
    if len(filled) < len(column) and filled and type(filled[0]) is int:
        return [None if item is None else float(item) for item in column]
    return column


def _empty_struct(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_empty_struct(field.type) for field in kind)
    return pa.types.is_list(kind) and _empty_struct(kind.value_type)


def _chat(rendering: Rendering, messages: Sequence[dict[str, Any]], tools: list[dict[str, Any]] | None,
          kwargs: dict[str, Any], *, prompt: bool = False) -> str:  # fmt: skip
    """What apply_chat_template writes; unlike Rendering.chat it knows reasoning under the given name alone."""
    if not messages:
        raise ValueError("there is no message to render")
    chat = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": prompt}
    text: str = rendering._compiled.render(**chat, **kwargs)
    return text


def _rescued(rendering: Rendering, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None,
             kwargs: dict[str, Any], *, prompt: bool = False) -> tuple[str, int]:  # fmt: skip
    """(text, its first tokens that do not belong to it) of messages. Where the template raises, verl puts an empty user
    message before them and takes off as many tokens as that one has alone (`apply_chat_template`)."""
    try:
        return _chat(rendering, messages, tools, kwargs, prompt=prompt), 0
    except template_errors():
        prefix = _chat(rendering, _NOBODY, tools, kwargs)
        text = _chat(rendering, [*_NOBODY, *messages], tools, kwargs, prompt=prompt)
        return text, len(rendering._encoder.encode([prefix])[0].ids)


def _edges(rendering: Rendering, kwargs: dict[str, Any]) -> tuple[int, int]:
    """(S, G): tokens that the template writes before the first message, and tokens of the generation prompt, as
    `extract_system_prompt_and_generation` finds them (without verl's enable_thinking_default)."""
    key = (rendering.tokenizer.fingerprint, rendering.template.fingerprint if rendering.template else "",
           orjson.dumps(kwargs, option=orjson.OPT_SORT_KEYS))  # fmt: skip
    if key not in _EDGES:
        empty = {"role": "user", "content": ""}
        texts = [_chat(rendering, [empty], None, kwargs), _chat(rendering, [empty, empty], None, kwargs),
                 _chat(rendering, [empty], None, kwargs, prompt=True)]  # fmt: skip
        one, two, asked = (len(encoded.ids) for encoded in rendering._encoder.encode(texts))
        _EDGES[key] = len(range(one)[: -(two - one)]), max(0, asked - one)
    return _EDGES[key]


def _from_token(encoded: Encoded, text: str, first: int) -> tuple[Encoded, str]:
    """Tokens and text from token `first` on."""
    if not first:
        return encoded, text
    at = int(encoded.starts[first]) if first < len(encoded.ids) else len(text)
    return Encoded(encoded.ids[first:], encoded.ends[first:] - at, encoded.starts[first:] - at), text[at:]


def _join(parts: list[tuple[Encoded, str]]) -> tuple[Encoded, str]:
    offsets = np.cumsum([0, *(len(text) for _, text in parts)], dtype=np.int32)[:-1]
    ids, starts, ends = (
        np.concatenate([getattr(encoded, name) + (0 if name == "ids" else offset)
                        for (encoded, _), offset in zip(parts, offsets, strict=True)]).astype(np.int32)
        for name in ("ids", "starts", "ends")
    )  # fmt: skip
    return Encoded(ids, ends, starts), "".join(text for _, text in parts)
