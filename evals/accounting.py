"""What became of a sample: right, wrong, truncated, unparsed or error, never mixed.

A thought that was never closed is not searched for an answer: its state is truncated where the budget ended it and
unparsed where the model ended it.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pyarrow as pa

from curation import schema
from curation.errors import InstrumentError
from curation.fingerprint import hash_bytes
from evals import Request, Response
from evals.benchmarks import LETTERS, Benchmark, Item, Task

MAX_ERROR_SHARE = 0.01

_CANNOT = r"can(?:no|')t|cannot|am unable to|'?m unable to|won'?t|will not"
_REFUSAL = re.compile(
    rf"^\W*(?:i'?m (?:really |very )?sorry|(?:i )?apologi[sz]e|sorry,|as an ai\b|"
    rf"i (?:{_CANNOT}) (?:help|assist|answer|provide|do|comply|create|write))",
    re.IGNORECASE,
)


class Account(NamedTuple):
    """State, score (0..1), parsed answer, finish reason (stop | length | error), refusal tag and what went wrong."""

    state: str
    score: float
    answer: str | None
    finish_reason: str
    refused: bool = False
    detail: str | None = None


def after_thought(
    text: str, think: tuple[str, str] | None, *, opened: bool = False, finished: bool = True
) -> str | None:
    """The answer's text: what follows the last closing mark. None inside an unclosed thought.

    `opened` says that the prompt opened the thought. A mark that opens again after answer text is a quotation where the
    model ended by itself: the text before it is the answer. Where the budget ended the response, it is an unclosed
    thought.
    """
    if think is None:
        return text
    _, closed, rest = text.rpartition(think[1])
    if not closed and opened:
        return None
    head, again, _ = rest.partition(think[0])
    if not again:
        return rest
    return head if head.strip() and finished else None


def answer_of(response: Response, think: tuple[str, str] | None, opened: bool, tokenizer: Any = None) -> str | None:
    """`after_thought` of a response. Where both marks are single tokens of the tokenizer, only those tokens are marks:
    the same characters spelled with other tokens are a quotation."""
    ids = response.token_ids
    marks = None if think is None or tokenizer is None else tokenizer.convert_tokens_to_ids(list(think))
    if think is None or marks is None or None in marks or tokenizer.unk_token_id in marks or not ids:
        return after_thought(response.text, think, opened=opened, finished=response.finished)
    begin, end = marks
    last = max((place for place, token in enumerate(ids) if token == end), default=-1)
    if last < 0 and opened:
        return None
    rest = list(ids[last + 1 :])
    if begin in rest:
        if not (response.finished and tokenizer.decode(rest[: rest.index(begin)]).strip()):
            return None
        rest = rest[: rest.index(begin)]
    return str(tokenizer.decode(rest, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def cut_at_stop(text: str, stop: list[str]) -> tuple[str, bool]:
    """`text` up to the first stop text after its first visible character, and whether one was found."""
    lead = len(text) - len(text.lstrip())
    places = [place for place in (text.find(mark, lead) for mark in stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def account(benchmark: Benchmark, item: Item, response: Response, prompt: str, tokenizer: Any = None) -> Account:
    """What became of one sample of one item."""
    if response.problem:
        return Account("error", 0.0, None, "error", detail=response.problem)
    if benchmark.kind == "choice":
        return _account_choice(item, response)
    opened = benchmark.think is not None and prompt.rstrip().endswith(benchmark.think[0])
    text = answer_of(response, benchmark.think, opened, tokenizer)
    stopped = False
    if text is not None:
        text, stopped = cut_at_stop(text, benchmark.stop)
    if not (response.finished or stopped):
        return Account("truncated", 0.0, None, "length")
    if text is None:
        return Account("unparsed", 0.0, None, "stop", detail="the thought was never closed")
    refused = bool(_REFUSAL.search(text))
    try:
        state, answer = benchmark.judge(text, item.gold)
    except (ValueError, RecursionError) as error:
        return Account("error", 0.0, None, "error", detail=f"the verifier failed: {error}")
    return Account(state, float(state == "right"), answer, "stop", refused and state != "right")


def _account_choice(item: Item, response: Response) -> Account:
    if len(response.logprobs) != len(item.options) or any(value != value for value in response.logprobs):
        return Account("error", 0.0, None, "error", detail="the harness returned no log-probability for an option")
    best = max(range(len(item.options)), key=lambda index: (response.logprobs[index], -index))
    state = "right" if best == item.gold_index else "wrong"
    return Account(state, float(state == "right"), LETTERS[best] if best < len(LETTERS) else str(best), "stop")


def score_table(
    task: Task, requests: tuple[Request, ...], responses: list[Response], tokenizer: Any = None
) -> pa.Table:
    """One row of `schema.SCORES` per item and repeat. Raises InstrumentError where the number of responses is another
    than that of the requests, or more than one in a hundred is an error."""
    by_key = {(response.sample_id, response.repeat): response for response in responses}
    wanted = {(request.sample_id, request.repeat) for request in requests}
    if len(responses) != len(requests) or set(by_key) != wanted or len(requests) != task.num_samples:
        raise InstrumentError(
            f"{task.name}: {len(responses)} responses to {task.num_samples} samples "
            f"({len(wanted - set(by_key))} missing, {len(set(by_key) - wanted)} never asked for)",
            "run kedge eval again; if it stays, the harness loses samples and its scores may not be read",
        )
    items = {item.sample_id: item for item in task.items}
    rows = [_row(task, items[request.sample_id], request, by_key[request.sample_id, request.repeat], tokenizer)
            for request in requests]  # fmt: skip
    errors = [row for row in rows if row["state"] == "error"]
    if len(errors) > MAX_ERROR_SHARE * len(rows):
        raise InstrumentError(
            f"{task.name}: {len(errors)} of {len(rows)} samples are errors of the instrument (first: "
            f"{errors[0]['sample_id']}: {errors[0]['detail']})",
            "mend the cause; no score is stored",
        )
    return pa.Table.from_pylist(rows, schema=schema.SCORES)


def _row(task: Task, item: Item, request: Request, response: Response, tokenizer: Any) -> dict[str, Any]:
    result = account(task.benchmark, item, response, request.prompt, tokenizer)
    return {
        "benchmark": task.name,
        "sample_id": request.sample_id,
        "repeat": request.repeat,
        "cluster": item.cluster,
        "gold": item.gold,
        "response": response.text,
        "output_tokens": len(response.token_ids),
        "prompt_tokens": len(request.prompt_ids),
        "prompt_hash": hash_bytes(request.prompt.encode("utf-8", "surrogatepass")),
        "prompt": request.prompt,
    } | result._asdict()


def accuracy(table: pa.Table) -> float | None:
    """Mean score over all samples that are no errors (c / (c + w + t + u) for right-or-wrong benchmarks)."""
    scores = [score for score, state in zip(table["score"].to_pylist(), table["state"].to_pylist(), strict=True)
              if state != "error"]  # fmt: skip
    return sum(scores) / len(scores) if scores else None
