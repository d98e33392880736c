"""What is known about drift, for Prometheus: the logs are read on, and looked at, every so many seconds."""

import time

from operate.drift import DriftError
from operate.drift_watch import State, Watcher
from operate.photo_log import LogError
from serving.say import say
from serving.small_server import METRICS, Answering, start_server

STALE = 6  # intervals without a reading, after which the metrics are an error
HELP = {
    "petclf_drift_found": "1 if the last photos differ from the reference, 0 if not; absent where there are too few",
    "petclf_drift_p_value": "how likely a difference this large is where nothing changed, corrected for all tests of a look",
    "petclf_drift_distance": "share of photos by which the window differs from the reference",
    "petclf_drift_since_timestamp_seconds": "when the change of a drifted statistic most likely began",
    "petclf_drift_photos_total": "photos read, beside those of the reference",
    "petclf_drift_broken_lines_total": "lines that are none of the prediction log",
}
Values = list[tuple[str, float]]


class Exporter:
    """Keeps the metrics of the last reading."""

    def __init__(self, watcher: Watcher, seconds: float) -> None:
        self.watcher, self.seconds = watcher, seconds
        self.text = ""
        self.read_at = -float("inf")
        self.verdict = ""

    def run(self) -> None:
        while True:
            started = time.monotonic()
            self.look()
            time.sleep(max(0.0, started + self.seconds - time.monotonic()))

    def look(self) -> None:
        """Read what is new; say it when the verdict changes, and when a log cannot be read."""
        try:
            self.watcher.read()
            state = self.watcher.state()
        except (LogError, DriftError, OSError) as error:
            return self.tell(f"cannot look: {error}", "WARNING")
        self.text, self.read_at = metrics(state), time.monotonic()
        names = ", ".join(one.difference.statistic for one in state.findings)
        return self.tell(f"{state.verdict}{f' in {names}' if names else ''}", "WARNING" if names else "INFO")

    def tell(self, verdict: str, level: str) -> None:
        if verdict != self.verdict:
            say(verdict, "drift", level)
        self.verdict = verdict

    def is_stale(self) -> bool:
        return time.monotonic() - self.read_at > STALE * self.seconds

    def start(self, host: str, port: int) -> None:
        exporter = self

        class Metrics(Answering):
            def do_GET(self) -> None:
                status = 404 if self.path != "/metrics" else 503 if exporter.is_stale() else 200
                self.reply(status, exporter.text if status == 200 else "", METRICS)

        start_server(host, port, Metrics)


def metrics(state: State) -> str:
    """Return everything in Prometheus' text format."""
    windows = [window for window in (state.looks[-1].windows if state.looks else ()) if window.differences]
    each = [
        (f'{{window="{window.photos}",statistic="{one.statistic}"}}', one) for window in windows for one in window.differences
    ]
    began = [
        (f'{{statistic="{one.difference.statistic}"}}', float(state.photos.times[one.since.photo])) for one in state.findings
    ]
    families: tuple[tuple[str, str, Values], ...] = (
        ("petclf_drift_found", "gauge", [(f'{{window="{one.photos}"}}', float(bool(one.found))) for one in windows]),
        ("petclf_drift_p_value", "gauge", [(labels, one.p) for labels, one in each]),
        ("petclf_drift_distance", "gauge", [(labels, round(one.distance, 4)) for labels, one in each]),
        ("petclf_drift_since_timestamp_seconds", "gauge", began),
        ("petclf_drift_photos_total", "counter", [("", float(state.count))]),
        ("petclf_drift_broken_lines_total", "counter", [("", float(state.broken))]),
    )
    return "".join(
        f"# HELP {name} {HELP[name]}\n# TYPE {name} {kind}\n" + "".join(f"{name}{labels} {value!r}\n" for labels, value in values)
        for name, kind, values in families
    )
