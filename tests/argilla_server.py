"""A real Argilla server for tests, started by `kedge annotate serve`, and people who answer through its API.

The fixtures `argilla_server` and `connected` are in argilla_fixtures.py: a test file that uses them says
`pytest_plugins = ["tests.argilla_fixtures"]` (imported by name, every file would start a server of its own).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from curation import environments
from curation.annotation import server_data
from curation.config import Project, find_project
from curation.errors import UserError

SECONDS_TO_START = 240


@dataclass
class Server:
    """A server that runs for a project of its own. `start` and `stop` may be called again; the port stays."""

    folder: Path
    annotators: int = 3
    port: int = 0
    host: str = "127.0.0.1"
    environment: dict[str, str] = field(default_factory=lambda: clean_environment())
    process: subprocess.Popen[str] | None = None
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    @property
    def project(self) -> Project:
        return find_project(self.folder)

    @property
    def credentials(self) -> server_data.Credentials:
        found = server_data.credentials(self.project)
        assert found is not None
        return found

    @property
    def url(self) -> str:
        return self.credentials.url

    @property
    def logins(self) -> list[str]:
        """The annotators' logins: annotator1, annotator2, annotator3."""
        return [account.login for account in self.credentials.annotators]

    def account(self, login: str) -> server_data.Account:
        return next(account for account in self.credentials.accounts if account.login == login)

    def start(self) -> Server:
        """Start it and wait until it answers."""
        log = self.folder / "serve.txt"
        with log.open("w") as stream:
            command = [sys.executable, "-m", "curation.cli", "annotate", "serve", "--port", str(self.port),
                       "--annotators", str(self.annotators), "--host", self.host]  # fmt: skip
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=stream, stderr=subprocess.STDOUT,
                                            stdin=subprocess.DEVNULL, text=True, env=self.environment,
                                            start_new_session=True, preexec_fn=end_with_tests)  # fmt: skip
        end = time.monotonic() + SECONDS_TO_START
        while "Argilla runs at" not in (said := log.read_text()):
            assert self.process.poll() is None, f"kedge annotate serve ended: {said}"
            assert time.monotonic() < end, f"the server is not up after {SECONDS_TO_START} s: {said}"
            time.sleep(0.1)
        self.port = int(self.url.rpartition(":")[2])
        return self

    @property
    def said(self) -> str:
        """What `kedge annotate serve` printed since it started."""
        return (self.folder / "serve.txt").read_text()

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Stop it and wait for its end; the exit code."""
        for client in self.clients.values():
            client.close()
        self.clients.clear()
        if self.process is None:
            return 0
        self.process.send_signal(with_signal)
        try:
            return self.process.wait(60)
        finally:
            self.process = None

    def processes(self) -> list[psutil.Process]:
        """The command and all that it started."""
        assert self.process is not None
        return [psutil.Process(self.process.pid), *self.children()]

    def children(self) -> list[psutil.Process]:
        """The processes that the command started."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def client(self, login: str = "owner") -> httpx.Client:
        """A client of the REST API with the key of a login."""
        if login not in self.clients:
            headers = {"X-Argilla-Api-Key": self.account(login).api_key}
            self.clients[login] = httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)
        return self.clients[login]

    def call(self, method: str, path: str, login: str = "owner", **arguments: Any) -> Any:
        """The JSON of a REST call (`path` after /api/v1); fails with the server's words where it refuses."""
        reply = self.client(login).request(method, f"/api/v1{path}", **arguments)
        assert reply.is_success, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json() if reply.content else None

    def workspace_id(self, name: str = server_data.WORKSPACE) -> str:
        return str(next(one["id"] for one in self.call("GET", "/me/workspaces")["items"] if one["name"] == name))

    def dataset_id(self, name: str) -> str:
        """The id of a dataset by its name."""
        return str(next(one["id"] for one in self.call("GET", "/me/datasets")["items"] if one["name"] == name))

    def dataset_names(self) -> list[str]:
        return sorted(one["name"] for one in self.call("GET", "/me/datasets")["items"])

    def records(self, dataset_id: str, include: str = "responses,suggestions") -> list[dict[str, Any]]:
        """All records of a dataset, as the owner reads them."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", f"/datasets/{dataset_id}/records",
                             params={"include": include, "limit": 1000, "offset": len(found)})["items"]  # fmt: skip
            found += page
            if len(page) < 1000:
                return found

    def answer(self, login: str, answers: Mapping[str, Mapping[str, Any] | None], status: str = "submitted") -> None:
        """Answer records as a person: by record id the values of the questions (`{"preference": "a"}`); None for a
        discard without values."""
        items = [{"record_id": record, "status": status if values is not None else "discarded",
                  "values": None if values is None else {name: {"value": value} for name, value in values.items()}}
                 for record, values in answers.items()]  # fmt: skip
        for start in range(0, len(items), 100):
            reply = self.call("POST", "/me/responses/bulk", login, json={"items": items[start : start + 100]})
            errors = [one["error"] for one in reply["items"] if one.get("error")]
            assert not errors, errors

    def queue(self, login: str, dataset_id: str, status: str = "pending", limit: int = 1000, **body: Any
              ) -> list[dict[str, Any]]:  # fmt: skip
        """The records that a person sees under a status, in that person's order."""
        scope = {"entity": "response", "property": "status"}
        query = {"filters": {"and": [{"type": "terms", "scope": scope, "values": [status]}]}} | body
        found = self.call("POST", f"/me/datasets/{dataset_id}/records/search", login, json=query,
                          params={"limit": limit, "include": "responses"})  # fmt: skip
        return [one["record"] for one in found["items"]]

    def make_dataset(self, records: Sequence[Mapping[str, Any]] = (), min_submitted: int = 3,
                     questions: Sequence[Mapping[str, Any]] = (), fields: Sequence[Mapping[str, Any]] = (),
                     metadata: Sequence[Mapping[str, Any]] = (), vectors: Sequence[Mapping[str, Any]] = ()
                     ) -> str:  # fmt: skip
        """A published dataset with a name of its own, by REST alone; its id. By default a text field `text` and one
        question `preference` with the labels a, b and tie."""
        made = self.call("POST", "/datasets", json={
            "name": f"test-{uuid.uuid4().hex[:12]}", "workspace_id": self.workspace_id(), "guidelines": "Be fair.",
            "distribution": {"strategy": "overlap", "min_submitted": min_submitted}})["id"]  # fmt: skip
        for one in fields or [TEXT_FIELD]:
            self.call("POST", f"/datasets/{made}/fields", json=one)
        for one in questions or [PREFERENCE]:
            self.call("POST", f"/datasets/{made}/questions", json=one)
        for one in metadata:
            self.call("POST", f"/datasets/{made}/metadata-properties", json=one)
        for one in vectors:
            self.call("POST", f"/datasets/{made}/vectors-settings", json=one)
        self.call("PUT", f"/datasets/{made}/publish")
        if records:
            self.call("POST", f"/datasets/{made}/records/bulk", json={"items": list(records)})
        return str(made)

    def search(self, dataset_id: str, login: str = "", **body: Any) -> list[str]:
        """The external ids that a search finds, as the owner over all, or as a person (`login`)."""
        path = f"/me/datasets/{dataset_id}/records/search" if login else f"/datasets/{dataset_id}/records/search"
        found = self.call("POST", path, login or "owner", json=body, params={"limit": 1000})
        return [str(one["record"]["external_id"]) for one in found["items"]]


TEXT_FIELD = {"name": "text", "title": "Text", "required": True, "settings": {"type": "text", "use_markdown": False}}
LABELS = [{"value": "a", "text": "A is better"}, {"value": "b", "text": "B is better"}, {"value": "tie", "text": "Tie"}]
PREFERENCE = {"name": "preference", "title": "Which answer is better?", "required": True,
              "settings": {"type": "label_selection", "options": LABELS}}  # fmt: skip


def end_with_tests() -> None:
    """Let a started command stop when the tests that started it are killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG


def clean_environment() -> dict[str, str]:
    """This process's environment without what names another Argilla."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ARGILLA_")}


def skip_without_environment() -> None:
    try:
        environments.python("argilla")
    except UserError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def served(folder: Path, annotators: int = 3, **options: Any) -> Iterator[Server]:
    """A server for a project in `folder` (made where it is not), stopped at the end."""
    skip_without_environment()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "kedge.yaml").exists():
        (folder / "kedge.yaml").write_text("tokenizers: {}\n")
        (folder / "catalogs").mkdir(exist_ok=True)
    server = Server(folder, annotators, **options)
    try:
        yield server.start()
    finally:
        if server.process is not None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                server.stop()
