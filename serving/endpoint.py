"""The supervisor's own port: is the server ready, what Prometheus should know, and how versions come and go without a lost request."""

import threading
from collections.abc import Callable
from typing import Any

from serving.health import Health
from serving.management import UNREACHABLE, VERSION_PATH, Management, ManagementError
from serving.register import Registrar
from serving.say import ServeError
from serving.small_server import METRICS, Answering, start_server

CODES = {400: "bad_request", 404: "not_found"}
MOST_BODY = 65_536  # bytes that are read before they are refused: who still sends when a connection ends sees no answer


def start_endpoint(host: str, port: int, look: Callable[[], Health], management: Management, registrar: Registrar) -> None:
    """Answer from now on, in threads that end with this process."""
    changing = threading.Lock()

    class Endpoint(Answering):
        def do_GET(self) -> None:
            if self.path == "/ready":
                state = look().state
                self.reply(200 if state == "ready" else 503, {"state": state})
            elif self.path == "/metrics":
                self.reply(200, look().metrics(), METRICS)
            else:
                self.reply(404, error("not_found", "here are GET /ready and /metrics, POST /models, DELETE /models/NAME/VERSION"))

        def do_POST(self) -> None:
            path, _, query = self.path.partition("?")
            length = self.headers.get("Content-Length", "0")
            if path != "/models":
                self.reply(404, error("not_found", "register a version: POST /models?url=ARCHIVE"))
            elif length != "0" or "Transfer-Encoding" in self.headers:
                self.rfile.read(min(int(length), MOST_BODY) if length.isdecimal() else 0)
                self.reply(400, error("bad_request", "a body is not taken; parameters go into the address"))
            elif (phase := look().phase) != "serving":
                self.reply(503, error("busy", f"the server is {phase}; versions are registered when it is ready"))
            else:
                self.change(registrar.register, query)

        def do_DELETE(self) -> None:
            if named := VERSION_PATH.fullmatch(self.path):
                self.change(management.remove, *named.groups())
            else:
                self.reply(404, error("not_found", "name a version: DELETE /models/NAME/VERSION"))

        def change(self, change: Callable[..., Any], *what: str) -> None:
            """Make one change at a time, to its end even if whoever asked has gone."""
            if not changing.acquire(blocking=False):
                self.reply(409, error("conflict", "another version is being registered or removed; ask again later"))
                return
            try:
                answer = 200, change(*what)
            except ServeError as reason:
                answer = 422, error("bad_archive", str(reason))
            except ManagementError as reason:
                answer = reason.status, error(CODES.get(reason.status, "conflict"), str(reason))
            except UNREACHABLE as reason:
                answer = 503, error("busy", f"TorchServe does not answer: {reason!r}")
            finally:
                changing.release()
            self.reply(*answer)

    start_server(host, port, Endpoint)


def error(code: str, message: str) -> dict[str, dict[str, str]]:
    return {"error": {"code": code, "message": message}}
