"""Argilla's own server in one process, with neither Elasticsearch nor Redis beside it: `python launch.py`.

The working directory is the data folder. The first line of standard input is a JSON object: `socket` (an open,
listening file descriptor), `workspace`, `accounts` (login, role, password, api_key) and `auth_secret`. When standard
input ends, the server ends: it cannot outlive the command that holds the other side.

Nothing in argilla-server is changed: a search engine is registered by the name that its setting takes, and the
connection to Redis, which it uses for a queue of background jobs, is an in-memory one whose jobs run in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

DATABASE = "argilla.db"
PAGES = Path("tmp")  # the server copies its page into a temporary folder at every start, and leaves it there
SECONDS_TO_END = 10
ENVIRONMENT = {
    "ARGILLA_HOME_PATH": ".", "ARGILLA_SEARCH_ENGINE": "sql", "ARGILLA_CORS_ORIGINS": "[]",
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip


def main() -> None:
    """Serve until standard input ends or a signal says so; with the name of a draft, make the tables in it."""
    if sys.argv[1:]:
        configure(sys.argv[1])
        upgrade()
        return
    shutil.rmtree(PAGES, ignore_errors=True)
    configure(DATABASE)
    settings = json.loads(first_line())
    servers: list[Any] = []
    threading.Thread(target=end_with_command, args=(servers,), daemon=True).start()
    os.environ["ARGILLA_AUTH_SECRET_KEY"] = settings["auth_secret"]
    use_memory_for_redis()
    migrate()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(settings, servers))


def first_line() -> bytes:
    """The first line of standard input. Nothing here reads through sys.stdin, whose lock a waiting thread would hold
    when the interpreter ends."""
    line = b""
    while not line.endswith(b"\n") and (more := os.read(0, 1 << 16)):
        line += more
    return line


def configure(database: str) -> None:
    """Set what argilla-server reads from its environment when it is imported; what the user set for a client, or for
    a server of their own, must not reach this one. The path is relative: none has to be escaped."""
    for name in [name for name in os.environ if name.startswith("ARGILLA_")]:
        del os.environ[name]
    os.environ.update(ENVIRONMENT, ARGILLA_DATABASE_URL=f"sqlite+aiosqlite:///{database}?check_same_thread=False")
    PAGES.mkdir(exist_ok=True)
    tempfile.tempdir = str(PAGES.resolve())


def end_with_command(servers: list[Any]) -> None:
    """Wait for the end of standard input, let the server finish its requests, and end in any case."""
    while os.read(0, 1 << 16):
        pass
    for server in servers:
        server.should_exit = True
    time.sleep(SECONDS_TO_END if servers else 0)
    os._exit(1)


def upgrade() -> None:
    """Bring the configured database to the newest tables."""
    import alembic.config
    from argilla_server.database import ALEMBIC_CONFIG_FILE

    alembic.config.main(argv=["-c", ALEMBIC_CONFIG_FILE, "upgrade", "head"])


def migrate() -> None:
    """Make or renew the tables in a draft that takes the database's place when it is whole: SQLite commits every
    change of a table by itself, and a server killed between two of them could never start again."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from argilla_server.database import ALEMBIC_CONFIG_FILE

    head = ScriptDirectory.from_config(Config(ALEMBIC_CONFIG_FILE)).get_current_head()
    for path in Path().glob(f"{DATABASE}.draft*"):
        path.unlink(missing_ok=True)
    name = f"{DATABASE}.draft-{os.getpid()}"  # its own: of a killed start the other process may still be writing
    if Path(DATABASE).exists():
        with contextlib.closing(sqlite3.connect(DATABASE)) as known:
            if known.execute("SELECT version_num FROM alembic_version").fetchone() == (head,):
                return
            with contextlib.closing(sqlite3.connect(name)) as draft:
                known.backup(draft)
            known.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.umask(0o077)
    subprocess.run([sys.executable, __file__, name], check=True, stdin=subprocess.DEVNULL)
    for path in (Path(f"{DATABASE}-wal"), Path(f"{DATABASE}-shm")):
        path.unlink(missing_ok=True)
    Path(name).replace(DATABASE)


def use_memory_for_redis() -> None:
    """Give argilla-server a Redis that lives in this process and listens nowhere (what lies in its queue is code). It
    connects when it is imported, so this comes before."""
    import fakeredis
    import redis

    memory = fakeredis.FakeServer()
    redis.from_url = lambda *_, **__: fakeredis.FakeRedis(server=memory)


async def serve(settings: dict[str, Any], servers: list[Any]) -> None:
    """Run the server on the socket that was handed over."""
    import sql_engine
    import uvicorn
    from argilla_server.search_engine import SearchEngine

    SearchEngine.register(sql_engine.NAME)(sql_engine.SqlEngine)
    on_every_connection()
    from argilla_server import app

    await mend_statuses()
    await make_accounts(settings["workspace"], settings["accounts"])
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="on", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    servers.append(server)
    jobs = asyncio.create_task(work())
    await server.serve(sockets=[socket.socket(fileno=settings["socket"])])
    jobs.cancel()


def on_every_connection() -> None:
    """Write-ahead logging, so that readers and a backup never wait; a commit is on disk before it is answered; and
    the function that the search of texts calls."""
    import clauses
    import text_query
    from argilla_server.database import async_engine
    from sqlalchemy import event

    @event.listens_for(async_engine.sync_engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()
        connection.create_function(clauses.MATCHES, 3, text_query.fields_match)


async def mend_statuses() -> None:
    """Set the status of records by their answers: a server that was killed may have changed how many are asked for and
    not lived to judge its records by it."""
    from argilla_server.database import AsyncSessionLocal
    from sqlalchemy import text

    status = """CASE WHEN (SELECT count(*) FROM responses WHERE record_id = records.id AND status = 'submitted')
                >= (SELECT json_extract(distribution, '$.min_submitted') FROM datasets WHERE id = records.dataset_id)
                THEN 'completed' ELSE 'pending' END"""
    async with AsyncSessionLocal() as db:
        await db.execute(text(f"UPDATE records SET status = {status} WHERE status <> {status}"))
        await db.commit()


async def make_accounts(workspace: str, accounts: list[dict[str, str]]) -> None:
    """The workspace, and the accounts that are not there; one whose key is another one takes key and password given."""
    from argilla_server.contexts.accounts import get_user_by_username, hash_password
    from argilla_server.database import AsyncSessionLocal
    from argilla_server.models import User, Workspace, WorkspaceUser

    async with AsyncSessionLocal() as db:
        place = await Workspace.get_by(db, name=workspace) or await Workspace.create(db, name=workspace)
        for account in accounts:
            user = await get_user_by_username(db, account["login"])
            if user is None:
                user = await User.create(
                    db, first_name=account["login"], username=account["login"], role=account["role"],
                    password_hash=hash_password(account["password"]), api_key=account["api_key"])  # fmt: skip
            elif user.api_key != account["api_key"]:
                user.api_key, user.password_hash = account["api_key"], hash_password(account["password"])
                await db.commit()
            if await WorkspaceUser.get_by(db, workspace_id=place.id, user_id=user.id) is None:
                await WorkspaceUser.create(db, workspace_id=place.id, user_id=user.id)


async def work(every_seconds: float = 0.1) -> None:
    """Do the server's background jobs, first come first served, beside its requests."""
    from argilla_server.jobs.queues import DEFAULT_QUEUE, HIGH_QUEUE
    from rq.job import Job, JobStatus

    while True:
        for queue in (HIGH_QUEUE, DEFAULT_QUEUE):
            while name := queue.connection.lpop(queue.key):
                job = Job.fetch(name.decode(), connection=queue.connection)
                job.set_status(JobStatus.FINISHED if await done(job) else JobStatus.FAILED)
        await asyncio.sleep(every_seconds)


async def done(job: Any) -> bool:
    """Do a background job; whether it came to its end."""
    try:
        if asyncio.iscoroutinefunction(job.func):
            await job.func(*job.args, **job.kwargs)
        else:
            await asyncio.to_thread(job.func, *job.args, **job.kwargs)
    except Exception as error:  # whatever one job meets, the next one is done
        print(f"job {job.func_name} failed: {error!r}", file=sys.stderr, flush=True)
        return False
    return True


if __name__ == "__main__":
    main()
