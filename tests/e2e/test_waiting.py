"""In every state of the server, every request gets an answer or a closed connection within 15 seconds: here and through the gateway.

One row a state: 50 requests at once on the server's own port and 50 through a real gateway, over connections that stay open.
"""

import contextlib
import http.client
import os
import shutil
import signal
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import Serving, launch, start, wait_until
from tests.e2e.nginx import HOW_TO_GET_NGINX, NGINX, running

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

if NGINX is None:
    pytest.skip(HOW_TO_GET_NGINX, allow_module_level=True)

CROWD = 50
LONGEST = 15.0  # seconds
PHOTO = encoded(draw_photo("cat", 1, (320, 240)))
SLOW = encoded(Image.fromarray(np.arange(2000 * 1500 * 3, dtype=np.uint32).astype(np.uint8).reshape(1500, 2000, 3)), "PNG")
CLOSED = 0


@dataclass
class Answers:
    """What came back, and how long the slowest took."""

    statuses: Counter[int] = field(default_factory=Counter)
    longest: float = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.longest = max(self.longest, seconds)


@dataclass
class State:
    """A row of the table: what happens while the crowd asks, and what may come back on each of the two ways."""

    name: str
    happens: Callable[[Serving], object]
    direct: set[int]
    gateway: set[int]
    path: str = "/predictions/petclf"
    photo: bytes = PHOTO
    crowd: int = CROWD
    once: bool = False  # each of the crowd asks once, else again and again until some time after it happened
    most_failed: int | None = None  # of those that come back other than with 200, on each way
    before: Callable[[Serving], object] = lambda _: None


def nothing(_: Serving) -> None:
    """The crowd alone is what happens."""


def pids(server: Serving) -> list[int]:
    """The workers that are alive, whatever TorchServe knows of them."""
    [java] = [one for one in psutil.Process(server.process.pid).children() if "java" in one.name()]
    return [one.pid for one in java.children() if "model_service_worker" in " ".join(one.cmdline())]


def signal_workers(number: signal.Signals, most: int | None = None) -> Callable[[Serving], None]:
    def send(server: Serving) -> None:
        for pid in pids(server)[:most]:
            os.kill(pid, number)

    return send


def kill_again_and_again(server: Serving) -> None:
    """Let no worker live, as one that fails at every start, until the server gives up."""
    with contextlib.suppress(psutil.Error, ValueError, ProcessLookupError):
        while server.process.poll() is None:
            signal_workers(signal.SIGKILL)(server)
            time.sleep(0.05)


def scale(server: Serving, workers: int) -> None:
    limits = {"min_worker": str(workers), "max_worker": str(workers), "synchronous": "true"}
    requests.put(f"{server.management}/models/petclf", params=limits, timeout=60)


def register(server: Serving, archive: str, workers: int = 1) -> None:
    wanted = {"url": archive, "initial_workers": str(workers), "synchronous": "false"}
    assert requests.post(f"{server.management}/models", params=wanted, timeout=60).status_code in (200, 202)


def second_version(server: Serving) -> None:
    register(server, "newer.mar")
    wait_until(lambda: ask(server.port, "/predictions/petclf/99.10.0", PHOTO)[0] == 200, 60)


def promote(server: Serving) -> None:
    requests.put(f"{server.management}/models/petclf/99.10.0/set-default", timeout=10).raise_for_status()


def remove(server: Serving, version: str = "99.10.0") -> None:
    response = requests.delete(f"{server.supervisor}/models/petclf/{version}", timeout=120)
    assert response.status_code == 200, response.text


def stop(server: Serving) -> None:
    server.process.send_signal(signal.SIGTERM)


def scale_to_none(server: Serving) -> None:
    scale(server, 0)


def promote_and_remove(server: Serving) -> None:
    promote(server)
    remove(server, released(server))


def released(server: Serving) -> str:
    versions = requests.get(f"{server.management}/models/petclf/all", timeout=10).json()
    [name] = {one["modelVersion"] for one in versions if not one["modelVersion"].startswith("99.")}
    return str(name)


NEWER = "/predictions/petclf/99.10.0"
DIED = {500, 503, 507}  # TorchServe's words for a worker that ended with a batch in its hands, and for too many that wait
DIED_THROUGH = {500, 503}  # the same through the gateway
BUSY = ({200, 503}, {200, 503, 504})  # a version that loads takes the cores, and on a slow machine requests wait for too long
TABLE = [
    State("ready", nothing, {200}, {200}),
    State("one worker dead", signal_workers(signal.SIGKILL, 1), {200, *DIED}, {200, *DIED_THROUGH}, most_failed=8),
    State("one worker hung", signal_workers(signal.SIGSTOP, 1), {200, *DIED}, {200, *DIED_THROUGH}, most_failed=8),
    State("all workers dead", signal_workers(signal.SIGKILL), {200, *DIED, CLOSED}, {200, *DIED_THROUGH}),
    State("all workers hung", signal_workers(signal.SIGSTOP), {200, *DIED, CLOSED}, {200, *DIED_THROUGH, 504}),
    State("scaled to none before", nothing, {503}, {503}, before=lambda server: scale(server, 0)),
    State("scaled to none while they wait", scale_to_none, {200, *DIED}, {200, *DIED_THROUGH, 504}, photo=SLOW),
    State("another version is registered", lambda server: register(server, "newer.mar"), *BUSY),
    State("asked for while it is registered", nothing, {200}, {200}, NEWER, once=True, before=lambda server: register(server, "newer.mar")),
    State("promoted", promote, *BUSY, before=second_version),
    State("promoted, and the old one removed", promote_and_remove, *BUSY, before=second_version),
    State("removed while they wait", remove, {200, *DIED}, {200, *DIED_THROUGH}, NEWER, SLOW, once=True, before=second_version),
    State("a version that cannot start is registered", lambda server: register(server, "broken.mar"), *BUSY),
    State("overloaded", nothing, {200, 503}, {200, 503}, photo=SLOW, crowd=3 * CROWD),
    State("stopping", stop, {200, CLOSED}, {200, 503}),
    State("all workers dead again and again", kill_again_and_again, {200, *DIED, CLOSED}, {200, *DIED_THROUGH}),
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, newer: Path) -> Path:
    """The archives of a version that is newer, and of one that cannot start."""
    folder = tmp_path_factory.mktemp("waiting")
    shutil.copy(newer, folder / "newer.mar")
    with zipfile.ZipFile(newer) as good, zipfile.ZipFile(folder / "broken.mar", "w") as bad:
        for name in good.namelist():
            data = b"import nothing_of_this_name\n" if name == "petclf_handler.py" else good.read(name)
            bad.writestr(name, data.replace(b"99.10.0", b"99.11.0") if name.endswith("MANIFEST.json") else data)
    return folder


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Iterator[Callable[[], tuple[Serving, int]]]:
    """Gives a server and the port of a gateway before it: the last one again if it is as it was, else a new one."""
    with contextlib.ExitStack() as stack:
        held: list[tuple[Serving, int]] = []

        def give() -> tuple[Serving, int]:
            if not held or not is_as_it_was(held[-1][0]):
                folder = tmp_path_factory.mktemp("ways")
                server = start(folder / "server", None, None, "--drain-seconds", "2")
                stack.callback(end, server)
                for archive in store.iterdir():
                    shutil.copy(archive, server.store)
                held.append((server, stack.enter_context(gateway_before(server, folder / "gateway"))))
            return held[-1]

        yield give


@pytest.fixture
def ways(servers: Callable[[], tuple[Serving, int]]) -> tuple[Serving, int]:
    return servers()


def is_as_it_was(server: Serving) -> bool:
    """Tell whether the released version alone is there again, with its two workers, after whatever a row did."""
    if server.process.poll() is not None:
        return False
    with contextlib.suppress(requests.RequestException, AssertionError, ValueError):
        versions = requests.get(f"{server.management}/models/petclf/all", timeout=10).json()
        ours = released(server)
        requests.put(f"{server.management}/models/petclf/{ours}/set-default", timeout=10).raise_for_status()
        for one in versions:
            if one["modelVersion"] != ours:
                requests.delete(f"{server.management}/models/petclf/{one['modelVersion']}", timeout=60).raise_for_status()
        scale(server, 2)
        wait_until(lambda: requests.get(f"{server.supervisor}/ready", timeout=10).status_code == 200, 40)
        return ask(server.port, "/predictions/petclf", PHOTO)[0] == 200
    return False


def end(server: Serving) -> None:
    server.process.terminate()
    with contextlib.suppress(Exception):
        server.process.wait(20)
    server.process.kill()


@contextlib.contextmanager
def gateway_before(server: Serving, folder: Path) -> Iterator[int]:
    folder.mkdir()
    ports = {"INFERENCE": server.port, "MANAGEMENT": server.management_port, "READY": server.ready_port}
    settings = {f"PETCLF_{name}_PORT": str(port) for name, port in ports.items()}
    with running(folder, GATEWAY_CONNECTIONS="400", **settings) as gateway:
        yield gateway.port


def ask(port: int, path: str, photo: bytes) -> tuple[int, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST + 15)
    with contextlib.closing(connection):
        return ask_over(connection, path, photo)


def ask_over(connection: http.client.HTTPConnection, path: str, photo: bytes) -> tuple[int, float]:
    """Return the status, or that the connection was closed, and the seconds until then; a timeout is an error of the test."""
    began = time.monotonic()
    try:
        connection.request("POST", path, photo, {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        response.read()
        return response.status, time.monotonic() - began
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException):
        connection.close()
        return CLOSED, time.monotonic() - began


class Crowd:
    """Clients that each keep a connection open and ask as soon as they have been answered, until told to stop."""

    def __init__(self, port: int, state: State) -> None:
        self.answers, self.lock = Answers(), threading.Lock()
        self.begin, self.over = threading.Barrier(state.crowd + 1), threading.Event()
        self.pool = ThreadPoolExecutor(state.crowd)
        self.clients = [self.pool.submit(self.client, port, state) for _ in range(state.crowd)]

    def client(self, port: int, state: State) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST + 15)
        with contextlib.suppress(OSError):
            connection.connect()
        self.begin.wait(30)
        with contextlib.closing(connection):
            while True:
                status, seconds = ask_over(connection, state.path, state.photo)
                with self.lock:
                    self.answers.add(status, seconds)
                if self.over.is_set() or status == CLOSED or state.once:
                    return
                if status != 200:
                    time.sleep(0.1)

    def finish(self) -> Answers:
        self.over.set()
        for client in self.clients:
            client.result(LONGEST + 20)
        self.pool.shutdown()
        return self.answers


@pytest.mark.parametrize("state", TABLE, ids=lambda state: state.name)
def test_whatever_happens_every_request_ends_in_time(ways: tuple[Serving, int], state: State) -> None:
    server, gateway = ways
    state.before(server)
    crowds = [Crowd(port, state) for port in (server.port, gateway)]
    for crowd in crowds:
        crowd.begin.wait(30)
    time.sleep(0.3)
    state.happens(server)
    time.sleep(2)
    direct, through = (crowd.finish() for crowd in crowds)

    for answers, allowed in ((direct, state.direct), (through, state.gateway)):
        assert set(answers.statuses) <= allowed, answers
        assert answers.longest <= LONGEST, answers
        assert sum(answers.statuses.values()) >= state.crowd, answers
        if state.direct == BUSY[0]:
            assert answers.statuses[200] > 0, answers  # how many depends on the machine
        if state.most_failed is not None:
            failed = sum(count for status, count in answers.statuses.items() if status != 200)
            assert failed <= state.most_failed, answers


def test_who_comes_while_it_starts_is_answered_when_it_is_ready(tmp_path: Path) -> None:
    server, begun = launch(tmp_path / "server"), time.monotonic()
    try:
        with gateway_before(server, tmp_path / "gateway") as gateway:
            wait_until(lambda: reachable(server.port), 60)
            state = State("starting", nothing, {200}, {200, 503, 504}, once=True)  # the gateway waits for 12 seconds
            crowds = [Crowd(port, state) for port in (server.port, gateway)]
            for crowd in crowds:
                crowd.begin.wait(30)
            direct, through = (crowd.finish() for crowd in crowds)
            starting = time.monotonic() - begun
    finally:
        server.process.terminate()
        server.process.wait(30)
    assert direct.statuses == {200: CROWD}
    assert set(through.statuses) <= state.gateway
    assert through.longest <= LONGEST
    assert direct.longest <= max(LONGEST, starting)


def test_who_comes_while_a_model_is_refused_at_load_is_let_go(tmp_path: Path, store: Path) -> None:
    server, begun = launch(tmp_path / "server", {"broken.mar": store / "broken.mar"}), time.monotonic()
    with gateway_before(server, tmp_path / "gateway") as gateway:
        wait_until(lambda: reachable(server.port), 60)
        state = State("refused at load", nothing, {CLOSED, 503}, {503, 504})
        crowds = [Crowd(port, state) for port in (server.port, gateway)]
        for crowd in crowds:
            crowd.begin.wait(30)
        direct, through = (crowd.finish() for crowd in crowds)
    assert server.process.wait(30) == 2
    loading = time.monotonic() - begun  # on a machine that is short of cores, longer than anybody may wait otherwise
    assert set(direct.statuses) <= state.direct
    assert set(through.statuses) <= state.gateway
    assert through.longest <= LONGEST
    assert direct.longest <= max(LONGEST, loading)


def test_who_asks_through_the_gateway_for_a_version_that_cannot_start_is_told_in_time(ways: tuple[Serving, int]) -> None:
    server, gateway = ways
    register(server, "broken.mar")
    path = "/predictions/petclf/99.11.0"
    with ThreadPoolExecutor(CROWD) as pool:
        found = list(pool.map(lambda _: ask(gateway, path, PHOTO), range(CROWD)))
    assert {status for status, _ in found} <= {503, 504}
    assert max(seconds for _, seconds in found) <= LONGEST
    assert ask(server.port, "/predictions/petclf", PHOTO)[0] == 200


def reachable(port: int) -> bool:
    with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
        connection.connect()
        return True
    return False
