"""The shipped gateway, as a real nginx, in front of a server that only writes down what it gets."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import ROOT, free_port, wait_until
from tests.e2e.nginx import ANSWER, HOW_TO_GET_NGINX, NGINX, Gateway, Upstream, listening, running, write_key

pytestmark = pytest.mark.e2e

if NGINX is None:
    pytest.skip(HOW_TO_GET_NGINX, allow_module_level=True)

SILENT = "silent"
OWN_ERROR = b'{"error":{"code":"not_an_image","message":"m","request_id":"r"}}'
FOREIGN_ERROR = b'{"code":503,"type":"InternalServerException","message":"Prediction failed"}'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway")) as started:
        yield started


@pytest.fixture(autouse=True)
def _usual(gateway: Gateway) -> None:
    gateway.upstream.status, gateway.upstream.body, gateway.upstream.slow = b"200 OK", ANSWER, 0.0
    gateway.upstream.headers = b""
    gateway.upstream.seen.clear()


def error_of(response: requests.Response) -> tuple[int, str]:
    assert response.headers["content-type"].startswith("application/json"), response.text
    error = response.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["request_id"] == response.headers["X-Request-Id"]
    return response.status_code, error["code"]


@pytest.mark.parametrize(
    ("method", "path", "arrives"),
    [
        ("GET", "/", "GET /predictions/petclf"),
        ("POST", "/predict", "POST /predictions/petclf"),
        ("PUT", "/predictions/petclf", "PUT /predictions/petclf"),
        ("POST", "/predictions/petclf/1.0.0", "POST /predictions/petclf/1.0.0"),
        ("POST", "/explanations/petclf", "POST /explanations/petclf"),
        ("POST", "/v1/models/petclf:predict", "POST /v1/models/petclf:predict"),
        ("GET", "/v1/models/petclf", "GET /v1/models/petclf"),
        ("GET", "/health", "GET /ping"),
        ("GET", "/ready", "GET /ready"),
        ("POST", "/predict?describe=True&x=1", "POST /predictions/petclf"),
    ],
)
def test_every_path_leads_where_it_should(gateway: Gateway, method: str, path: str, arrives: str) -> None:
    response = requests.request(method, gateway.url + path, data=b"photo" if method != "GET" else None, timeout=10)
    assert (response.status_code, response.content) == (200, ANSWER)
    assert gateway.upstream.last()[0] == f"{arrives} HTTP/1.1"


@pytest.mark.parametrize(
    "path",
    ["/models", "/models/petclf", "/api-description", "/ping", "/metrics", "/token", "/wfpredict/x", "/v2/health/ready", "/invocations", "/petclf/predict",
     "/predictions", "/predictions/", "/predictions/petclf/1/2", "/predictions/../models", "/predictions/..%2fmodels", "/predictions/%2e%2e/models",
     "//predictions/petclf", "/predictions//petclf", "/predictions/petclf%00", "/predictions/petclf%0a", "/predictions/petclf/1.0.0%0A", "/predictions/petclf%0d%0aX:1", "/predictions/petclf;x", "/prediction-log",
     "/v1/models/other:predict", "/.git/config", "/docs.html/../../nginx.conf"],
)  # fmt: skip
def test_no_other_path_reaches_the_server(gateway: Gateway, path: str) -> None:
    answer = gateway.raw(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nphoto".encode())
    assert answer.split(b" ", 2)[1] in (b"404", b"400"), answer[:80]
    assert b'"error"' in answer
    assert gateway.upstream.seen == []


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
ALLOWED = {
    "/": "GET, HEAD",
    "/predict": "POST, PUT",
    "/predictions/petclf": "GET, HEAD, POST, PUT",
    "/predictions/petclf/1.0.0": "GET, HEAD, POST, PUT",
    "/explanations/petclf": "POST, PUT",
    "/v1/models/petclf:predict": "POST",
    "/v1/models/petclf": "GET, HEAD",
    "/health": "GET, HEAD",
    "/ready": "GET, HEAD",
    "/openapi.json": "GET, HEAD",
    "/docs": "GET, HEAD",
    "/docs.css": "GET, HEAD",
}
ALLOWED_TO_OPERATORS = {
    "/models": "GET, POST",
    "/models/petclf": "GET, PUT",
    "/models/petclf/1.0.0": "GET, PUT, DELETE",
    "/models/petclf/1.0.0/set-default": "GET, PUT",
    "/prediction-log": "GET, HEAD",
}
KEY = ("operator", "open sesame")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", [*ALLOWED, *ALLOWED_TO_OPERATORS])
def test_a_path_takes_its_methods_and_names_them_to_who_sends_another(gateway: Gateway, path: str, method: str) -> None:
    (gateway.folder / "predictions.jsonl").write_text("")
    public = path in ALLOWED
    allowed = ALLOWED[path] if public else ALLOWED_TO_OPERATORS[path]
    address = f"{gateway.url}{path}?x=1" if public else gateway.management + path
    answer = requests.request(method, address, auth=KEY, timeout=10)
    if method in allowed.split(", "):
        assert (answer.status_code, "Allow" in answer.headers) == (200, False)
        return
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert answer.content == b"" if method == "HEAD" else error_of(answer) == (405, "method_not_allowed")
    assert gateway.upstream.seen == []


def test_a_path_has_the_same_methods_however_it_is_spelled(gateway: Gateway) -> None:
    answer = requests.patch(f"{gateway.url}/%70redict", b"photo", timeout=10)
    assert (error_of(answer), answer.headers["Allow"]) == ((405, "method_not_allowed"), "POST, PUT")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/nowhere", "/models", "/predictions"])
def test_a_path_that_does_not_exist_is_not_found_by_any_method(gateway: Gateway, path: str, method: str) -> None:
    answer = requests.request(method, gateway.url + path, timeout=10)
    assert (answer.status_code, "Allow" in answer.headers) == (404, False)
    assert method == "HEAD" or error_of(answer) == (404, "not_found")
    assert gateway.upstream.seen == []


def test_a_proxys_method_does_not_reach_the_server(gateway: Gateway) -> None:
    answer = gateway.raw(b"CONNECT /predictions/petclf HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 405 ", b"HTTP/1.1 400 "))  # as the version of nginx has it
    assert gateway.upstream.seen == []


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models/petclf"])
def test_only_the_gateway_needs_to_know_head(gateway: Gateway, path: str) -> None:
    """TorchServe's management and the supervisor do not."""
    answer = requests.head(gateway.url + path, timeout=10)
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", str(len(ANSWER)))
    assert gateway.upstream.last()[0].startswith("GET ")


def test_the_server_sees_a_request_of_the_gateways_own_making(gateway: Gateway) -> None:
    headers = {
        "describe": "True", "explain": "True", "ts_stream_next": "true", "ts_request_sequence_id": "1", "url_path": "x", "X-Forwarded-For": "1.2.3.4",
        "Authorization": "Bearer secret", "Cookie": "a=b", "Connection": "keep-alive, describe", "TE": "trailers", "Upgrade": "h2c", "Expect": "100-continue",
        "X-Request-Id": "mine-1", "Content-Type": "image/jpeg", "Accept": "application/json", "X-Anything": "x", "Referer": "http://x/token",
    }  # fmt: skip
    response = requests.post(f"{gateway.url}/predict", b"photo", headers=headers, timeout=10)
    _, arrived, body = gateway.upstream.last()
    assert abs(time.time() - float(arrived.pop("X-Petclf-Arrived"))) < 60
    assert arrived == {
        "Host": "petclf", "Content-Type": "image/jpeg", "Accept": "application/json", "X-Request-Id": "mine-1", "Content-Length": "5",
    }  # fmt: skip
    assert body == b"photo"
    assert response.headers["X-Request-Id"] == "mine-1"
    assert "Pragma" not in response.headers


@pytest.mark.parametrize("sent", ["a b", "x" * 65, "<script>", ""])
def test_a_request_id_that_is_not_harmless_is_replaced(gateway: Gateway, sent: str) -> None:
    response = requests.post(f"{gateway.url}/predict", b"photo", headers={"X-Request-Id": sent}, timeout=10)
    assert response.headers["X-Request-Id"] == gateway.upstream.last()[1]["X-Request-Id"] != sent


SMUGGLED = b"POST /models?url=x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"Content-Length: 5\r\nContent-Length: 60\r\n\r\nphoto" + SMUGGLED,
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\nphoto" + SMUGGLED,
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        b"Content-Length: +5\r\n\r\nphoto" + SMUGGLED,
        b"Content-Length: 5,5\r\n\r\nphoto" + SMUGGLED,
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nphoto\r\n0\r\n\r\n" + SMUGGLED,
    ],
)
def test_a_second_request_cannot_be_smuggled_in(gateway: Gateway, framing: bytes) -> None:
    gateway.raw(b"POST /predict HTTP/1.1\r\nHost: x\r\n" + framing, wait=0.7)
    assert [seen for seen in gateway.upstream.seen if b"/models?url" in seen.split(b"\r\n", 1)[0]] == []
    for seen in gateway.upstream.seen:
        head = seen.lower().split(b"\r\n\r\n")[0]
        assert b"transfer-encoding" not in head
        assert head.count(b"content-length:") <= 1


def test_chunks_arrive_as_one_body_with_a_length(gateway: Gateway) -> None:
    response = requests.post(f"{gateway.url}/predict", data=(piece for piece in (b"pho", b"to")), timeout=10)
    _, arrived, body = gateway.upstream.last()
    assert (response.status_code, arrived["Content-Length"], body) == (200, "5", b"photo")


def test_the_handlers_own_refusals_pass_as_they_are(gateway: Gateway) -> None:
    gateway.upstream.body = OWN_ERROR
    for status in (b"400 Bad", b"403 No", b"422 No"):
        gateway.upstream.status = status
        response = requests.post(f"{gateway.url}/predict", b"photo", timeout=10)
        assert (response.status_code, response.content) == (int(status[:3]), OWN_ERROR)


@pytest.mark.parametrize(
    ("upstream", "answered"),
    [
        (b"404 Not Found", (404, "not_found")), (b"405 Method Not Allowed", (405, "method_not_allowed")), (b"413 Too Large", (413, "too_large")),
        (b"500 Internal", (500, "internal_error")), (b"503 Unavailable", (503, "busy")), (b"507 Out of resources", (503, "busy")),
    ],
)  # fmt: skip
def test_torchserves_own_errors_get_our_shape(gateway: Gateway, upstream: bytes, answered: tuple[int, str]) -> None:
    gateway.upstream.status, gateway.upstream.body = upstream, FOREIGN_ERROR
    response = requests.post(f"{gateway.url}/predictions/petclf", b"photo", timeout=10)
    assert error_of(response) == answered
    assert (response.headers.get("Retry-After") == "1") == (response.status_code == 503)


def test_a_request_that_gave_way_is_told_why(gateway: Gateway) -> None:
    gateway.upstream.status, gateway.upstream.body = b"503 Busy", OWN_ERROR
    gateway.upstream.headers = b"Retry-After: 2\r\nx-petclf-refusal: dear_request\r\nx-petclf-version: 1\r\n"
    response = requests.post(f"{gateway.url}/predict", b"photo", timeout=10)
    assert (error_of(response), response.headers["Retry-After"]) == ((503, "dear_request"), "2")


NAMELESS = b'{\n  "code": 500,\n  "type": "ErrorDataDecoderException",\n  "message": "java.lang.IllegalArgumentException: empty name"\n}\n'
CRASHED = b'{\n  "code": 500,\n  "type": "InternalServerException",\n  "message": "Worker died."\n}\n'


@pytest.mark.parametrize(
    ("kind", "body", "headers", "answered"),
    [
        ("multipart/form-data; boundary=b", NAMELESS, b"", (400, "bad_request")),
        ("Multipart/Form-Data; boundary=b", NAMELESS, b"", (400, "bad_request")),
        ("image/jpeg", NAMELESS, b"", (500, "internal_error")),
        ("multipart/form-data; boundary=b", CRASHED, b"", (500, "internal_error")),
        ("multipart/form-data; boundary=b", OWN_ERROR, b"x-petclf-version: 1\r\n", (500, "internal_error")),
    ],
)
def test_a_form_that_torchserve_cannot_read_is_the_clients_mistake(
    gateway: Gateway, kind: str, body: bytes, headers: bytes, answered: tuple[int, str]
) -> None:
    gateway.upstream.status, gateway.upstream.body, gateway.upstream.headers = b"500 Internal", body, headers
    response = requests.post(f"{gateway.url}/predict", b"form", headers={"Content-Type": kind}, timeout=10)
    assert error_of(response) == answered


def test_a_server_that_is_away_is_busy(tmp_path: Path) -> None:
    with running(tmp_path, PETCLF_INFERENCE_PORT=str(free_port())) as gateway:
        response = requests.post(f"{gateway.url}/predict", b"photo", timeout=10)
        assert error_of(response) == (503, "busy")
        assert response.headers["Retry-After"] == "1"


def test_too_large_a_body_is_refused_and_never_handed_on(gateway: Gateway) -> None:
    answer = gateway.raw(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10485761\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"too_large"' in answer
    assert gateway.upstream.seen == []
    assert requests.post(f"{gateway.url}/predict", bytes(10_485_760), timeout=20).status_code == 200


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("application/x-www-form-urlencoded", "application/octet-stream"),
        (" Application/X-WWW-Form-URLencoded; charset=utf-8", "application/octet-stream"),
        ("application/x-www-form", "application/x-www-form"),
        ("image/jpeg", "image/jpeg"),
        ("multipart/form-data; boundary=x", "multipart/form-data; boundary=x"),
        (None, None),
    ],
)
def test_a_type_that_curl_names_for_any_body_is_not_handed_on(gateway: Gateway, sent: str | None, arrives: str | None) -> None:
    head = f"Content-Type:{sent}\r\n" if sent else ""
    gateway.raw(f"POST /predict HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 5\r\nConnection: close\r\n\r\n%41+&=".encode())
    _, headers, body = gateway.upstream.last()
    assert (headers.get("Content-Type"), body) == (arrives, b"%41+&")


@pytest.mark.parametrize(
    "request_",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n"],
)
def test_what_is_no_http_is_refused_in_our_shape(gateway: Gateway, request_: bytes) -> None:
    answer = gateway.raw(request_, wait=1)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"bad_request"' in answer


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 501, "not_implemented"),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "version_not_supported"),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "too_long"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "bad_request"),
        (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request"),
    ],
)
def test_every_error_of_nginx_itself_has_our_shape(gateway: Gateway, request_: bytes, status: int, code: str) -> None:
    for port in (gateway.port, gateway.management_port):
        answer = gateway.raw(request_, wait=1, port=port).decode()
        assert answer.startswith(f"HTTP/1.1 {status} "), answer
        assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"] == code


def test_a_crowd_that_wants_the_page_costs_the_server_one_request(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.upstream.slow = 0.3
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: requests.get(gateway.url, timeout=10), range(20)))
        gateway.upstream.status = b"503 Busy"
        later = requests.get(gateway.url, timeout=10)
    assert {(answer.status_code, answer.content) for answer in [*answers, later]} == {(200, ANSWER)}
    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 20
    assert len(gateway.upstream.seen) == 1


def test_requests_share_connections_to_the_server(gateway: Gateway) -> None:
    before = gateway.upstream.connections
    for _ in range(20):
        assert requests.post(f"{gateway.url}/predict", b"photo", timeout=10).status_code == 200
    assert gateway.upstream.connections - before <= 2


def test_who_asks_too_often_is_told_to_wait_and_others_are_served(tmp_path: Path) -> None:
    with running(tmp_path, GATEWAY_RATE="5", GATEWAY_BURST="5") as gateway:
        responses = [requests.post(f"{gateway.url}/predict", b"photo", timeout=10) for _ in range(20)]
        statuses = [response.status_code for response in responses]
        refused = next(response for response in responses if response.status_code == 429)
        assert statuses[:5] == [200] * 5
        assert statuses.count(429) >= 8
        assert error_of(refused) == (429, "too_many_requests")
        assert refused.headers["Retry-After"] == "1"


def test_one_client_cannot_take_all_connections(tmp_path: Path) -> None:
    with running(tmp_path, GATEWAY_CONNECTIONS="4") as gateway:
        gateway.upstream.slow = 1.0
        with ThreadPoolExecutor(8) as pool:
            statuses = list(
                pool.map(lambda _: requests.post(f"{gateway.url}/predict", b"photo", timeout=10).status_code, range(8))
            )
        assert sorted(set(statuses)) == [200, 429]
        assert statuses.count(200) == 4


@pytest.mark.parametrize(("path", "size"), [("/predict", 2_000_000), ("/explanations/petclf", 5)])
def test_of_what_costs_much_the_server_gets_only_a_few_at_a_time(gateway: Gateway, path: str, size: int) -> None:
    """It holds large bodies several times over, and paints heat maps; small photos pass meanwhile."""
    gateway.upstream.slow = 1.0
    with ThreadPoolExecutor(20) as pool:
        large = [pool.submit(requests.post, gateway.url + path, bytes(size), timeout=20) for _ in range(12)]
        time.sleep(0.3)
        small = [pool.submit(requests.post, f"{gateway.url}/predict", b"photo", timeout=20) for _ in range(4)]
        statuses = [answer.result().status_code for answer in large]
        assert [answer.result().status_code for answer in small] == [200] * 4
    assert (statuses.count(200), statuses.count(503)) == (3, 9)


@pytest.mark.parametrize(("spare", "answered"), [("", 4), ("127.0.0.3", 8)])
def test_more_than_the_server_may_hold_is_refused_at_once_where_there_is_no_spare(
    tmp_path: Path, spare: str, answered: int
) -> None:
    with running(tmp_path, GATEWAY_IN_FLIGHT="4", PETCLF_SPARE=spare) as gateway, ThreadPoolExecutor(8) as pool:
        gateway.upstream.slow = 1.0
        answers = list(pool.map(lambda _: requests.post(f"{gateway.url}/predict", b"photo", timeout=20), range(8)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert len(answers) - len(refused) == answered
        assert {(*error_of(answer), answer.headers["Retry-After"]) for answer in refused} <= {(503, "busy", "1")}
        assert all(answer.elapsed.total_seconds() < 1 for answer in refused)
        assert "no live upstreams" not in (tmp_path / "gateway.log").read_text()


def test_slow_clients_do_not_stop_the_others(gateway: Gateway) -> None:
    slow = []
    for _ in range(50):
        connection = socket.create_connection(("127.0.0.1", gateway.port))
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nph")
        slow.append(connection)
    answer = requests.post(f"{gateway.url}/predict", b"photo", timeout=10)
    for connection in slow:
        connection.close()
    assert answer.status_code in (200, 429)  # the same address: its own connections count against it
    assert [seen for seen in gateway.upstream.seen if b"Content-Length: 100" in seen] == []


def test_keys_for_predictions_come_and_go_without_a_restart(tmp_path: Path) -> None:
    def one_key(secrets: Path) -> None:
        write_key(secrets / "predictions.htpasswd", "shelter", "one")

    with running(tmp_path, one_key) as gateway:

        def status(key: tuple[str, str] | None) -> int:
            return requests.post(f"{gateway.url}/predict", b"photo", auth=key, timeout=10).status_code

        assert (status(None), status(("shelter", "one")), status(("shelter", "two")), status(("vet", "two"))) == (
            401,
            200,
            401,
            401,
        )
        assert error_of(requests.post(f"{gateway.url}/predict", b"photo", timeout=10)) == (401, "unauthorized")
        write_key(gateway.secrets / "predictions.htpasswd", "vet", "two")
        assert status(("vet", "two")) == 200
        (gateway.secrets / "predictions.htpasswd").write_text("", encoding="utf-8")
        assert status(("shelter", "one")) == 401
        assert "Authorization" not in gateway.upstream.last()[1]


def test_management_is_never_without_a_key(gateway: Gateway) -> None:
    (gateway.folder / "predictions.jsonl").write_text('{"label":"cat"}\n')
    key = ("operator", "open sesame")
    assert error_of(requests.get(f"{gateway.management}/models", timeout=10)) == (401, "unauthorized")
    assert requests.get(f"{gateway.management}/models", auth=("operator", "wrong"), timeout=10).status_code == 401
    assert requests.get(f"{gateway.management}/prediction-log", timeout=10).status_code == 401
    assert gateway.upstream.seen == []

    assert requests.put(f"{gateway.management}/models/petclf/1.1.0/set-default", auth=key, timeout=10).status_code == 200
    assert gateway.upstream.last()[0] == "PUT /models/petclf/1.1.0/set-default HTTP/1.1"
    assert (
        requests.post(f"{gateway.management}/models?url=petclf-1.2.0.mar&initial_workers=2", auth=key, timeout=10).status_code
        == 200
    )
    assert gateway.upstream.last()[0] == "POST /models?url=petclf-1.2.0.mar&initial_workers=2 HTTP/1.1"
    assert requests.get(f"{gateway.management}/prediction-log", auth=key, timeout=10).text == '{"label":"cat"}\n'
    assert requests.get(f"{gateway.management}/token?type=management", auth=key, timeout=10).status_code == 404


def test_a_version_is_removed_by_the_supervisor_and_by_nobody_else(tmp_path: Path) -> None:
    with (
        listening() as supervisor,
        running(tmp_path, PETCLF_READY_PORT=str(supervisor.port), PETCLF_SPARE="127.0.0.1") as gateway,
    ):
        supervisor.status, supervisor.body = b"409 Conflict", OWN_ERROR
        address = f"{gateway.management}/models/petclf/1.0.0"
        refused = requests.delete(address, timeout=10)
        answer = requests.delete(address, auth=KEY, timeout=10)
        read = requests.get(address, auth=KEY, timeout=10)
        scaled = requests.put(f"{address}?min_worker=2", auth=KEY, timeout=10)
    assert error_of(refused) == (401, "unauthorized")
    assert (answer.status_code, answer.content) == (409, OWN_ERROR)
    asked = [first_line(request) for request in supervisor.seen]
    assert [line for line in asked if line != "GET /ready HTTP/1.0"] == ["DELETE /models/petclf/1.0.0 HTTP/1.1"]
    assert (read.status_code, scaled.status_code) == (200, 200)
    assert [first_line(request) for request in gateway.upstream.seen] == [
        "GET /models/petclf/1.0.0 HTTP/1.1", "PUT /models/petclf/1.0.0?min_worker=2 HTTP/1.1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        "synchronous=true",
        "min_worker=2&synchronous=true",
        "min_worker=100",
        "handler=os:system",
        "%73ynchronous=true",
        "min_worker=1;synchronous=true",
        "x",
    ],
)
def test_a_key_asks_of_torchserve_only_what_it_should(gateway: Gateway, query: str) -> None:
    answer = requests.put(f"{gateway.management}/models/petclf/1.0.0?{query}", auth=KEY, timeout=10)
    assert error_of(answer) == (400, "bad_request")
    assert "PUT takes min_worker" in answer.json()["error"]["message"]
    assert gateway.upstream.seen == []


def test_registering_is_the_supervisors_work(tmp_path: Path) -> None:
    with listening() as supervisor, running(tmp_path, PETCLF_READY_PORT=str(supervisor.port)) as gateway:
        answer = requests.post(f"{gateway.management}/models?url=petclf-2.0.0.mar", auth=KEY, timeout=10)
    assert answer.status_code == 200
    assert [first_line(request) for request in supervisor.seen] == ["POST /models?url=petclf-2.0.0.mar HTTP/1.1"]
    assert gateway.upstream.seen == []


def test_a_version_is_not_removed_from_the_spare_when_the_supervisor_is_away(tmp_path: Path) -> None:
    port = free_port()
    with listening("127.0.0.2", port) as spare:
        with running(tmp_path, PETCLF_READY_PORT=str(port), PETCLF_SPARE="127.0.0.2") as gateway:
            answer = requests.delete(f"{gateway.management}/models/petclf/1.0.0", auth=KEY, timeout=10)
    assert error_of(answer) == (503, "busy")
    assert {first_line(request) for request in spare.seen} <= {"GET /ready HTTP/1.0"}


def first_line(request: bytes) -> str:
    return request.split(b"\r\n", 1)[0].decode()


def test_without_a_file_of_keys_nobody_manages(tmp_path: Path) -> None:
    def none(secrets: Path) -> None:
        (secrets / "management.htpasswd").unlink()

    with running(tmp_path, none) as gateway:
        assert error_of(requests.get(f"{gateway.management}/models", auth=("operator", "open sesame"), timeout=10)) == (
            401,
            "unauthorized",
        )
        assert "nobody may manage" in (tmp_path / "gateway.log").read_text()


def test_with_a_certificate_it_speaks_tls(tmp_path: Path) -> None:
    def certificate(secrets: Path) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
        command += [
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(secrets / "tls.key"),
            "-out",
            str(secrets / "tls.crt"),
        ]
        subprocess.run(command, check=True, capture_output=True)

    with running(tmp_path, certificate) as gateway:
        gateway.scheme = "https"
        response = requests.post(f"{gateway.url}/predict", b"photo", verify=str(gateway.secrets / "tls.crt"), timeout=10)
        assert (response.status_code, response.headers["Strict-Transport-Security"]) == (200, "max-age=31536000")
        assert gateway.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", wait=1).startswith(b"HTTP/1.1 400")  # no plain text beside it
        assert "unencrypted" not in (tmp_path / "gateway.log").read_text()


def test_without_a_certificate_it_warns(gateway: Gateway) -> None:
    assert "photos and keys travel unencrypted" in (gateway.folder / "gateway.log").read_text()


def test_the_log_tells_what_happened_but_not_who_asked_what(gateway: Gateway) -> None:
    requests.post(
        f"{gateway.url}/predict?name=secret-query", b"photo", auth=("someone", "secret-key"), timeout=10,
        headers={"X-Request-Id": "for-the-log", "User-Agent": "secret-agent", "Referer": "secret-referer"},
    )  # fmt: skip
    entry = gateway.logged("for-the-log")
    assert {name: entry[name] for name in ("logger", "method", "path", "status")} == {
        "logger": "gateway", "method": "POST", "path": "/predict", "status": 200,
    }  # fmt: skip
    text = (gateway.folder / "access.log").read_text()
    assert "secret" not in text
    assert "127.0.0.1" not in text


def test_the_api_is_described_for_people_and_programs(gateway: Gateway) -> None:
    people, programs = requests.get(f"{gateway.url}/docs", timeout=10), requests.get(f"{gateway.url}/openapi.json", timeout=10)
    assert (people.status_code, people.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in people.headers["content-security-policy"]
    assert "<script" not in people.text
    described = programs.json()
    assert set(described["paths"]) == {
        "/predict", "/predictions/{model}", "/predictions/{model}/{version}", "/explanations/{model}", "/v1/models/petclf:predict",
        "/v1/models/petclf", "/health", "/ready",
    }  # fmt: skip
    assert gateway.upstream.seen == []


def test_security_headers_are_on_every_answer(gateway: Gateway) -> None:
    for path in ("/predict", "/nowhere", "/docs", "/health"):
        headers = requests.get(gateway.url + path, timeout=10).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Server"] == "nginx"


@pytest.mark.parametrize(
    ("method", "path", "body", "environment", "status"),
    [
        ("POST", "/nothing/here", "photo", {}, 404),
        ("PATCH", "/predict", "photo", {}, 405),
        ("TRACE", "/predict", "", {}, 405),
        ("PUT", "/predict", "x" * 10_485_761, {}, 413),
        ("PUT", "/predict", "photo", {"GATEWAY_CONNECTIONS": "1"}, 429),
        ("POST", "/predictions/petclf", "photo", {"PETCLF_SERVER": "127.0.0.9"}, 503),
    ],
)
def test_a_refused_request_is_logged_as_it_was_sent(
    tmp_path: Path, method: str, path: str, body: str, environment: dict[str, str], status: int
) -> None:
    with running(tmp_path, **environment) as gateway, socket.create_connection(("127.0.0.1", gateway.port)) as other:
        other.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")  # one connection is taken
        time.sleep(0.2)
        requests.request(method, f"{gateway.url}{path}?secret=1", data=body, headers={"X-Request-Id": "mine"}, timeout=10)
        entry = gateway.logged("mine")
    assert (entry["method"], entry["path"], entry["status"]) == (method, path, status)


def test_the_handlers_own_415_passes_as_it_is(gateway: Gateway) -> None:
    gateway.upstream.status, gateway.upstream.body = (
        b"415 Unsupported",
        b'{"error":{"code":"unsupported_media_type","message":"theirs"}}',
    )
    answer = requests.post(f"{gateway.url}/predict", b"photo", headers={"Content-Type": "image/jpeg"}, timeout=10)
    assert (answer.status_code, answer.json()["error"]["message"]) == (415, "theirs")


def test_a_spare_answers_when_the_server_is_away(tmp_path: Path) -> None:
    with running(tmp_path, PETCLF_SERVER="127.0.0.3", PETCLF_SPARE="127.0.0.1") as gateway:
        statuses = [requests.post(f"{gateway.url}/predict", b"photo", timeout=10).status_code for _ in range(5)]
        ready = requests.get(f"{gateway.url}/ready", timeout=10).status_code
    assert (statuses, ready) == ([200] * 5, 200)


@pytest.mark.slow
def test_the_spare_is_asked_first_while_the_server_says_that_it_cannot_answer_and_the_spare_can(tmp_path: Path) -> None:
    """A port is open for seconds before the workers are there, and for as long after the server was told to end."""
    expected = {
        ("ready", "ready"): "server",
        ("starting", "ready"): "spare",
        ("starting", "starting"): "server",
        ("draining", "degraded"): "spare",
        (SILENT, "ready"): "spare",  # as it was: nothing new is known
        ("degraded", "ready"): "server",  # a spare may be an image that nobody has tested
        (SILENT, "degraded"): "server",
        ("down", "ready"): "spare",
        ("ready", "starting"): "server",
    }
    with contextlib.ExitStack() as stack:
        port, ready_port = free_port(), free_port()
        server, spare = (stack.enter_context(listening(address, port)) for address in ("127.0.0.1", "127.0.0.2"))
        looks = [stack.enter_context(listening(address, ready_port)) for address in ("127.0.0.1", "127.0.0.2")]
        settings = {"PETCLF_INFERENCE_PORT": str(port), "PETCLF_READY_PORT": str(ready_port), "PETCLF_SPARE": "127.0.0.2"}
        gateway = stack.enter_context(running(tmp_path, **settings))
        asked = {}
        for states in expected:
            for upstream, state in zip(looks, states, strict=True):
                upstream.body = json.dumps({"state": state}).encode()
                upstream.slow = 3.0 if state == SILENT else 0.0
            time.sleep(3)  # they are looked at every second
            server.seen.clear(), spare.seen.clear()
            for path in ("predict", "predictions/petclf/1.0.0", "explanations/petclf", "v1/models/petclf:predict"):
                assert requests.post(f"{gateway.url}/{path}", b"photo", timeout=10).status_code == 200
            assert requests.post(f"{gateway.url}/predict", bytes(1_500_000), timeout=10).status_code == 200
            assert requests.get(f"{gateway.url}/health", timeout=10).status_code == 200
            asked[states] = {(6, 0): "server", (0, 6): "spare"}.get((len(server.seen), len(spare.seen)), "both")
    assert asked == expected


def test_a_server_that_does_not_even_take_a_connection_is_busy_not_slow(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # nobody accepts them, so that the next one waits in vain
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        gateway = stack.enter_context(running(tmp_path, PETCLF_INFERENCE_PORT=str(full.getsockname()[1])))
        answer = requests.post(f"{gateway.url}/predict", b"photo", headers={"X-Request-Id": "in-vain"}, timeout=10)
        entry = gateway.logged("in-vain")
    assert error_of(answer) == (503, "busy")
    assert answer.headers["Retry-After"] == "1"
    assert entry["status"] == 503
    assert entry["seconds"] >= 1  # it was tried


def test_a_server_that_says_that_it_takes_too_long_is_slow(gateway: Gateway) -> None:
    gateway.upstream.status = b"504 Gateway Timeout"
    answer = requests.post(f"{gateway.url}/predict", b"photo", timeout=10)
    assert error_of(answer) == (504, "too_slow")


ANSWERED, TOO_SLOW, BUSY = (200, None), (504, "too_slow"), (503, "busy")
# by what stands at the server's address and at its spare's: what a client reads, and after how many seconds
WAITS = {
    ("silent", "none"): (TOO_SLOW, 12),
    ("silent", "answers"): (TOO_SLOW, 12),
    ("full", "none"): (BUSY, 1),
    ("full", "silent"): (TOO_SLOW, 13),
    ("full", "answers"): (ANSWERED, 1),
    ("absent", "none"): (BUSY, 0),
    ("absent", "silent"): (TOO_SLOW, 12),
    ("absent", "answers"): (ANSWERED, 0),
}


def test_every_request_is_answered_within_thirteen_seconds_whatever_stands_behind(tmp_path: Path) -> None:
    """Fifty clients, each on a connection that it keeps, for every kind of server; all at once, for the waits are long."""
    with contextlib.ExitStack() as stack:
        gateways = {case: stack.enter_context(behind(tmp_path, *case)) for case in WAITS}
        pool = stack.enter_context(ThreadPoolExecutor(50 * len(WAITS) + 6))
        answers = {case: [pool.submit(ask_and_stay, gateways[case][0], b"photo") for _ in range(50)] for case in WAITS}
        large = [pool.submit(ask_and_stay, gateways["silent", "answers"][0], bytes(9_000_000)) for _ in range(3)]
        for case, (expected, seconds) in WAITS.items():
            found = [answer.result() for answer in answers[case]]
            assert [answer for answer, _ in found] == [expected] * 50, case
            assert [took for _, took in found if not seconds - 0.5 < took < seconds + 1.5] == [], case
        assert [answer.result()[0] for answer in large] == [TOO_SLOW] * 3  # a server that does not read them either
        assert max(answer.result()[1] for answer in large) < 14
        asked = {case: len(spare.seen) for case, (_, spare) in gateways.items() if spare}
    assert asked == {("silent", "answers"): 0, ("full", "answers"): 50, ("absent", "answers"): 50}


@contextlib.contextmanager
def behind(folder: Path, server: str, spare: str) -> Iterator[tuple[Gateway, Upstream | None]]:
    """Run a gateway whose server, and whose spare, is one of: silent, full, absent, answers."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        standing(stack, server, "127.0.0.1", port)
        upstream = standing(stack, spare, "127.0.0.2", port)
        (folder / f"{server}-{spare}").mkdir()
        settings = {"PETCLF_INFERENCE_PORT": str(port), "PETCLF_SPARE": "" if spare == "none" else "127.0.0.2"}
        yield stack.enter_context(running(folder / f"{server}-{spare}", **settings)), upstream


def standing(stack: contextlib.ExitStack, kind: str, address: str, port: int) -> Upstream | None:
    if kind == "answers":
        return stack.enter_context(listening(address, port))
    if kind in ("silent", "full"):
        stack.enter_context(socket.create_server((address, port), backlog=200 if kind == "silent" else 0))
    if kind == "full":
        for _ in range(4):  # nobody accepts them, so that the next one waits in vain
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
    return None


def ask_and_stay(gateway: Gateway, body: bytes) -> tuple[tuple[int, str | None], float]:
    """Ask, and ask for something else on the same connection: return the first answer and how long it took."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    with contextlib.closing(connection):
        started = time.monotonic()
        connection.request("POST", "/predict", body)
        first = connection.getresponse()
        content = json.loads(first.read())
        seconds = time.monotonic() - started
        kept = connection.sock
        connection.request("GET", "/openapi.json")
        assert (connection.getresponse().status, connection.sock) == (200, kept)
    return (first.status, content["error"]["code"] if "error" in content else None), seconds


def samples_of(text: str) -> dict[str, float]:
    """Return every sample by its name and the values of its labels."""
    families = text_string_to_metric_families(text)
    found = [sample for family in families for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in found}


def test_prometheus_reads_what_the_gateway_answered_and_refused_at_an_address_of_their_own(tmp_path: Path) -> None:
    port = free_port()

    def metrics() -> dict[str, float]:
        return samples_of(requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text)

    with running(tmp_path, GATEWAY_METRICS=f"127.0.0.1:{port}", GATEWAY_CONNECTIONS="1") as gateway:
        before = metrics()
        assert requests.post(f"{gateway.url}/predict", b"photo", timeout=10).status_code == 200
        with socket.create_connection(("127.0.0.1", gateway.port)) as other:
            other.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")  # one connection is taken
            wait_until(lambda: metrics()["petclf_gateway_connections writing"] == 2)  # that one, and who asks
            assert requests.post(f"{gateway.url}/predict", b"photo", timeout=10).status_code == 429
        wait_until(lambda: metrics()["petclf_gateway_connections writing"] == 1)  # nginx has seen the other go
        assert requests.get(f"{gateway.url}/nowhere", timeout=10).status_code == 404
        assert requests.get(f"{gateway.management}/models", auth=("operator", "wrong"), timeout=10).status_code == 401
        after = metrics()
        hidden = requests.get(f"{gateway.url}/metrics", timeout=10).status_code
    changed = {name: value for name, value in after.items() if value != before.get(name)}
    assert changed.pop("petclf_gateway_connections_accepted_total") > before["petclf_gateway_connections_accepted_total"]
    changed.pop("petclf_gateway_requests_total api 400", None)  # the connection that was taken and left
    assert changed == {
        "petclf_gateway_requests_total api 200": 1, "petclf_gateway_requests_total api 429": 1, "petclf_gateway_requests_total api 404": 1,
        "petclf_gateway_requests_total management 401": 1, "petclf_gateway_refused_total connections": 1,
    }  # fmt: skip
    assert {name for name in before if "_total" not in name} == {
        "petclf_gateway_connections reading", "petclf_gateway_connections writing", "petclf_gateway_connections waiting",
        "petclf_gateway_connections_limit",
    }  # fmt: skip
    assert hidden == 404


TRICKLE = {
    "with a length": (b"Content-Length: 100000\r\n", b"x"),
    "in chunks": (b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n"),
    "that began fast": (b"Content-Length: 9000000\r\n", b"x"),
}


def test_who_reads_the_metrics_reads_what_the_server_behind_says_and_may_change_nothing(tmp_path: Path) -> None:
    port = free_port()
    with listening() as server, listening() as supervisor:
        ports = {"PETCLF_METRICS_PORT": str(server.port), "PETCLF_READY_PORT": str(supervisor.port)}
        with running(tmp_path, GATEWAY_METRICS=f"127.0.0.1:{port}", GATEWAY_METRICS_BEHIND="yes", **ports) as gateway:
            url = f"http://127.0.0.1:{port}"
            for path in ("/metrics/torchserve", "/metrics/supervisor?x=1", "/ready"):
                assert requests.get(url + path, timeout=10).content == ANSWER, path
            assert [seen.split(b"\r\n")[0] for seen in server.seen] == [b"GET /metrics HTTP/1.1"]
            assert [seen.split(b"\r\n")[0] for seen in supervisor.seen] == [b"GET /metrics HTTP/1.1", b"GET /ready HTTP/1.1"]
            refused = [("POST", "/models"), ("DELETE", "/models/petclf/1.0.0"), ("GET", "/models")]
            assert [requests.request(method, url + path, timeout=10).status_code for method, path in refused] == [404, 404, 404]
            assert [requests.post(url + path, timeout=10).status_code for path in ("/ready", "/metrics/supervisor")] == [403, 403]
            supervisor.status = b"503 Service Unavailable"
            assert requests.get(f"{url}/ready", timeout=10).status_code == 503
            assert requests.get(f"{gateway.url}/metrics/supervisor", timeout=10).status_code == 404
        assert (len(server.seen), len(supervisor.seen)) == (1, 3)


def test_the_metrics_of_the_server_behind_are_shown_only_where_they_are_wanted(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, GATEWAY_METRICS=f"127.0.0.1:{port}"):
        for path in ("/metrics/torchserve", "/metrics/supervisor", "/ready"):
            assert requests.get(f"http://127.0.0.1:{port}{path}", timeout=10).status_code == 404


def test_clients_behind_a_trusted_proxy_have_limits_of_their_own(tmp_path: Path) -> None:
    def statuses(url: str, *clients: str) -> list[int]:
        return [
            requests.post(f"{url}/predict", b"photo", headers={"X-Forwarded-For": client}, timeout=10).status_code
            for client in clients
        ]

    limits = {"GATEWAY_RATE": "1", "GATEWAY_BURST": "2"}
    (tmp_path / "trusting").mkdir()
    (tmp_path / "plain").mkdir()
    with running(tmp_path / "trusting", GATEWAY_TRUSTED="127.0.0.0/8 ::1", **limits) as gateway:
        assert 429 in statuses(gateway.url, *["192.0.2.1"] * 6)
        assert statuses(gateway.url, "192.0.2.2", "192.0.2.3", "192.0.2.4") == [200, 200, 200]
        forged = ["203.0.113.1, 192.0.2.9", "203.0.113.2, 192.0.2.9", "203.0.113.3, 192.0.2.9"]  # what a client added itself
        assert 429 in statuses(gateway.url, *forged * 2)
    with running(tmp_path / "plain", **limits) as gateway:
        assert 429 in statuses(gateway.url, *[f"192.0.2.{number}" for number in range(6)])


def test_what_is_no_network_is_not_trusted_and_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="GATEWAY_TRUSTED has the-proxy, which is no network"):
        with running(tmp_path, GATEWAY_TRUSTED="10.0.0.0/8 the-proxy"):
            pass


def test_the_number_of_processes_can_be_said(tmp_path: Path) -> None:
    def workers() -> int:
        children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text(encoding="ascii").split()
        return sum(Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"nginx: worker process") for child in children)

    with running(tmp_path, GATEWAY_PROCESSES="3") as gateway:
        wait_until(lambda: workers() == 3)
        time.sleep(0.5)
        assert workers() == 3


def test_a_body_that_trickles_is_refused_though_no_pause_is_long(tmp_path: Path) -> None:
    """All at once, for the gateway gives a body ten seconds before it looks at its speed."""
    with running(tmp_path) as gateway, ThreadPoolExecutor(len(TRICKLE) + 1) as pool:
        trickling = {name: pool.submit(trickle, gateway, *sent, name == "that began fast") for name, sent in TRICKLE.items()}
        slow_but_fair = pool.submit(send_slowly, gateway, bytes(600_000), pieces=24)
        answers = {name: answer.result() for name, answer in trickling.items()}
        assert slow_but_fair.result() == 200  # 50 KB a second for twelve seconds
    assert answers == dict.fromkeys(TRICKLE, (408, "too_slow"))
    assert len(gateway.upstream.seen) == 1


def trickle(gateway: Gateway, framing: bytes, piece: bytes, begins_fast: bool) -> tuple[int, str]:
    """Send a byte every second until the gateway answers; return its status and code."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=1) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n")
        connection.sendall(bytes(100_000) if begins_fast else b"")
        for _ in range(40):
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536).decode()
                return int(answer.split()[1]), json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"]
            connection.sendall(piece)
    raise AssertionError("it may trickle for forty seconds")


def send_slowly(gateway: Gateway, body: bytes, pieces: int) -> int:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        size = len(body) // pieces
        for start in range(0, len(body), size):
            connection.sendall(body[start : start + size])
            time.sleep(0.5)
        return int(connection.recv(65536).split()[1])


def test_strangers_from_many_addresses_leave_room_for_others(tmp_path: Path) -> None:
    """Thirty addresses hold as many uploads as each may have; who comes from another one is answered, and so is health."""
    with running(tmp_path, GATEWAY_CONNECTIONS="16") as gateway, contextlib.ExitStack() as stack:
        for number in range(30 * 17):
            source = (f"127.0.1.{1 + number % 30}", 0)
            held = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), source_address=source))
            held.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nx")
        statuses = [requests.post(f"{gateway.url}/predict", b"photo", timeout=10).status_code for _ in range(10)]
        health = requests.get(f"{gateway.url}/health", timeout=10).status_code
        held.settimeout(5)
        refused = held.recv(65536).decode()
    assert (statuses, health) == ([200] * 10, 200)
    assert refused.startswith("HTTP/1.1 429")
    assert "too many requests at once from this address" in refused


def test_a_full_gateway_still_answers_health_and_the_operator(tmp_path: Path) -> None:
    with running(tmp_path, GATEWAY_CONNECTIONS="600") as gateway, contextlib.ExitStack() as stack:
        for number in range(1000):
            source = (f"127.0.1.{1 + number % 2}", 0)
            held = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), source_address=source))
            held.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nx")
        time.sleep(0.5)
        crowded = requests.post(f"{gateway.url}/predict", b"photo", timeout=10)
        health = requests.get(f"{gateway.url}/health", timeout=10).status_code
        managed = requests.get(f"{gateway.management}/models", auth=KEY, timeout=10).status_code
    assert error_of(crowded) == (503, "busy")
    assert "from everybody" in crowded.json()["error"]["message"]
    assert (health, managed) == (200, 200)


def test_wrong_keys_wait_a_second_and_the_operator_does_not(gateway: Gateway) -> None:
    with ThreadPoolExecutor(300) as pool:
        guesses = [
            pool.submit(requests.get, f"{gateway.management}/models", auth=("operator", str(n)), timeout=20) for n in range(300)
        ]
        time.sleep(0.5)
        operator = [requests.get(f"{gateway.management}/models", auth=KEY, timeout=10) for _ in range(5)]
        answers = [guess.result() for guess in guesses]
    assert [answer.status_code for answer in operator] == [200] * 5
    assert {error_of(answer) for answer in answers} == {(401, "unauthorized")}
    assert sum(answer.elapsed.total_seconds() >= 1 for answer in answers) >= 200  # of each process two hundred


def test_errors_of_nginx_itself_do_not_name_who_asked(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        requests.get(f"{gateway.management}/models?secret=query", auth=("secret-name", "wrong"), timeout=10)
        (gateway.secrets / "management.htpasswd").unlink()
        requests.get(f"{gateway.management}/models?secret=query", auth=("secret-name", "wrong"), timeout=10)
        log = tmp_path / "gateway.log"
        wait_until(lambda: log.read_text().count('"level"') == 2)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [(line["level"], line["message"].split(" (")[0]) for line in lines if "level" in line]
    assert told == [("error", "a user was not found in \"" + str(gateway.secrets) + "/management.htpasswd\""),
                    ("error", f"open() \"{gateway.secrets}/management.htpasswd\" failed")]  # fmt: skip
    assert "secret-name" not in log.read_text()


def test_a_secret_that_cannot_be_read_does_not_open_the_gateway(tmp_path: Path) -> None:
    def told(*there: str) -> tuple[int, str]:
        secrets = tmp_path / "-".join(there)
        secrets.mkdir()
        for name in there:
            (secrets / name).mkdir()  # what Docker makes of a file that is to be mounted and is not there
        result = subprocess.run(
            [str(ROOT / "deploy" / "gateway" / "start")], capture_output=True, text=True, timeout=20, check=False,
            env={**os.environ, "GATEWAY_SECRETS": str(secrets), "GATEWAY_WORK": str(tmp_path / "work")},
        )  # fmt: skip
        return result.returncode, result.stdout

    for name in ("predictions.htpasswd", "management.htpasswd", "tls.crt", "tls.key"):
        code, said = told(name)
        assert (code, f"error: {tmp_path / name / name} is there, but user" in said) == (2, True)


def test_half_a_certificate_does_not_start_without_encryption(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("certificate", encoding="utf-8")
    result = subprocess.run(
        [str(ROOT / "deploy" / "gateway" / "start")], capture_output=True, text=True, timeout=20, check=False,
        env={**os.environ, "GATEWAY_SECRETS": str(tmp_path), "GATEWAY_WORK": str(tmp_path / "work")},
    )  # fmt: skip
    assert result.returncode == 2
    assert "error: tls.crt and tls.key belong together" in result.stdout
