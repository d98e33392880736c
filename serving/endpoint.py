"""The supervisor's own port: is the server ready, what Prometheus should know, and how a version is removed without a lost request."""

import contextlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serving.health import Health
from serving.management import Management, ManagementError

VERSION = re.compile(r"/models/([A-Za-z0-9][\w.-]{0,63})/([A-Za-z0-9][\w.-]{0,63})")


def start_endpoint(host: str, port: int, look: Callable[[], Health], management: Management) -> None:
    """Answer from now on, in threads that end with this process."""

    class Endpoint(BaseHTTPRequestHandler):
        timeout = 10  # seconds; a client that says nothing is dropped

        def do_GET(self) -> None:
            if self.path == "/ready":
                state = look().state
                self.reply(200 if state == "ready" else 503, {"state": state})
            elif self.path == "/metrics":
                self.reply(200, look().metrics(), "text/plain; version=0.0.4; charset=utf-8")
            else:
                self.reply(404, error("not_found", "GET /ready, GET /metrics and DELETE /models/NAME/VERSION are here"))

        def do_DELETE(self) -> None:
            if not (named := VERSION.fullmatch(self.path)):
                self.reply(404, error("not_found", "name a version: DELETE /models/NAME/VERSION"))
                return
            try:
                self.reply(200, management.remove(*named.groups()))
            except ManagementError as reason:
                self.reply(reason.status, error("not_found" if reason.status == 404 else "conflict", str(reason)))
            except OSError as reason:
                self.reply(503, error("busy", f"TorchServe does not answer: {reason}"))

        def reply(self, status: int, content: Any, kind: str = "application/json") -> None:
            body = (content if isinstance(content, str) else json.dumps(content)).encode()
            with contextlib.suppress(OSError):  # whoever asked has gone
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: probes come every few seconds."""

    server = ThreadingHTTPServer((host, port), Endpoint)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="endpoint", daemon=True).start()


def error(code: str, message: str) -> dict[str, dict[str, str]]:
    return {"error": {"code": code, "message": message}}
