"""As much of W&B's server as a run asks for, and which can be lost in the middle of one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

ANSWERS = {
    "UpsertBucket": {
        "upsertBucket": {
            "bucket": {
                "id": "b", "name": "RUN", "displayName": "RUN", "config": "{}",
                "historyLineCount": 0,
                "project": {"id": "p", "name": "segment", "entity": {"id": "e", "name": "me"}},
            },
            "inserted": True,
        }
    },
    "Viewer": {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}"}},
    "RunResumeStatus": {"model": None},
}  # fmt: skip


class Server(ThreadingHTTPServer):
    """Answers until it is lost, and then hangs up on everyone."""

    daemon_threads = True
    lost = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:  # the name is http.server's
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.lost:
            self.close_connection = True
            return
        question = json.loads(body) if self.path == "/graphql" else {}
        query = question.get("query", "")
        name = next((name for name in ANSWERS if f" {name}" in query), self.path)
        self.server.asked.append(name)
        run = question.get("variables", {}).get("name") or ""
        answer = json.dumps({"data": ANSWERS.get(name, {})}).replace("RUN", run).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@contextmanager
def serving() -> Iterator[Server]:
    """A server of one's own, on a port of its own."""
    server = Server()
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
