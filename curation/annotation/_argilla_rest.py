"""Argilla's REST interface: one connection, retries, and errors that say what to do. It knows no dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from curation.endpoints import LOOPBACK, plain_url
from curation.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import httpx

TRIES = 7  # with growing pauses some ten seconds, in which a server that was restarted is back
MAX_PAUSE_SECONDS = 8.0
TIMEOUT_SECONDS = 120.0
PAGE = 1_000  # records a page; the server allows no more


class Refused(Exception):
    """The server answered, and said no. `status` is HTTP's, `detail` what it said."""

    def __init__(self, status: int, detail: str):
        super().__init__(f"HTTP {status}: {detail}")
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Argilla:
    """A server that is connected to, and who the key belongs to (`id`, `username`, `role`)."""

    url: str
    http: httpx.Client = field(repr=False)
    user: dict[str, Any]

    @property
    def is_owner(self) -> bool:
        return self.user["role"] == "owner"

    def ask(self, method: str, path: str, body: Any = None, *, tries: int = TRIES,
            parameters: Mapping[str, Any] | None = None) -> Any:  # fmt: skip
        """The JSON of a reply. What can be sent twice is tried again where the server is overloaded, failing or away;
        a POST only where it was not reached. Raises Refused, and UserError where the server stays away."""
        import httpx

        try:
            return _ask(self.http, method, f"{self.url}/api/v1{path}", body, tries, parameters or {})
        except httpx.HTTPError as error:
            raise _away(self.url, error) from error


@contextlib.contextmanager
def connected(url: str, key: str) -> Iterator[Argilla]:
    """A connection for the length of a block. Raises UserError: a wrong address, nothing there, another program there,
    or a key that is refused. The key shows nowhere."""
    import httpx

    try:
        url = plain_url(url)
    except ValueError as error:
        raise UserError(f"the address of Argilla {error}", key="ARGILLA_API_URL") from error
    if not key.isascii() or not key.isprintable():
        raise UserError("the key holds characters that no HTTP header takes", "set it again", key="ARGILLA_API_KEY")
    here = urlsplit(url).hostname in LOOPBACK  # which no proxy reaches
    with httpx.Client(headers={"X-Argilla-Api-Key": key}, trust_env=not here, timeout=TIMEOUT_SECONDS) as http:
        try:
            user = _ask(http, "GET", f"{url}/api/v1/me", None, 3, {})
        except httpx.HTTPError as error:
            raise _away(url, error) from error
        except Refused as error:
            if error.status in (401, 403):
                raise UserError(f"Argilla at {url} refuses the API key", "set ARGILLA_API_KEY to the key that Argilla "
                                "shows under your settings", key="ARGILLA_API_KEY") from error  # fmt: skip
            raise UserError(f"{url} does not answer like Argilla 2: {error}", "check ARGILLA_API_URL") from error
        if not isinstance(user, dict) or not {"id", "username", "role"} <= set(user):
            raise UserError(f"{url} does not answer like Argilla 2", "check ARGILLA_API_URL")
        try:
            yield Argilla(url, http, {name: user[name] for name in ("id", "username", "role")})
        except Refused as error:
            step = "use an owner's key, or an admin's of the workspace" if error.status == 403 else "see its log"
            raise UserError(f"Argilla at {url} said no: {error}", step) from error


def _ask(http: httpx.Client, method: str, url: str, body: Any, tries: int, parameters: Mapping[str, Any]
         ) -> Any:  # fmt: skip
    import httpx
    import orjson
    import tenacity

    def passes(error: BaseException) -> bool:
        if isinstance(error, Refused):
            return method != "POST" and (error.status in (408, 425, 429) or error.status >= 500)
        return isinstance(error, httpx.ConnectError if method == "POST" else httpx.TransportError)

    def once() -> Any:
        content = None if body is None else orjson.dumps(body)
        reply = http.request(method, url, content=content, params=parameters or None,
                             headers={"Content-Type": "application/json"} if content is not None else None)  # fmt: skip
        if not reply.is_success:
            raise Refused(reply.status_code, _detail(reply))
        if reply.status_code == 204:
            return None
        try:
            return orjson.loads(reply.content)
        except orjson.JSONDecodeError as error:
            raise Refused(reply.status_code, "the reply is no JSON") from error

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(passes), stop=tenacity.stop_after_attempt(tries), reraise=True,
        wait=tenacity.wait_random_exponential(multiplier=0.25, max=MAX_PAUSE_SECONDS),
    )  # fmt: skip
    return retrying(once)


def _detail(reply: httpx.Response) -> str:
    """What the server said, in one line of at most 300 characters."""
    try:
        told = reply.json()
    except ValueError:
        return " ".join(reply.text.split())[:300]
    detail = told.get("detail", told.get("message", told)) if isinstance(told, dict) else told
    errors = detail.get("params", {}).get("errors") if isinstance(detail, dict) else None
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        place = ".".join(str(part) for part in errors[0].get("loc", ()) if part != "body")
        detail = f"{place}: {errors[0].get('msg', '')}"
    return " ".join(str(detail).split())[:300]


def _away(url: str, error: Exception) -> UserError:
    here = urlsplit(url).hostname in LOOPBACK
    step = "run: kedge annotate serve" if here else "check the address (ARGILLA_API_URL) and the network"
    return UserError(f"Argilla at {url} does not answer ({type(error).__name__})",
                     f"{step}; then run the same command again, which goes on where it was")  # fmt: skip


def workspaces(server: Argilla) -> dict[str, str]:
    """Name -> id of the workspaces that the key may use."""
    return {one["name"]: one["id"] for one in server.ask("GET", "/me/workspaces")["items"]}


def workspace_id(server: Argilla, name: str) -> str:
    """The id of a workspace that the key may use. Raises UserError with "did you mean"."""
    known = workspaces(server)
    if name not in known:
        raise UserError(f"Argilla at {server.url} has no workspace '{name}' for '{server.user['username']}'",
                        f"{did_you_mean(name, known)}; make it in Argilla, or change the job's workspace:")  # fmt: skip
    return known[name]


def logins(server: Argilla, workspace: str) -> dict[str, str]:
    """User id -> login, of all users where the key belongs to an owner, else of the workspace's. What else the server
    tells about them (an owner sees every key) is dropped here."""
    path = "/users" if server.is_owner else f"/workspaces/{workspace}/users"
    found = {one["id"]: one["username"] for one in server.ask("GET", path)["items"]}
    return found | {server.user["id"]: server.user["username"]}


def members(server: Argilla, workspace: str) -> list[str]:
    """Ids of the annotators who are members of a workspace."""
    found = server.ask("GET", f"/workspaces/{workspace}/users")["items"]
    return [one["id"] for one in found if one["role"] == "annotator"]


def records(server: Argilla, dataset: str, *include: str) -> list[dict[str, Any]]:
    """All records of a dataset, each once, with `responses` or `suggestions` where asked for. The server orders pages
    by time of insertion alone, so that records of one moment may change places between two pages: what is missing then
    is read again. Raises UserError where the dataset does not hold still."""
    for _ in range(4):
        found: dict[str, dict[str, Any]] = {}
        total, offset = 1, 0
        while offset < total:
            asked = {"offset": offset, "limit": PAGE} | ({"include": ",".join(include)} if include else {})
            page = server.ask("GET", f"/datasets/{dataset}/records", parameters=asked)
            found |= {one["id"]: one for one in page["items"]}
            total, offset = page.get("total") or len(found), offset + PAGE
        if len(found) == total:
            return list(found.values())
    raise UserError("the dataset changes while it is read", "wait until nobody pushes, then run the same command again")
