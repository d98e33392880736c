"""TorchServe's four classes with a few pieces changed, only those; and our own classes that they then use."""

import importlib.util
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from scripts.dispatch import CHANGES, CLASSES, Change, patch

STRESS = Path(__file__).with_name("DispatcherStress.java")


def torchserve_jar() -> Path:
    spec = importlib.util.find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "frontend" / "model-server.jar"


def original(change: Change) -> bytes:
    with zipfile.ZipFile(torchserve_jar()) as packed:
        return packed.read(change.path)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: Path(change.path).stem)
def test_what_is_named_is_changed_and_nothing_else(change: Change, tmp_path: Path) -> None:
    assert patch(torchserve_jar(), tmp_path)

    before, after = original(change), (tmp_path / change.path).read_bytes()
    if added := b"".join(change.constants):
        assert after[change.end : change.end + len(added)] == added
        count = int.from_bytes(before[8:10], "big") + len(change.constants)
        assert (after[:8], int.from_bytes(after[8:10], "big")) == (before[:8], count)
        after = after[:8] + before[8:10] + after[10 : change.end] + after[change.end + len(added) :]
    for old, new in change.pieces.items():
        assert (before.count(old), after.count(new)) == (1, 1)
        after = after.replace(new, old)
    assert after == before


def test_nothing_else_is_written(tmp_path: Path) -> None:
    assert patch(torchserve_jar(), tmp_path)

    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {change.path for change in CHANGES}


@pytest.mark.parametrize("other", CHANGES, ids=lambda change: Path(change.path).stem)
def test_another_torchserve_is_left_alone(other: Change, tmp_path: Path) -> None:
    jar = tmp_path / "other.jar"
    with zipfile.ZipFile(jar, "w") as packed:
        for change in CHANGES:
            packed.writestr(change.path, b"a class of another release" if change is other else original(change))

    assert not patch(jar, tmp_path / "classes")
    assert not (tmp_path / "classes").exists()


def javac() -> str:
    found = shutil.which("javac")
    if not found:
        pytest.skip("no Java compiler (javac) here")
    return found


def test_the_compiled_classes_are_what_their_sources_say(tmp_path: Path) -> None:
    version = subprocess.run([javac(), "-version"], capture_output=True, text=True, check=True).stdout
    if not version.startswith("javac 17."):
        pytest.skip(f"javac 17 compiled them; {version.strip()} may write other bytes")
    sources = [str(path) for path in sorted(CLASSES.glob("petclf/*.java"))]
    options = ["--release", "17", "-g:none", "-cp", str(torchserve_jar()), "-d", str(tmp_path)]
    subprocess.run([javac(), *options, *sources], check=True)

    compiled, kept = ({path.name: path.read_bytes() for path in folder.glob("petclf/*.class")} for folder in (tmp_path, CLASSES))
    assert compiled == kept, "run `make java`"


def test_whoever_was_busy_last_gets_the_next_batch_and_no_job_is_lost(tmp_path: Path) -> None:
    path = f"{CLASSES}:{torchserve_jar()}:{tmp_path}"
    subprocess.run([javac(), "-implicit:none", "-cp", path, "-d", str(tmp_path), str(STRESS)], check=True)

    java = Path(javac()).with_name("java")
    result = subprocess.run([str(java), "-cp", path, "DispatcherStress"], capture_output=True, text=True, timeout=60, check=False)

    assert (result.stdout, result.stderr) == ("every job was done once\n", "")
