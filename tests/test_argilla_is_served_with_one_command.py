"""`kedge annotate serve`: a real Argilla server that is closed to others, keeps all data, and ends with its command."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from curation.annotation import server_data
from curation.config import find_project
from curation.errors import EXIT_LOCKED, EXIT_USER, UserError
from tests.argilla_server import Server, served

pytest_plugins = ["tests.argilla_fixtures"]
argilla = pytest.mark.argilla
RECORDS = [{"external_id": f"r{number}", "fields": {"text": f"text {number}"}} for number in range(4)]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def log_in(server: Server, login: str) -> httpx.Response:
    form = {"username": login, "password": server.account(login).password}
    return httpx.post(f"{server.url}/api/v1/token", data=form, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that tests stop and start."""
    with served(tmp_path_factory.mktemp("served") / "a project with 100% odd name?#", annotators=2) as server:
        yield server


def running(own: Server) -> Server:
    return own if own.process is not None else own.start()


@argilla
def test_owner_and_annotators_are_made_and_can_log_in(argilla_server: Server):
    users = argilla_server.call("GET", "/users")["items"]
    assert {user["username"]: user["role"] for user in users} == {
        "owner": "owner", "annotator1": "annotator", "annotator2": "annotator", "annotator3": "annotator"}  # fmt: skip
    assert log_in(argilla_server, "annotator1").status_code == 201
    wrong = {"username": "annotator1", "password": argilla_server.account("annotator2").password}
    assert httpx.post(f"{argilla_server.url}/api/v1/token", data=wrong, trust_env=False).status_code == 401
    for login in argilla_server.logins:
        assert [one["name"] for one in argilla_server.call("GET", "/me/workspaces", login)["items"]] == ["kedge"]


@argilla
def test_the_web_page_is_served_and_needs_no_other_service(argilla_server: Server):
    assert "<title>Argilla" in httpx.get(f"{argilla_server.url}/sign-in", trust_env=False).text
    status = argilla_server.call("GET", "/status")
    assert status["version"].startswith("2.8") and status["search_engine"]["name"] == "sql"


@argilla
def test_it_listens_on_loopback_alone_and_on_one_port(argilla_server: Server):
    listening = [one.laddr for process in argilla_server.processes()
                 for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]  # fmt: skip
    assert {(address.ip, address.port) for address in listening} == {("127.0.0.1", argilla_server.port)}


@argilla
def test_secrets_are_in_files_of_their_owner_and_nowhere_on_the_screen_or_in_processes(argilla_server: Server):
    folder = server_data.folder(argilla_server.project)
    assert mode(folder) == 0o700
    assert {mode(path) for path in (folder / "credentials.json", folder / "argilla.db", folder / "server.log")} == {
        0o600
    }
    shown = argilla_server.said + (folder / "server.log").read_text()
    for process in argilla_server.processes():
        shown += " ".join(process.cmdline()) + " ".join(process.environ().values())
    credentials = argilla_server.credentials
    secrets = [secret for one in credentials.accounts for secret in (one.password, one.api_key)]
    assert len(set(secrets)) == len(secrets) == 8
    assert not [secret for secret in [*secrets, credentials.auth_secret] if secret in shown + repr(credentials)]
    assert argilla_server.url in argilla_server.said and "annotator1, annotator2, annotator3" in argilla_server.said
    assert "credentials.json" in argilla_server.said and (folder / ".gitignore").read_text() == "*\n"


@argilla
def test_all_data_and_sessions_survive_a_restart_that_adds_an_annotator(own: Server):
    """What a user set for a client of another Argilla, or for another Python, does not reach the server."""
    server = running(own)
    dataset = server.make_dataset(RECORDS, min_submitted=1)
    first = server.records(dataset)[0]["id"]
    server.answer("annotator1", {first: {"preference": "a"}})
    token, before = log_in(server, "annotator1").json()["access_token"], server.credentials
    assert server.stop() == 0 and "has stopped" in server.said
    with sqlite3.connect(server_data.folder(server.project) / "argilla.db") as database:
        database.execute("UPDATE records SET status = 'pending'")  # as a kill may leave it
    server.annotators = 3
    server.environment |= {"ARGILLA_DATABASE_URL": "sqlite:////nowhere/at/all.db", "HTTP_PROXY": "http://127.0.0.1:9",
                           "ARGILLA_SEARCH_ENGINE": "elasticsearch", "PYTHONHASHSEED": "1"}  # fmt: skip
    server.start()
    assert server.credentials.annotators[:2] == before.annotators and server.credentials.owner == before.owner
    assert server.logins == ["annotator1", "annotator2", "annotator3"]
    assert log_in(server, "annotator3").status_code == 201
    me = httpx.get(f"{server.url}/api/v1/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    assert me.json()["username"] == "annotator1"
    found = {record["id"]: record for record in server.records(dataset)}
    assert [found[one]["status"] for one in found].count("completed") == 1 and found[first]["status"] == "completed"
    assert found[first]["responses"][0]["values"] == {"preference": {"value": "a"}}


@argilla
def test_the_server_ends_with_a_killed_command_and_lost_credentials_are_made_anew(own: Server):
    server = running(own)
    dataset, before = server.make_dataset(RECORDS), server.account("annotator1")
    server.answer("annotator1", {server.records(dataset)[0]["id"]: {"preference": "a"}})
    children = server.children()
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL and children
    assert not psutil.wait_procs(children, 20)[1]
    (server_data.folder(server.project) / "credentials.json").unlink()
    server.start()
    assert server.account("annotator1").api_key != before.api_key
    assert log_in(server, "annotator1").status_code == 201
    assert sum(len(record["responses"]) for record in server.records(dataset)) == 1


@argilla
def test_accepted_answers_survive_a_kill_of_everything_and_a_server_for_others_warns(own: Server):
    server = running(own)
    dataset = server.make_dataset(RECORDS)
    for record in server.records(dataset):
        server.answer("annotator2", {record["id"]: {"preference": "b"}})
    children = server.children()
    for process in children:
        process.kill()
    server.stop(signal.SIGKILL)
    psutil.wait_procs(children, 20)
    assert "WARNING" not in server.said
    server.host = "0.0.0.0"
    server.start()
    assert [len(record["responses"]) for record in server.records(dataset)] == [1, 1, 1, 1]
    assert "WARNING: it listens at 0.0.0.0" in server.said and "ssh -N -L" in server.said
    assert server.url == f"http://127.0.0.1:{server.port}"


@argilla
def test_ctrl_c_ends_the_server_and_frees_its_port(own: Server):
    server = running(own)
    children = server.children()
    assert server.stop(signal.SIGINT) == 0 and "its data stay in the project" in server.said
    assert children and not psutil.wait_procs(children, 20)[1]
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", server.port))


@argilla
def test_a_second_server_of_the_project_is_told_that_it_runs_already(argilla_server: Server, kedge_process):
    done = kedge_process("annotate", "serve", "--port", "0", cwd=argilla_server.folder, timeout=60)
    assert done.returncode == EXIT_LOCKED
    assert f"runs already at {argilla_server.url}" in done.stderr and "Traceback" not in done.stderr


@argilla
def test_a_port_in_use_is_a_users_error(project_folder: Path, kedge_process):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = kedge_process("annotate", "serve", "--port", str(port), cwd=project_folder, timeout=60)
    assert done.returncode == EXIT_USER
    assert f"port {port} is in use by another program; choose another one" in done.stderr


@argilla
@pytest.mark.parametrize(("options", "said"), [
    (["--port", "70000"], "--port: 70000 is no port"),
    (["--host", "no such host"], "--host: there is no address 'no such host'"),
    (["--host", "192.0.2.1"], "--host: cannot listen at 192.0.2.1"),
])  # fmt: skip
def test_an_address_that_cannot_be_had_is_a_users_error(project_folder: Path, kedge_process, options, said):
    done = kedge_process("annotate", "serve", *options, cwd=project_folder, timeout=60)
    assert (done.returncode, said in done.stderr) == (EXIT_USER, True), done.stderr


def test_without_its_environment_the_command_that_makes_it_is_named(project_folder: Path, kedge_process, tmp_path):
    environment = os.environ | {"KEDGE_ENVIRONMENTS": str(tmp_path / "none")}
    done = kedge_process("annotate", "serve", cwd=project_folder, timeout=60, env=environment)
    assert done.returncode == EXIT_USER and "kedge env create argilla" in done.stderr


@argilla
def test_a_backup_made_while_people_answer_comes_back_whole(argilla_server: Server, tmp_path: Path, kedge_process):
    dataset = argilla_server.make_dataset(RECORDS)
    ids = [record["id"] for record in argilla_server.records(dataset)]
    argilla_server.answer("annotator1", {ids[0]: {"preference": "tie"}})
    target = tmp_path / "saved.tar"
    done = kedge_process("annotate", "serve", "--backup", str(target), cwd=argilla_server.folder, timeout=60)
    assert done.returncode == 0 and mode(target) == 0o600, done.stderr
    argilla_server.answer("annotator1", {ids[1]: {"preference": "a"}})
    again = kedge_process("annotate", "serve", "--backup", str(target), cwd=argilla_server.folder, timeout=60)
    assert again.returncode == EXIT_USER and "is there already" in again.stderr
    home = tmp_path / "elsewhere"
    (home / ".argilla").mkdir(mode=0o700, parents=True)
    subprocess.run(["tar", "-xf", str(target), "-C", str(home / ".argilla")], check=True)
    with served(home) as restored:
        assert restored.account("annotator2") == argilla_server.account("annotator2")
        assert log_in(restored, "annotator2").status_code == 201
        answered = [record["id"] for record in restored.records(dataset) if record["responses"]]
        assert answered == [ids[0]]
    assert {path.name for path in tmp_path.iterdir()} == {"saved.tar", "elsewhere"}


def test_a_backup_needs_data_and_a_folder(project_folder: Path, kedge):
    folder = project_folder / ".argilla"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project_folder)
        code, _, said = kedge("annotate", "serve", "--backup", "saved.tar")
        assert code == EXIT_USER and "no Argilla data yet; run: kedge annotate serve" in said
        folder.mkdir()
        (folder / "argilla.db").write_bytes(b"no database at all, and longer than a header of one hundred bytes" * 9)
        code, _, said = kedge("annotate", "serve", "--backup", "none/saved.tar")
        assert code == EXIT_USER and "has no folder to stand in" in said
        code, _, said = kedge("annotate", "serve", "--backup", "saved.tar")
        assert code == 4 and "the database is damaged" in said
    assert not (project_folder / "saved.tar").exists()


def test_a_backup_holds_all_secrets_and_only_for_its_owner(project_folder: Path, kedge, monkeypatch):
    project = find_project(project_folder)
    monkeypatch.chdir(project_folder)
    server_data.prepare(project, "http://127.0.0.1:1", 1)
    server_data.write_secret(project_folder / ".argilla" / "annotators.key", b"key")
    with sqlite3.connect(project_folder / ".argilla" / "argilla.db") as database:
        database.execute("CREATE TABLE users (name)")
    assert kedge("annotate", "serve", "--backup", "saved.tar")[0] == 0
    with tarfile.open(project_folder / "saved.tar") as archive:
        assert {(entry.name, entry.mode) for entry in archive} == {
            ("argilla.db", 0o600), ("credentials.json", 0o600), ("annotators.key", 0o600)}  # fmt: skip


def test_accounts_stay_as_they_are_when_more_are_made(project_folder: Path):
    project = find_project(project_folder)
    first = server_data.prepare(project, "http://127.0.0.1:1", 2)
    more = server_data.prepare(project, "http://127.0.0.1:2", 3)
    fewer = server_data.prepare(project, "http://127.0.0.1:2", 1)
    assert more.annotators[:2] == first.annotators and fewer == more and more.url != first.url
    assert server_data.credentials(project) == fewer
    assert mode(project_folder / ".argilla" / "credentials.json") == 0o600


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": "x", "owner": 3, "annotators": [], "auth_secret": "x"}'])
def test_damaged_credentials_are_a_users_error(project_folder: Path, content: str):
    (project_folder / ".argilla").mkdir()
    (project_folder / ".argilla" / "credentials.json").write_text(content)
    with pytest.raises(UserError, match=r"credentials.json: holds no accounts that can be read; restore it"):
        server_data.credentials(find_project(project_folder))


def test_the_environment_names_another_argilla_wholly_or_not_at_all(project_folder: Path, monkeypatch):
    project = find_project(project_folder)
    for name in (server_data.API_URL, server_data.API_KEY):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="run: kedge annotate serve"):
        server_data.connection(project)
    local = server_data.prepare(project, "http://127.0.0.1:1", 1)
    assert server_data.connection(project) == ("http://127.0.0.1:1", local.owner.api_key)
    monkeypatch.setenv(server_data.API_URL, "https://argilla.example/")
    with pytest.raises(UserError, match="ARGILLA_API_URL is set and ARGILLA_API_KEY is not"):
        server_data.connection(project)
    monkeypatch.setenv(server_data.API_KEY, "secret")
    assert server_data.connection(project) == ("https://argilla.example", "secret")


@argilla
def test_a_server_that_fails_says_why_and_where_to_read_it(tmp_path: Path, kedge_process):
    (tmp_path / "kedge.yaml").write_text("tokenizers: {}\n")
    (tmp_path / ".argilla").mkdir()
    (tmp_path / ".argilla" / "argilla.db").write_bytes(b"this is no database" * 100)
    started = time.monotonic()
    done = kedge_process("annotate", "serve", "--port", "0", cwd=tmp_path, timeout=120)
    assert done.returncode == 4 and time.monotonic() - started < 60
    assert "file is not a database" in done.stderr and "server.log" in done.stderr and "Traceback" not in done.stderr
