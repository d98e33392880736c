"""The simulated queue gives what is known in closed form, loses nobody, and refuses what is too much."""

import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("simpy", reason="simpy is not installed; `make setup` installs it")

from benchmarks.queueing import BATCH, Server, simulate
from handler.limits import QUEUE

REQUESTS = 20_000
PLAIN = {"batch": 1, "delay": 0.0, "most": math.inf}  # a queue as in textbooks


def poisson(rate: float, requests: int = REQUESTS) -> list[float]:
    return np.random.default_rng(1).exponential(1 / rate, requests).cumsum().tolist()


def exponential(mean: float) -> Iterator[float]:
    draw = random.Random(2)
    while True:
        yield draw.expovariate(1 / mean)


def crommelin(servers: int, load: float) -> float:
    """Return the mean wait in an M/D/c queue, in service times; `load` is the mean number of busy servers."""

    def more_than(least: int, mean: float) -> float:
        terms = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(least)]
        return 1 - math.fsum(terms)

    return math.fsum(
        more_than(i * servers, i * load) - servers / load * more_than(i * servers + 1, i * load) for i in range(1, 200)
    )


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_server_with_random_services_answers_as_an_m_m_1_queue(load: float) -> None:
    services = exponential(1.0)
    result = simulate(Server(lambda *_: next(services), workers=1, **PLAIN), poisson(load))

    assert np.mean(result.answered) == pytest.approx(1 / (1 - load), rel=0.05)
    assert np.quantile(result.answered, 0.99) == pytest.approx(math.log(100) / (1 - load), rel=0.1)
    assert result.busy / result.ended == pytest.approx(load, rel=0.03)


@pytest.mark.parametrize(("servers", "share"), [(1, 0.5), (2, 0.8), (8, 0.9)])
def test_servers_with_equal_services_let_wait_as_an_m_d_c_queue(servers: int, share: float) -> None:
    result = simulate(Server(lambda *_: 1.0, workers=servers, **PLAIN), poisson(share * servers))

    assert np.mean(result.answered) - 1 == pytest.approx(crommelin(servers, share * servers), rel=0.06)


@pytest.mark.parametrize("load", [0.8, 1.5])
def test_it_refuses_as_many_as_an_m_m_1_queue_with_room_for_ten(load: float) -> None:
    services = exponential(1.0)
    result = simulate(Server(lambda *_: next(services), workers=1, **{**PLAIN, "most": 10}), poisson(load))

    full = (1 - load) * load**10 / (1 - load**11)
    assert result.refused / REQUESTS == pytest.approx(full, rel=0.1)


@pytest.mark.parametrize("load", [0.5, 3.0])
def test_no_request_is_lost(load: float) -> None:
    """A batch of 8 takes 8 + 8 * 4 = 40 ms, so two workers answer 400 a second."""
    result = simulate(Server(lambda photos, _: 0.008 + 0.004 * photos), poisson(400 * load, 5000))

    assert len(result.answered) + result.refused == 5000
    assert sum(result.batches) == len(result.answered)
    assert max(result.batches) <= BATCH


def test_above_its_capacity_it_answers_its_capacity_and_the_last_let_in_waits_for_the_hundred_before_it() -> None:
    result = simulate(Server(lambda photos, _: 0.008 + 0.004 * photos), poisson(800, 8000))

    assert result.in_time / 10 == pytest.approx(400, rel=0.05)
    assert np.median(result.answered) == pytest.approx(QUEUE / 400, rel=0.1)
    assert result.refused == pytest.approx(4000, rel=0.06)


def test_a_lone_request_waits_for_company_and_then_for_its_batch_and_the_front() -> None:
    result = simulate(Server(lambda *_: 0.010, front=0.002, delay=0.001), [0.0])

    assert result.answered == [pytest.approx(0.013)]


def test_what_comes_within_the_delay_is_answered_together() -> None:
    result = simulate(Server(lambda *_: 0.010, delay=0.001), [0.0, 0.0005, 0.0020])

    assert result.batches == [2, 1]
    assert result.waited == [pytest.approx(0.0010), pytest.approx(0.0005), pytest.approx(0.0010)]
    assert result.answered == [pytest.approx(0.0110), pytest.approx(0.0105), pytest.approx(0.0110)]


def test_the_server_is_the_one_that_petclf_ships() -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "handler" / "model-config.yaml").read_text(encoding="utf-8"))
    shipped = Server(lambda *_: 1.0)

    assert (shipped.batch, shipped.delay * 1000) == (config["batchSize"], config["maxBatchDelay"])
    assert f"GATEWAY_IN_FLIGHT:-{shipped.most}" in (Path(__file__).parents[2] / "deploy/gateway/start").read_text(
        encoding="utf-8"
    )
