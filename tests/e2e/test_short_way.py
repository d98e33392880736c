"""A plain photo takes a short way through the server: nobody may be able to tell it from TorchServe's own, but by the time."""

import concurrent.futures
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests

from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import Serving, register, start, wait_until
from tests.e2e.test_server import metric

pytestmark = pytest.mark.e2e

# what a worker is told comes back as the answer
HANDLER = """
import hashlib, time

class Mirror:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        answers = []
        for index, row in enumerate(data):
            fields = {name: [len(value), hashlib.sha256(value).hexdigest()] for name, value in row.items()}
            if row["body"].startswith(b"wait"):
                time.sleep(float(row["body"][4:]))
            if row["body"].startswith(b"answer"):
                context.set_response_status(int(row["body"][6:]), "In own words", index)
                context.set_response_content_type(index, "text/plain; charset=utf-8")
                for name, value in {"x-own": "1", "Cache-Control": "public", "Connection": "close"}.items():
                    context.set_response_header(index, name, value)
            answers.append({"headers": context.get_all_request_header(index), "fields": fields})
        return answers
"""
SETTINGS = "batchSize: 4\nmaxBatchDelay: 1\nresponseTimeout: 20\nstartupTimeout: 60\njobQueueSize: 2\n"
PATH = "/predictions/mirror"
LONG = "?the=long+way"  # TorchServe has no use for it, but it is not plain


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = start(tmp_path_factory.mktemp("short_way"))
    register(serving, "mirror", HANDLER, SETTINGS)
    yield serving
    serving.stop()


def ask(
    server: Serving, path: str, data: bytes, method: str = "POST", **headers: str
) -> tuple[int, str, list[tuple[str, str]], Any]:
    """Return status, reason, headers and content of an answer, but not the id that each has of its own."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
    names = sorted(header for header in response.getheaders() if header[0] != "x-request-id")
    return response.status, response.reason, names, json.loads(content) if content else None


@contextlib.contextmanager
def connected(server: Serving) -> Iterator[http.client.HTTPConnection]:
    """One connection, and no other: one that the server closes is an error."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.connect()
        connection.auto_open = 0
        yield connection


@pytest.mark.parametrize(
    ("path", "data", "method", "headers"),
    [
        (PATH, b"a photo", "POST", {}),
        (PATH, b"a photo", "PUT", {"Content_Type": "image/jpeg; quality=high"}),
        (f"{PATH}/1", b"a photo" * 100_000, "POST", {"Content_Type": "image/jpeg"}),
        (PATH, b"", "POST", {"X_Empty": "", "explain": "True", "url_path": "elsewhere", "X_Name": "crème"}),
        (PATH, b'{"some": "json"}', "POST", {"Content_Type": "application/json", "x_request_id": "mine", "Accept": "image/png"}),
        (PATH, b"answer203", "POST", {}),
        (PATH, b"answer204", "POST", {}),
    ],
    ids=["plain", "put", "large, with version", "empty", "json", "all that a worker may say", "no content"],
)
def test_worker_and_client_are_told_the_same_on_both_ways(
    server: Serving, path: str, data: bytes, method: str, headers: dict[str, str]
) -> None:
    short, long = (ask(server, f"{path}{query}", data, method, **headers) for query in ("", LONG))
    assert short == long
    assert short[:2] in ((200, ""), (203, "In own words"), (204, "In own words"))


def test_our_own_model_answers_the_same_on_both_ways(server: Serving) -> None:
    photo = encoded(draw_photo("dog", 1, (300, 200)))
    answers = []
    for path in ("/predictions/petclf", f"/predictions/petclf{LONG}"):
        status, reason, headers, content = ask(server, path, photo, Content_Type="image/jpeg")
        del content["request_id"], content["milliseconds"]
        answers.append((status, reason, [header for header in headers if header[0] != "content-length"], content))
    assert answers[0] == answers[1]
    assert answers[0][3]["label"] == "dog"


def test_each_answer_tells_the_id_that_it_has_of_its_own(server: Serving) -> None:
    answers = [server.predict(encoded(draw_photo("cat", number, (64, 48)))) for number in range(5)]
    ids = {answer.json()["request_id"] for answer in answers}
    assert ids == {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 5


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/predictions/nobody", "POST", 404), (f"{PATH}/2", "POST", 404), ("/predictions", "POST", 404), ("/ping", "GET", 200)],
)
def test_whatever_is_not_a_photo_for_a_model_is_torchserves(server: Serving, path: str, method: str, status: int) -> None:
    assert ask(server, path, b"x", method)[0] == status


def test_a_body_may_come_in_any_pieces_and_after_its_announcement(server: Serving) -> None:
    photo = bytes(range(256)) * 1000
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(photo)}\r\n".encode()
    asked = {"together": head + b"\r\n" + photo, "announced": head + b"Expect: 100-continue\r\n\r\n" + photo}
    chunked = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n{len(photo):x}\r\n".encode()
    asked["chunked"] = chunked + photo + b"\r\n0\r\n\r\n"
    fields = []
    for request in asked.values():
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start_of in range(0, len(request), 5000):
                connection.sendall(request[start_of : start_of + 5000])
                time.sleep(0.001)
            response = http.client.HTTPResponse(connection)
            response.begin()
            fields.append(json.loads(response.read())["fields"])
    assert fields == [ask(server, PATH, photo)[3]["fields"]] * 3


def test_one_connection_asks_for_one_thing_after_the_other(server: Serving) -> None:
    asked = [("POST", PATH), ("HEAD", "/ping"), ("POST", f"{PATH}{LONG}"), ("GET", "/ping"), ("PUT", f"{PATH}/1")]
    contents = []
    with connected(server) as connection:
        for method, path in asked:
            connection.request(method, path, b"x" if method != "GET" else None)
            response = connection.getresponse()
            contents.append((response.status, len(response.read()) > 0))
    assert contents == [(200, True), (200, False), (200, True), (200, True), (200, True)]


def test_what_a_model_refuses_was_read_whole_so_the_connection_stays(server: Serving) -> None:
    with connected(server) as connection:
        for status in (422, 204, 500, 200):
            connection.request("POST", PATH, b"answer%d" % status)
            response = connection.getresponse()
            response.read()
            assert (response.status, response.reason, response.headers["connection"]) == (status, "In own words", "keep-alive")


@pytest.mark.parametrize("path", [PATH, f"{PATH}{LONG}"], ids=["short", "long"])
def test_slow_clients_take_the_room_of_what_they_sent_and_not_of_what_it_was_read_into(server: Serving, path: str) -> None:
    """Eight connections that bring a byte at a time: 24 kB in all, which once took 270 MB."""
    [java] = [one for one in psutil.Process(server.process.pid).children() if "java" in one.name()]
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Length: 8000000\r\n\r\n".encode()
    before = java.memory_info().rss
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)) for _ in range(8)]
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(head)
        for _ in range(3000):
            for connection in connections:
                connection.send(b"x")
            time.sleep(0.0003)
        assert java.memory_info().rss - before < 50_000_000


def test_who_leaves_in_the_middle_of_a_photo_takes_nothing_from_others(server: Serving) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n".encode()
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(head + bytes(1000))
    assert ask(server, PATH, b"a photo")[0] == 200


def test_who_finds_no_room_is_told_so_at_once_and_may_ask_again_over_the_same_connection(server: Serving) -> None:
    names = ("ts_inference_requests", "Requests5XX", "Requests2XX")  # the last also counts who asks for metrics
    before = [metric(server, name) for name in names]
    with connected(server) as connection, concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, server, PATH, b"wait0.5") for _ in range(3)]  # one in hand, two in the queue
        time.sleep(0.2)
        begun = time.monotonic()
        connection.request("POST", PATH, bytes(3_000_000))
        response = connection.getresponse()
        refusal = json.loads(response.read())
        assert time.monotonic() - begun < 0.25
        assert (response.status, refusal) == (
            503,
            {"code": 503, "type": "ServiceUnavailableException", "message": "Too many requests wait."},
        )
        assert [answer.result(10)[0] for answer in waiting] == [200, 200, 200]
        connection.request("POST", PATH, b"again")
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    asked, refused, answered = (metric(server, name) - count for name, count in zip(names, before, strict=True))
    assert (asked, refused) == (5, 1)
    assert answered >= 4


def test_a_model_without_workers_says_so(server: Serving) -> None:
    params = {"min_worker": "0", "max_worker": "0", "synchronous": "true"}
    requests.put(f"{server.management}/models/mirror", params=params, timeout=60)
    status, _, _, content = ask(server, PATH, b"a photo")
    assert (status, content["message"]) == (503, "Too many requests wait, or the model has no worker.")
    params |= {"min_worker": "1", "max_worker": "1"}
    requests.put(f"{server.management}/models/mirror", params=params, timeout=60)
    wait_until(lambda: ask(server, PATH, b"a photo")[0] == 200, 60)
