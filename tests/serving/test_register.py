"""A version is registered only if it is one of petclf's and becomes ready; whatever else is asked is refused and leaves no trace."""

import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from serving.endpoint import start_endpoint
from serving.health import Health
from serving.machine import free_port
from serving.management import Management, ManagementError
from serving.register import Registrar
from serving.say import ServeError

REGISTERED = [
    "POST /models url=new.mar initial_workers=0",
    "PUT /models/petclf/2.0.0 min_worker=2 max_worker=2 synchronous=false",
]


class TorchServe(Management):
    """Knows version 1.0.0, and remembers what changes it is asked for; `refuses` says no to one of them."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.known = ["1.0.0"]
        self.calls: list[str] = []
        self.refuses: dict[str, Exception] = {}

    def ask(self, method: str, path: str, seconds: float = 0, **parameters: Any) -> Any:  # noqa: ARG002
        if method == "GET":
            workers = {"workers": [], "jobQueueStatus": {"pendingRequests": 0}, "minWorkers": 2, "modelUrl": "x.mar"}
            described = [{"modelVersion": version, **workers} for version in self.known]
            return {"models": [{"modelName": "petclf"}]} if path == "/models" else described
        self.calls.append(" ".join([method, path, *(f"{name}={value}" for name, value in parameters.items())]))
        if method in self.refuses:
            raise self.refuses[method]
        if method == "POST":
            self.known.append("2.0.0")
        elif method == "DELETE":
            self.known.remove(path.rsplit("/", 1)[-1])
        return {}


class Server:
    """The supervisor's port before that TorchServe; `becoming_ready` takes the place of the wait for workers."""

    def __init__(self, store: Path) -> None:
        self.torchserve = TorchServe()
        self.phase = "serving"
        self.becoming_ready: Callable[[], bool] = lambda: True
        self.waited_for: list[tuple[str, int]] = []
        self.registrar = Registrar(self.torchserve, store, 2, self.wait)
        self.port = free_port()
        start_endpoint("127.0.0.1", self.port, lambda: Health(self.phase), self.torchserve, self.registrar)

    def wait(self, archives: list[Any], workers: int, seconds: float) -> bool:  # noqa: ARG002
        self.waited_for += [(str(archive), workers) for archive in archives]
        return self.becoming_ready()

    def ask(self, path: str, method: str = "POST", **options: Any) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(method, path, **options)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


@pytest.fixture
def server(tmp_path: Path) -> Server:
    write_archive(tmp_path / "new.mar")
    return Server(tmp_path)


def write_archive(path: Path, **changes: Any) -> None:
    """Write the least that counts as an archive of petclf, with some of its manifest changed."""
    model = {"modelName": "petclf", "modelVersion": "2.0.0", "handler": "petclf_handler.py", "serializedFile": "petclf.pt"}
    weights = io.BytesIO()
    with zipfile.ZipFile(weights, "w") as packed:
        packed.writestr("petclf/extra/metadata.json", json.dumps({"golden": [{"probabilities": [1.0, 0.0]}]}))
        packed.writestr("petclf/extra/golden.png", b"a photo")
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": {**model, **changes}}))
        packed.writestr("petclf.pt", weights.getvalue())


def refusal(code: str, message: str) -> dict[str, dict[str, str]]:
    return {"error": {"code": code, "message": message}}


def not_taken(name: str) -> str:
    return f"parameter '{name}' is not taken here; url, initial_workers, synchronous are"


URL = r"parameter 'url' must be there once and match [A-Za-z0-9][A-Za-z0-9_.-]*\.mar"
WORKERS = "parameter 'initial_workers' must be there once and match [0-9]{1,4}"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("url=new.mar&handler=os:system", not_taken("handler")),
        ("url=new.mar&handler", not_taken("handler")),
        ("url=new.mar&Handler=x", not_taken("Handler")),
        ("url=new.mar&%68andler=x", not_taken("%68andler")),
        ("url=new.mar&model_name=twin", not_taken("model_name")),
        ("url=new.mar&runtime=python3", not_taken("runtime")),
        ("url=new.mar&batch_size=1000", not_taken("batch_size")),
        ("url=new.mar&response_timeout=1000", not_taken("response_timeout")),
        ("url=new.mar&s3_sse_kms=true", not_taken("s3_sse_kms")),
        ("url=new.mar&", not_taken("")),
        ("url=new.mar;handler=x", URL),
        ("url=new.mar&url=new.mar", URL),
        ("url=http://example.org/new.mar", URL),
        ("url=../new.mar", URL),
        ("url=%2e%2e%2fnew.mar", URL),
        ("url=.new.mar", URL),
        ("url=new", URL),
        ("url=", URL),
        ("", "parameter 'url' is missing: name an archive of the model store"),
        ("initial_workers=1", "parameter 'url' is missing: name an archive of the model store"),
        ("url=new.mar&initial_workers=-1", WORKERS),
        ("url=new.mar&initial_workers=1&initial_workers=1", WORKERS),
        ("url=new.mar&initial_workers=5", "parameter 'initial_workers' must be at most 4 here"),
        ("url=new.mar&synchronous=no", "parameter 'synchronous' must be there once and match true|false"),
    ],
)
def test_a_parameter_that_is_not_on_the_list_is_named_and_reaches_nobody(server: Server, query: str, reason: str) -> None:
    assert server.ask(f"/models?{query}") == (400, refusal("bad_request", reason))
    assert server.torchserve.calls == []


@pytest.mark.parametrize(
    "options",
    [
        {"body": b'{"url": "new.mar", "handler": "os:system"}', "headers": {"Content-Type": "application/json"}},
        {"body": b"handler=os:system", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"body": iter([b"handler=os:system"]), "encode_chunked": True},
        {"body": b"x" * 60_000},
        {"body": b"", "headers": {"Content-Length": "nothing"}},
    ],
    ids=["JSON", "form", "chunks", "large", "no length"],
)
def test_a_body_is_refused(server: Server, options: Any) -> None:
    expected = (400, refusal("bad_request", "a body is not taken; parameters go into the address"))
    assert server.ask("/models?url=new.mar", **options) == expected
    assert server.torchserve.calls == []


def test_an_archive_that_is_not_in_the_store_is_not_found(server: Server) -> None:
    assert server.ask("/models?url=other.mar") == (404, refusal("not_found", "there is no other.mar in the model store"))
    assert server.torchserve.calls == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"handler": "os:system"}, "names another handler: 'os:system'; build it again with `make archive`"),
        ({"handler": None}, "names another handler: 'None'; build it again with `make archive`"),
        (
            {"modelVersion": "2/0"},
            "holds petclf 2/0, a name or a version that no address can have; build it again with `make archive`",
        ),
        ({"serializedFile": "none.pt"}, "is no archive of petclf (\"There is no item named 'none.pt' in the archive\");"),
        ({"serializedFile": []}, "cannot be read: TypeError("),
    ],
)
def test_an_archive_that_is_not_ours_is_refused_with_its_fault(server: Server, changes: Any, reason: str) -> None:
    path = server.registrar.store / "new.mar"
    write_archive(path, **changes)
    status, answer = server.ask("/models?url=new.mar")
    assert (status, answer["error"]["code"]) == (422, "bad_archive")
    assert answer["error"]["message"].startswith(f"{path} {reason}")
    assert server.torchserve.calls == []


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half a file"])
def test_a_broken_archive_is_refused(server: Server, content: bytes) -> None:
    path = server.registrar.store / "new.mar"
    path.write_bytes(content)
    status, answer = server.ask("/models?url=new.mar")
    assert (status, answer["error"]["code"]) == (422, "bad_archive")
    assert answer["error"]["message"].startswith(f"{path} is {'no archive of petclf' if content else 'empty'}")
    assert server.torchserve.calls == []


@pytest.mark.parametrize("synchronous", ["", "&synchronous=true", "&synchronous=false"])
def test_a_good_version_is_answered_when_it_is_ready(server: Server, synchronous: str) -> None:
    answer = server.ask(f"/models?url=new.mar{synchronous}")
    assert answer == (200, {"status": "petclf 2.0.0 is registered, with 2 workers that are ready"})
    assert server.waited_for == [("petclf 2.0.0", 2)]
    assert (server.torchserve.calls, server.torchserve.known) == (REGISTERED, ["1.0.0", "2.0.0"])


def test_a_version_may_come_without_workers(server: Server) -> None:
    answer = server.ask("/models?url=new.mar&initial_workers=0")
    assert answer == (200, {"status": "petclf 2.0.0 is registered, with 0 workers that are ready"})
    assert server.waited_for == []


def test_a_version_that_is_there_already_is_refused_and_stays(server: Server) -> None:
    write_archive(server.registrar.store / "old.mar", modelVersion="1.0.0")
    reason = "petclf 1.0.0 is registered already; remove it, or build the archive with another version"
    assert server.ask("/models?url=old.mar") == (409, refusal("conflict", reason))
    assert (server.torchserve.calls, server.torchserve.known) == ([], ["1.0.0"])


def fails(reason: str) -> Callable[[], bool]:
    def wait() -> bool:
        raise ServeError(reason)

    return wait


def test_a_version_that_does_not_become_ready_is_removed_and_its_reason_told(server: Server) -> None:
    server.becoming_ready = fails("a worker could not start: a known photo is answered wrong")
    reason = "petclf 2.0.0 is not registered: a worker could not start: a known photo is answered wrong"
    assert server.ask("/models?url=new.mar") == (422, refusal("bad_archive", reason))
    assert (server.torchserve.calls, server.torchserve.known) == ([*REGISTERED, "DELETE /models/petclf/2.0.0"], ["1.0.0"])


def test_a_version_that_the_end_of_the_server_overtakes_is_not_called_ready(server: Server) -> None:
    server.becoming_ready = lambda: False
    reason = "petclf 2.0.0 is not registered: the server is about to end"
    assert server.ask("/models?url=new.mar") == (422, refusal("bad_archive", reason))


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("error", [ManagementError(500, "no room"), TimeoutError("no room")])
def test_what_torchserve_does_not_take_is_removed(server: Server, method: str, error: Exception) -> None:
    server.torchserve.refuses = {method: error, "DELETE": ManagementError(404, "there is none")}
    reason = "petclf 2.0.0 is not registered: no room"
    assert server.ask("/models?url=new.mar") == (422, refusal("bad_archive", reason))
    assert server.torchserve.calls[-1] == "DELETE /models/petclf/2.0.0"


def test_a_version_that_cannot_be_removed_again_is_told(server: Server) -> None:
    server.becoming_ready = fails("too slow")
    server.torchserve.refuses = {"DELETE": TimeoutError("no answer")}
    reason = "petclf 2.0.0 is not registered: too slow; and it cannot be removed, do so later: TimeoutError('no answer')"
    assert server.ask("/models?url=new.mar") == (422, refusal("bad_archive", reason))


def test_a_version_that_somebody_else_has_just_registered_is_not_removed(server: Server) -> None:
    server.torchserve.refuses = {"POST": ManagementError(409, "it is there")}
    assert server.ask("/models?url=new.mar") == (409, refusal("conflict", "it is there"))
    assert server.torchserve.calls == REGISTERED[:1]


def test_one_version_comes_or_goes_at_a_time_and_is_a_candidate_until_it_is_ready(server: Server) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        asked.set()
        return go_on.wait(30)

    server.becoming_ready = wait
    answers: list[tuple[int, Any]] = []
    first = threading.Thread(target=lambda: answers.append(server.ask("/models?url=new.mar")))
    first.start()
    assert asked.wait(30)
    candidate = server.registrar.candidate
    meanwhile = [server.ask("/models?url=new.mar"), server.ask("/models/petclf/1.0.0", "DELETE")]
    go_on.set()
    first.join(30)

    busy = (409, refusal("conflict", "another version is being registered or removed; ask again later"))
    assert meanwhile == [busy, busy]
    assert [status for status, _ in answers] == [200]
    assert (candidate, server.registrar.candidate) == ("petclf 2.0.0", "")
    assert server.ask("/models?url=new.mar")[1]["error"]["message"].startswith("petclf 2.0.0 is registered already")


@pytest.mark.parametrize(("ready", "known"), [(True, ["1.0.0", "2.0.0"]), (False, ["1.0.0"])])
def test_a_registration_ends_well_when_whoever_asked_has_gone(server: Server, ready: bool, known: list[str]) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        asked.set()
        go_on.wait(30)
        return ready

    server.becoming_ready = wait
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /models?url=new.mar HTTP/1.1\r\nHost: x\r\n\r\n")
        assert asked.wait(30)
    go_on.set()
    end = time.monotonic() + 30
    while server.registrar.candidate and time.monotonic() < end:
        time.sleep(0.01)
    assert (server.torchserve.known, server.registrar.candidate) == (known, "")


@pytest.mark.parametrize("phase", ["starting", "draining"])
def test_nothing_is_registered_before_the_server_is_ready_and_when_it_ends(server: Server, phase: str) -> None:
    server.phase = phase
    reason = f"the server is {phase}; versions are registered when it is ready"
    assert server.ask("/models?url=new.mar") == (503, refusal("busy", reason))
    assert server.torchserve.calls == []


def test_torchserve_that_does_not_answer_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(server.torchserve, "ask", ask)
    reason = "TorchServe does not answer: TimeoutError('timed out')"
    assert server.ask("/models?url=new.mar") == (503, refusal("busy", reason))


@pytest.mark.parametrize("path", ["/", "/models/", "/models/petclf", "/models#?url=new.mar", "/predictions"])
def test_a_post_to_another_path_is_told_where_to_go(server: Server, path: str) -> None:
    assert server.ask(path) == (404, refusal("not_found", "register a version: POST /models?url=ARCHIVE"))
