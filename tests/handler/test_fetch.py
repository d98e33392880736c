"""A photo from an address: from hosts on the list, from public addresses, within limits; nothing else is ever connected to."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import SplitResult, urlsplit

import pytest

from handler import fetch as fetching
from handler.fetch import Fetcher, Line, allowed_hosts, is_public, judge
from handler.limits import FETCHES
from handler.refusal import Refusal

HOSTS = frozenset({"photos.example.org", "cdn.example.org"})
PUBLIC = "93.184.215.14"


class Shop(BaseHTTPRequestHandler):
    """A host with photos, and with bad manners."""

    def do_GET(self) -> None:
        if self.path == "/photo.jpg?size=1":
            self.send(200, b"a photo")
        elif self.path == "/huge":
            self.send(200, b"x" * (fetching.MAX_BODY + 1))
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # the client goes away
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        elif self.path == "/drip":
            with suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
        elif self.path == "/inside":
            self.send(302, b"", "http://localhost/secret")
        elif self.path == "/elsewhere":
            self.send(302, b"", "/photo.jpg?size=1")
        elif self.path == "/round":
            self.send(307, b"", "/round")
        else:
            self.send(404, b"")

    def send(self, status: int, body: bytes, location: str | None = None) -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every public address leads to the shop; returns the addresses that were connected to."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connected = []

    def to_shop(address: tuple[str, int], timeout: float) -> socket.socket:
        connected.append(address[0])
        plain = socket.socket()
        plain.settimeout(timeout)
        plain.connect(("127.0.0.1", server.server_port))
        return plain

    monkeypatch.setattr(fetching.socket, "create_connection", to_shop)
    resolve_to(monkeypatch, PUBLIC)
    yield connected
    server.shutdown()
    server.server_close()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    monkeypatch.setattr(fetching.socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (address, 80)) for address in addresses])


def fetch(url: str, hosts: frozenset[str] = HOSTS) -> bytes | Refusal:
    [found] = Fetcher(hosts).fetch_all([url])
    return found


def refusal_of(url: str, hosts: frozenset[str] = HOSTS) -> str:
    found = fetch(url, hosts)
    assert isinstance(found, Refusal)
    return found.code


def threads_end() -> bool:
    """Tell whether all threads that fetch have ended, after a while."""
    end = time.monotonic() + 10
    while any(thread.name == "fetch" for thread in threading.enumerate()):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_photo_of_a_listed_host_is_fetched_from_the_address_that_was_judged(shop: list[str]) -> None:
    assert fetch("http://photos.example.org/photo.jpg?size=1#top") == b"a photo"
    assert shop == [PUBLIC]


def test_a_redirect_to_a_listed_host_is_followed(shop: list[str]) -> None:
    assert fetch("http://PHOTOS.example.org/elsewhere") == b"a photo"
    assert shop == [PUBLIC, PUBLIC]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://photos.example.org/inside", "url_not_allowed"),
        ("http://photos.example.org/round", "url_failed"),
        ("http://photos.example.org/none", "url_failed"),
        ("http://photos.example.org/huge", "too_large"),
    ],
)
@pytest.mark.usefixtures("shop")
def test_a_host_with_bad_manners_is_refused(url: str, code: str) -> None:
    assert refusal_of(url) == code


@pytest.mark.parametrize("path", ["slow", "drip"])
@pytest.mark.usefixtures("shop")
def test_a_host_that_sends_for_ever_is_given_up_and_so_is_its_thread(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.5)
    started = time.monotonic()
    assert refusal_of(f"http://photos.example.org/{path}") == "url_failed"
    assert time.monotonic() - started < 4
    assert threads_end()


def test_a_tls_handshake_that_never_ends_is_given_up_and_so_is_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(fetching.socket, "create_connection", lambda *_, **__: ours)
    resolve_to(monkeypatch, PUBLIC)
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.3)
    with theirs:
        assert refusal_of("https://photos.example.org/photo.jpg") == "url_failed"
        assert threads_end()


def test_photos_at_several_addresses_are_fetched_at_the_same_time(shop: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name look-up waits until all four have begun: one after another they would never end."""
    together = threading.Barrier(4, timeout=10)

    def look_up(*_: object, **__: object) -> list[tuple]:
        together.wait()
        return [(0, 0, 0, "", (PUBLIC, 80))]

    monkeypatch.setattr(fetching.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 10.0)
    assert Fetcher(HOSTS).fetch_all(["http://photos.example.org/photo.jpg?size=1"] * 4) == [b"a photo"] * 4
    assert shop == [PUBLIC] * 4


def test_dead_names_hold_a_batch_no_longer_than_its_time_and_never_more_than_a_few_threads(
    shop: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_names = threading.Event()

    def look_up(*_: object, **__: object) -> list[tuple]:
        answer_names.wait(30)
        return [(0, 0, 0, "", (PUBLIC, 80))]

    monkeypatch.setattr(fetching.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.3)
    fetcher = Fetcher(HOSTS)
    urls = ["http://photos.example.org/photo.jpg?size=1"] * (FETCHES + 2)

    started = time.monotonic()
    found = fetcher.fetch_all(urls)
    again = fetcher.fetch_all(urls[:1])
    assert time.monotonic() - started < 5
    assert [getattr(one, "code", None) for one in [*found, *again]] == ["url_failed"] * FETCHES + ["busy"] * 3
    assert sum(thread.name == "fetch" for thread in threading.enumerate()) == FETCHES

    answer_names.set()
    assert threads_end()
    assert shop == []  # whose time is over is not connected to any more
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 10.0)
    assert fetcher.fetch_all(urls[:1]) == [b"a photo"]


@pytest.mark.parametrize("path", ["elsewhere", "round"])
def test_a_name_that_becomes_private_is_never_connected_to_again(
    shop: list[str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """DNS rebinding: the first look-up is public, all later ones are this machine."""
    answers = [PUBLIC]

    def look_up(*_: object, **__: object) -> list[tuple]:
        return [(0, 0, 0, "", (answers.pop(0) if answers else "127.0.0.1", 80))]

    monkeypatch.setattr(fetching.socket, "getaddrinfo", look_up)
    assert refusal_of(f"http://photos.example.org/{path}") == "url_not_allowed"
    assert shop == [PUBLIC]


def test_a_line_that_was_never_connected_can_be_cut() -> None:
    Line(0.0).cut()


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.example.org/x.jpg",
        "http://photos.example.org.evil.com/x.jpg",
        "http://photos.example.org@evil.com/x.jpg",
        "http://user:secret@photos.example.org/x.jpg",
        "http://photos.example.org:22/x.jpg",
        "file:///etc/passwd",
        "ftp://photos.example.org/x.jpg",
        "//photos.example.org/x.jpg",
        "photos.example.org",
        "",
    ],
)
def test_an_address_off_the_list_is_never_connected_to(shop: list[str], url: str) -> None:
    assert refusal_of(url) == "url_not_allowed"
    assert shop == []


def test_without_a_list_nothing_is_fetched(shop: list[str]) -> None:
    assert refusal_of("http://photos.example.org/photo.jpg", frozenset()) == "url_not_allowed"
    assert shop == []


@pytest.mark.parametrize("url", ["http://[::1", "http://photos.example.org:99999/"])
def test_what_is_no_address_is_refused(url: str) -> None:
    assert refusal_of(url) == "bad_request"


@pytest.mark.parametrize(
    "inside", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "::1", "fd00::1", "0.0.0.0"]
)
def test_a_listed_host_with_a_private_address_is_never_connected_to(
    shop: list[str], monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    resolve_to(monkeypatch, PUBLIC, inside)
    assert refusal_of("http://photos.example.org/photo.jpg") == "url_not_allowed"
    assert shop == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (PUBLIC, True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("224.0.0.1", False),
        ("100.64.0.1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_the_operators_list_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETCLF_URL_HOSTS", " Photos.example.org, ,cdn.example.org")
    assert allowed_hosts() == HOSTS


def test_a_good_address_is_taken_apart() -> None:
    assert judge("https://cdn.example.org/a?b", HOSTS) == SplitResult("https", "cdn.example.org", "/a", "b", "")
    assert urlsplit("https://cdn.example.org/a?b").hostname in HOSTS
