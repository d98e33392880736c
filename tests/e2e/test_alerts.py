"""Each alert fires when its fault is caused on a real server, and clears when the fault ends; a switch of versions fires none.

The rules are the shipped ones with all durations divided by FASTER, so that hours pass in half a minute. Faults that do not disturb
each other are caused at the same time; those that take much of the processor come after those that are measured by the clock.
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import itertools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import torch
from PIL import Image

from handler.classifier import Classifier, Judgement
from handler.photo_input import decode_photo
from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import ROOT, Serving, start, wait_until
from tests.e2e.nginx import Gateway, Upstream, listening
from tests.e2e.prometheus import Prometheus, behind, faster, run_gateway, run_probe, run_prometheus
from tests.test_monitoring import ALERTS

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FASTER = 120
LIVES_FASTER = 40  # a slowed worker answers little, and on a busy machine a window of two seconds may hold no answer
SWITCH_FASTER = 20  # a worker needs ten seconds to start on a busy machine, which must not become minutes
PROBE_FASTER = 3  # a probe needs a tenth of a second on a busy machine, which must not look like trouble
LONGEST = 75  # seconds until an alert fires or clears; the slowest is one hour's share of photos that must hold for an hour
VERSION = "99.10.0"  # of the fixture newer
DISK = 8 * 2**20  # bytes of the disk that is filled


@contextlib.contextmanager
def in_threads(ask: Callable[[Any], None], clients: Iterable[Any], over: threading.Event) -> Iterator[None]:
    """Let each client ask in a thread of its own; at the end `over` tells them to stop."""
    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@dataclass
class Place:
    """A server, clients that ask it all the time, and the Prometheus that watches it."""

    server: Serving
    photos: Sequence[bytes]  # what the clients send from now on; nothing if empty
    others: list[Serving]
    prometheus: Prometheus = field(init=False)
    archive: Path = field(init=False)  # a newer version
    gateway: Gateway = field(init=False)

    @contextlib.contextmanager
    def asked(self, clients: int, pause: float) -> Iterator[None]:
        """Let clients ask until the end; what they get is Prometheus' business."""
        over = threading.Event()

        def ask(number: int) -> None:
            session = requests.Session()
            for count in itertools.count(number):
                if over.wait(pause):
                    return
                if photos := self.photos:
                    with contextlib.suppress(requests.RequestException):
                        session.post(f"{self.server.url}/predictions/petclf", photos[count % len(photos)], timeout=30)

        with in_threads(ask, range(clients), over):
            yield


@dataclass(frozen=True)
class Fault:
    """What makes alerts fire: entering `cause` begins it, leaving ends it."""

    alerts: frozenset[str]
    cause: Callable[[Place], AbstractContextManager[None]]


@dataclass(frozen=True)
class Course:
    """Whether an alert fired before its fault, during it, and was still firing some time after its end."""

    before: bool
    during: bool
    after: bool


def observe(place: Place, fault: Fault) -> dict[str, Course]:
    before = place.prometheus.firing()
    seen: set[str] = set()
    with fault.cause(place):
        end = time.monotonic() + LONGEST
        while not fault.alerts <= seen and time.monotonic() < end:
            seen |= place.prometheus.firing()
            time.sleep(0.2)
    end = time.monotonic() + LONGEST
    while (after := place.prometheus.firing() & fault.alerts) and time.monotonic() < end:
        time.sleep(0.2)
    return {alert: Course(alert in before, alert in seen, alert in after) for alert in fault.alerts}


def in_turn(place: Place, *faults: Fault) -> dict[str, Course | str]:
    """Return how each alert went, or the error that its fault ended in: one broken fault must not hide the others."""
    courses: dict[str, Course | str] = {}
    for fault in faults:
        try:
            if courses:  # a server that starts again has no worker for a while, which fires an alert of its own
                wait_until_quiet(place.prometheus)
            courses |= observe(place, fault)
        except Exception as error:
            courses |= dict.fromkeys(fault.alerts, f"{type(error).__name__}: {error}")
    return courses


def wait_until_quiet(prometheus: Prometheus) -> None:
    end = time.monotonic() + LONGEST
    while firing := prometheus.firing():
        assert time.monotonic() < end, f"still firing: {sorted(firing)}"
        time.sleep(0.1)


@contextlib.contextmanager
def stopped(place: Place) -> Iterator[None]:
    """Stop the server, and start it again on the same ports."""
    server = place.server
    server.stop()
    yield
    ports = [server.port, server.management_port, server.metrics_port, server.ready_port]
    place.server = start(server.folder, {}, logging_to(server.folder), "--workers", "1", ports=ports)


@contextlib.contextmanager
def sending(place: Place, photos: Sequence[bytes]) -> Iterator[None]:
    """Let the clients send other photos than the ordinary ones."""
    ordinary, place.photos = place.photos, photos
    try:
        yield
    finally:
        place.photos = ordinary


@contextlib.contextmanager
def workers_killed(place: Place) -> Iterator[None]:
    """Kill every worker, and every one that TorchServe starts instead."""
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.05):
            for pid in worker_pids(place.server):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    with sending(place, []):  # the supervisor soon ends a server for which requests wait in vain
        time.sleep(1)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        wait_until(lambda: is_ready(place.server), 60)


def worker_pids(server: Serving) -> list[int]:
    found = []
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("model_service_worker" in word for word in process.cmdline()):
                found.append(process.pid)
    return found


def is_ready(server: Serving) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(f"{server.supervisor}/ready", timeout=5).ok
    return False


def gradient(width: int, height: int) -> bytes:
    """Return a photo that is small to send and takes long to read."""
    return encoded(Image.linear_gradient("L").resize((width, height)).convert("RGB"), "PNG")


@contextlib.contextmanager
def worker_slowed(place: Place) -> Iterator[None]:
    """Let the worker stand still most of the time, as if other programs had its cores; no photo is read within one of its turns."""
    over = threading.Event()
    [worker] = [psutil.Process(pid) for pid in worker_pids(place.server)]

    def slow_down() -> None:
        while not over.wait(0.05):
            worker.suspend()
            time.sleep(0.3)  # longer than the limit of 250 ms, and no longer: photos must come, or there is no p95
            worker.resume()

    thread = threading.Thread(target=slow_down)
    thread.start()
    try:
        with sending(place, [gradient(3000, 2000)]):
            yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def overloaded(place: Place) -> Iterator[None]:
    """Send more photos than the worker can answer, from more clients than may wait."""
    with sending(place, [gradient(1500, 1000)]), place.asked(clients=130, pause=0.2):
        yield


def other_photos(place: Place) -> AbstractContextManager[None]:
    """Send drawings that the model finds unlike its training photos, and takes for cats."""

    def unlike(judgement: Judgement) -> bool:
        return judgement.unsure_because == "unlike_training_photos" and judgement.label == "cat"

    return sending(place, photos_that(unlike, 6, (200, 150)))


@contextlib.contextmanager
def log_on_full_disk(place: Place) -> Iterator[None]:
    """Let the prediction log be a device that is always full."""
    log = prediction_log(place.server.folder)
    full = log.with_name("full")
    full.symlink_to("/dev/full")
    full.replace(log)  # at once: the server makes a log where none is
    yield
    log.unlink()


@contextlib.contextmanager
def disk_filled(place: Place) -> Iterator[None]:
    """Fill the disk of the prediction log but for a twentieth."""
    filler = prediction_log(place.server.folder).parent / "filler"
    filler.write_bytes(bytes(DISK * 19 // 20))
    yield
    filler.unlink()


@contextlib.contextmanager
def switched_on_one_server(place: Place) -> Iterator[None]:
    """Switch the first server to a newer version, and the second one later."""
    switch(place.server, place.archive)
    yield
    for other in place.others:
        switch(other, place.archive)


def switch(server: Serving, archive: Path) -> None:
    """Register a version, make it the default when its worker is ready, and remove the one before."""
    shutil.copy(archive, server.store)
    old = server.describe()["modelVersion"]
    models = f"{server.management}/models"
    # not synchronous: TorchServe has one thread for all ports, and it would answer nothing until the worker is ready
    requests.post(
        models, params={"url": archive.name, "initial_workers": "1", "synchronous": "false"}, timeout=60
    ).raise_for_status()
    wait_until(lambda: has_ready_worker(f"{models}/petclf/{VERSION}"), 60)
    requests.put(f"{models}/petclf/{VERSION}/set-default", timeout=60).raise_for_status()
    requests.delete(f"{server.supervisor}/models/petclf/{old}", timeout=60).raise_for_status()


def has_ready_worker(address: str) -> bool:
    [version] = requests.get(address, timeout=30).json()
    return any(worker["status"] == "READY" for worker in version["workers"])


@contextlib.contextmanager
def paused(place: Place) -> Iterator[None]:
    """Let TorchServe and its workers stand still: connections are taken, and nothing is answered."""
    processes = psutil.Process(place.server.process.pid).children(recursive=True)
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


@contextlib.contextmanager
def strangers(port: int, addresses: Sequence[str], pause: float, **headers: str) -> Iterator[None]:
    """Let one client at each address ask the gateway until the end."""
    over = threading.Event()

    def ask(address: str) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, 10, (address, 0))) as connection:
                    while not over.wait(pause):
                        connection.request("GET", "/models" if headers else "/predictions/petclf", headers=headers)
                        connection.getresponse().read()

    with in_threads(ask, addresses, over):
        yield


@contextlib.contextmanager
def failing_behind_the_gateway(place: Place) -> Iterator[None]:
    upstream = place.gateway.upstream
    ordinary, upstream.status = upstream.status, b"500 Internal Server Error"
    with strangers(place.gateway.port, ["127.0.1.1", "127.0.1.2"], pause=0.03):  # fewer than GATEWAY_RATE each
        yield
    upstream.status = ordinary


def flooded(place: Place) -> AbstractContextManager[None]:
    return strangers(place.gateway.port, ["127.0.1.3"] * 4, pause=0)


@contextlib.contextmanager
def many_slow_headers(place: Place) -> Iterator[None]:
    """Open requests whose headers never end."""
    with contextlib.ExitStack() as stack:
        for _ in range(850):  # of 1,000
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", place.gateway.port)))
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: petclf\r\n")
        yield


def guessed_keys(place: Place) -> AbstractContextManager[None]:
    key = "Basic " + base64.b64encode(b"operator:guess").decode()
    return strangers(place.gateway.management_port, ["127.0.1.4"] * 30, pause=0, Authorization=key)  # each waits for a second


STOPPED = Fault(frozenset({"PetclfScrapeMissing"}), stopped)
KILLED = Fault(frozenset({"PetclfNoReadyWorker"}), workers_killed)
SLOWED = Fault(frozenset({"PetclfSlow"}), worker_slowed)
OVERLOADED = Fault(frozenset({"PetclfErrorsFast", "PetclfErrorsSlow", "PetclfQueueFilling"}), overloaded)
OTHER_PHOTOS = Fault(frozenset({"PetclfLabelShareShifted", "PetclfUnsureOften", "PetclfDrift"}), other_photos)
LOG_FULL = Fault(frozenset({"PetclfLogLost"}), log_on_full_disk)
DISK_FILLED = Fault(frozenset({"PetclfDiskFilling"}), disk_filled)
HALF_SWITCHED = Fault(frozenset({"PetclfVersionsDiffer"}), switched_on_one_server)
PAUSED = Fault(frozenset({"PetclfProbeFailing", "PetclfProbeSlow"}), paused)
FAILING = Fault(frozenset({"PetclfGatewayErrors"}), failing_behind_the_gateway)
FLOODED = Fault(frozenset({"PetclfRefusedOften"}), flooded)
CROWDED = Fault(frozenset({"PetclfConnectionsFull"}), many_slow_headers)
GUESSED = Fault(frozenset({"PetclfWrongKeys"}), guessed_keys)
AT_THE_GATEWAY = (FAILING, FLOODED, CROWDED, GUESSED)
FAULTS = (STOPPED, KILLED, SLOWED, OVERLOADED, OTHER_PHOTOS, LOG_FULL, DISK_FILLED, HALF_SWITCHED, PAUSED, *AT_THE_GATEWAY)


def photos_that(wanted: Callable[[Judgement], bool], count: int, size: tuple[int, int]) -> list[bytes]:
    """Draw photos until the model says of enough of them what is wanted."""
    classifier = Classifier(ROOT / "pretrained" / "petclf.pt", "cpu", 1)
    found: list[bytes] = []
    for seed, shape in itertools.product(range(1000), ("cat", "dog", "cross")):
        photo = encoded(draw_photo(shape, seed, size), "PNG")
        [judgement], _ = classifier.predict(decode_photo(photo, classifier.size)[None])
        if wanted(judgement):
            found.append(photo)
        if len(found) == count:
            return found
    pytest.fail("the model says that of none of the drawn photos")


def photos_taken_for(label: int, count: int) -> list[bytes]:
    """Change drawings, which no photo of an animal is like, until the model takes them for photos of this label."""
    model = torch.jit.load(str(ROOT / "pretrained" / "petclf.pt")).eval()
    classifier = Classifier(ROOT / "pretrained" / "petclf.pt", "cpu", 2)
    usual = classifier.metadata["reference"]["unlike"]["mean"]
    found: list[bytes] = []
    for seed in range(2 * count):
        photo = decode_photo(encoded(draw_photo("cat", seed, (200, 150))), classifier.size)[None].float().requires_grad_()
        optimizer = torch.optim.Adam([photo], lr=4.0)
        for _ in range(80):
            probabilities, _ = model.explain(photo)
            unlike = model.unlike(model.network.features(photo).mean((2, 3)))
            if float(probabilities[0, label].detach()) > 0.995 and abs(float(unlike.detach()) - usual) < 0.2:
                found.append(as_png(photo.detach()[0]))
                break
            optimizer.zero_grad()
            (10 * (unlike - usual).square() - probabilities[:, label].clamp(min=1e-6).log()).sum().backward()
            optimizer.step()
            with torch.no_grad():
                photo.clamp_(0, 255)
        if len(found) == count:
            return found
    pytest.fail("the model takes none of the drawings for an animal")


def as_png(photo: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo.round().to(torch.uint8).permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def ordinary() -> list[bytes]:
    """Photos that the model is sure of, as many cats as dogs."""

    pairs = zip(*(photos_taken_for(label, 3) for label in (0, 1)), strict=True)
    return [photo for pair in pairs for photo in pair]


def logging_to(folder: Path) -> dict[str, str]:
    return {"PETCLF_PREDICTION_LOG": str(prediction_log(folder))}


def prediction_log(folder: Path) -> Path:
    return folder / "log" / "predictions.jsonl"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Put a small disk of its own at the folder; returns whether this machine allows that."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def skip_on_a_full_disk(folder: Path) -> None:
    """Of such a disk an alert tells all the time, so no other could be seen to clear."""
    disk = shutil.disk_usage(folder)
    if disk.free < 0.12 * disk.total:
        pytest.skip(f"only {disk.free / disk.total:.0%} of the disk that holds {folder} is free; make room to test the alerts")


@contextlib.contextmanager
def place_of(folder: Path, photos: Sequence[bytes], *others: Serving, times: int = FASTER, **jobs: int) -> Iterator[Place]:
    """Start a server with one worker, clients and a Prometheus; `others` and what listens at the ports of `jobs` are watched too."""
    with contextlib.ExitStack() as stack:
        server = start(folder, None, logging_to(folder), "--workers", "1")
        stack.callback(lambda: place.server.stop())  # a fault may have replaced it
        place = Place(server, photos, list(others))
        place.prometheus = stack.enter_context(run_prometheus(folder / "prometheus", [server, *others], "500ms", times, **jobs))
        stack.enter_context(place.asked(clients=2, pause=0.08))
        time.sleep(5)  # a long while for rules whose hour has half a minute
        yield place


@contextlib.contextmanager
def seen_from_outside(server: Serving, folder: Path) -> Iterator[Place]:
    """Put the gateway in front of a server, and the probe in front of the gateway; nobody else asks."""
    with contextlib.ExitStack() as stack:
        gateway, gateway_port = stack.enter_context(run_gateway(folder / "gateway", Upstream(server.port), **behind(server)))
        probe_port = stack.enter_context(run_probe(gateway.url, server, 5 / PROBE_FASTER))
        place = Place(server, [], [])
        place.prometheus = stack.enter_context(
            run_prometheus(folder, [server], "3s", PROBE_FASTER, gateway=gateway_port, probe=probe_port)
        )
        yield place


@dataclass(frozen=True)
class Results:
    """How each alert went, and what fired while nothing but a switch of versions happened."""

    courses: dict[str, Course | str]
    during_switch: set[str]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, ordinary: list[bytes], newer: Path) -> Results:
    folder = tmp_path_factory.mktemp("alerts")
    skip_on_a_full_disk(folder)
    with contextlib.ExitStack() as stack:
        mounted = stack.enter_context(small_disk(folder / "photos" / "log"))
        second = start(folder / "second", None, None, "--workers", "1")
        stack.callback(second.stop)
        upstream = stack.enter_context(listening())
        limits = {"GATEWAY_RATE": "40", "GATEWAY_BURST": "40"}
        gateway, gateway_port = stack.enter_context(run_gateway(folder / "gateway", upstream, **limits))
        photos = stack.enter_context(place_of(folder / "photos", ordinary, gateway=gateway_port))
        photos.gateway = gateway
        lives = stack.enter_context(place_of(folder / "lives", ordinary, times=LIVES_FASTER))
        switched = stack.enter_context(place_of(folder / "switched", ordinary, second))
        switched.archive = newer
        alone = stack.enter_context(run_prometheus(folder / "alone", [switched.server], "1s", SWITCH_FASTER))
        outside = stack.enter_context(seen_from_outside(second, folder / "outside"))
        with concurrent.futures.ThreadPoolExecutor() as pool:
            gentle = [
                pool.submit(in_turn, photos, OTHER_PHOTOS),
                pool.submit(in_turn, photos, LOG_FULL),
                pool.submit(pause_and_switch, outside, switched),
                *([pool.submit(in_turn, photos, DISK_FILLED)] if mounted else []),
            ]
            courses = [future.result() for future in gentle]
            during_switch = alone.fired() | outside.prometheus.fired()
            rough = [
                pool.submit(in_turn, lives, STOPPED, KILLED, SLOWED),
                *(pool.submit(in_turn, photos, fault) for fault in AT_THE_GATEWAY),
            ]
            courses += [future.result() for future in rough]
        courses.append(in_turn(lives, OVERLOADED))  # it would disturb the others
    return Results({alert: course for some in courses for alert, course in some.items()}, during_switch)


def pause_and_switch(outside: Place, switched: Place) -> dict[str, Course | str]:
    """Pause the second server, and when all is well again switch both, the second by itself."""
    courses = in_turn(outside, PAUSED)
    with contextlib.suppress(AssertionError):  # what still fires then is among what fired during the switch
        wait_until_quiet(outside.prometheus)
    outside.prometheus = dataclasses.replace(outside.prometheus, begun=time.monotonic())
    return courses | in_turn(switched, HALF_SWITCHED)


def test_every_alert_has_a_fault() -> None:
    assert sorted(alert for fault in FAULTS for alert in fault.alerts) == sorted(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_while_its_fault_lasts_and_clears_afterwards(alert: str, results: Results) -> None:
    if alert == "PetclfDiskFilling" and alert not in results.courses:
        pytest.skip("only root can mount a small disk to fill")
    assert results.courses[alert] == Course(before=False, during=True, after=False)


def test_an_ordinary_switch_of_versions_fires_no_alert(results: Results) -> None:
    assert results.during_switch == set()


def test_only_durations_become_shorter() -> None:
    rules = "expr: rate(a_5m[5m]) > 14.4 unless a offset 10m\nfor: 2h\nsummary: limit 250 ms for: a while"
    assert (
        faster(rules, 120)
        == "expr: rate(a_5m[2500ms]) > 14.4 unless a offset 5000ms\nfor: 60000ms\nsummary: limit 250 ms for: a while"
    )
