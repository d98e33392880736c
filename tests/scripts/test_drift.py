"""scripts/drift.py as an operator runs it: what it prints, where, and its exit code."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from serving.machine import LOOPBACK
from tests.documents import commands
from tests.operate.lines import darker, entries, written

ROOT = Path(__file__).parents[2]
LOG = entries(2_300)


def drift(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.drift", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_no_drift_is_exit_code_0(tmp_path: Path) -> None:
    result = drift(written(tmp_path / "log", LOG))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "no drift found\n\n"
        "last    100 photos: no drift found\nlast  1,000 photos: no drift found\nlast 10,000 photos: too little data\n\n"
        "version 2.0.0, 1,300 photos against the first 1,000 photos of the log\n"
        "last look: 2026-11-20 12:38:19 UTC; where nothing changes, a look finds drift in at most 1 of 10,000 cases\n"
    )


def test_drift_is_exit_code_1_and_the_report_is_named_beside_the_answer(tmp_path: Path) -> None:
    result = drift(written(tmp_path / "log", LOG[:1_900], darker(LOG[1_900:])), "--report", tmp_path / "report")
    assert (result.returncode, result.stderr) == (1, f"report: {tmp_path}/report/report.html\n")
    since = "since 2026-11-20 12:31:41 UTC, 399 photos ago (likely 398 to 400)"
    assert result.stdout.splitlines()[:7] == [
        f"drift {since}",
        "  brightness fell from 0.463 to 0.259 on average; up to 0.374: 89 % of the last 100, 19 % before (p < 1e-12)",
        f"    {since}",
        "",
        "last    100 photos: drift in brightness",
        "last  1,000 photos: drift in brightness",
        "last 10,000 photos: too little data",
    ]


def test_the_documented_commands_find_drift(tmp_path: Path) -> None:
    named = [shlex.split(command) for command in commands("docs/drift.md") if command.startswith(".venv/bin/petclf drift ")]
    once = [words[1:] for words in named if "--listen" not in words]
    written(tmp_path / "predictions.jsonl", LOG[:1_900], darker(LOG[1_900:]))

    results = [
        subprocess.run(
            [sys.executable, "-m", "scripts", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        for words in once
    ]

    assert len(named) > len(once) > 1
    assert [(result.returncode, result.stdout[:11]) for result in results] == [(1, "drift since")] * len(once)
    assert (tmp_path / "build" / "drift" / "report.html").exists()


def test_too_little_data_is_exit_code_2_also_as_json(tmp_path: Path) -> None:
    result = drift(written(tmp_path / "log", darker(LOG[:500])), "--json")
    assert (result.returncode, result.stderr) == (2, "")
    assert json.loads(result.stdout)["verdict"] == "too little data"


def test_the_window_of_a_log_is_compared_with_another_log_or_with_a_model(tmp_path: Path) -> None:
    log, before = written(tmp_path / "log", LOG[1_000:1_200]), written(tmp_path / "before", LOG[:1_000])
    own = drift(log, "--reference", before, "--json")
    model = drift(log, "--model", ROOT / "pretrained" / "petclf.pt", "--json")
    assert (own.returncode, json.loads(own.stdout)["reference"]) == (0, {"origin": f"1,000 photos of {before}", "photos": 1_000})
    assert (model.returncode, json.loads(model.stdout)["drift"][0]["statistic"]) == (1, "width")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "error: no prediction log at missing.jsonl; PETCLF_PREDICTION_LOG tells the server where to write it\n"),
        (["{}", "--model", "missing.pt"], "error: no model at missing.pt; name an archive (.mar) or a petclf.pt\n"),
        (["{}", "--reference", "missing.jsonl"], "error: no prediction log at missing.jsonl; PETCLF_PREDICTION_LOG tells the server where to write it\n"),
        (["{}", "--listen", "8087"], "error: --listen 8087 is no address; write it like 127.0.0.1:8087\n"),
        ([".", ], "error: cannot use .: Is a directory\n"),
        (["{}", "--report", "README.md"], "error: cannot use README.md: File exists\n"),
        (["{}", "--listen", "127.0.0.1:0", "--json"], "error: --listen shows metrics only; leave out --json and --report\n"),
        (["{}", "--seconds", "0"], "error: --seconds must be more than 0\n"),
    ],
    ids=range(8),
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    log = written(tmp_path / "log", LOG[:5])
    result = drift(*(argument.format(log) for argument in arguments))
    assert result.returncode == 2
    assert result.stderr.endswith(message)
    assert "Traceback" not in result.stderr


def test_it_goes_on_with_listen_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    log = written(tmp_path / "log", LOG)
    port = free_port()
    command = [sys.executable, "-m", "scripts.drift", str(log), "--listen", f"{LOOPBACK}:{port}", "--seconds", "0.2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["message"] == "no drift found"
        with log.open("a") as file:
            file.writelines(json.dumps(one) + "\n" for one in darker(entries(100, seed=2, first=2_300)))
        assert json.loads(process.stdout.readline())["message"] == "drift in brightness"
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=10) as response:
            assert 'petclf_drift_found{window="100"} 1.0' in response.read().decode()
        again = drift(log, "--listen", f"{LOOPBACK}:{port}")
        assert (again.returncode, again.stderr) == (
            2, f"error: cannot listen on {LOOPBACK}:{port}: Address already in use; choose another with --listen\n",
        )  # fmt: skip
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert (process.wait(10), time.monotonic() - started < 5) == (0, True)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        return int(taken.getsockname()[1])
