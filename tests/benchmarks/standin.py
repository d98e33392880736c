"""A server that answers everything alike, and remembers who asked for what."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class StandIn:
    status: int = 200
    body: bytes = b'{"label":"cat"}'
    closes: bool = False
    port: int = 0
    sources: list[str] = field(default_factory=list)  # an address for each connection
    asked: set[tuple[str, str]] = field(default_factory=set)  # method and path
    keys: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def running(self) -> Iterator["StandIn"]:
        with Server(("127.0.0.1", 0), self.handler()) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 100

            def setup(self) -> None:
                super().setup()
                stand_in.sources.append(self.client_address[0])

            def do_POST(self) -> None:
                stand_in.asked.add((self.command, self.path))
                stand_in.keys.add(self.headers.get("Authorization", ""))
                self.close_connection = stand_in.closes
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(stand_in.status)
                self.send_header("Content-Length", str(len(stand_in.body)))
                self.end_headers()
                self.wfile.write(stand_in.body)

            do_GET = do_POST

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # attackers go without a word
                    super().handle()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler


class Server(ThreadingHTTPServer):
    request_queue_size = 1000

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: attackers go without a word."""
