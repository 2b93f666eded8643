"""Records of preferences -> the fields of a preference row: pairs, transcripts, lone answers with a label, and several
answers with ratings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from curation.conversations import (
    Rejected,
    check_order,
    json_text,
    message,
    messages,
    split_pair,
    text_of,
    transcript,
)  # fmt: skip

Fields = dict[str, Any]
Turns = list[dict[str, str]]
CHAT_KEYS = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "question", "instruction", "input", "query")
SIDES = {
    "chosen": ("chosen", "chosen-response", "chosen_response", "response_chosen", "chosen-answer"),
    "rejected": ("rejected", "rejected-response", "rejected_response", "response_rejected", "rejected-answer"),
}
SCORES = {"margin": ("margin",), "chosen_score": ("chosen-rating", "chosen_rating", "chosen_score", "score_chosen"),
          "rejected_score": ("rejected-rating", "rejected_rating", "rejected_score", "score_rejected")}  # fmt: skip
GENERATION = re.compile(r"generations-(\d+)")


def first(record: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    """The first of `keys` that the record has with a value."""
    return next((key for key in keys if record.get(key) is not None), None)


def need(record: Mapping[str, Any], keys: Iterable[str], what: str) -> str:
    """`first`, or Rejected naming `what`."""
    found = first(record, keys)
    if found is None:
        raise Rejected(f"has no {what}")
    return found


def prompt_turns(value: Any, name: str) -> Turns:
    """A prompt that is messages, or the text of a user turn. Raises Rejected."""
    return messages(value, name) if isinstance(value, list) else [{"role": "user", "content": text_of(value, name)}]


def add_tools(record: Mapping[str, Any], fields: Fields, used: set[str]) -> tuple[Fields, set[str]]:
    """`fields` and `used` with the record's `tools` as JSON text, where it has any. Raises Rejected."""
    if "tools" in record:
        tools = json_text(record["tools"])
        fields["tools"] = None if tools in ("", "[]", "null") else tools
        used.add("tools")
    return fields, used


def hh(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    """Two transcripts as hh-rlhf has them. Raises Rejected."""
    sides = [transcript(text_of(record.get(key), key)) for key in ("chosen", "rejected")]
    return _pair(*split_pair(*sides)), {"chosen", "rejected"}


def _pair(prompt: Turns, chosen: Turns, rejected: Turns) -> Fields:
    check_order([*prompt, *chosen], ends=None)
    check_order([*prompt, *rejected], ends=None)
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if side[-1]["role"] != "assistant":
            raise Rejected(f"the last turn of '{name}' is {side[-1]['role']}, not assistant")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _side(value: Any, name: str) -> Turns:
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if isinstance(value, dict):
        return [message(value)]
    return messages(value, name)


def _embeds(chosen: Turns, rejected: Turns, prompt: Any) -> bool:
    """Whether both sides are whole conversations. A prompt of messages that both do not begin with is what was said
    before them."""
    if len(chosen) < 2 or len(rejected) < 2 or chosen[0] != rejected[0] or chosen[0]["role"] == "assistant":
        return False
    if not isinstance(prompt, list):
        return True
    try:
        turns = messages(prompt, "prompt")
    except Rejected:
        return True
    return turns in (chosen[: len(turns)], rejected[: len(turns)]) or turns[-1]["role"] != "assistant"


def preference(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    """A pair with its prompt beside it or inside of both sides; scores, `system` and `tools` where there are some.
    Raises Rejected."""
    keys = {side: need(record, names, side) for side, names in SIDES.items()}
    chosen, rejected = (_side(record[keys[side]], side) for side in ("chosen", "rejected"))
    used = set(keys.values())
    prompt: Turns = []
    chat = first(record, CHAT_KEYS)
    asked = chat or first(record, PROMPTS)
    if _embeds(chosen, rejected, None if asked is None or chat is not None else record[asked]):
        prompt, chosen, rejected = split_pair(chosen, rejected)
        if asked is not None and chat is None:
            used.add(asked)
    elif asked is not None:
        prompt = prompt_turns(record[asked], asked)
        used.add(asked)
    else:
        raise Rejected("has no prompt, neither beside nor inside of chosen and rejected")
    if isinstance(record.get("system"), str) and record["system"] and prompt[0]["role"] != "system":
        prompt.insert(0, {"role": "system", "content": record["system"]})
        used.add("system")
    fields = _pair(prompt, chosen, rejected)
    for name, candidates in SCORES.items():
        key = first(record, candidates)
        if key is not None and isinstance(record[key], int | float):
            fields[name] = _finite(record[key], key)
            used.add(key)
    return add_tools(record, fields, used)


def _finite(value: float, name: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Rejected(f"'{name}' is no finite number")
    return number


def kto(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    """A lone answer that is labelled true (chosen) or false (rejected). Raises Rejected."""
    label = record.get("label", record.get("kto_tag"))
    if not isinstance(label, bool):
        raise Rejected("'label' is not true or false")
    used = {"label" if "label" in record else "kto_tag"}
    key = first(record, CHAT_KEYS)
    if key is not None:
        turns = messages(record[key], key)
        check_order(turns)
        prompt, answer = turns[:-1], turns[-1:]
        used.add(key)
    else:
        prompt = prompt_turns(record.get("prompt"), "prompt")
        answer = _side(record.get("completion"), "completion")
        used |= {"prompt", "completion"}
    fields: Fields = {"prompt": prompt, "chosen": answer if label else None, "rejected": None if label else answer}
    return add_tools(record, fields, used)


def is_rated(record: Mapping[str, Any]) -> bool:
    """Several answers with a rating each, as distilabel writes them: the lists `generations` and `ratings`, or (as its
    PreferenceToArgilla shows them) `generations-0`, `generations-0-rating` and so on."""
    if first(record, PROMPTS) is None:
        return False
    if isinstance(record.get("generations"), list) and isinstance(record.get("ratings"), list):
        return True
    return "generations-0" in record and any(key.startswith("generations-0-rating") for key in record)


def rated(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    """The best rated answer as chosen, the worst rated as rejected, the first of equals. What people answered counts
    (the mean of several), else what was suggested to them. Answers that take no part stay in meta. Raises Rejected
    where fewer than two are rated, or all alike."""
    asked = need(record, PROMPTS, "prompt")
    found, lists = [], isinstance(record.get("generations"), list)
    if lists:
        texts, ratings = record["generations"], record["ratings"]
        if not isinstance(ratings, list) or len(texts) != len(ratings):
            raise Rejected("'generations' and 'ratings' are not lists of one length")
        found = [(_rating(rating), place, text, {"generations", "ratings"} if len(texts) == 2 else set())
                 for place, (text, rating) in enumerate(zip(texts, ratings, strict=True))]  # fmt: skip
    else:
        for key in record:
            if match := GENERATION.fullmatch(key):
                rating, keys = _answered(record, f"{key}-rating")
                found.append((rating, int(match[1]), record[key], {key, *keys}))
    rates = [(rating, -place, text, keys) for rating, place, text, keys in found if rating is not None]
    if len(rates) < 2:
        raise Rejected(f"{len(rates)} of its {len(found)} answers are rated")
    best, worst = max(rates, key=lambda rate: rate[:2]), min(rates, key=lambda rate: (rate[0], -rate[1]))
    if best[0] == worst[0]:
        raise Rejected(f"all its answers are rated {best[0]:g}, which makes none the better one")
    turns = [_side(text_of(rate[2], "generations"), "generations") for rate in (best, worst)]
    fields = _pair(prompt_turns(record[asked], asked), *turns)
    fields |= {"chosen_score": best[0], "rejected_score": worst[0]}
    return add_tools(record, fields, {asked, *best[3], *worst[3]})


def _answered(record: Mapping[str, Any], question: str) -> tuple[float | None, set[str]]:
    """(rating, keys used) of one question."""
    status = f"{question}.responses.status"
    for key in (f"{question}.responses", question, f"{question}.suggestion", f"{question}-suggestion"):
        rating = _rating(record.get(key), record.get(status) if key.endswith(".responses") else None)
        if rating is not None:
            return rating, {key}
    return None, set()


def _rating(value: Any, statuses: Any = None) -> float | None:
    """A number, text of one, {value: number}, or the mean of a list of such, without those that were not submitted."""
    if isinstance(value, dict):
        return _rating(value.get("value")) if value.get("status") in (None, "submitted") else None
    if isinstance(value, list):
        known = statuses if isinstance(statuses, list) and len(statuses) == len(value) else ["submitted"] * len(value)
        numbers = [_rating(item) for item, status in zip(value, known, strict=True) if status == "submitted"]
        told = [number for number in numbers if number is not None]
        return sum(told) / len(told) if told else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return _finite(value, "rating")
