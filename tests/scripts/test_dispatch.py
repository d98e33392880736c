"""TorchServe's class with three pieces of code changed, only that class; and the queue that it then uses."""

import importlib.util
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from scripts.dispatch import CHANGES, CLASS, COMPILED, CONSTANTS, END, QUEUE, patch

ROOT = Path(__file__).parents[2]
STRESS = Path(__file__).with_name("LastFirstStress.java")


def torchserve_jar() -> Path:
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "frontend" / "model-server.jar"


def test_three_pieces_of_code_are_changed_and_nothing_else(tmp_path: Path) -> None:
    assert patch(torchserve_jar(), tmp_path)

    with zipfile.ZipFile(torchserve_jar()) as packed:
        before = packed.read(CLASS)
    after = (tmp_path / CLASS).read_bytes()
    assert after[END : END + len(CONSTANTS)] == CONSTANTS
    assert (after[:8], int.from_bytes(after[8:10], "big")) == (before[:8], int.from_bytes(before[8:10], "big") + 3)
    back = after[:8] + before[8:10] + after[10:END] + after[END + len(CONSTANTS) :]
    for old, new in CHANGES.items():
        assert (before.count(old), back.count(new), len(old)) == (1, 1, len(new))
        back = back.replace(new, old)
    assert back == before
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.class")} == {CLASS, f"{QUEUE}.class"}


def test_another_torchserve_is_left_alone(tmp_path: Path) -> None:
    jar = tmp_path / "other.jar"
    with zipfile.ZipFile(jar, "w") as packed:
        packed.writestr(CLASS, b"a class of another release")

    assert not patch(jar, tmp_path / "classes")
    assert not (tmp_path / "classes").exists()


def javac() -> str:
    found = shutil.which("javac")
    if not found:
        pytest.skip("no Java compiler (javac) here")
    return found


def test_the_compiled_queue_is_what_its_source_says(tmp_path: Path) -> None:
    version = subprocess.run([javac(), "-version"], capture_output=True, text=True, check=True).stdout
    if not version.startswith("javac 17."):
        pytest.skip(f"javac 17 compiled it; {version.strip()} may write other bytes")
    source = COMPILED.with_suffix(".java")
    subprocess.run([javac(), "--release", "17", "-g:none", "-d", str(tmp_path), str(source)], check=True)

    assert (tmp_path / f"{QUEUE}.class").read_bytes() == COMPILED.read_bytes(), "run `make java`"


def test_whoever_came_last_gets_the_next_job_and_none_is_lost(tmp_path: Path) -> None:
    path = f"{COMPILED.parents[1]}:{tmp_path}"
    subprocess.run([javac(), "-cp", path, "-d", str(tmp_path), str(STRESS)], check=True)

    java = Path(javac()).with_name("java")
    result = subprocess.run([str(java), "-cp", path, "LastFirstStress"], capture_output=True, text=True, timeout=60, check=False)

    assert (result.stdout, result.stderr) == ("every job was done once\n", "")
