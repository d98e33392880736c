"""What became of well-behaved clients is counted right, and nothing that was started goes on."""

import argparse
import contextlib
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import own_network
from benchmarks.attack import Course, chosen, parse, row, told
from benchmarks.attackers import DEAD, INSIDE, REBIND, SLOW
from benchmarks.bystanders import Client, Outcome, Summary, hurt_seconds, summary, within
from benchmarks.stack import Alert, Restarted, alert_of
from tests.benchmarks.standin import StandIn
from tests.e2e.conftest import ROOT, wait_until
from tests.e2e.nginx import HOW_TO_GET_NGINX, NGINX

OUTCOMES = [Outcome(10.0, 0.01, "200"), Outcome(10.5, 0.02, "429"), Outcome(11.0, 0.3, "200"), Outcome(20.0, 0.01, "200")]


def test_a_summary_tells_the_share_that_was_answered_and_how_long_those_took() -> None:
    assert summary(OUTCOMES) == Summary(4, 0.75, {"429": 1}, {"p50": 10.0, "p95": 300.0, "p99": 300.0, "max": 300.0})
    assert summary([]) == Summary(0, 0.0, {}, {})


def test_a_client_is_hurt_from_its_first_failed_or_slow_answer_to_the_last() -> None:
    assert hurt_seconds(OUTCOMES, slowest=0.2) == pytest.approx(0.8)
    assert hurt_seconds(OUTCOMES, slowest=1) == pytest.approx(0.02)
    assert hurt_seconds(OUTCOMES[:1], slowest=1) == 0


def test_a_request_counts_when_it_was_due() -> None:
    assert within(OUTCOMES, 10.5, 20.0) == OUTCOMES[1:3]


def test_a_client_asks_at_its_rate_over_new_and_kept_connections() -> None:
    with StandIn().running() as stand_in:
        client = Client(stand_in.port, rate=20, path="/predict", body=b"photo", must_hold=b'"label"', address="127.0.0.9")
        with client.asking():
            time.sleep(1)

    assert {one.status for one in client.outcomes} == {"200"}
    assert 10 <= len(client.outcomes) <= 21
    assert (set(stand_in.sources), stand_in.asked) == ({"127.0.0.9"}, {("POST", "/predict")})
    assert len(stand_in.sources) < len(client.outcomes)  # some were kept


@pytest.mark.parametrize(
    ("status", "body", "wanted"), [(200, b'{"label":"cat"}', "200"), (200, b"{}", "wrong"), (503, b"", "503")]
)
def test_an_answer_is_judged(status: int, body: bytes, wanted: str) -> None:
    with StandIn(status, body).running() as stand_in:
        client = Client(stand_in.port, 1, "/predict", b"photo", must_hold=b'"label"')
        client.ask(time.monotonic(), kept=False)
    client.ask(time.monotonic(), kept=False)

    assert [one.status for one in client.outcomes] == [wanted, "cut"]


def test_a_row_tells_who_was_hurt_how_much_and_which_alert_fired() -> None:
    good = Summary(56, 0.75, {"429": 10, "504": 4}, {"p50": 10, "p95": 90, "p99": 200, "max": 300})
    fired = [Alert("PetclfProbeFailing", "page", 31.2, 20.0), Alert("PetclfSlow", "ticket", 0.0, None)]
    course = Course(good, 12.3, {"operator": 1.0, "shared": 0.5, "health": 0.0}, {"429": 1234}, fired, restarts=1)

    assert row("slow-bodies-9", course, 20.0) == (
        "| slow-bodies-9 | 75.0% | 56 | 10 | 200 | 10.0 | 300 | 429: 10, 504: 4 | 12 | 100% | 50% | 0% | 1 "
        "| PetclfProbeFailing (page) after 31 s, for 20 s, PetclfSlow (ticket) from before, still firing | 429: 1,234 |"
    )


def test_a_row_without_answers_and_without_prometheus_says_so() -> None:
    course = Course(Summary(2, 0.0, {"429": 2}, {}), 1.0, {"operator": 1.0})
    assert row("x", course, 20.0) == "| x | 0.0% | 2 | - | - | - | - | 429: 2 | 1 | 100% | 0 | no Prometheus here | - |"
    assert told([]) == "-"


def test_an_alert_that_fires_to_the_end_has_not_cleared() -> None:
    series = {"metric": {"alertname": "A", "severity": "page"}, "values": [[105, "1"], [106, "1"], [107, "1"]]}
    assert alert_of(series, 100, 108) == Alert("A", "page", 5, None)
    assert alert_of(series, 100, 150) == Alert("A", "page", 5, 2)


def test_attacks_that_need_names_are_left_out_where_there_is_no_network_of_our_own() -> None:
    assert chosen(["url-dead", "idle"], "") == ["idle", "url-dead"]
    assert chosen(["url-dead", "idle"], "no namespace") == ["idle"]
    assert len(chosen(None, "")) > len(chosen(None, "no namespace")) > 20


def test_the_quick_form_is_short() -> None:
    assert parse(["--quick"]) == argparse.Namespace(
        seconds=15.0, quiet=30.0, clear=5.0, quick=True, only=None, tls=False, keys=False, record=False
    )


def test_a_server_that_ends_is_started_again_and_ended_at_last(tmp_path: Path) -> None:
    server = Restarted(tmp_path / "log", [sys.executable, "-c", "import time; print('on', flush=True); time.sleep(60)"], {})
    with server.running():
        server.process.kill()
        wait_until(lambda: (tmp_path / "log").read_text().count("on") >= 1 and server.restarts == 1)
        last = server.process
    assert (last.returncode, server.restarts) == (-signal.SIGTERM, 1)


def query(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"id" + struct.pack(">HHHHH", 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def resolved(hosts: own_network.BadHosts, name: str, kind: int = 1) -> tuple[int, str]:
    """Return the code of the resolver's answer, and the address in it."""
    answer = hosts.answer(query(name, kind))
    assert answer is not None
    count = struct.unpack(">H", answer[6:8])[0]
    return answer[3] & 15, socket.inet_ntoa(answer[-4:]) if count else ""


def test_names_lead_where_the_attack_wants_them() -> None:
    hosts = own_network.BadHosts(b"")
    assert hosts.answer(query(DEAD, 1)) is None
    assert (resolved(hosts, SLOW), resolved(hosts, INSIDE)) == ((0, own_network.PUBLIC), (0, own_network.PRIVATE))
    assert [resolved(hosts, REBIND)[1] for _ in range(3)] == [own_network.PUBLIC, own_network.PRIVATE, own_network.PUBLIC]
    assert resolved(hosts, SLOW, 28) == (0, "")  # no IPv6
    assert resolved(hosts, "elsewhere.example") == (3, "")


def table(*options: str) -> subprocess.Popen[str]:
    if NGINX is None:
        pytest.skip(HOW_TO_GET_NGINX)
    if not any((ROOT / "model_store").glob("*.mar")):
        subprocess.run([sys.executable, "-m", "scripts.build_archive"], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "benchmarks.attack", "--quiet", "3", "--clear", "0", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.e2e
@pytest.mark.slow
def test_the_table_is_measured_whatever_the_figures_with_tls_and_keys() -> None:
    measured = table("--seconds", "3", "--tls", "--keys", "--only", "flood-tiny-1", "url-redirect")
    lines, said = measured.communicate(timeout=300)

    assert measured.returncode == 0, said
    names = [line.split(" | ")[0] for line in lines.splitlines()]
    urls = [] if "attacks by address are left out" in said else ["| url-redirect"]
    assert names == ["| attack", "|" + "---|" * 15, "| none, before", "| flood-tiny-1", *urls, "| none, after"]
    assert lines.splitlines()[2].startswith("| none, before | 100.0% | ")


@pytest.mark.e2e
@pytest.mark.slow
def test_told_to_stop_it_leaves_nothing_running() -> None:
    measured = table("--seconds", "60", "--only", "idle")
    assert measured.stdout is not None
    for line in measured.stdout:
        if line.startswith("| none, before"):
            break
    wait_until(lambda: any("attackers.py" in word for one in tree(measured.pid) for word in words(one)))
    started = tree(measured.pid)
    measured.send_signal(signal.SIGINT)
    _, said = measured.communicate(timeout=100)

    assert (measured.returncode, said.splitlines()[-1]) == (1, "error: stopped; what was started has ended")
    wait_until(lambda: not any(one.is_running() for one in started))
    assert len(started) >= 6  # the supervisor, Java, two workers, nginx, the attacker


def tree(pid: int) -> list[psutil.Process]:
    return list(psutil.Process(pid).children(recursive=True))


def words(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []
