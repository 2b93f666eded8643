"""What a local Argilla server keeps: `PROJECT/.argilla/` with its database, its accounts and their secrets.

The folder has mode 700 and `credentials.json` mode 600. Passwords and keys are generated, never chosen, never printed,
and never enter the lake.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from curation.config import Project, shown
from curation.errors import UserError

WORKSPACE = "kedge"
DATABASE = "argilla.db"
CREDENTIALS = "credentials.json"
API_URL, API_KEY = "ARGILLA_API_URL", "ARGILLA_API_KEY"
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that people mistake for another


@dataclass(frozen=True)
class Account:
    """A login of the local server; `role` is owner or annotator. Secrets do not show in its repr."""

    login: str
    role: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)


@dataclass(frozen=True)
class Credentials:
    """The accounts of the local server, where it was last reached, and what signs its sessions."""

    url: str
    owner: Account
    annotators: tuple[Account, ...]
    auth_secret: str = field(repr=False)

    @property
    def accounts(self) -> tuple[Account, ...]:
        return (self.owner, *self.annotators)


def folder(project: Project) -> Path:
    """`PROJECT/.argilla`, which may not be there."""
    return project.root / ".argilla"


def make_folder(project: Project) -> Path:
    """The folder, there and closed to others, and out of git."""
    path = folder(project)
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    ignore = path / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return path


def write_secret(path: Path, content: bytes) -> None:
    """Put a file of mode 600 in place whole."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def credentials(project: Project) -> Credentials | None:
    """The local server's accounts, None where there is none. Raises UserError for a file that is damaged."""
    path = folder(project) / CREDENTIALS
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
        return Credentials(url=str(found["url"]), owner=_account(found["owner"]),
                           annotators=tuple(map(_account, found["annotators"])),
                           auth_secret=str(found["auth_secret"]))  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError("holds no accounts that can be read", "restore it from a backup, or remove it: 'kedge annotate "
                        "serve' then makes new passwords and keys for the same accounts",
                        where=shown(path)) from error  # fmt: skip


def _account(found: Mapping[str, Any]) -> Account:
    return Account(**{name: str(found[name]) for name in ("login", "role", "password", "api_key")})


def prepare(project: Project, url: str, annotators: int) -> Credentials:
    """Keep credentials for an owner and at least `annotators` annotators; those that are there stay as they are."""
    known = credentials(project) or Credentials(url, _new("owner", "owner"), (), secrets.token_hex(32))
    logins = {account.login for account in known.annotators}
    wanted = [f"annotator{number}" for number in range(1, annotators + 1)]
    new = tuple(_new(login, "annotator") for login in wanted if login not in logins)
    made = replace(known, url=url, annotators=known.annotators + new)
    content = {"url": made.url, "owner": vars(made.owner), "annotators": [vars(one) for one in made.annotators],
               "auth_secret": made.auth_secret}  # fmt: skip
    write_secret(make_folder(project) / CREDENTIALS, json.dumps(content, indent=1).encode() + b"\n")
    return made


def _new(login: str, role: str) -> Account:
    """An account with a password of 98 random bits, which people can type, and a key of 256."""
    groups = ("".join(secrets.choice(LETTERS) for _ in range(5)) for _ in range(4))
    return Account(login, role, password="-".join(groups), api_key=secrets.token_urlsafe(32))


def connection(project: Project) -> tuple[str, str]:
    """Address and API key of the Argilla to talk to: those of ARGILLA_API_URL and ARGILLA_API_KEY, else the local
    server's. Raises UserError where there is neither, or one of the two alone."""
    url, key = os.environ.get(API_URL, "").strip(), os.environ.get(API_KEY, "").strip()
    if url and key:
        return url.rstrip("/"), key
    if url or key:
        missing = API_KEY if url else API_URL
        raise UserError(f"{API_URL if url else API_KEY} is set and {missing} is not", f"set {missing} too, or neither: "
                        "then the project's own server is used", key=missing)  # fmt: skip
    known = credentials(project)
    if known is None:
        raise UserError("there is no Argilla to talk to", "run: kedge annotate serve (or set "
                        f"{API_URL} and {API_KEY} for a server elsewhere)")  # fmt: skip
    return known.url, known.owner.api_key
