"""TorchServe's class with one instruction changed, and only that class."""

import importlib.util
import zipfile
from pathlib import Path

from scripts.natural_batching import CLASS, TAKE, WAIT, patch


def torchserve_jar() -> Path:
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "frontend" / "model-server.jar"


def test_two_bytes_are_changed_and_nothing_else(tmp_path: Path) -> None:
    assert patch(torchserve_jar(), tmp_path)

    with zipfile.ZipFile(torchserve_jar()) as packed:
        before = packed.read(CLASS)
    after = (tmp_path / CLASS).read_bytes()
    different = [index for index, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    [place] = [index for index in range(len(before)) if before.startswith(WAIT, index)]
    assert different == [place + 2, place + 3]
    assert after[place : place + len(TAKE)] == TAKE
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / CLASS]


def test_another_torchserve_is_left_alone(tmp_path: Path) -> None:
    jar = tmp_path / "other.jar"
    with zipfile.ZipFile(jar, "w") as packed:
        packed.writestr(CLASS, b"a class of another release")

    assert not patch(jar, tmp_path / "classes")
    assert not (tmp_path / "classes").exists()
