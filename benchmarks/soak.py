"""Many photos in a row: does memory stay flat? Start-up time and answers on real photos come with it."""

import argparse
import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from benchmarks.fuzz import samples, start_server
from benchmarks.machine import pss_of_children
from benchmarks.record import write_record


def photos(folder: Path | None) -> list[tuple[str, bytes]]:
    """Return label and bytes of every photo of a folder with one sub-folder a label; drawn ones without a folder."""
    if folder is None:
        return [("", data) for data in samples().values()]
    return [(path.parent.name.lower(), path.read_bytes()) for path in sorted(folder.rglob("*.jpg"))]


class Shared(Iterator[tuple[str, bytes]]):
    """One iterator for several threads."""

    def __init__(self, source: Iterator[tuple[str, bytes]]) -> None:
        self.source, self.lock = source, threading.Lock()

    def __next__(self) -> tuple[str, bytes]:
        with self.lock:
            return next(self.source)


def send_all(port: int, source: Iterator[tuple[str, bytes]], together: int) -> list[tuple[str, str]]:
    """Send each photo once, several at a time over connections that stay open; return what it shows and what was answered."""
    data = Shared(source)

    def run(_: int) -> list[tuple[str, str]]:
        answers = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for label, photo in data:
            connection.request("POST", "/predictions/petclf", photo, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            body = json.loads(response.read())
            answers.append((label, body["label"] if response.status == 200 else f"status {response.status}"))
        connection.close()
        return answers

    with ThreadPoolExecutor(together) as pool:
        return [pair for some in pool.map(run, range(together)) for pair in some]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30_000)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--starts", type=int, default=5, help="how often to measure the start")
    parser.add_argument("--ports", type=int, nargs=3, default=[18080, 18081, 18082])
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    some = photos(args.photos)
    starts = []
    for _ in range(args.starts - 1):
        started = time.monotonic()
        server = start_server(args.ports)
        starts.append(time.monotonic() - started)
        server.terminate()
        server.wait(30)
    started = time.monotonic()
    server = start_server(args.ports)
    starts.append(time.monotonic() - started)
    try:
        pairs = send_all(args.ports[0], iter(some), 8)
        right = sum(label == answer for label, answer in pairs) if args.photos else None
        send_all(args.ports[0], islice(cycle(some), args.count // 3), 8)  # Java's own warm-up is long
        memory, begun, failed = [pss_of_children(server.pid)], time.monotonic(), 0
        for _ in range(10):
            answers = send_all(args.ports[0], islice(cycle(some), args.count // 10), 8)
            failed += sum(answer.startswith("status") for _, answer in answers)
            memory.append(pss_of_children(server.pid))
        seconds = time.monotonic() - begun
    finally:
        server.terminate()
        server.wait(30)
    growth = memory[-1] / memory[0] - 1
    lines = [
        f"launch to ready (all workers, a known photo answered right): median {statistics.median(starts):.1f} s, "
        f"{min(starts):.1f} to {max(starts):.1f}, n = {len(starts)}",
        f"{args.count:,} photos by 8 clients in {seconds:.0f} s ({args.count / seconds:.0f} a second, clients on the same cores), {failed} not answered",
        f"memory of the whole (PSS, 2 workers): {memory[0] / 1e6:.0f} MB after warm-up, {memory[-1] / 1e6:.0f} MB at the end ({growth:+.1%})",
        f"every tenth of the way, MB: {', '.join(f'{value / 1e6:.0f}' for value in memory)}",
    ]
    if right is not None:
        lines.append(f"of {len(pairs)} real photos, {right} were answered right ({right / len(pairs):.2%})")
    print("\n".join(lines))
    if args.record:
        command = f"python -m benchmarks.soak --count {args.count}{' --photos ...' if args.photos else ''}"
        write_record("soak", "Many photos in a row", command, [f"- {line}" for line in lines])
    sys.exit(1 if failed or growth > 0.02 else 0)


if __name__ == "__main__":
    main()
