"""A photo from an address: only from hosts on the operator's list, never from inside the network, never for longer than FETCH_SECONDS."""

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from urllib.parse import SplitResult, urljoin, urlsplit

from handler.limits import FETCH_SECONDS, FETCHES, MAX_BODY
from handler.refusal import Refusal, attempt

REDIRECTS = 3
AGENT = {"User-Agent": "petclf", "Accept": "image/*", "Connection": "close"}


def allowed_hosts() -> frozenset[str]:
    """Return the operator's list, PETCLF_URL_HOSTS: host names, with commas between."""
    return frozenset(host.strip().lower() for host in os.environ.get("PETCLF_URL_HOSTS", "").split(",") if host.strip())


class Line:
    """What one fetch is connected by; whoever waits for the photo may cut it when the time is over."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.socket: socket.socket | None = None

    def seconds_left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def cut(self) -> None:
        """Wake the thread that waits at the other end: a time-out counts from byte to byte, so it could wait for hours."""
        if self.socket:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


class Fetcher:
    """Fetches photos at the same time, each in a thread of its own that is left behind when the time is over.

    Nothing can interrupt a name look-up, so a thread may outlive its photo: there are never more than FETCHES.
    """

    def __init__(self, hosts: frozenset[str]) -> None:
        self.hosts = hosts
        self.free = threading.BoundedSemaphore(FETCHES)

    def fetch_all(self, urls: Sequence[str]) -> list[bytes | Refusal]:
        """Return each address's photo or refusal, all within FETCH_SECONDS."""
        line_ends = time.monotonic() + FETCH_SECONDS
        lines = [Line(line_ends) for _ in urls]
        found = [self.start(url, line) for url, line in zip(urls, lines, strict=True)]
        wait(found, FETCH_SECONDS)
        return [one.result() if one.done() else leave(line) for one, line in zip(found, lines, strict=True)]

    def start(self, url: str, line: Line) -> Future[bytes | Refusal]:
        found: Future[bytes | Refusal] = Future()
        if self.free.acquire(blocking=False):
            threading.Thread(target=self.run, args=(found, url, line), name="fetch", daemon=True).start()
        else:
            found.set_result(Refusal("busy", f"{FETCHES} other addresses have not answered yet; send it again"))
        return found

    def run(self, found: Future[bytes | Refusal], url: str, line: Line) -> None:
        try:
            found.set_result(attempt(fetch, url, self.hosts, line))
        finally:
            self.free.release()


def leave(line: Line) -> Refusal:
    line.cut()
    return Refusal("url_failed", f"the host of url did not answer within {FETCH_SECONDS:g} seconds")


def fetch(url: str, hosts: frozenset[str], line: Line) -> bytes:
    """Return the bytes at the address; every redirect is judged like the first address."""
    for _ in range(REDIRECTS + 1):
        parts = judge(url, hosts)
        try:
            status, location, data = get(parts, line)
        except (OSError, http.client.HTTPException):  # ssl.SSLError and TimeoutError are OSErrors
            raise Refusal("url_failed", f"{parts.hostname} did not answer within {FETCH_SECONDS:g} seconds") from None
        if status == 200:
            return data
        if status not in (301, 302, 303, 307, 308) or not location:
            raise Refusal("url_failed", f"{parts.hostname} answered with status {status}")
        url = urljoin(url, location)
    raise Refusal("url_failed", f"more than {REDIRECTS} redirects")


def judge(url: str, hosts: frozenset[str]) -> SplitResult:
    """Return the address in parts, or refuse it before anything is looked up."""
    if not hosts:
        raise Refusal("url_not_allowed", "this server fetches no addresses; send the photo itself")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refusal("bad_request", "url is not an address") from None
    if parts.scheme not in ("http", "https") or port not in (None, 80, 443) or parts.username or parts.password:
        raise Refusal("url_not_allowed", "url must be http or https, on the usual port, without a user")
    if (parts.hostname or "").lower() not in hosts:
        raise Refusal("url_not_allowed", "the host of url is not on this server's list")
    return parts


def public_address(host: str, port: int) -> str:
    """Return the one IP address to connect to: looked up once, so that it cannot change after it was judged."""
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    if not found or not all(is_public(address) for address in found):
        raise Refusal("url_not_allowed", "the host of url has a private address")
    return min(found)


def is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.split("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return ip.is_global and not ip.is_multicast and (inner is None or (inner.is_global and not inner.is_multicast))


def get(parts: SplitResult, line: Line) -> tuple[int, str | None, bytes]:
    """Return status, redirect and body of one GET, connected to the address that was judged."""
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    address = public_address(host, port)
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    line.socket = socket.create_connection((address, port), timeout=line.seconds_left())
    with closing(http.client.HTTPConnection(host, port)) as connection:
        connection.sock = line.socket
        if secure:
            connection.sock = line.socket = secured(line.socket, host)
            line.socket.do_handshake()
        connection.request("GET", target, headers=AGENT)
        with connection.getresponse() as response:
            data = read_limited(response, line) if response.status == 200 else b""
            return response.status, response.getheader("Location"), data


def secured(plain: socket.socket, host: str) -> ssl.SSLSocket:
    """Return the connection in TLS before its handshake, so that it can be cut during it."""
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)


def read_limited(response: http.client.HTTPResponse, line: Line) -> bytes:
    """Read in pieces, so that neither a huge nor an endless slow body gets through."""
    data = bytearray()
    while piece := response.read1(65_536):
        data += piece
        if len(data) > MAX_BODY:
            raise Refusal("too_large", f"the photo at url is larger than {MAX_BODY:,} bytes")
        line.seconds_left()
    return bytes(data)
