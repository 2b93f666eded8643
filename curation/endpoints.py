"""HTTP endpoints that are asked in JSON: retries, deadlines, bounded replies, and a key that is never told."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from curation.config import Strict
from curation.errors import UserError

if TYPE_CHECKING:
    import httpx
    import tenacity

MAX_REPLY_BYTES = 16 << 20
MAX_PAUSE_SECONDS = 20.0
LOOPBACK = ("localhost", "127.0.0.1", "::1")
ANSWERED = "answered"


class Endpoint(Strict):
    """Where and how to ask. `url` is http(s), on this machine or another; `key_variable` names the environment variable
    that holds the key. A request is tried `tries` times, each for `timeout_seconds` at most, with growing pauses (or
    what the endpoint's Retry-After wants) where the endpoint is overloaded or away: 408, 425, 429, 5xx, no connection,
    no answer in time. `concurrency` bounds the requests under way."""

    url: str
    key_variable: str | None = None
    timeout_seconds: float = Field(default=60.0, gt=0)
    tries: int = Field(default=4, ge=1)
    concurrency: int = Field(default=8, ge=1, le=1024)

    @field_validator("url")
    @classmethod
    def _plain(cls, value: str) -> str:
        return plain_url(value)


def plain_url(value: str) -> str:
    """An http(s) address without what is secret in it, and without a slash at its end. Raises ValueError."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"is no URL: {error}; write http://HOST:PORT/v1") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no http(s) URL; write http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("holds a name, a key or a query; put the key into an environment variable (key_variable)")
    return value.rstrip("/")


@dataclass(frozen=True)
class Reply:
    """What became of a request. `outcome` is `answered` (then `value` is the JSON of the reply), `timeout` (no answer
    within the limits), `endpoint` (it refused, failed or was away) or `unreadable` (its reply is no JSON, or too
    long); `detail` says more, without the key."""

    outcome: str
    value: Any = None
    detail: str = ""


class Connection:
    """Keeps connections to an endpoint until `close`. Threads may share it. Raises UserError where the key cannot be
    sent, or the variable that is named is not set."""

    def __init__(self, endpoint: Endpoint, *, needs_key: bool = True):
        import httpx

        self.endpoint = endpoint
        self._key = _key(endpoint.key_variable, needs_key)
        limits = httpx.Limits(max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency)
        here = urlsplit(endpoint.url).hostname in LOOPBACK  # which no proxy reaches
        self._http = httpx.Client(limits=limits, trust_env=not here, timeout=endpoint.timeout_seconds,
                                  headers={"Authorization": f"Bearer {self._key}"} if self._key else {})  # fmt: skip

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def post(self, path: str, body: Any, *, until: float | None = None) -> Reply:
        """Send JSON to `url` + `path`. `until`, on the clock of time.monotonic, ends all tries and pauses."""
        import httpx
        import tenacity

        end = time.monotonic() + 1e9 if until is None else until
        left = end - time.monotonic()
        if left <= 0:
            return Reply("timeout", detail="no time was left to ask")
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes), wait=_pause(), reraise=True,
            stop=tenacity.stop_after_attempt(self.endpoint.tries) | tenacity.stop_before_delay(left),
        )  # fmt: skip
        try:
            data = retrying(self._once, f"{self.endpoint.url}{path}", body, end)
            return Reply(ANSWERED, json.loads(data))
        except httpx.TimeoutException as error:
            return Reply("timeout", detail=self._told(error))
        except httpx.HTTPError as error:
            return Reply("endpoint", detail=self._told(error))
        except (ValueError, RecursionError) as error:
            return Reply("unreadable", detail=self._told(error))

    def _once(self, url: str, body: Any, end: float) -> bytes:
        """The reply's bytes. A reply that drips is ended at its limit too."""
        import httpx

        limit = min(self.endpoint.timeout_seconds, max(0.001, end - time.monotonic()))
        late = time.monotonic() + limit
        data = bytearray()
        with self._http.stream("POST", url, json=body, timeout=limit) as response:
            for block in response.iter_bytes():
                data += block
                if time.monotonic() > late:
                    raise httpx.ReadTimeout("the reply took too long", request=response.request)
                if len(data) > MAX_REPLY_BYTES:
                    raise ValueError(f"the reply has more than {MAX_REPLY_BYTES >> 20} MiB")
        if not response.is_success:
            told = f"HTTP {response.status_code}: {bytes(data[:300]).decode(errors='replace')}"
            raise httpx.HTTPStatusError(told, request=response.request, response=response)
        return bytes(data)

    def _told(self, error: BaseException) -> str:
        text = f"{type(error).__name__}: {error}"
        return (text.replace(self._key, "***") if self._key else text)[:300]


def _key(variable: str | None, needed: bool) -> str:
    key = os.environ.get(variable or "", "").strip()
    if variable and not key and needed:
        raise UserError(f"the environment variable {variable} is not set", "export it, or leave key_variable out")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"the key in {variable} holds characters that no HTTP header takes", "export it again")
    return key


def _passes(error: BaseException) -> bool:
    """Whether asking again may help."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (408, 425, 429) or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


def _pause() -> Callable[[tenacity.RetryCallState], float]:
    """Seconds to wait before the next try: what the endpoint wants, else growing and random."""
    import tenacity

    growing = tenacity.wait_random_exponential(multiplier=0.25, max=MAX_PAUSE_SECONDS)

    def seconds(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        response: httpx.Response | None = getattr(error, "response", None)
        wanted = response.headers.get("Retry-After", "") if response is not None else ""
        return min(float(wanted), MAX_PAUSE_SECONDS) if wanted.isdecimal() and wanted.isascii() else growing(state)

    return seconds
