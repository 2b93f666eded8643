"""Generator `openai_endpoint`: any server that answers /chat/completions (vLLM, SGLang, llama.cpp, a service)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
from pydantic import Field, field_validator

from curation.conversations import Rejected, message
from curation.endpoints import ANSWERED, Connection, Endpoint, plain_url
from curation.generation import ERROR, LENGTH, STOP, Answer, Ask, Generator, Sampling, Writer, stable

if TYPE_CHECKING:
    from curation.catalog import Catalog

BATCH_SECONDS = 0.5  # answers that came together in this time are kept together
REASONS = {"stop": STOP, "tool_calls": STOP, "function_call": STOP, "length": LENGTH}


class OpenAIEndpoint(Generator):
    """`url` ends before /chat/completions; the key is read from the environment variable `key_variable`, where that is
    set. The model's name stands for its weights: give other weights another name. `body` adds fields to every request
    or, as null, takes them away ({max_tokens: null, max_completion_tokens: 512}). Each answer is a request of its own
    with its own seed; whether the same request gives the same answer again is the server's affair. After a row of
    failures (8, or twice `concurrency`) with nothing answered in between, the rest is not asked."""

    version: ClassVar[int] = 1
    url: str
    model: str = Field(min_length=1)
    key_variable: str | None = None
    timeout_seconds: float = Field(default=300.0, gt=0)
    tries: int = Field(default=4, ge=1)
    concurrency: int = Field(default=8, ge=1, le=1024)
    body: dict[str, Any] = {}

    @field_validator("url")
    @classmethod
    def _plain(cls, value: str) -> str:
        return plain_url(value)

    @field_validator("body")
    @classmethod
    def _is_stable(cls, value: dict[str, Any]) -> dict[str, Any]:
        return stable(value)

    def writer(self, catalog: Catalog) -> Writer:
        return Writer(self.model, self.model, {"body": self.body} if self.body else {})

    def generate(self, catalog: Catalog, asks: Sequence[Ask], sampling: Sampling) -> Iterator[list[Answer]]:
        endpoint = Endpoint(url=self.url, key_variable=self.key_variable, timeout_seconds=self.timeout_seconds,
                            tries=self.tries, concurrency=self.concurrency)  # fmt: skip
        todo: deque[Ask] = deque(asks)
        came: SimpleQueue[Answer | BaseException] = SimpleQueue()
        with Connection(endpoint) as connection:

            def work() -> None:
                with contextlib.suppress(IndexError):
                    while True:
                        ask = todo.popleft()
                        try:
                            came.put(self._one(connection, ask, sampling))
                        except BaseException as error:
                            came.put(error)

            for _ in range(min(self.concurrency, len(asks))):  # daemons: an interrupted command does not wait for them
                threading.Thread(target=work, name="generate", daemon=True).start()
            try:
                yield from self._gather(todo, came, len(asks))
            finally:
                todo.clear()

    def _gather(self, todo: deque[Ask], came: SimpleQueue[Answer | BaseException], left: int
                ) -> Iterator[list[Answer]]:  # fmt: skip
        """Answers as they come, those of BATCH_SECONDS together. What is left to do after too many failures is not
        asked."""
        failures = 0
        while left:
            batch: list[Answer] = []
            for answer in _came(came, left):
                batch.append(answer)
                failures = failures + 1 if answer.finish_reason == ERROR else 0
                if failures >= max(8, 2 * self.concurrency):
                    break
            if failures >= max(8, 2 * self.concurrency):
                why = f"not asked, because {failures} answers in a row failed: {batch[-1].detail}"[:300]
                with contextlib.suppress(IndexError):
                    while True:
                        batch.append(_error(todo.popleft(), why))
            left -= len(batch)
            if batch:
                yield batch

    def _one(self, connection: Connection, ask: Ask, sampling: Sampling) -> Answer:
        """One request and what became of it."""
        body: dict[str, Any] = {
            "model": self.model, "messages": [_as_asked(turn) for turn in ask.prompt], "temperature": ask.temperature,
            "top_p": sampling.top_p, "max_tokens": sampling.max_tokens, "seed": ask.seed, "n": 1,
        }  # fmt: skip
        if ask.tools:
            body["tools"] = orjson.loads(ask.tools)
        body = {key: value for key, value in (body | self.body).items() if value is not None}
        reply = connection.post("/chat/completions", body)
        if reply.outcome != ANSWERED:
            return _error(ask, f"{reply.outcome}: {reply.detail}")
        return _answer(ask, reply.value)


def _came(came: SimpleQueue[Answer | BaseException], most: int) -> Iterator[Answer]:
    """What comes within BATCH_SECONDS, so many at most. Raises what a thread raised."""
    end = time.monotonic() + BATCH_SECONDS
    with contextlib.suppress(Empty):
        for _ in range(most):
            item = came.get(timeout=max(0.001, end - time.monotonic()))
            if isinstance(item, BaseException):
                raise item
            yield item


def _as_asked(turn: dict[str, Any]) -> dict[str, Any]:
    """A message as the API takes it: tool calls parsed, earlier thoughts left out, `content` always there."""
    found = {key: value for key, value in turn.items() if key != "reasoning" and value is not None}
    if "tool_calls" in found:
        found["tool_calls"] = orjson.loads(found["tool_calls"])
    return {"content": None} | found


def _answer(ask: Ask, reply: Any) -> Answer:
    """What a reply says. One that holds no answer is an error; one that was cut before it said anything is empty."""
    try:
        choice = reply["choices"][0]
        told = dict(choice["message"])
    except (KeyError, IndexError, TypeError, ValueError):
        return _error(ask, "unreadable: the reply holds no message")
    reason = choice.get("finish_reason") or "stop"
    ended = REASONS.get(reason) if isinstance(reason, str) else None
    content = told.get("content")
    if content is None and told.get("refusal"):
        content = told["refusal"]
    if content is None and ended == LENGTH:
        content = ""
    try:
        said = message(told | {"role": "assistant", "content": content})
    except Rejected as error:
        return _error(ask, f"unreadable: {error}")
    usage = reply.get("usage") if isinstance(reply.get("usage"), dict) else {}
    counts = [usage.get(name) if type(usage.get(name)) is int else None for name in ("prompt_tokens",
                                                                                  "completion_tokens")]  # fmt: skip
    if not _is_text(said):
        return _error(ask, "unreadable: the reply holds half a character (a lone surrogate)")
    detail = "" if ended else f"the endpoint ended it: {reason!r:.40}"
    return Answer(ask.id, said, said.get("content", ""), ended or ERROR, counts[0], counts[1], detail)


def _is_text(said: dict[str, str]) -> bool:
    """Whether the lake can hold a message; JSON may spell half of a character."""
    try:
        return all(value.encode() is not None for value in said.values())
    except UnicodeEncodeError:
        return False


def _error(ask: Ask, detail: str) -> Answer:
    return Answer(ask.id, None, "", ERROR, detail=detail)
