"""Does anybody notice a release? Versions are promoted and rolled back again and again while clients ask and workers are killed.

Two servers start from one store. Half of the clients ask the first through the shipped gateway, which has the second as its spare;
half ask the second itself. All over connections that stay open.
"""

import argparse
import contextlib
import http.client
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil

from benchmarks.drawing import draw_photo, encoded
from benchmarks.growth import build_version
from benchmarks.record import write_record
from benchmarks.stack import PATH, ROOT, free_ports, process, wait_until
from serving.management import UNREACHABLE, Management

PHOTO = encoded(draw_photo("cat", 1, (320, 240)), quality=90)
HOSTS = ("127.0.0.1", "127.0.0.2")
VERSIONS = ("1.0.0", "1.1.0")
HEAL_SECONDS = 90.0


@dataclass
class Asker:
    """One client with one connection; `late` counts answers of a version that a command had replaced before they were asked for."""

    host: str
    port: int
    outcomes: Counter[str] = field(default_factory=Counter)
    late: int = 0

    def ask_on(self, place: "Place") -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        while not place.over.is_set():
            next(place.numbers)
            settled = place.settled
            try:
                connection.request("POST", "/predictions/petclf", PHOTO, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[type(error).__name__] += 1
                connection.close()
                continue
            self.outcomes[str(response.status)] += 1
            version = response.headers.get("x-petclf-version", "")
            self.late += response.status == 200 and settled == place.settled and settled not in ("", version)


@dataclass
class Place:
    """What the clients and the releases share."""

    wanted: int  # requests at least
    numbers: Iterator[int] = field(default_factory=itertools.count)
    over: threading.Event = field(default_factory=threading.Event)
    settled: str = ""  # the only version that may answer now; empty while a command runs


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Start two servers and the gateway; yields the ports of predictions, management and gateway, and the servers' processes."""
    port, management, metrics, ready, public, public_management = free_ports(6)
    command = [sys.executable, "-m", "scripts.serve", "--model-store", str(folder / "store"), "--workers", "2"]
    settings = {
        "GATEWAY_WORK": str(folder / "gateway"), "GATEWAY_SECRETS": str(folder), "GATEWAY_LISTEN": "127.0.0.1",
        "GATEWAY_PORT": str(public), "GATEWAY_MANAGEMENT_PORT": str(public_management), "GATEWAY_LOG": str(folder / "access.log"),
        "GATEWAY_USER": "root" if os.getuid() == 0 else "", "GATEWAY_RATE": "100000", "GATEWAY_BURST": "100000", "PETCLF_SERVER": HOSTS[0],
        "PETCLF_SPARE": HOSTS[1], "PETCLF_INFERENCE_PORT": str(port), "PETCLF_MANAGEMENT_PORT": str(management),
        "PETCLF_READY_PORT": str(ready), "PATH": PATH,
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        pids = []
        for number, host in enumerate(HOSTS):
            where = [f"--{what}host={host}" for what in ("", "management-", "metrics-", "ready-")]
            ports = [f"--port={port}", f"--management-port={management}", f"--metrics-port={metrics}", f"--ready-port={ready}"]
            log = folder / f"serve-{number}.log"
            server = stack.enter_context(process(log, [*command, *where, *ports], {}))
            wait_until(lambda log=log: '"ready in' in log.read_text(encoding="utf-8"), server, log)  # type: ignore[misc]
            pids.append(server.pid)
        stack.enter_context(process(folder / "gateway.log", [str(ROOT / "deploy" / "gateway" / "start")], settings))
        time.sleep(2)
        yield [port, port], [public, management], pids


def release(place: Place, folder: Path, ports: list[int], management: int, *words: str) -> float:
    """Give one command of the tool; returns its seconds."""
    where = [word for host in HOSTS for word in ("--server", f"http://{host}:{management},http://{host}:{ports[0]}")]
    command = [sys.executable, "-m", "scripts.models", *words, *where, "--store", str(folder / "store")]
    place.settled = ""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words)}: {done.stdout}{done.stderr}")
    return time.monotonic() - begun


def there_and_back(place: Place, folder: Path, ports: list[int], management: int, pause: float) -> dict[str, float]:
    """Promote the second version and roll back to the first; returns the seconds of both."""
    took = {}
    promote, rollback = ("promote", VERSIONS[1], "--force", "measured", "--watch", "0.1"), ("rollback",)
    for words, version in ((promote, VERSIONS[1]), (rollback, VERSIONS[0])):
        took[words[0]] = release(place, folder, ports, management, *words)
        place.settled = version
        time.sleep(pause)
    return took


def kill_a_worker(pids: list[int]) -> None:
    """Kill one of the workers of one of the servers."""
    workers = [
        child.pid
        for pid in pids
        for child in psutil.Process(pid).children(recursive=True)
        if any("model_service_worker" in word for word in child.cmdline())
    ]
    os.kill(random.choice(workers), signal.SIGKILL)


def wait_for_workers(management: int) -> None:
    """Wait until every version has all its workers again; TorchServe sees a moment later that one is dead."""
    time.sleep(2)
    end = time.monotonic() + HEAL_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(*UNREACHABLE):
            versions = [one for host in HOSTS for one in Management(f"http://{host}:{management}").versions()]
            if all(one.ready >= one.wanted for one in versions):
                return
        time.sleep(0.2)
    raise SystemExit("error: a killed worker did not come back")


def measure(folder: Path, args: argparse.Namespace) -> list[str]:
    (folder / "store").mkdir()
    for version in VERSIONS:
        build_version(folder / "store" if version == VERSIONS[0] else folder, version, folder)
    place = Place(args.requests)
    with servers(folder) as (ports, (public, management), pids):
        askers = [Asker("127.0.0.1", public) for _ in range(4)] + [Asker(HOSTS[1], ports[0]) for _ in range(4)]
        threads = [threading.Thread(target=one.ask_on, args=(place,), daemon=True) for one in askers]
        release(place, folder, ports, management, "register", str(folder / f"{VERSIONS[1]}.mar"), "--workers", "2")
        for thread in threads:
            thread.start()
        busy = []
        for number in range(args.promotions):
            busy.append(there_and_back(place, folder, ports, management, args.pause))
            if number % 2 and number // 2 < args.kills:
                place.settled = ""
                kill_a_worker(pids)
                wait_for_workers(management)  # a version whose worker is missing cannot be promoted
        while next(place.numbers) < place.wanted:
            time.sleep(0.5)
        place.over.set()
        for thread in threads:
            thread.join()
        quiet = [there_and_back(place, folder, ports, management, args.pause) for _ in range(args.promotions)]
    return rows(askers, {"while the clients ask": busy, "after them, with nobody asking": quiet}, args)


def rows(askers: list[Asker], took: dict[str, list[dict[str, float]]], args: argparse.Namespace) -> list[str]:
    lines = [
        "| clients | requests | answered 200 | others | answers of another version after a command had returned |",
        "|---|---|---|---|---|",
    ]
    for name, some in (("4 through the gateway", askers[:4]), ("4 at the second server", askers[4:])):
        outcomes: Counter[str] = sum((one.outcomes for one in some), Counter())
        others = ", ".join(f"{what}: {count}" for what, count in sorted(outcomes.items()) if what != "200") or "none"
        lines.append(f"| {name} | {outcomes.total():,} | {outcomes['200']:,} | {others} | {sum(one.late for one in some)} |")
    lines += [
        "",
        "| seconds of a whole process | n | promote: median, at most | rollback: median, at most |",
        "|---|---|---|---|",
    ]
    for when, pairs in took.items():
        figures = [[pair[what] for pair in pairs] for what in ("promote", "rollback")]
        lines.append(f"| {when} | {len(pairs)} | {' | '.join(f'{median(some):.2f}, {max(some):.2f}' for some in figures)} |")
    lines += ["", f"{args.kills} workers were killed with SIGKILL meanwhile, on either server, of either version."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--requests", type=int, default=30_000, help="at least")
    parser.add_argument("--promotions", type=int, default=20, help="each is followed by a rollback")
    parser.add_argument("--kills", type=int, default=10, help="workers that are killed, at most one for two promotions")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds after each command")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="petclf-") as folder:
        lines = measure(Path(folder), args)
    print("\n".join(lines))
    if args.record:
        print(write_record("releases", "Releases while clients ask", "python -m benchmarks.releases --record", lines))


if __name__ == "__main__":
    main()
