"""A real HTTP server on loopback that answers as it is told: what judges and reward models behind endpoints meet."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]  # status, and JSON, bytes, or a function of the request's body; or HANG


class Served(ThreadingHTTPServer):
    """`replies` are sent in turn, the last again and again; `answer` decides instead where it is set. `asked` holds
    (path, Authorization, body); `most` the largest number of requests that were under way together."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.asked: list[tuple[str, str | None, Any]] = []
        self.replies: list[Reply] = []
        self.answer: Callable[[Any], Reply] | None = None
        self.headers: dict[str, str] = {}
        self.lock = threading.Lock()
        self.released = threading.Event()  # what hangs goes on
        self.open = self.most = 0

    def next_reply(self, body: Any) -> Reply:
        with self.lock:
            if self.answer is not None:
                return self.answer(body)
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no fault."""


class Handler(BaseHTTPRequestHandler):
    server: Served

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, self.headers.get("Authorization"), body))
            self.server.open += 1
            self.server.most = max(self.server.most, self.server.open)
        try:
            status, reply = self.server.next_reply(body)
            if status == 0:  # hangs before a word, status 1 in the midst of the reply
                self.server.released.wait(60)
                return
            reply = reply(body) if callable(reply) else reply
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(max(status, 200))
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) + 10 * (status == 1)))
            self.end_headers()
            self.wfile.write(data)
            if status == 1:
                self.drip()
        finally:
            with self.server.lock:
                self.server.open -= 1

    def drip(self) -> None:
        """A byte now and then, so that no read takes long and the whole does."""
        while not self.server.released.wait(0.05):
            self.wfile.write(b" ")
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served() -> Iterator[Served]:
    """A server that runs until the block ends."""
    server = Served()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


def says(text: str) -> dict[str, Any]:
    """A chat completion with this text."""
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
