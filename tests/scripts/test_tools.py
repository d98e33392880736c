"""What the tools say of themselves, and the file with the gateway's keys."""

import base64
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEYS = ("predictions.htpasswd", "shelter")


def run(tool: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "400", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"scripts.{tool}", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("tool", "purpose"),
    [
        ("build_archive", "petclf.pt -> model_store/NAME-VERSION.mar: "),
        ("demo", "Start the server, ask it about two photos, "),
        ("drift", "Say whether the photos of a prediction log have changed, "),
        ("late_labels", "Join labels that come later with the prediction log: "),
        ("make_key", "Make a key for the gateway: "),
        ("models", "A model's versions on running servers: "),
        ("predict", "Ask a petclf server about photos: "),
        ("retrain", "Train a new version from the live one "),
        ("score_live", "Ask a running server about labelled photos "),
        ("score_many", "Answer a folder, a zip, a bucket or a CSV of photos "),
        ("serve", "Start TorchServe and stay with it: "),
        ("shadow", "Compare a candidate with the live version, "),
        ("smoke_test", "Ask a running server a few things "),
    ],
)
def test_help_tells_the_purpose_and_each_option_with_its_default(tool: str, purpose: str) -> None:
    result = run(tool, "--help")
    options = options_of(result)
    assert f"\n{purpose}" in result.stdout
    assert without_default(options) == []
    assert options or tool in ("make_key", "models")


@pytest.mark.parametrize("command", ["list", "register", "verify", "shadow", "promote", "rollback", "retire", "history"])
def test_help_of_each_command_tells_its_options_with_their_defaults(command: str) -> None:
    options = options_of(run("models", command, "--help"))
    assert without_default(options) == []
    assert len(options) >= 7
    assert f"    {command}" in run("models", "--help").stdout


def options_of(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return a line for each option."""
    assert result.returncode == 0, result.stderr
    lines = re.sub(r"\n {10,}", "  ", result.stdout).splitlines()  # an option with a long name has its text below it
    return [line for line in lines if line.startswith("  -") and "--help" not in line]


def without_default(options: list[str]) -> list[str]:
    return [line for line in options if not re.fullmatch(r"  --\S+( [A-Z_,\[\]]+)? {2,}\w.* \(default: .*\)", line)]


def test_every_tool_is_in_the_test_of_help() -> None:
    [mark] = test_help_tells_the_purpose_and_each_option_with_its_default.pytestmark  # type: ignore[attr-defined]
    assert [tool for tool, _ in mark.args[1]] == sorted(path.stem for path in (ROOT / "scripts").glob("[a-z]*.py"))


def test_the_demo_passes_on_why_the_server_does_not_start(tmp_path: Path) -> None:
    result = run("demo", "--model-store", str(tmp_path), "--port", "0")
    assert (result.returncode, result.stdout) == (2, "starting TorchServe ...\n")
    assert result.stderr == f"error: no archive (*.mar) in {tmp_path}; `make archive` builds one\n"


def secret_of(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    assert result.stderr == "shown once; use it with curl -u shelter:... , or as PETCLF_API_KEY for scripts/predict.py\n"
    name, secret = result.stdout.rstrip("\n").split(":")
    assert name == "shelter"
    return secret


def opens(line: str, secret: str) -> bool:
    """Tell whether nginx lets this secret in: SSHA is the digest of secret and salt, and then the salt."""
    content = base64.b64decode(line.partition("{SSHA}")[2])
    return hashlib.sha1(secret.encode() + content[20:]).digest() == content[:20]


def test_a_new_key_takes_the_place_of_the_old_one_and_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / KEYS[0]
    file.write_text("operator:{SSHA}other\nshelter-2:{SSHA}other\n")
    old = secret_of(run("make_key", *KEYS, cwd=tmp_path))
    new = secret_of(run("make_key", *KEYS, cwd=tmp_path))
    others, line = file.read_text().splitlines()[:2], file.read_text().splitlines()[2]
    assert others == ["operator:{SSHA}other", "shelter-2:{SSHA}other"]
    assert line.startswith("shelter:{SSHA}")
    assert (opens(line, new), opens(line, old)) == (True, False)
    assert (file.stat().st_mode & 0o777, sorted(tmp_path.iterdir())) == (0o644, [file])


@pytest.mark.parametrize("name", ["a:b", "two words", "", "a" * 65, "line\nbreak"])
def test_a_name_that_would_break_the_file_is_refused(tmp_path: Path, name: str) -> None:
    result = run("make_key", KEYS[0], name, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error: {name!r} is no name for a key; use letters, digits, dots, hyphens\n"
    assert list(tmp_path.iterdir()) == []
