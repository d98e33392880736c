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


# tests/tooling/test_pages.py compares this page with what each tool says
PAGE = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
HELP: dict[str, str] = dict(re.findall(r"^### petclf ([\w ]+)\n\n```text\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))


def test_every_script_is_on_the_page_of_tools() -> None:
    assert {path.stem for path in (ROOT / "scripts").glob("[a-z]*.py")} - set(HELP) == set()


@pytest.mark.parametrize("tool", HELP)
def test_help_tells_the_purpose_and_each_option_with_its_default(tool: str) -> None:
    usage, purpose = HELP[tool].split("\n\n")[:2]
    options = options_of(HELP[tool])
    assert usage.startswith(f"usage: {tool.split()[0]}.py")
    assert len(purpose) > 20
    assert [line for line in options if not re.fullmatch(r"  --\S+( [A-Z_,\[\]]+)? {2,}\w.* \(default: .*\)", line)] == []
    assert options or tool in ("make_key", "models")


def options_of(text: str) -> list[str]:
    """Return a line for each option."""
    lines = re.sub(r"\n {10,}", "  ", text).splitlines()  # the text of an option may go on below it
    return [line for line in lines if line.startswith("  -") and "--help" not in line]


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


def test_with_the_first_key_for_predictions_it_is_said_that_the_gateway_must_start_again(tmp_path: Path) -> None:
    told = [
        "restart gateway" in run("make_key", f"secrets/{file}.htpasswd", "shelter", cwd=tmp_path).stderr
        for file in ("management", "predictions", "predictions")
    ]
    assert told == [False, True, False]


@pytest.mark.parametrize("name", ["a:b", "two words", "", "a" * 65, "line\nbreak"])
def test_a_name_that_would_break_the_file_is_refused(tmp_path: Path, name: str) -> None:
    result = run("make_key", KEYS[0], name, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error: {name!r} is no name for a key; use letters, digits, dots, hyphens\n"
    assert list(tmp_path.iterdir()) == []
