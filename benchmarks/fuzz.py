"""Hostile inputs against a real server, directly or through the gateway: every one gets 200 or a refusal in our shape, no worker dies, memory stays flat."""

import argparse
import base64
import contextlib
import http.client
import io
import json
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pillow_heif
from PIL import Image

from benchmarks.machine import pss_of_children
from benchmarks.record import RESULTS, write_record
from benchmarks.stack import running

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")
KINDS = (
    "mutated", "truncated", "spliced", "random", "json", "deep json", "base64", "pixels", "instances", "form", "bomb", "odd headers",
)  # fmt: skip

pillow_heif.register_heif_opener()


@dataclass(frozen=True)
class Input:
    """One request of a stranger who means no good."""

    kind: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    path: str = "/predictions/petclf"


@dataclass
class Report:
    """What the server made of them."""

    statuses: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def samples() -> dict[str, bytes]:
    """Return a small photo in every format."""
    photo = Image.radial_gradient("L").resize((96, 72)).convert("RGB")
    found = {}
    for name in FORMATS:
        buffer = io.BytesIO()
        photo.save(buffer, name)
        found[name] = buffer.getvalue()
    return found


def inputs(count: int, seed: int) -> Iterator[Input]:
    """Return the same hostile inputs for the same seed."""
    chooser = random.Random(seed)
    photos = samples()
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        path = "/explanations/petclf" if chooser.random() < 0.2 else "/predictions/petclf"
        body, headers = make(kind, chooser, photos)
        yield Input(kind, body, headers, path)


def make(kind: str, chooser: random.Random, photos: dict[str, bytes]) -> tuple[bytes, dict[str, str]]:
    photo = photos[chooser.choice(FORMATS)]
    as_json = {"Content-Type": "application/json"}
    if kind == "mutated":
        return mutated(chooser, photo), {"Content-Type": "image/jpeg"}
    if kind == "truncated":
        return photo[: chooser.randrange(1, len(photo))], {}
    if kind == "spliced":
        other = photos[chooser.choice(FORMATS)]
        return photo[: chooser.randrange(1, len(photo))] + other[chooser.randrange(len(other)) :], {}
    if kind == "random":
        return chooser.randbytes(chooser.randrange(1, 4000)), {
            "Content-Type": chooser.choice(["", "image/png", "text/plain", "video/mp4"])
        }
    if kind == "json":
        return json.dumps(odd_value(chooser, 3)).encode(), as_json
    if kind == "deep json":
        depth = chooser.choice([100, 5_000, 200_000])
        return chooser.choice([b"[" * depth, b'{"a":' * depth, b'{"instances":' * depth, b"[" * depth + b"]" * depth]), as_json
    if kind == "base64":
        text = base64.b64encode(mutated(chooser, photo)).decode()
        return json.dumps(
            {"image": chooser.choice([text, text[:-3], "data:;base64," + text, "data:" + text, text * 3])}
        ).encode(), as_json
    if kind == "pixels":
        return json.dumps({"pixels": [[[odd_number(chooser)] * 3] * 3] * chooser.randrange(4)}).encode(), as_json
    if kind == "instances":
        some = [
            chooser.choice([base64.b64encode(photo).decode(), odd_value(chooser, 2), {"image": ""}])
            for _ in range(chooser.randrange(40))
        ]
        return json.dumps({"instances": some}).encode(), as_json
    if kind == "form":
        return form(chooser, photo)
    if kind == "bomb":
        return bomb(chooser), {"Content-Type": "image/png"}
    return photo, odd_headers(chooser)


def mutated(chooser: random.Random, photo: bytes) -> bytes:
    data = bytearray(photo)
    for _ in range(chooser.choice([1, 3, 10, 50])):
        data[chooser.randrange(len(data))] = chooser.randrange(256)
    return bytes(data)


def odd_number(chooser: random.Random) -> Any:
    return chooser.choice([0, 255, 256, -1, 1.5, 10**30, None, True, "7", float("nan"), float("inf")])


def odd_value(chooser: random.Random, depth: int) -> Any:
    """Return some JSON, often with our own words in the wrong places."""
    words = [
        "image",
        "pixels",
        "url",
        "instances",
        "b64",
        "describe",
        "\u0000",
        "ä" * 50,
        "https://127.0.0.1/",
        "../../etc/passwd",
        "",
    ]
    choice = chooser.randrange(5 if depth else 3)
    if choice == 0:
        return odd_number(chooser)
    if choice == 1:
        return chooser.choice(words)
    if choice == 2:
        return chooser.choice([[], {}, None])
    if choice == 3:
        return [odd_value(chooser, depth - 1) for _ in range(chooser.randrange(4))]
    return {chooser.choice(words): odd_value(chooser, depth - 1) for _ in range(chooser.randrange(4))}


def form(chooser: random.Random, photo: bytes) -> tuple[bytes, dict[str, str]]:
    name = chooser.choice(["file", "describe", "explain", "body", "content-type", "x-request-id", "", "ä"])
    data = chooser.choice([photo, mutated(chooser, photo), b"", b"text"])
    part = f'Content-Disposition: form-data; name="{name}"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'.encode() + data
    count = chooser.choice([0, 1, 1, 2])
    body = b"".join(b"--edge\r\n" + part + b"\r\n" for _ in range(count)) + b"--edge--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=edge"}


def bomb(chooser: random.Random) -> bytes:
    """Return a small PNG that claims, or unpacks to, something large."""
    width, height = chooser.choice([(30_000, 30_000), (100_000, 600), (60_000, 1), (0, 5), (7_000, 7_100)])

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, chooser.choice([0, 2, 6]), 0, 0, 0)
    text = chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(5_000_000))) if chooser.random() < 0.3 else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text + chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    )


def odd_headers(chooser: random.Random) -> dict[str, str]:
    value = chooser.choice(["True", "\xe4\xf6\xfc", "x" * 3000, "image/png", "text/html", "*/*;q=", "a,b;c", "%00", "-1"])
    name = chooser.choice(
        ["describe", "explain", "Accept", "X-Request-Id", "ts_stream_next", "Content-Encoding", "Range", "X-\x7f".strip("\x7f")]
    )
    return {
        name: value,
        "Content-Type": chooser.choice(["image/jpeg", "image/jpeg;" + "a=b;" * 50, "\xff/\xff", "application/octet-stream"]),
    }


def send(port: int, hostile: Input) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", hostile.path, hostile.body, hostile.headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def judge(hostile: Input, status: int, body: bytes, report: Report) -> None:
    """Note what is not as promised."""
    report.statuses[f"{status}"] += 1
    if status == 200 and body.startswith(b"\x89PNG") and hostile.path.startswith("/explanations"):
        return  # it asked for a picture
    try:
        content = json.loads(body)
    except ValueError:
        report.wrong.append(f"{hostile.kind}: {status} {body[:80]!r}")
        return
    if content.get("type") == "ErrorDataDecoderException":
        report.codes["a form that TorchServe itself cannot read (its own 500)"] += 1
    elif status == 200:
        if not {"label", "predictions", "how_to_ask"} & set(content):
            report.wrong.append(f"{hostile.kind}: 200 {body[:80]!r}")
    elif (400 <= status < 500 or status == 503) and set(content.get("error", {})) == {"code", "message", "request_id"}:
        report.codes[content["error"]["code"]] += 1
    else:
        report.wrong.append(f"{hostile.kind}: {status} {body[:120]!r}")


def attack(port: int, count: int, seed: int = 1, together: int = 8, look: Callable[[], None] = lambda: None) -> Report:
    """Send them all, several at a time, take a look after every 500, and return what came back."""
    report = Report()

    def one(hostile: Input) -> tuple[Input, int, bytes]:
        try:
            return (hostile, *send(port, hostile))
        except (OSError, http.client.HTTPException) as error:
            return hostile, 0, repr(error).encode()

    with ThreadPoolExecutor(together) as pool:
        waiting = inputs(count, seed)
        while some := [hostile for _, hostile in zip(range(500), waiting, strict=False)]:
            for hostile, status, body in pool.map(one, some):
                judge(hostile, status, body, report)
            look()
    return report


@dataclass(frozen=True)
class Served:
    """A server, asked directly or through the gateway: where, where it is managed, and its process."""

    port: int
    management_port: int
    pid: int


@contextlib.contextmanager
def served_directly(ports: list[int]) -> Iterator[Served]:
    server = start_server(ports)
    try:
        yield Served(ports[0], ports[1], server.pid)
    finally:
        server.terminate()
        server.wait(30)


@contextlib.contextmanager
def served_through_the_gateway() -> Iterator[Served]:
    """Leave out the limit on one address: it would refuse most inputs before anybody looks at them."""
    with tempfile.TemporaryDirectory() as folder:
        with running(Path(folder) / "stack", GATEWAY_RATE="100000", GATEWAY_BURST="100000") as stack:
            yield Served(stack.port, stack.server_management_port, stack.server.process.pid)


def start_server(ports: list[int]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.serve", "--workers", "2", "--ready-port", "0"]
    for name, port in zip(("port", "management-port", "metrics-port"), ports, strict=True):
        command += [f"--{name}", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if '"ready in ' in line:
            threading.Thread(target=server.stdout.read, daemon=True).start()  # a full pipe would stop the server
            return server
    raise SystemExit("error: the server did not come up")


def workers(port: int) -> list[int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/models/petclf")
    [model] = json.loads(connection.getresponse().read())
    connection.close()
    return sorted(worker["pid"] for worker in model["workers"])


def describe_memory(looks: list[int]) -> str:
    """Tell whether memory grew: a single look may find a worker with a large photo's room still in its hands."""
    middle = (len(looks) + 1) // 2
    first, second = median(looks[:middle]), median(looks[middle:] or looks)
    return (
        f"memory of the whole (PSS), {len(looks)} looks: {first / 1e6:.0f} MB in the median of the first half, "
        f"{second / 1e6:.0f} MB of the second ({second / first - 1:+.1%}); {min(looks) / 1e6:.0f} to {max(looks) / 1e6:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ports", type=int, nargs=3, default=[18080, 18081, 18082])
    parser.add_argument("--gateway", action="store_true", help="send them through the gateway")
    parser.add_argument("--record", action="store_true", help=f"write the result into benchmarks/{RESULTS.name}")
    args = parser.parse_args()
    with served_through_the_gateway() if args.gateway else served_directly(args.ports) as served:
        attack(served.port, max(600, args.count // 4), seed=args.seed + 1)  # what memory is needed at all is taken now
        memory, pids, started = list[int](), workers(served.management_port), time.monotonic()
        report = attack(served.port, args.count, args.seed, look=lambda: memory.append(pss_of_children(served.pid)))
        seconds, same = time.monotonic() - started, workers(served.management_port) == pids
    lines = [
        f"{args.count:,} hostile inputs in {seconds:.0f} s: {dict(sorted(report.statuses.items()))}",
        f"refused as: {dict(report.codes.most_common())}",
        f"not as promised: {len(report.wrong)}",
        f"workers restarted: {'no' if same else 'yes'}",
        describe_memory(memory),
    ]
    print("\n".join([*lines, *report.wrong[:20]]))
    if args.record:
        command = f"python -m benchmarks.fuzz --count {args.count}{' --gateway' if args.gateway else ''}"
        theme, title = ("fuzz_gateway", "Hostile inputs through the gateway") if args.gateway else ("fuzz", "Hostile inputs")
        write_record(theme, title, command, [f"- {line}" for line in lines])
    sys.exit(1 if report.wrong or not same else 0)


if __name__ == "__main__":
    main()
