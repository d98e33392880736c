"""A photo from an address: only from hosts on the operator's list, never from inside the network."""

import http.client
import ipaddress
import os
import socket
import ssl
import time
from contextlib import closing
from urllib.parse import SplitResult, urljoin, urlsplit

from handler.limits import FETCH_SECONDS, MAX_BODY
from handler.refusal import Refusal

REDIRECTS = 3
AGENT = {"User-Agent": "petclf", "Accept": "image/*", "Connection": "close"}


def allowed_hosts() -> frozenset[str]:
    """Return the operator's list, PETCLF_URL_HOSTS: host names, with commas between."""
    return frozenset(host.strip().lower() for host in os.environ.get("PETCLF_URL_HOSTS", "").split(",") if host.strip())


def fetch(url: str, hosts: frozenset[str]) -> bytes:
    """Return the bytes at the address; every redirect is judged like the first address."""
    deadline = time.monotonic() + FETCH_SECONDS
    for _ in range(REDIRECTS + 1):
        parts = judge(url, hosts)
        try:
            status, location, data = get(parts, deadline)
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


def get(parts: SplitResult, deadline: float) -> tuple[int, str | None, bytes]:
    """Return status, redirect and body of one GET, connected to the address that was judged."""
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    address = public_address(host, port)
    left = max(0.1, deadline - time.monotonic())
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    with (
        socket.create_connection((address, port), timeout=left) as plain,
        closing(http.client.HTTPConnection(host, port)) as connection,
    ):
        connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
        connection.request("GET", target, headers=AGENT)
        with connection.getresponse() as response:
            data = read_limited(response, deadline) if response.status == 200 else b""
            return response.status, response.getheader("Location"), data


def read_limited(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """Read in pieces, so that neither a huge nor an endless slow body gets through."""
    data = bytearray()
    while piece := response.read1(65_536):
        data += piece
        if len(data) > MAX_BODY:
            raise Refusal("too_large", f"the photo at url is larger than {MAX_BODY:,} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(data)
