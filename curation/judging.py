"""The one judge over an OpenAI-compatible endpoint: grades of answers and of steps, and verdicts in both slot orders.

Requests are the same for the same question (temperature 0, a seed), and replies are kept as files by what was asked:
nothing is asked twice, and a killed run goes on where it was. A judge is no verifier: what it says is an opinion, and
a reply that cannot be read, or none at all, is an outcome and never a grade.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import Field

from curation.config import Strict
from curation.endpoints import ANSWERED, Connection, Endpoint
from curation.errors import UserError
from curation.fingerprint import fingerprint
from curation.judge_files import JudgeFile, Messages

URL, MODEL, KEY = "KEDGE_JUDGE_URL", "KEDGE_JUDGE_MODEL", "KEDGE_JUDGE_KEY"
READ, UNPARSED = "read", "unparsed"


class JudgeSettings(Strict):
    """How a judge is reached. `url` (ends before /chat/completions) and `model` are by default those of the environment
    variables KEDGE_JUDGE_URL and KEDGE_JUDGE_MODEL; the key is read from `key_variable` alone, where that is set.
    `body` adds fields to a request or, as null, takes them away ({max_tokens: null, max_completion_tokens: 2048}).
    `cache` is a folder for replies; in it the model's name stands for its weights: give other weights another name.
    `repair`: a reply that cannot be read is asked for once more."""

    url: str | None = None
    model: str | None = None
    key_variable: str = KEY
    timeout_seconds: float = Field(default=60.0, gt=0)
    tries: int = Field(default=4, ge=1)
    concurrency: int = Field(default=8, ge=1, le=1024)
    max_tokens: int = Field(default=2048, ge=1)
    seed: int = 0
    repair: bool = True
    cache: str | None = None
    body: dict[str, Any] = {}


class Answer(NamedTuple):
    """What became of a question. `outcome` is `read` (then `value` is what the reply says), `unparsed` (it cannot be
    read), `timeout` or `endpoint` (see endpoints.Reply); `reply` is its text, and `detail` what went wrong."""

    value: Any
    outcome: str
    reply: str = ""
    detail: str = ""


class Verdict(NamedTuple):
    """What both slot orders together say of a pair. `value` is `first`, `second`, `tie` or `both_bad` where both say
    so, else None. `outcome` is `consistent`, `inconsistent`, or what became of a question that was not read. `votes`
    holds what was said with the first answer in slot A, and then in slot B; `slot` is A or B where the judge took that
    slot in both orders, which is position bias and no preference."""

    value: str | None
    outcome: str
    votes: tuple[str | None, str | None]
    slot: str | None
    replies: tuple[str, str]


@dataclass(frozen=True)
class Question:
    """What a judge is asked by one file."""

    file: JudgeFile
    given: Mapping[str, Any]

    def read(self, text: str) -> Any:
        return self.file.read(text, len(self.given.get("steps", ())))


class Judge:
    """Asks a judge until `close`. `counts` has outcomes, `requests` how many were sent, `cached` how many replies were
    there already. Raises UserError where no endpoint or model is named."""

    def __init__(self, settings: JudgeSettings):
        url, model = settings.url or os.environ.get(URL, ""), settings.model or os.environ.get(MODEL, "")
        for value, key, variable in ((url, "url", URL), (model, "model", MODEL)):
            if not value:
                raise UserError(f"the judge has no {key}", f"set it, or the environment variable {variable}", key=key)
        self.settings, self.model = settings, model
        try:
            endpoint = Endpoint(url=url, key_variable=settings.key_variable, timeout_seconds=settings.timeout_seconds,
                                tries=settings.tries, concurrency=settings.concurrency)  # fmt: skip
        except ValueError as error:
            raise UserError("the address of the judge cannot be used", "write http://HOST:PORT/v1 without key or query",
                            key="url") from error  # fmt: skip
        self.connection = Connection(endpoint, needs_key=False)
        self.cache = Path(settings.cache) if settings.cache else None
        self.counts: Counter[str] = Counter()
        self.requests = self.cached = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def score(self, file: JudgeFile, pairs: Sequence[tuple[str, str]], wall_seconds: float | None = None
              ) -> list[Answer]:  # fmt: skip
        """Of N (prompt, answer) a number of the file's scale each."""
        return self.ask([Question(file, {"prompt": prompt, "answer": answer}) for prompt, answer in pairs],
                        wall_seconds)  # fmt: skip

    def steps(self, file: JudgeFile, items: Sequence[tuple[str, Sequence[str]]], wall_seconds: float | None = None
              ) -> list[Answer]:  # fmt: skip
        """Of N (prompt, steps) a list of numbers of the file's scale each, one for each step."""
        return self.ask([Question(file, {"prompt": prompt, "steps": list(steps)}) for prompt, steps in items],
                        wall_seconds)  # fmt: skip

    def compare(self, file: JudgeFile, items: Sequence[tuple[str, str, str]], wall_seconds: float | None = None
                ) -> list[Verdict]:  # fmt: skip
        """Verdicts on N (prompt, first, second), each asked in both slot orders. Only what both orders say is a
        verdict: a judge that prefers a slot says nothing (Zheng et al. 2023, MT-Bench, section 3.4)."""
        orders = [Question(file, {"prompt": prompt, "first": one, "second": other})
                  for prompt, first, second in items for one, other in ((first, second), (second, first))]  # fmt: skip
        answers = self.ask(orders, wall_seconds)
        return [_verdict(*pair) for pair in zip(answers[::2], answers[1::2], strict=True)]

    def ask(self, questions: Sequence[Question], wall_seconds: float | None = None) -> list[Answer]:
        """Answers in order; the same question is asked once. After `wall_seconds` what is left is `timeout`."""
        until = None if wall_seconds is None else time.monotonic() + wall_seconds
        keys = [fingerprint([question.file.model_dump(), dict(question.given)]) for question in questions]
        unique = dict(zip(keys, questions, strict=True))
        pool = ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="judge")
        try:
            jobs = {key: pool.submit(self._one, question, until) for key, question in unique.items()}
            found = {key: job.result() for key, job in jobs.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
        with self._lock:
            self.counts.update(found[key].outcome for key in keys)
        return [found[key] for key in keys]

    def _one(self, question: Question, until: float | None) -> Answer:
        messages = question.file.messages(**question.given)
        answer = self._said(messages, question.read, until)
        if answer.outcome == UNPARSED and answer.reply and self.settings.repair:
            again = [{"role": "assistant", "content": answer.reply}, question.file.repair_message(**question.given)]
            return self._said([*messages, *again], question.read, until)
        return answer

    def _said(self, messages: Messages, read: Callable[[str], Any], until: float | None) -> Answer:
        body: dict[str, Any] = {"model": self.model, "messages": messages, "temperature": 0,
                                "seed": self.settings.seed, "max_tokens": self.settings.max_tokens}  # fmt: skip
        body = {key: value for key, value in (body | self.settings.body).items() if value is not None}
        text = self._kept(body)
        if text is None:
            with self._lock:
                self.requests += 1
            reply = self.connection.post("/chat/completions", body, until=until)
            if reply.outcome != ANSWERED:
                outcome = UNPARSED if reply.outcome == "unreadable" else reply.outcome
                return Answer(None, outcome, detail=reply.detail)
            text = _content(reply.value)
            if text is None:
                return Answer(None, UNPARSED, detail="the reply holds no message with text")
            self._keep(body, text)
        else:
            with self._lock:
                self.cached += 1
        value = read(text)
        if value is None:
            return Answer(None, UNPARSED, text, "the reply does not end as it was asked to")
        return Answer(value, READ, text)

    def _file(self, body: Mapping[str, Any]) -> Path | None:
        digest = fingerprint(body)
        return self.cache / digest[:2] / f"{digest[2:]}.json" if self.cache is not None else None

    def _kept(self, body: Mapping[str, Any]) -> str | None:
        """The reply that is there already. A file that is broken or belongs to another question is none."""
        path = self._file(body)
        if path is None or not path.is_file():
            return None
        try:
            record = orjson.loads(path.read_bytes())
            same = record["asked"] == orjson.loads(orjson.dumps(body)) and isinstance(record["reply"], str)
            return record["reply"] if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, body: Mapping[str, Any], text: str) -> None:
        path = self._file(body)
        if path is None:
            return
        data = orjson.dumps({"asked": body, "reply": text})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as draft:
                draft.write(data)
            Path(draft.name).replace(path)
        except OSError as error:
            raise UserError(f"the judge's reply cannot be kept: {error.strerror}", "free space, or name another cache",
                            where=str(self.cache)) from error  # fmt: skip


def _content(reply: Any) -> str | None:
    try:
        text = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) and text.strip() else None


def _verdict(straight: Answer, swapped: Answer) -> Verdict:
    votes = ({"A": "first", "B": "second"}.get(straight.value, straight.value),
             {"A": "second", "B": "first"}.get(swapped.value, swapped.value))  # fmt: skip
    replies = (straight.reply, swapped.reply)
    unread = next((answer.outcome for answer in (straight, swapped) if answer.outcome != READ), None)
    if unread is not None:
        return Verdict(None, unread, votes, None, replies)
    if votes[0] == votes[1]:
        return Verdict(votes[0], "consistent", votes, None, replies)
    slot = straight.value if straight.value == swapped.value and straight.value in ("A", "B") else None
    return Verdict(None, "inconsistent", votes, slot, replies)
