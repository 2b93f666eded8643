"""Fixtures of a real Argilla server: `pytest_plugins = ["tests.argilla_fixtures"]` in a test file makes them known."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from curation.annotation import server_data
from curation.annotation._argilla_rest import Argilla
from curation.annotation._argilla_rest import connected as connect
from tests.argilla_server import Server, served


@pytest.fixture(scope="session")
def argilla_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a process: owner, annotator1 to annotator3, workspace `kedge`. Tests make datasets
    of their own names in it and leave the accounts alone."""
    with served(tmp_path_factory.mktemp("argilla") / "project") as server:
        yield server


@pytest.fixture
def connected(argilla_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The session's server as the one that kedge's commands talk to, whatever the project: ARGILLA_API_URL and
    ARGILLA_API_KEY name it."""
    monkeypatch.setenv(server_data.API_URL, argilla_server.url)
    monkeypatch.setenv(server_data.API_KEY, argilla_server.account("owner").api_key)
    return argilla_server


@pytest.fixture
def job() -> str:
    """A job's name that nothing else on the session's server has."""
    return f"job_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def api(argilla_server: Server) -> Iterator[Argilla]:
    with connect(argilla_server.url, argilla_server.account("owner").api_key) as server:
        yield server
