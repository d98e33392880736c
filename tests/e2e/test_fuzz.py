"""Hostile inputs, a short form of `make fuzz`."""

import pytest

from benchmarks.fuzz import KINDS, attack, describe_memory, inputs, workers
from tests.drawing import draw_photo, encoded
from tests.e2e.conftest import Serving

pytestmark = pytest.mark.e2e


def test_hostile_inputs_are_refused_and_no_worker_dies(server: Serving) -> None:
    pids = workers(server.management_port)
    report = attack(server.port, 1200)
    assert report.wrong == []
    assert sum(report.statuses.values()) == 1200
    assert set(report.statuses) <= {
        "200",
        "400",
        "403",
        "415",
        "422",
        "500",
        "503",
    }  # 500: see judge(); 503: what is dear gives way
    assert workers(server.management_port) == pids


def test_large_forms_that_torchserve_cannot_read_take_no_memory_from_others(server: Serving) -> None:
    """TorchServe does not release their buffers: 1.4 GB of them, where 1 GB is the limit."""
    head = b'--b\r\nContent-Disposition: form-data; name=""\r\n\r\n'
    form = head + bytes(9_000_000) + b"\r\n--b--\r\n"
    statuses = [server.predict(form, Content_Type="multipart/form-data; boundary=b").status_code for _ in range(160)]
    photo = encoded(draw_photo("cat", 1)) + bytes(9_000_000)
    assert (set(statuses), server.predict(photo).status_code) == ({500}, 200)


def test_they_are_the_same_every_time_and_of_every_kind() -> None:
    first, second = list(inputs(60, 7)), list(inputs(60, 7))
    assert first == second
    assert {hostile.kind for hostile in first} == set(KINDS)


def test_what_they_do_to_memory_is_told_of_two_halves_so_that_one_odd_look_changes_nothing() -> None:
    megabytes = [700, 710, 900, 710, 704, 720]
    assert describe_memory([one * 1_000_000 for one in megabytes]) == (
        "memory of the whole (PSS), 6 looks: 710 MB in the median of the first half, 710 MB of the second (+0.0%); 700 to 900 MB"
    )
    assert describe_memory([700_000_000]).endswith("(+0.0%); 700 to 700 MB")
