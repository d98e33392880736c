"""Do forms that TorchServe cannot read take memory for good? With Netty's pool of buffers and without it, as `serve` starts it; what does that cost?

The rate of ordinary photos is measured with both servers running, in turns; then each gets the forms, and after them a large photo.
"""

import argparse
import contextlib
import http.client
import statistics
import tempfile
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.drawing import draw_photo, encoded
from benchmarks.load import Load, as_request
from benchmarks.record import write_record
from benchmarks.systems import SYSTEMS, Running, petclf, running

PATH = "/predictions/petclf"
PHOTO = encoded(draw_photo("cat", 1, (500, 375)), quality=90)
POOL, NO_POOL = "pooled", "unpooled"


def command(allocator: str, port: int, folder: Path) -> list[str]:
    return [*petclf(port, folder), f"--java-options=-Dio.netty.allocator.type={allocator}"]  # the last of two counts


def rate(server: Running, connections: int, seconds: float) -> float:
    return float(Load(server.port, [as_request(PHOTO, PATH, "raw")]).closed(connections, seconds, lead=0.5)["rate"])


def post(port: int, body: bytes, content: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", PATH, body, {"Content-Type": content})
        response = connection.getresponse()
        response.read()
        return response.status


def after_forms(server: Running, count: int, size: int) -> list[str]:
    """Send forms whose only field has no name; return the cells of a row: what they got, a large photo after them, memory."""
    form = b'--b\r\nContent-Disposition: form-data; name=""\r\n\r\n' + bytes(size) + b"\r\n--b--\r\n"
    before = server.memory()
    got = Counter(post(server.port, form, "multipart/form-data; boundary=b") for _ in range(count))
    large = post(server.port, PHOTO + bytes(size), "image/jpeg")
    told = ", ".join(f"{status}: {times}" for status, times in sorted(got.items()))
    return [told, str(large), f"{before / 1e6:.0f}", f"{server.memory() / 1e6:.0f}"]


def measure(folder: Path, args: argparse.Namespace) -> list[str]:
    [shipped] = [system for system in SYSTEMS if system.name == "petclf"]
    with contextlib.ExitStack() as stack:
        servers = {
            allocator: stack.enter_context(
                running(replace(shipped, command=partial(command, allocator)), folder / allocator, PHOTO, "label")
            )
            for allocator in (POOL, NO_POOL)
        }
        lines = ["| connections | n | rate without the pool / with it, median [least-most] |", "|---|---|---|"]
        for connections in (1, 8, 32):
            ratios = []
            for turn in range(args.rounds):
                order = (POOL, NO_POOL) if turn % 2 else (NO_POOL, POOL)
                found = {allocator: rate(servers[allocator], connections, args.seconds) for allocator in order}
                ratios.append(found[NO_POOL] / found[POOL])
            lines.append(
                f"| {connections} | {len(ratios)} | {statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}] |"
            )
        lines += [
            "",
            f"{args.count} forms of {args.size:,} bytes that TorchServe cannot read, then a photo of the same size; memory of the whole, PSS.",
            "",
        ]
        lines += ["| Netty's buffers | the forms got | the photo got | MB before | MB after |", "|---|---|---|---|---|"]
        for allocator, server in servers.items():
            lines.append(f"| {' | '.join([allocator, *after_forms(server, args.count, args.size)])} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--size", type=int, default=9_000_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(Path(folder), args)
    print("\n".join(lines))
    if args.record:
        write_record(
            "unreadable_forms", "Forms that TorchServe cannot read", "python -m benchmarks.unreadable_forms --record", lines
        )


if __name__ == "__main__":
    main()
