"""The names under which annotators stand in the lake: nobody can tell from them who voted without the project's key."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets

from curation.annotation.server_data import make_folder
from curation.config import Project
from curation.errors import UserError

KEY_VARIABLE = "KEDGE_ANNOTATOR_KEY"
KEY_FILE = "annotators.key"


def pseudonym(project: Project, login: str) -> str:
    """`annotator-` and 8 hex characters of HMAC-SHA256(key, login). The key is that of KEDGE_ANNOTATOR_KEY, which those
    who pull into several copies of a project share, else one generated once: `PROJECT/.argilla/annotators.key`, mode
    600. Raises UserError for a key file that is empty."""
    return "annotator-" + hmac.new(_key(project), login.encode(), hashlib.sha256).hexdigest()[:8]


def _key(project: Project) -> bytes:
    if given := os.environ.get(KEY_VARIABLE, "").strip():
        return given.encode()
    path = make_folder(project) / KEY_FILE
    if not path.exists():
        draft = path.with_name(f".{KEY_FILE}-{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(secrets.token_hex(32))
                stream.flush()
                os.fsync(stream.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # unlike a rename it never replaces the key of a faster twin
        finally:
            draft.unlink()
    key = path.read_bytes().strip()
    if not key:
        raise UserError("is empty", f"restore it from a backup, or set {KEY_VARIABLE}: another key gives annotators "
                        "other names", where=str(path))  # fmt: skip
    return key
