"""Asks the public address about a known photo, as a client outside would, and shows Prometheus how that went.

PETCLF_PROBE_URL is asked every PETCLF_PROBE_SECONDS, over a new connection each time, because a stranger has none open.
PETCLF_PROBE_LISTEN is where the metrics are. PETCLF_PROBE_ARCHIVE has the photo and its answer; without it the archive that
is live in model_store/ has them. PETCLF_API_KEY, or the file PETCLF_PROBE_KEY_FILE, has the gateway's key, NAME:SECRET.
PETCLF_PROBE_CA is the authority of a certificate of one's own.
"""

import base64
import contextlib
import http.client
import json
import os
import signal
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from handler.model_file import Archive
from serving.say import ServeError, say
from serving.small_server import METRICS, Answering, start_server
from serving.store import checked, find_archives

STORE = Path(__file__).parents[1] / "model_store"
STALE_PROBES = 6  # after so many intervals without a result the metrics are an error, so that Prometheus sees that nobody looks
MOST_BYTES = 65_536  # of an answer, which has a few hundred
HELP = {
    "petclf_probe_success": "1 if the last probe got the right answer to a known photo in time, 0 if not",
    "petclf_probe_seconds": "what the last probe took from connecting to the end of the answer, or until it was given up",
    "petclf_probe_total": "probes by result: right, wrong (a wrong answer with status 200), refused (429 or 503), failed (the rest)",
}


class Probe:
    """Asks one address, counts what comes of it, and says so when that changes."""

    def __init__(self, url: str, archive: Archive, seconds: float = 5.0, ca: str | None = None) -> None:
        self.server: SplitResult = urlsplit(url)
        if self.server.scheme not in ("http", "https") or not self.server.hostname:
            raise ServeError(f"PETCLF_PROBE_URL is {url}; write it like http://127.0.0.1:8080")
        self.archive = archive
        self.seconds = seconds  # between two probes, and the longest that one may take
        if ca and not Path(ca).is_file():
            raise ServeError(f"PETCLF_PROBE_CA is {ca}, which is no file")
        self.trusted = ssl.create_default_context(cafile=ca) if self.server.scheme == "https" else None
        self.counts = dict.fromkeys(("right", "wrong", "refused", "failed"), 0)
        self.last = ""
        self.took = 0.0
        self.finished = -float("inf")

    def run(self) -> None:
        while True:
            started = time.monotonic()
            self.look()
            time.sleep(max(0.0, started + self.seconds - time.monotonic()))

    def look(self) -> None:
        """Ask once, and keep what came of it."""
        started = time.monotonic()
        try:
            result, words = self.judge(*self.ask(started + self.seconds))
        except (OSError, http.client.HTTPException) as error:
            result, words = "failed", str(error) or type(error).__name__
        self.finished = time.monotonic()
        self.took = self.finished - started
        if result == "right" and self.took > self.seconds:  # a trickle: each piece was in time, the whole is not
            result, words = "failed", f"the answer took {self.took:.1f} s"
        self.counts[result] += 1
        if result != self.last:
            say(f"{result}: {words}", "probe", "INFO" if result == "right" else "WARNING")
        self.last = result

    def ask(self, end: float) -> tuple[int, bytes]:
        """Return status and body of the answer to the known photo."""
        path = f"{self.server.path.rstrip('/')}/predictions/{self.archive.name}"
        with contextlib.closing(self.connection()) as connection:
            connection.connect()
            connection.sock.settimeout(max(0.01, end - time.monotonic()))  # what connecting has left
            connection.request("POST", path, self.archive.model.photo, {"Content-Type": "image/png", **authorization()})
            response = connection.getresponse()
            return response.status, response.read(MOST_BYTES)

    def connection(self) -> http.client.HTTPConnection:
        host, port = self.server.hostname or "", self.server.port
        if self.trusted:
            return http.client.HTTPSConnection(host, port, timeout=self.seconds, context=self.trusted)
        return http.client.HTTPConnection(host, port, timeout=self.seconds)

    def judge(self, status: int, body: bytes) -> tuple[str, str]:
        """Return the result, and a few words about it.

        During a switch another version than the archive's may answer. What is right for it is not known here, so a well-formed
        answer of it counts as right.
        """
        words = " ".join(body[:200].decode(errors="replace").split())
        if status != 200:
            return "refused" if status in (429, 503) else "failed", f"status {status}: {words}"
        try:
            answer = json.loads(body)
            given, version = list(answer["probabilities"].values()), answer["model"]["version"]
            known = version == self.archive.version
            right = (
                self.archive.model.knows(given) if known else abs(sum(given) - 1) <= 1e-3 and answer["confidence"] == max(given)
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return "wrong", f"no answer of petclf: {words}"
        return "right" if right else "wrong", f"version {version} answers {words}"

    def metrics(self) -> str:
        """Return everything in Prometheus' text format."""
        families = (
            ("petclf_probe_success", "gauge", {"": int(self.last == "right")}),
            ("petclf_probe_seconds", "gauge", {"": round(self.took, 4)}),
            ("petclf_probe_total", "counter", {f'{{result="{result}"}}': count for result, count in self.counts.items()}),
        )
        return "".join(
            f"# HELP {name} {HELP[name]}\n# TYPE {name} {kind}\n"
            + "".join(f"{name}{key} {value}\n" for key, value in values.items())
            for name, kind, values in families
        )

    def is_stale(self) -> bool:
        return time.monotonic() - self.finished > STALE_PROBES * self.seconds


def authorization() -> dict[str, str]:
    """Return the header with the key, read anew each time: keys come and go without a restart."""
    file = os.environ.get("PETCLF_PROBE_KEY_FILE")
    key = Path(file).read_text(encoding="utf-8").strip() if file else os.environ.get("PETCLF_API_KEY", "")
    return {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()} if key else {}


def start_metrics(address: str, probe: Probe) -> None:
    """Show the metrics from now on, in threads that end with this process."""

    class Metrics(Answering):
        def do_GET(self) -> None:
            status = 404 if self.path != "/metrics" else 503 if probe.is_stale() else 200
            self.reply(status, probe.metrics() if status == 200 else "", METRICS)

    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ServeError(f"PETCLF_PROBE_LISTEN is {address}; write it like 127.0.0.1:8085")
    start_server(host, int(port), Metrics)


def number_of_seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) > 0:
            return seconds
    raise ServeError(f"PETCLF_PROBE_SECONDS is {text}; it must be a number above 0")


def main() -> None:
    setting = os.environ.get
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container is not ended by it otherwise
    try:
        named = setting("PETCLF_PROBE_ARCHIVE")
        archive = checked(Path(named)) if named else find_archives(STORE)[0]
        seconds = number_of_seconds(setting("PETCLF_PROBE_SECONDS") or "5")
        probe = Probe(setting("PETCLF_PROBE_URL") or "http://127.0.0.1:8080", archive, seconds, setting("PETCLF_PROBE_CA"))
        start_metrics(setting("PETCLF_PROBE_LISTEN") or "127.0.0.1:8085", probe)
    except (ServeError, OSError) as error:
        say(f"the probe cannot start: {error}", "probe", "ERROR")
        sys.exit(2)
    with contextlib.suppress(KeyboardInterrupt):
        probe.run()


if __name__ == "__main__":
    main()
