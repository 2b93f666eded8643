"""A real Argilla server for this project: started, watched, stopped, backed up.

The server runs in the environment `argilla`, as a child of the command, and holds the listening socket and the lock of
the project's data that the command opened: there is never a second server on one database, and none that outlives its
command.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import ipaddress
import json
import os
import signal
import socket
import sqlite3
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from curation import environments
from curation.annotation import server_data
from curation.annotation.server_data import CREDENTIALS, DATABASE, WORKSPACE, Credentials
from curation.config import Project, find_project, shown
from curation.console import say
from curation.errors import EXIT_OK, InstrumentError, LockHeld, UserError
from curation.launching import last_error

LAUNCH = Path(__file__).with_name("server") / "launch.py"
SECONDS_TO_START, SECONDS_TO_STOP = 300, 15
BACKED_UP = (CREDENTIALS, "annotators.key")  # beside the database; those that are there


def run(host: str, port: int, annotators: int, backup: Path | None) -> int:
    """Serve until a signal says stop, or write a backup and return; the exit code. Raises UserError for an environment
    that is not made, an address that cannot be taken or a backup that cannot be written, LockHeld where the project's
    server runs already, InstrumentError where the server fails."""
    project = find_project()
    if backup is not None:
        back_up(project, backup)
        return EXIT_OK
    python = environments.python("argilla")
    with _signals() as stop, _only_server(project) as lock, _listening(host, port) as connection:
        credentials = server_data.prepare(project, _url(connection), annotators)
        log, bound = server_data.folder(project) / "server.log", connection.getsockname()[0]
        process = _started(python, project, credentials, connection, lock, log)
        try:
            _wait_until_ready(process, connection, log, stop)
            if not stop.is_set():
                _announce(project, credentials, bound)
            while process.poll() is None and not stop.wait(0.2):
                pass
            if not stop.is_set():
                raise _failed(process, log)
        finally:
            _end(process)
    say("Argilla has stopped; its data stay in the project")
    return EXIT_OK


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set instead of what they do otherwise."""
    stop = threading.Event()
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {name: signal.signal(name, lambda *_: stop.set()) for name in names}
    try:
        yield stop
    finally:
        for name, action in before.items():
            signal.signal(name, action)


@contextlib.contextmanager
def _only_server(project: Project) -> Iterator[IO[str]]:
    """The lock of the project's server data. The server inherits it: it is free when both processes are gone."""
    with (server_data.make_folder(project) / "serve.lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            known = server_data.credentials(project)
            where = f" at {known.url}" if known else ""
            raise LockHeld(f"this project's Argilla runs already{where}", "use it, or stop the other 'kedge annotate "
                           "serve' first") from None  # fmt: skip
        yield stream


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens at the address; UserError where it cannot be had."""
    key = "--port"
    if not 0 <= port <= 65535:
        raise UserError(f"{port} is no port", "give one from 1024 to 65535, or 0 for any that is free", key=key)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            connection.bind(address)
            connection.listen(128)
        except BaseException:
            connection.close()
            raise
    except socket.gaierror as error:
        raise UserError(f"there is no address '{host}'", "give 127.0.0.1, or an address of this machine",
                        key="--host") from error  # fmt: skip
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use by another program", f"choose another one: kedge annotate serve "
                            f"--port {port + 1}", key=key) from error  # fmt: skip
        if error.errno == errno.EACCES:
            raise UserError(f"port {port} is not open to this user", "give one above 1023", key=key) from error
        raise UserError(f"cannot listen at {host}: {error.strerror}", "give 127.0.0.1, or an address of this machine",
                        key="--host") from error  # fmt: skip
    with connection:
        yield connection


def _address(connection: socket.socket) -> tuple[str, int]:
    """Where this machine reaches the socket: loopback stands for any address."""
    host, port = connection.getsockname()[:2]
    known = ipaddress.ip_address(host)
    if known.is_unspecified:
        host = "127.0.0.1" if known.version == 4 else "::1"
    return host, port


def _url(connection: socket.socket) -> str:
    host, port = _address(connection)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _started(python: Path, project: Project, credentials: Credentials, connection: socket.socket, lock: IO[str],
             log: Path) -> subprocess.Popen[bytes]:  # fmt: skip
    """The server's process. Its secrets travel through a pipe, neither in arguments nor in the environment, and the end
    of that pipe is the end of the server. It is in a session of its own, so that Ctrl-C reaches the command alone."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}  # fmt: skip
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        process = subprocess.Popen([python, LAUNCH], cwd=server_data.folder(project), env=environment,
                                   stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT,
                                   pass_fds=(connection.fileno(), lock.fileno()),
                                   start_new_session=True, umask=0o077)  # fmt: skip
    accounts = [vars(account) for account in credentials.accounts]
    settings = {"socket": connection.fileno(), "workspace": WORKSPACE, "accounts": accounts,
                "auth_secret": credentials.auth_secret}  # fmt: skip
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died at once: its log says why
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], connection: socket.socket, log: Path,
                      stop: threading.Event) -> None:  # fmt: skip
    """Return when the server answers, or when it shall stop. InstrumentError where it ends before or takes too long."""
    host, port = _address(connection)
    end = time.monotonic() + SECONDS_TO_START
    while not stop.is_set():
        if process.poll() is not None or time.monotonic() > end:
            raise _failed(process, log)
        with contextlib.suppress(OSError, http.client.HTTPException):
            asked = http.client.HTTPConnection(host, port, timeout=1)
            with contextlib.closing(asked):
                asked.request("GET", "/api/v1/version")
                if asked.getresponse().status == 200:
                    connection.close()  # the server has its own: when it is gone, nobody listens
                    return


def _failed(process: subprocess.Popen[bytes], log: Path) -> InstrumentError:
    ended = process.poll()
    what = "does not answer" if ended is None else f"ended with exit code {ended}"
    return InstrumentError(f"the Argilla server {what}: {last_error(log)}",
                           f"read {shown(log)}, mend the cause, then run the same command again")  # fmt: skip


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let the server finish what it is doing, and end it where it does not."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _announce(project: Project, credentials: Credentials, host: str) -> None:
    """Where to log in and as whom; passwords stay in their file."""
    logins = ", ".join(account.login for account in credentials.annotators)
    say(f"Argilla runs at {credentials.url}")
    say(f"log in as {logins} (or {credentials.owner.login}); the passwords are in "
        f"{shown(server_data.folder(project) / CREDENTIALS)}")  # fmt: skip
    if not ipaddress.ip_address(host).is_loopback:
        port = credentials.url.rpartition(":")[2]
        say(f"WARNING: it listens at {host}: whoever reaches this machine may try to log in, and passwords and texts "
            "travel unencrypted. Safer is to leave --host away and let each annotator open a tunnel: "
            f"ssh -N -L {port}:127.0.0.1:{port} USER@THIS_MACHINE")  # fmt: skip
    say("stop it with Ctrl-C; 'kedge annotate serve --backup FILE' makes a backup, also while it runs")


def back_up(project: Project, target: Path) -> None:
    """Write all that the server keeps (database, accounts, key of the pseudonyms) to one tar file of mode 600, as it
    was at one moment, also while the server runs. The way back: `mkdir -m 700 .argilla && tar -xf FILE -C .argilla` in
    a project without that folder, then `kedge annotate serve`. Raises UserError where there is nothing to back up or
    the file is there already, InstrumentError where the database is damaged."""
    folder = server_data.folder(project)
    if not (folder / DATABASE).is_file():
        raise UserError("this project has no Argilla data yet", "run: kedge annotate serve")
    if target.exists() or target.is_symlink():
        raise UserError("is there already", "give a file that is not, or remove it", where=str(target))
    if not target.parent.is_dir():
        raise UserError("has no folder to stand in", f"make it: mkdir -p {target.parent}", where=str(target))
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kedge-backup-") as made:
            database, draft = Path(made) / DATABASE, Path(made) / "backup.tar"
            _copy_database(folder / DATABASE, database)
            _pack(draft, [database, *(folder / name for name in BACKED_UP if (folder / name).is_file())])
            os.link(draft, target)  # fails where a file came to be there meanwhile
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", "check the folder and the disk",
                        where=str(target)) from error  # fmt: skip
    say(f"backed up to {target}; it holds passwords: keep it as close as they are. The way back, in a project without "
        f".argilla: mkdir -m 700 .argilla && tar -xf {target} -C .argilla")  # fmt: skip


def _copy_database(source: Path, target: Path) -> None:
    """A copy of a SQLite database in use, as one committed moment left it, and found sound."""
    try:
        with (contextlib.closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as known,
              contextlib.closing(sqlite3.connect(target)) as copy):  # fmt: skip
            known.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            found = copy.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise InstrumentError(f"the database is damaged: {found}", "take the last backup", where=shown(source))


def _pack(target: Path, files: list[Path]) -> None:
    """Files as a tar of mode 600, under their names alone, readable by their owner alone."""

    def closed(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = 0o600, 0, 0, "", ""
        return entry

    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for path in files:
                archive.add(path, arcname=path.name, filter=closed)
        stream.flush()
        os.fsync(stream.fileno())
