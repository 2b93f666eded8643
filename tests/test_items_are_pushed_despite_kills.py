"""kill -9 of a push, and of the server under it: the same command again, and every item is there once."""

from __future__ import annotations

import json
import os
import signal
import threading
import uuid
from pathlib import Path

import psutil
import pytest

from curation.annotation.rounds import rounds_of
from curation.catalog import Catalog
from curation.config import find_project
from tests.argilla_server import Server, served
from tests.pushed import HEADER, make_project, proxied, start_push

pytest_plugins = ["tests.argilla_fixtures"]
pytestmark = pytest.mark.argilla


@pytest.fixture
def job() -> str:
    """A job's name that nothing else on the session's server has."""
    return f"job_{uuid.uuid4().hex[:8]}"


# Method, end of the path, how many of them, moment: each run is killed at one of its own requests.
KILLS = [("POST", "/questions", 2, "after"), ("PUT", "/publish", 1, "before"), ("PUT", "/publish", 1, "after"),
         ("PUT", "/bulk", 2, "after"), ("PUT", "/bulk", 2, "before")]  # fmt: skip


def test_a_push_killed_again_and_again_ends_with_every_item_once(
    tmp_path: Path, connected: Server, job: str, monkeypatch: pytest.MonkeyPatch
):
    root = make_project(tmp_path / "project", job)
    seen: list[tuple[str, str]] = []
    running: list[tuple[int, tuple[str, str, int, str]]] = []

    def spoil(method: str, path: str, moment: str) -> int | None:
        if moment == "before":
            seen.append((method, path))
        for pid, (of_method, end, count, when) in running:
            alike = [one for one in seen if one[0] == of_method and one[1].endswith(end)]
            if (method, when) == (of_method, moment) and path.endswith(end) and len(alike) == count:
                os.kill(pid, signal.SIGKILL)
                return 0
        return None

    with proxied(connected.url, spoil) as url:
        monkeypatch.setenv("ARGILLA_API_URL", url)
        for kill in KILLS:
            seen.clear()
            process = start_push(root, job)
            running[:] = [(process.pid, kill)]
            _, err = process.communicate(timeout=120)
            assert process.returncode == -signal.SIGKILL, f"the push ended before {kill}: {err}"
        running.clear()
        process = start_push(root, job)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    told = json.loads(out)
    assert (told["pushed"], told["already_there"]) == (15, 45)
    ids = [one["item_id"] for one in rounds_of(Catalog(find_project(root)), job)[0].items.to_pylist()]
    dataset = connected.dataset_id(f"{job}.main-1")
    assert sorted(one["external_id"] for one in connected.records(dataset)) == sorted(ids)
    assert connected.dataset_names().count(f"{job}.main-1") == 1
    names = [one["name"] for one in connected.call("GET", f"/datasets/{dataset}/questions")["items"]]
    assert names == ["better", "helpful-a", "helpful-b", "why"]


def test_a_push_whose_server_is_killed_goes_on_once_it_is_back_and_no_answer_is_lost(
    tmp_path: Path, job: str, kedge, monkeypatch: pytest.MonkeyPatch
):
    root = make_project(tmp_path / "project", job, header=HEADER.replace("{price_per_vote: 0.5}", "{items: 20}"))
    file = root / "catalogs" / "annotations" / f"{job}.sql"
    monkeypatch.chdir(root)
    with served(tmp_path / "served", annotators=1) as server:
        monkeypatch.setenv("ARGILLA_API_KEY", server.account("owner").api_key)
        monkeypatch.setenv("ARGILLA_API_URL", server.url)
        assert json.loads(kedge("annotate", "push", job, "--json")[1])["pushed"] == 20
        dataset = server.dataset_id(f"{job}.main-1")
        records = [one["id"] for one in server.records(dataset)]
        server.answer("annotator1", {record: {"better": "A"} for record in records[:10]})
        assert json.loads(kedge("annotate", "pull", job, "--json")[1])["rounds"][0]["new"] == 10
        server.answer("annotator1", {record: None for record in records[10:15]})
        file.write_text(file.read_text().replace("{items: 20}", "{items: 60}"))
        bulks: list[str] = []

        def spoil(method: str, path: str, moment: str) -> int | None:
            if path.endswith("/bulk") and moment == "before":
                bulks.append(path)
                if len(bulks) == 2:
                    threading.Timer(0.03, kill_all, [server]).start()  # in the middle of a batch
            return None

        with proxied(server.url, spoil) as url:
            monkeypatch.setenv("ARGILLA_API_URL", url)
            process = start_push(root, job)
            _, err = process.communicate(timeout=120)
        assert process.returncode == 2 and "does not answer" in err, err
        server.stop()
        server.start()
        monkeypatch.setenv("ARGILLA_API_URL", server.url)
        told = json.loads(kedge("annotate", "push", job, "--json")[1])
        assert told["pushed"] + told["already_there"] == 60
        assert told["already_there"] in (35, 50), "what the server confirmed, it kept"
        found = server.records(dataset)
        assert len(found) == len({one["external_id"] for one in found}) == 60
        told = json.loads(kedge("annotate", "pull", job, "--json")[1])["rounds"][0]
        assert (told["new"], told["responses"], told["discarded"], told["withdrawn"]) == (5, 15, 5, 0)


def kill_all(server: Server) -> None:
    """kill -9 of the server and of the command that serves."""
    assert server.process is not None
    for process in (*psutil.Process(server.process.pid).children(recursive=True), server.process):
        process.kill()


def test_a_second_push_meanwhile_is_told_who_pushes(tmp_path: Path, kedge, connected: Server, job: str,
                                                    monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    root = make_project(tmp_path / "project", job, pairs=3)
    monkeypatch.chdir(root)
    with Catalog(find_project(root)).writing("push", job):
        code, _, err = kedge("annotate", "push", job)
    assert code == 75 and f"push '{job}' is being written by" in err
