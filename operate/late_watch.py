"""Shows Prometheus how right the server was, and looks again and again whether labels or predictions have come."""

import sys
import time

from operate.client import UsageError
from operate.late_page import metrics
from operate.late_reader import Identity, Reader
from serving.small_server import METRICS, Answering, start_server


class Watcher:
    """Keeps the figures of the files as they are. A file that cannot be read leaves the figures of the last time."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.seen: list[Identity] = reader.identities()
        self.late = reader.read()
        self.success, self.timestamp = True, time.time()

    def look(self) -> None:
        """Read the files again if one of them changed."""
        now = time.time()
        try:
            seen = self.reader.identities()
            if seen != self.seen or not self.success:
                self.late = self.reader.read()
            self.seen, self.success, self.timestamp = seen, True, now
        except (OSError, UsageError) as error:
            if self.success:
                print(f"the figures stay as they are: {error}", file=sys.stderr, flush=True)
            self.success = False

    def metrics(self) -> str:
        return metrics(self.late, self.success, self.timestamp)


def listen(reader: Reader, address: str, every: float) -> None:
    """Serve /metrics until the process is ended."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen {address} is no address; write it like 127.0.0.1:8086")
    watcher = Watcher(reader)

    class Metrics(Answering):
        def do_GET(self) -> None:
            known = self.path == "/metrics"
            self.reply(200 if known else 404, watcher.metrics() if known else "", METRICS)

    try:
        start_server(host, int(port), Metrics)
    except OSError as error:
        raise UsageError(f"cannot listen on {address}: {error.strerror}; choose another with --listen") from None
    print(f"metrics on http://{address}/metrics", flush=True)
    while True:
        time.sleep(every)
        watcher.look()
