"""What becomes of requests when a worker is slow, ends, or answers what cannot be sent: a model that does as it is told."""

import concurrent.futures
import contextlib
import http.client
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import Serving, register, start, wait_until

pytestmark = pytest.mark.e2e

HANDLER = """
import os, time

class Obedient:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        orders = [bytes(row["body"]).decode() for row in data]
        for index, order in enumerate(orders):
            if order.startswith("wait "):
                time.sleep(float(order[5:]))
            if order == "end":
                os._exit(1)
            if order == "bad header":
                context.set_response_header(index, "x-bad", "two\\r\\nlines")
        return [f"{order}: {len(data)} at once by {os.getpid()}" for order in orders]
"""
SETTINGS = "batchSize: 4\nmaxBatchDelay: 1\nresponseTimeout: 1\nstartupTimeout: 60\njobQueueSize: 5\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = start(tmp_path_factory.mktemp("workers"))
    register(serving, "obedient", HANDLER, SETTINGS, workers=2)
    yield serving
    serving.stop()


@pytest.fixture
def workers(server: Serving) -> list[int]:
    """The pids of the two workers, whatever an earlier test did to them."""
    scale(server, 2)
    return sorted(worker["pid"] for worker in ready(server))


def scale(server: Serving, count: int) -> None:
    params = {"min_worker": str(count), "max_worker": str(count), "synchronous": "true"}
    response = requests.put(f"{server.management}/models/obedient", params=params, timeout=60)
    assert response.status_code in (200, 206), response.text  # 206: a worker is on its way already
    wait_until(lambda: len(ready(server)) == count, 60)


def ready(server: Serving) -> list[dict[str, int]]:
    [model] = requests.get(f"{server.management}/models/obedient", timeout=30).json()
    return [worker for worker in model["workers"] if worker["status"] == "READY"]


def ask(server: Serving, order: str, model: str = "obedient") -> tuple[int, str]:
    response = requests.post(f"{server.url}/predictions/{model}", order, timeout=30)
    return response.status_code, response.text


def message(answer: tuple[int, str]) -> tuple[int, str]:
    return answer[0], json.loads(answer[1])["message"]


def answering(pid: int, order: str, at_once: int = 1) -> tuple[int, str]:
    return 200, f"{order}: {at_once} at once by {pid}"


def test_a_worker_that_takes_too_long_is_replaced_and_others_are_answered_meanwhile(server: Serving, workers: list[int]) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        slow = pool.submit(ask, server, "wait 30")
        time.sleep(0.2)
        begun = time.monotonic()
        others = {ask(server, "now") for _ in range(20)}
        assert time.monotonic() - begun < 0.8
        assert message(slow.result(5)) == (500, "Worker died.")
    [(status, told)] = others
    left = int(told.rsplit(" ", 1)[1])
    assert (status, told) == answering(left, "now")
    assert left in workers
    wait_until(lambda: len(ready(server)) == 2, 60)  # it is started again
    pids = {worker["pid"] for worker in ready(server)}
    assert pids & set(workers) == {left}


def test_what_a_worker_had_in_hand_when_it_ended_is_answered_with_an_error_and_the_rest_by_others(
    server: Serving, workers: list[int]
) -> None:
    assert message(ask(server, "end")) == (500, "Worker died.")
    assert ask(server, "now")[0] == 200
    assert len(workers) == 2


def test_what_a_worker_had_in_hand_when_it_was_no_longer_wanted_is_done_by_another(server: Serving, workers: list[int]) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        both = [pool.submit(ask, server, f"wait 0.{number}") for number in (6, 7)]
        time.sleep(0.3)
        scale(server, 1)
        [left] = {worker["pid"] for worker in ready(server)}
        assert left in workers
        assert [answer.result(10) for answer in both] == [answering(left, "wait 0.6"), answering(left, "wait 0.7")]


def test_an_answer_that_cannot_be_sent_takes_nothing_from_its_neighbours(server: Serving, workers: list[int]) -> None:
    assert len(workers) == 2
    scale(server, 1)
    [pid] = {worker["pid"] for worker in ready(server)}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        pool.submit(ask, server, "wait 0.5")
        time.sleep(0.2)
        orders = ["one", "bad header", "two"]
        answers = []
        for order in orders:
            answers.append(pool.submit(ask, server, order))
            time.sleep(0.05)
        one, bad, two = (answer.result(10) for answer in answers)
    assert (one, two) == (answering(pid, "one", 3), answering(pid, "two", 3))
    assert message(bad) == (500, "The answer cannot be sent.")
    assert ask(server, "now") == answering(pid, "now")


def test_more_than_may_wait_is_refused_and_what_waits_is_answered_in_batches(server: Serving, workers: list[int]) -> None:
    assert len(workers) == 2
    scale(server, 1)
    [pid] = {worker["pid"] for worker in ready(server)}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        first = pool.submit(ask, server, "wait 0.5")
        time.sleep(0.2)
        answers = [pool.submit(ask, server, "now") for _ in range(7)]
        found = sorted(answer.result(10) for answer in answers)
    assert first.result() == answering(pid, "wait 0.5")
    assert found[:5] == [answering(pid, "now", 1), *[answering(pid, "now", 4)] * 4]
    assert [message(refused) for refused in found[5:]] == [(503, "Too many requests wait.")] * 2


@pytest.mark.parametrize("removed", [False, True], ids=["scaled to none", "removed"])
def test_who_waits_for_a_model_that_nobody_serves_any_more_is_told_so(server: Serving, removed: bool) -> None:
    register(server, "leaving", HANDLER, SETTINGS)
    address = f"{server.management}/models/leaving"
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(ask, server, "wait 0.9", "leaving")]
        time.sleep(0.2)
        waiting += [pool.submit(ask, server, "now", "leaving") for _ in range(3)]
        time.sleep(0.2)
        if removed:
            response = requests.delete(address, timeout=30)
        else:
            response = requests.put(address, params={"min_worker": "0", "max_worker": "0", "synchronous": "true"}, timeout=30)
        assert response.status_code == 200, response.text
        assert [message(answer.result(5)) for answer in waiting] == [(503, "The model has no worker any more.")] * 4
    if not removed:
        requests.put(address, params={"min_worker": "1", "max_worker": "1", "synchronous": "true"}, timeout=60)
        assert ask(server, "now", "leaving")[0] == 200
        requests.delete(address, timeout=30)


def test_who_registers_and_waits_for_the_workers_holds_up_nobody(server: Serving, workers: list[int]) -> None:
    assert len(workers) == 2
    scale(server, 1)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        more = pool.submit(scale, server, 2)
        longest = 0.0
        while not more.done():
            begun = time.monotonic()
            assert ask(server, "now")[0] == 200
            longest = max(longest, time.monotonic() - begun)
        more.result()
    assert longest < 1.0


def test_workers_that_come_and_go_leave_nobody_waiting_and_are_counted_right(server: Serving) -> None:
    scale(server, 2)
    statuses, over = Counter[int](), threading.Event()

    def ask_on() -> None:
        while not over.is_set():
            statuses[ask(server, "wait 0.001")[0]] += 1

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask_on) for _ in range(4)]
        try:
            for count in (1, 2, 1, 0, 1, 2, 0, 2):
                scale(server, count)
        finally:
            over.set()
        concurrent.futures.wait(asking, 5)
        assert [one.done() for one in asking] == [True] * 4
    assert set(statuses) == {200, 503}  # 503 while there was no worker
    with concurrent.futures.ThreadPoolExecutor(7) as pool:
        first, other = pool.submit(ask, server, "wait 0.5"), pool.submit(ask, server, "wait 0.7")
        time.sleep(0.1)
        waiting = [pool.submit(ask, server, "wait 0.01") for _ in range(5)]
        assert [first.result()[0], other.result()[0]] == [200, 200]
        at_once = [answer.result()[1].split()[2] for answer in waiting]
    assert at_once.count("3") == 3  # of five that wait, the first of two workers takes three


def test_who_asks_until_the_end_gets_answers_and_then_no_connection_but_never_that_there_is_no_model(tmp_path: Path) -> None:
    serving = start(tmp_path)
    photo, statuses = encoded(draw_photo("cat", 1, (64, 48))), Counter[int]()
    connection = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=10)
    with contextlib.suppress(OSError, http.client.HTTPException):
        while True:
            connection.request("POST", "/predictions/petclf", photo, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            response.read()
            statuses[response.status] += 1
            connection.auto_open = 0  # this connection, and no other
            if statuses[200] == 50:
                serving.process.send_signal(signal.SIGINT)
    assert set(statuses) == {200}
    assert statuses[200] >= 50
    assert serving.process.wait(30) == 0
