"""Projects with a job that is pushed, plans made inline, and a proxy between kedge and Argilla that spoils requests."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from curation.annotation.argilla import Plan
from curation.annotation.jobs import Question
from curation.fingerprint import fingerprint

PREFERENCE = Question(name="better", kind="preference")
HEADER = """/* ---
guidelines: |
  # Be fair
  What is right comes first.
questions:
  - {name: better, kind: preference}
  - {name: helpful, kind: rating, required: false}
  - {name: why, kind: text, required: false}
budget: {price_per_vote: 0.5}
--- */
"""
# A push in batches of 15 that gives up on a server that is away after few tries.
PUSH = """
import sys
from curation.annotation import _argilla_records, _argilla_rest
_argilla_records.BATCH_ITEMS, _argilla_rest.MAX_PAUSE_SECONDS = 15, 0.3
from curation import cli
sys.exit(cli.run(sys.argv[1:]))
"""


def turn(role: str, content: str | None, **more: str | None) -> dict[str, str | None]:
    empty = dict.fromkeys(("reasoning", "tool_calls", "tool_call_id", "name"))
    return {"role": role, "content": content, **empty, **more}


def item(number: int, keys: tuple[str, ...] = ("chosen", "rejected"), **more: Any) -> dict[str, Any]:
    """A record of ITEMS whose candidates stand in the order of `keys`."""
    candidates = [{"key": key, "messages": [turn("assistant", f"{key} {number}")], "model": "writer-9b",
                   "generation_id": None} for key in keys]  # fmt: skip
    return {"item_id": fingerprint(["item", number]), "job": "j", "round": "main-1", "edition": "e", "role": "item",
            "of_item": None, "position": number, "row_id": None, "source": "pairs", "topic": "sums",
            "prompt": [turn("user", f"Question {number}?")], "tools": None, "candidates": candidates, "gold": None,
            "meta": json.dumps({"margin": number / 4, "judge_verdict": keys[0] if keys else None})} | more  # fmt: skip


def make_plan(job: str, items: list[dict[str, Any]], *questions: Question, **more: Any) -> Plan:
    """A plan of a main round with the question `better`, or those given."""
    values = {"round": "main-1", "edition": "123456abcdef", "guidelines": "Be fair.", "annotators_per_item": 3,
              "workspace": "kedge", "assign": None} | more  # fmt: skip
    return Plan(job=job, questions=questions or (PREFERENCE,), items=items, **values)


def make_project(root: Path, job: str, pairs: int = 60, header: str = HEADER) -> Path:
    """A project with `pairs` ingested preference rows and a job over all of them."""
    from curation import cli
    from curation.quickstart.journey import inside

    (root / "catalogs" / "annotations").mkdir(parents=True)
    (root / "catalogs" / "sources").mkdir()
    (root / "kedge.yaml").write_text("tokenizers: {}\n")
    rows = [{"prompt": f"Question {number}?", "chosen": f"right {number}", "rejected": f"wrong {number}"}
            for number in range(pairs)]  # fmt: skip
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"reader": "jsonl", "path": "pairs.jsonl", "stage": "preference", "shape": "preference"}
    (root / "catalogs" / "sources" / "pairs.yaml").write_text(json.dumps(source))
    query = "SELECT row_id, 'sums' AS topic, 0.25 AS doubt FROM rows_preference\n"
    (root / "catalogs" / "annotations" / f"{job}.sql").write_text(header + query)
    with inside(root):
        assert cli.run(["add", "pairs"]) == 0
    return root


def start_push(root: Path, job: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PUSH, "annotate", "push", job, "--json"], cwd=root, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@contextlib.contextmanager
def proxied(url: str, spoil: Callable[[str, str, str], int | None]) -> Iterator[str]:
    """The address of a proxy before `url`. It calls `spoil(method, path, moment)` `before` and `after` it passes a
    request on: None lets it through, 0 breaks the connection without a reply, another number is the reply's status."""

    class Passing(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.partition("?")[0]
            said = spoil(self.command, path, "before")
            reply = None
            if said is None:
                headers = {name: self.headers[name] for name in ("X-Argilla-Api-Key", "Content-Type")
                           if name in self.headers}  # fmt: skip
                with contextlib.suppress(httpx.HTTPError):
                    reply = httpx.request(self.command, url + self.path, content=body, headers=headers, timeout=120,
                                          trust_env=False)  # fmt: skip
                said = spoil(self.command, path, "after")
            if said == 0 or (said is None and reply is None):
                self.close_connection = True
                return
            content = reply.content if reply is not None and said is None else b'{"detail": "spoilt"}'
            self.send_response(reply.status_code if reply is not None and said is None else int(said or 0))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = pass_on

    server = ThreadingHTTPServer(("127.0.0.1", 0), Passing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
