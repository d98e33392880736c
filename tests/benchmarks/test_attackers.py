"""Every attack of the table does what it says, from its own addresses, against this machine only."""

import ast
import io
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import attackers, hostile_files
from benchmarks.attackers import (
    ATTACKS,
    HELD,
    LARGE,
    Attack,
    Target,
    addresses,
    attack,
    bombs,
    deep_json,
    flat_png,
    pixels,
    swollen,
)
from benchmarks.hostile_files import FORMATS, content, instances, photo_of
from handler.limits import MAX_BODY
from tests.benchmarks.standin import StandIn

HOLDING = {name for name in ATTACKS if name == "idle" or name.rsplit("-", 1)[0] in HELD}
LONGEST = 100.0  # seconds; a test ends as soon as the stand-in has seen enough


@dataclass(frozen=True)
class UntilSeen(Target):
    """An attack that lasts until the stand-in has seen enough of it."""

    enough: Callable[[], bool] = lambda: False

    @property
    def left(self) -> float:
        return 0.0 if self.enough() else super().left


def run(name: str, stand_in: StandIn, folder: Path, enough: Callable[[], bool], key: str = "") -> dict[str, int]:
    for file in ATTACKS[name].files:
        (folder / file).write_bytes(b"a photo")
    port = stand_in.port
    return attack(name, UntilSeen(port, port, seconds=LONGEST, connections=2, files=folder, key=key, enough=enough))


@pytest.mark.parametrize("name", sorted(HOLDING))
def test_an_attack_that_holds_connections_opens_as_many_as_it_may_from_each_address(name: str, tmp_path: Path) -> None:
    times = 10 if name == "idle" else 2
    most = times * ATTACKS[name].addresses
    with StandIn().running() as stand_in:
        got = run(name, stand_in, tmp_path, lambda: len(stand_in.sources) == most)

    assert got == {"opened": most, "held at once": most, "held at the end": most}
    assert Counter(stand_in.sources) == dict.fromkeys(addresses(ATTACKS[name].addresses), times)


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - HOLDING))
def test_an_attack_with_whole_requests_sends_them_from_each_address(name: str, tmp_path: Path) -> None:
    sources = set(addresses(ATTACKS[name].addresses))
    with StandIn().running() as stand_in:
        got = run(name, stand_in, tmp_path, lambda: set(stand_in.sources) == sources and len(stand_in.asked) == 1)

    assert set(got) == {"200"}
    others = {"flood-keys": {("GET", "/models")}, "heat-maps": {("POST", "/explanations/petclf")}}
    assert stand_in.asked == others.get(name, {("POST", "/predict")})


def test_an_attacker_with_a_key_shows_it_and_guesses_others_on_the_management_port(tmp_path: Path) -> None:
    with StandIn().running() as stand_in:
        run("flood-tiny-1", stand_in, tmp_path, lambda: len(stand_in.asked) == 1, "attacker:secret")
        assert stand_in.keys == {"Basic YXR0YWNrZXI6c2VjcmV0"}
        got = run("flood-keys", stand_in, tmp_path, lambda: len(stand_in.keys) > 10, "attacker:secret")
    assert sum(got.values()) >= len(stand_in.keys) - 1 >= 10


def test_a_connection_that_is_refused_is_counted_and_opened_anew(tmp_path: Path) -> None:
    with StandIn(status=429, closes=True).running() as stand_in:
        got = run("slow-readers-1", stand_in, tmp_path, lambda: len(stand_in.sources) >= 6)

    assert got["429"] > 0
    assert got["opened"] >= 6


def test_a_gateway_that_is_not_there_ends_no_attack_early(tmp_path: Path) -> None:
    with StandIn().running() as stand_in:
        pass
    end = time.monotonic() + 0.5
    assert run("slow-bodies-1", stand_in, tmp_path, lambda: time.monotonic() > end) == {}
    end = time.monotonic() + 0.5
    assert set(run("flood-tiny-1", stand_in, tmp_path, lambda: time.monotonic() > end)) == {"cut"}
    assert time.monotonic() >= end


@pytest.mark.parametrize("host", ["192.0.2.1", "10.0.0.1", "0.0.0.0", "example.org", "localhost", ""])
def test_no_other_machine_is_attacked(host: str) -> None:
    with pytest.raises(ValueError, match="no loopback address; these attacks are for this machine only"):
        Target(host=host)
    with pytest.raises(SystemExit, match=f"^error: {host} is no loopback address"):
        attackers.main(["idle", "--host", host])


def test_the_attackers_program_needs_python_only() -> None:
    """It is run as a single file in containers."""
    tree = ast.parse(Path(attackers.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == set()


def test_no_body_is_so_large_that_the_gateway_would_refuse_it_unread() -> None:
    questions = [*deep_json(), *bombs(), LARGE]
    sizes = [len(question.body or b"") for question in questions] + [len(pixels()), len(instances(photo_of(200_000)))]
    assert [size for size in sizes if not 8_000 < size <= MAX_BODY] == []


def test_a_flat_photo_has_few_bytes_and_is_whole() -> None:
    data = flat_png(500)
    photo = Image.open(io.BytesIO(data))
    photo.load()
    assert (photo.size, photo.getcolors(), len(data) < 2000) == ((500, 500), [(250_000, (0, 0, 0))], True)


def test_what_is_swollen_unpacks_to_a_thousand_times_as_much() -> None:
    data = swollen(5)
    assert zlib.decompressobj().decompress(data) == bytes(5 << 20)
    assert len(data) < 5 * 1100


def test_the_largest_photo_is_the_first_that_the_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_files, "SIDES", (300, 200, 100, 50))
    asked = []

    def answers(photo: bytes) -> bool:
        asked.append(Image.open(io.BytesIO(photo)).width)
        return asked[-1] <= 100

    photo = Image.open(io.BytesIO(content("largest.webp", answers)))
    assert (photo.format, photo.width) == ("WEBP", 100)
    assert asked == [300, 200, 100]


def test_every_file_of_the_table_can_be_made() -> None:
    names = {file for one in ATTACKS.values() for file in one.files}
    known = {f"{kind}.{name}" for kind in ("50mp", "largest") for name in ("png", *FORMATS)} | {
        "instances.json",
        "instances-50mp.json",
    }
    assert names == known


def test_every_attack_says_what_it_does() -> None:
    assert [name for name, one in ATTACKS.items() if not isinstance(one, Attack) or len(one.what) < 20] == []
