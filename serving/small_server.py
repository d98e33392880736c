"""A small HTTP server beside what a process does: the supervisor's port and the probe's."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

METRICS = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format


class Answering(BaseHTTPRequestHandler):
    """Answers with text or JSON, and logs nothing: probes and Prometheus come every few seconds."""

    timeout = 10  # seconds; a client that says nothing is dropped

    def reply(self, status: int, content: Any, kind: str = "application/json") -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        with contextlib.suppress(OSError):  # whoever asked has gone
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def start_server(host: str, port: int, kind: type[Answering]) -> None:
    """Answer from now on, in threads that end with this process."""
    server = ThreadingHTTPServer((host, port), kind)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
