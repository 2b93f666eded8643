"""What became of a sample: right, wrong, truncated, unparsed, timeout or error, never mixed.

A thought that was never closed is not searched for an answer: its state is truncated where the budget ended it and
unparsed where the model ended it. An answer whose comparison was killed at its limit is a timeout: it scores 0 as one
that was cut does, and is not called wrong. Mathematics is compared in processes of its own, all samples of a task at
once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from curation import schema
from curation.errors import InstrumentError
from curation.fingerprint import hash_bytes
from curation.verifiers import Judgement, math, named
from curation.verifiers.pool import Workers
from evals import Request, Response
from evals.benchmarks import LETTERS, Benchmark, Item, Task

MAX_ERROR_SHARE = 0.01
COMPARING_FAILED = "the verifier failed: the gold answer does not parse, or its process died twice"
COMPARED_EACH = 32  # comparisons that are worth a process

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


class Written(NamedTuple):
    """The text of an answer that its verifier judges, and its gold answer; the item's own verifier and its prompt where
    it has one."""

    text: str
    gold: str
    verifier: str | None = None
    prompt: str = ""


def account(benchmark: Benchmark, item: Item, response: Response, prompt: str, tokenizer: Any = None) -> Account:
    """What became of one sample of one item. A comparison of mathematics starts a process of its own."""
    found = read(benchmark, item, response, prompt, tokenizer)
    return judged(benchmark, [found])[0] if isinstance(found, Written) else found


def read(
    benchmark: Benchmark, item: Item, response: Response, prompt: str, tokenizer: Any = None
) -> Account | Written:  # fmt: skip
    """What became of one sample before any verdict: its account where there is nothing to judge, else its answer."""
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
    return Written(text, item.gold, item.verifier, item.question if item.verifier else "")


def judged(benchmark: Benchmark, answers: Sequence[Written], workers: int = 1) -> list[Account]:
    """The accounts of N answers of one benchmark, in order. What math-verify must compare is asked of up to `workers`
    processes, which may be killed one by one. Raises WorkersFailed where they cannot run."""
    if benchmark.kind == "reward":
        return _graded(answers, workers)
    found: list[Judgement | math.Comparison | str] = []
    for answer in answers:
        try:
            found.append(benchmark.judge(answer.text, answer.gold))
        except (ValueError, RecursionError) as error:
            found.append(f"the verifier failed: {error}")
    compared = [item for item in found if isinstance(item, math.Comparison)]
    with Workers(max(1, min(workers, len(compared) // COMPARED_EACH))) as pool:
        states = iter(named.compare([named.question(item) for item in compared], pool))
    return [_account_text(answer.text, next(states) if isinstance(item, math.Comparison) else None, item)
            for answer, item in zip(answers, found, strict=True)]  # fmt: skip


def _graded(answers: Sequence[Written], workers: int) -> list[Account]:
    """The accounts of answers that are judged by their items' own verifiers; a share that is right counts."""
    items = [named.Item(answer.verifier or "", answer.text, answer.gold, answer.prompt) for answer in answers]
    with Workers(max(1, min(workers, len(items) // COMPARED_EACH))) as pool:
        graded = named.grade_all(items, pool)
    found = []
    for answer, (judgement, share, detail) in zip(answers, graded, strict=True):
        made = _account_text(answer.text, None, judgement)
        score = share if made.state in ("right", "wrong") else 0.0
        found.append(made._replace(score=score, detail=detail or made.detail))
    return found


def _account_text(text: str, compared: str | None, found: Judgement | math.Comparison | str) -> Account:
    """The account of an answer's text by its verdict; of a comparison, by the state `compared`."""
    if isinstance(found, str):
        return Account("error", 0.0, None, "error", detail=found)
    state: str
    if isinstance(found, Judgement):
        state, answer = found
    else:
        assert compared is not None
        state, answer = compared, None if compared == "unparsed" else found.shown
    if state == "error":
        return Account(state, 0.0, answer, "error", detail=COMPARING_FAILED)
    detail = "the verifier was killed at its limit of time" if state == "timeout" else None
    refused = state != "right" and bool(_REFUSAL.search(text))
    return Account(state, float(state == "right"), answer, "stop", refused, detail)


def _account_choice(item: Item, response: Response) -> Account:
    if len(response.logprobs) != len(item.options) or any(value != value for value in response.logprobs):
        return Account("error", 0.0, None, "error", detail="the harness returned no log-probability for an option")
    best = max(range(len(item.options)), key=lambda index: (response.logprobs[index], -index))
    state = "right" if best == item.gold_index else "wrong"
    return Account(state, float(state == "right"), LETTERS[best] if best < len(LETTERS) else str(best), "stop")


def score_table(
    task: Task, requests: tuple[Request, ...], responses: list[Response], tokenizer: Any = None, workers: int = 1
) -> pa.Table:
    """One row of `schema.SCORES` per item and repeat; mathematics is compared in up to `workers` processes. Raises
    InstrumentError where the number of responses is another than that of the requests, or more than one in a hundred
    is an error."""
    by_key = {(response.sample_id, response.repeat): response for response in responses}
    wanted = {(request.sample_id, request.repeat) for request in requests}
    if len(responses) != len(requests) or set(by_key) != wanted or len(requests) != task.num_samples:
        raise InstrumentError(
            f"{task.name}: {len(responses)} responses to {task.num_samples} samples "
            f"({len(wanted - set(by_key))} missing, {len(set(by_key) - wanted)} never asked for)",
            "run kedge eval again; if it stays, the harness loses samples and its scores may not be read",
        )
    items = {item.sample_id: item for item in task.items}
    answered = [by_key[request.sample_id, request.repeat] for request in requests]
    found = [read(task.benchmark, items[request.sample_id], response, request.prompt, tokenizer)
             for request, response in zip(requests, answered, strict=True)]  # fmt: skip
    verdicts = iter(judged(task.benchmark, [item for item in found if isinstance(item, Written)], workers))
    rows = [_row(task, items[request.sample_id], request, response,
                 next(verdicts) if isinstance(item, Written) else item)
            for request, response, item in zip(requests, answered, found, strict=True)]  # fmt: skip
    errors = [row for row in rows if row["state"] == "error"]
    if len(errors) > MAX_ERROR_SHARE * len(rows):
        raise InstrumentError(
            f"{task.name}: {len(errors)} of {len(rows)} samples are errors of the instrument (first: "
            f"{errors[0]['sample_id']}: {errors[0]['detail']})",
            "mend the cause; no score is stored",
        )
    return pa.Table.from_pylist(rows, schema=schema.SCORES)


def _row(task: Task, item: Item, request: Request, response: Response, result: Account) -> dict[str, Any]:
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
    """Mean score over all samples that are no errors: right / (right + wrong + truncated + unparsed + timeout) where an
    answer is right or not."""
    scores = [score for score, state in zip(table["score"].to_pylist(), table["state"].to_pylist(), strict=True)
              if state != "error"]  # fmt: skip
    return sum(scores) / len(scores) if scores else None
