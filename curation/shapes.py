"""Shapes: how a record of a source becomes the fields of a row. One function per shape, and which shape a record has.

A shape returns the mapped fields and names the record's keys it used; the rest is kept as `meta`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from curation.benchmark_items import benchmark_item
from curation.conversations import Rejected, check_order, json_text, merge_twins, messages, text_of
from curation.pair_records import (
    CHAT_KEYS,
    PROMPTS,
    SIDES,
    Fields,
    add_tools,
    first,
    hh,
    is_rated,
    kto,
    need,
    preference,
    prompt_turns,
    rated,
)
from curation.step_records import is_prm800k, is_stepwise, prm800k, stepwise

THOUGHT_KEYS = ("thinking", "reasoning", "thought", "deepseek_thinking_trajectory", "trace")
SOLUTION_KEYS = ("solution", "attempt", "deepseek_attempt", "response", "answer")
PROBLEM_KEYS = ("problem", "question", "prompt")


@dataclass(frozen=True)
class Shape:
    """A ready shape. `matches` looks at one record's keys and types; `parse` returns (row fields, keys used) or raises
    Rejected. `stages` are those it can fill, the usual one first."""

    name: str
    stages: tuple[str, ...]
    matches: Callable[[Mapping[str, Any]], bool]
    parse: Callable[[Mapping[str, Any], str], tuple[Fields, set[str]]]


def _user_assistant(question: str, answer: str, *, system: str = "", reasoning: str = "") -> list[dict[str, str]]:
    turns = [{"role": "system", "content": system}] if system else []
    reply = {"role": "assistant", "content": answer} | ({"reasoning": reasoning} if reasoning else {})
    return [*turns, {"role": "user", "content": question}, reply]


def _chat(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    key = need(record, CHAT_KEYS, "messages")
    turns = messages(record[key], key)
    used = {key}
    if isinstance(record.get("system"), str) and record["system"] and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": record["system"]})
        used.add("system")
    check_order(turns)
    return add_tools(record, {"messages": turns}, used) if stage != "midtrain" else ({"messages": turns}, used)


def _alpaca(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    question = text_of(record.get("instruction"), "instruction")
    context = record.get("input") or ""
    if context:
        question += "\n\n" + text_of(context, "input")
    turns: list[dict[str, str]] = []
    used = {"instruction", "input", "output"}
    if isinstance(record.get("history"), list):
        used.add("history")
        for old in record["history"]:
            if not isinstance(old, list) or len(old) != 2:
                raise Rejected("'history' holds something else than pairs of question and answer")
            turns += _user_assistant(text_of(old[0], "history"), text_of(old[1], "history"))
    if isinstance(record.get("system"), str) and record["system"]:
        used.add("system")
        turns.insert(0, {"role": "system", "content": record["system"]})
    return {"messages": turns + _user_assistant(question, text_of(record.get("output"), "output"))}, used


def _dolly(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    question = text_of(record.get("instruction"), "instruction")
    if record.get("context"):
        question += "\n\n" + text_of(record["context"], "context")
    answer = text_of(record.get("response"), "response")
    return {"messages": _user_assistant(question, answer)}, {"instruction", "context", "response"}


def _prompt_completion(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    prompt, completion = record.get("prompt"), record.get("completion")
    if isinstance(prompt, list) or isinstance(completion, list):
        turns = messages(prompt, "prompt") + messages(completion, "completion")
        check_order(turns)
    else:
        turns = _user_assistant(text_of(prompt, "prompt"), text_of(completion, "completion"))
    return {"messages": turns}, {"prompt", "completion"}


def _gsm8k(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    question, answer = text_of(record.get("question"), "question"), text_of(record.get("answer"), "answer")
    if "####" not in answer:
        raise Rejected("the answer has no '####' before its final number")
    used = {"question", "answer"}
    if stage == "rlvr":
        final = answer.rpartition("####")[2].strip().replace(",", "")
        return {"prompt": [{"role": "user", "content": question}], "ground_truth": final, "verifier": "numeric",
                "reference_solution": answer}, used  # fmt: skip
    return {"messages": _user_assistant(question, answer)}, used


def _triplet(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    problem, thought = need(record, PROBLEM_KEYS, "problem"), need(record, THOUGHT_KEYS, "thinking")
    solution = need(record, [key for key in SOLUTION_KEYS if key != thought], "solution")
    thinking = record[thought]
    thinking = "\n".join(map(str, thinking)) if isinstance(thinking, list) else text_of(thinking, thought)
    turns = _user_assistant(text_of(record[problem], problem), text_of(record[solution], solution), reasoning=thinking)
    return {"messages": turns}, {problem, thought, solution}


def _generation(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    question = text_of(record.get("question"), "question")
    answers = record.get("code")
    if not isinstance(answers, list) or not answers:
        raise Rejected("'code' holds no answer")
    return {"messages": _user_assistant(question, text_of(answers[0], "code[0]"))}, {"question", "code"}


def _verl(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    prompt = messages(record.get("prompt"), "prompt")
    check_order(prompt, ends=None)
    reward = record.get("reward_model")
    truth = reward.get("ground_truth") if isinstance(reward, dict) else None
    if truth is None or truth == "":
        raise Rejected("reward_model has no ground_truth")
    verifier = text_of(record.get("data_source"), "data_source")
    fields = {"prompt": prompt, "ground_truth": json_text(truth), "verifier": verifier}
    return add_tools(record, fields, {"prompt", "reward_model", "data_source"})


def _verifiable(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    """Rows as kedge itself names them; `pass_rates` is a share or a list of shares."""
    prompt = prompt_turns(record.get("prompt"), "prompt")
    check_order(prompt, ends=None)
    truth = record.get("ground_truth")
    if truth is None or truth == "":
        raise Rejected("has no ground_truth")
    fields: Fields = {"prompt": prompt, "ground_truth": truth if isinstance(truth, str) else json_text(truth)}
    used = {"prompt", "ground_truth"}
    for name in ("verifier", "reference_solution"):
        if record.get(name) is not None:
            fields[name] = text_of(record[name], name)
            used.add(name)
    if record.get("pass_rates") is not None:
        given = record["pass_rates"]
        fields["pass_rates"] = [share(item) for item in (given if isinstance(given, list) else [given])]
        used.add("pass_rates")
    return add_tools(record, fields, used)


def _prompts(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    """A prompt alone: no ground truth and no verifier."""
    key = need(record, PROMPTS, "prompt")
    prompt = prompt_turns(record[key], key)
    check_order(prompt, ends=None)
    if not any(turn.get("content", "").strip() for turn in prompt):
        raise Rejected(f"'{key}' is empty")
    return add_tools(record, {"prompt": prompt}, {key})


def share(value: Any) -> float:
    """A number in 0..1. Raises Rejected for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Rejected(f"pass_rates holds {value!r:.40}, which is no share in 0..1")
    return float(value)


def _text(record: Mapping[str, Any], stage: str) -> tuple[Fields, set[str]]:
    text = text_of(record.get("text"), "text")
    if not text.strip():
        raise Rejected("'text' is empty")
    return {"text": text}, {"text"}


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda record: all(key in record for key in keys)


def _is_generation(record: Mapping[str, Any]) -> bool:
    code = record.get("code")
    return "question" in record and isinstance(code, list) and bool(code) and isinstance(code[0], str)


def _is_transcripts(record: Mapping[str, Any]) -> bool:
    return all(isinstance(record.get(key), str) and record[key].lstrip().startswith("Human:") for key in SIDES)


# In the order of recognition: the first that matches is the shape.
SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("verl", ("rlvr",), _has("prompt", "reward_model", "data_source"), _verl),
        Shape("verifiable", ("rlvr",), lambda record: "prompt" in record and "ground_truth" in record
              and not any(first(record, names) for names in SIDES.values()), _verifiable),
        Shape("prm800k", ("preference",), is_prm800k, prm800k),
        Shape("stepwise", ("preference",), is_stepwise, stepwise),
        Shape("hh_rlhf", ("preference",), _is_transcripts, hh),
        Shape("preference", ("preference",),
              lambda record: all(first(record, names) for names in SIDES.values()), preference),
        Shape("kto", ("preference",), lambda record: isinstance(record.get("label", record.get("kto_tag")), bool)
              and (first(record, CHAT_KEYS) is not None or "completion" in record), kto),
        Shape("rated_generations", ("preference",), is_rated, rated),
        Shape("messages", ("sft", "midtrain"), _has("messages"), _chat),
        Shape("sharegpt", ("sft", "midtrain"), lambda record: first(record, CHAT_KEYS) is not None, _chat),
        Shape("generation", ("sft", "midtrain"), _is_generation, _generation),
        Shape("triplet", ("sft", "midtrain"), lambda record: first(record, THOUGHT_KEYS) is not None
              and first(record, PROBLEM_KEYS) is not None and first(record, SOLUTION_KEYS) is not None, _triplet),
        Shape("gsm8k", ("sft", "rlvr", "midtrain"), lambda record: isinstance(record.get("answer"), str)
              and "####" in record["answer"] and "question" in record, _gsm8k),
        Shape("alpaca", ("sft", "midtrain"), _has("instruction", "output"), _alpaca),
        Shape("dolly", ("sft", "midtrain"), _has("instruction", "response"), _dolly),
        Shape("prompt_completion", ("sft", "midtrain"), _has("prompt", "completion"), _prompt_completion),
        Shape("text", ("midtrain",), _has("text"), _text),
        # Taken where their stage is asked for: an answer under a name of its own must not be lost without a word.
        Shape("prompts", ("rlvr",), lambda record: False, _prompts),
        Shape("benchmark", ("benchmark",), lambda record: False, benchmark_item),
    )
}  # fmt: skip


def recognise(records: Iterable[Mapping[str, Any]]) -> str | None:
    """The shape that most records have; None where most have none. Ties go to the earlier shape of SHAPES."""
    counts: dict[str | None, int] = {}
    for record in records:
        name = next((shape.name for shape in SHAPES.values() if shape.matches(record)), None)
        counts[name] = counts.get(name, 0) + 1
    order = [*SHAPES, None]
    return max(counts, key=lambda name: (counts[name], -order.index(name)), default=None)


def prompt_key(records: Iterable[Mapping[str, Any]]) -> str | None:
    """The key of a prompt, where every record has one of the names of prompts with a value; that of the first."""
    keys = [first(record, PROMPTS) for record in records]
    return keys[0] if keys and all(keys) else None


__all__ = ["PROMPTS", "SHAPES", "Rejected", "Shape", "merge_twins", "prompt_key", "recognise"]
