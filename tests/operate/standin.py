"""A server that gives each photo the answer that its bytes ask for."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ARCHIVE = "a" * 64


class Standin(BaseHTTPRequestHandler):
    """`{"cat": 0.9, "dog": 0.1}` is answered cat; other keys replace what the answer holds, `status` its status."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        wanted: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = wanted.pop("status", 200)
        self.reply(status, self.answer(wanted) if status == 200 else {"error": {"message": f"refused with {status}"}})

    def answer(self, wanted: dict[str, Any]) -> dict[str, Any]:
        probabilities = {label: value for label, value in wanted.items() if isinstance(value, float) and label != "unlike"}
        rest = {name: value for name, value in wanted.items() if name not in probabilities}
        label = max(probabilities, key=probabilities.__getitem__, default=None)
        return {
            "label": label, "confidence": probabilities.get(label), "probabilities": probabilities, "unsure": False,
            "unsure_because": None, "model": {"name": "petclf", "version": "1.0.0"},
            "request_id": self.headers.get("X-Request-Id", "from-the-server"), **rest,
        }  # fmt: skip

    def reply(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "x-petclf-archive": ARCHIVE, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def standing_in() -> Iterator[str]:
    """Yield the address of a running stand-in."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Standin)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def write_photos(folder: Path, **answers: dict[str, Any]) -> Path:
    """Write `cat__1={"cat": 0.9, ...}` as FOLDER/cat/1.jpg; returns the folder."""
    for name, answer in answers.items():
        path = folder / f"{name.replace('__', '/')}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(answer))
    return folder
