"""The command that joins late labels with the prediction log."""

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scripts.build_archive import build_archive
from scripts.late_labels import main
from tests.e2e.conftest import ROOT, free_port
from tests.operate.test_late_labels import line, write_labels, write_log


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        main([str(one) for one in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capsys.readouterr()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three predictions and two labels, in the working directory."""
    write_log(tmp_path / "log", [line("a", "cat"), line("b", "dog"), line("c", "dog")])
    write_labels(tmp_path / "labels.csv", [("b", "cat"), ("a", "cat")])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_text_json_and_report(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "log", "--labels", "labels.csv", "--report", "report")
    assert (code, err, out.splitlines()[0]) == (0, "report: report/report.html\n", "3 predictions, 2 with a label")
    code, out, err = run(capsys, "log", "--labels", "labels.csv", "--json")
    assert (code, err, json.loads(out)) == (0, "", json.loads((files / "report" / "figures.json").read_text()))
    assert json.loads(out)["live"]["accuracy"]["share"] == 0.5
    assert {path.name for path in (files / "report").iterdir()} == {"figures.json", "report.html"}


def test_probes_are_left_out(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = files / "petclf.mar"
    build_archive(ROOT / "pretrained" / "petclf.pt", archive)
    probe = {**line("p", "cat"), "photo": {"format": "PNG", "width": 192, "height": 192, "bytes": 1047, "brightness": 0.5}}
    write_log(files / "log.1", [probe, {**probe, "photo": {**probe["photo"], "bytes": 1048}, "request_id": "q"}])
    for options, predictions in (([], 5), (["--archive", archive], 4)):
        _, out, _ = run(capsys, "log", "--labels", "labels.csv", *options)
        assert out.splitlines()[0] == f"{predictions} predictions, 2 with a label"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing", "--labels", "labels.csv"],
         "error: no prediction log at missing; the server writes it to the file that PETCLF_PREDICTION_LOG names\n"),
        (["log", "--labels", "missing"], "error: no label file at missing; it needs the columns request_id, label\n"),
        (["log", "--labels", "log"], "error: log needs the columns request_id, label; its first line is "),
        (["log", "--labels", "labels.csv", "--archive", "log"], "error: log is no archive of petclf (File is not a zip file)\n"),
        (["log", "--labels", "labels.csv", "--archive", "missing"], "error: cannot use missing: No such file or directory\n"),
        (["log", "--labels", "labels.csv", "--listen", "8086"],
         "error: --listen 8086 is no address; write it like 127.0.0.1:8086\n"),
        (["log", "--labels", "labels.csv", "--listen", "127.0.0.1:1", "--json"], "--listen goes neither with --json nor with --report\n"),
        (["log", "--labels", "labels.csv", "--known", ","], "argument --known: name the model's labels like cat,dog\n"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_sentence(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert files.is_dir()


@pytest.fixture
def listening(files: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command with --listen, and the address of its metrics."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "scripts.late_labels", str(files / "log"), "--labels", str(files / "labels.csv")]
    process = subprocess.Popen(
        [*command, "--listen", address, "--every", "0.05", "--known", "cat,dog"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == f"metrics on http://{address}/metrics\n"
    yield process, f"http://{address}/metrics"
    process.kill()
    process.communicate()


def samples(address: str) -> dict[str, float]:
    """Return what the metrics say, as Prometheus' own parser reads it."""
    text = urllib.request.urlopen(address, timeout=10).read().decode()
    return {
        one.name + "".join(f" {value}" for value in one.labels.values()): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def wait_for(address: str, **values: float) -> dict[str, float]:
    """Return the metrics as soon as they say this."""
    end = time.monotonic() + 15
    while not values.items() <= (found := samples(address)).items():
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


def test_the_metrics_follow_the_files(listening: tuple[subprocess.Popen[str], str], files: Path) -> None:
    process, address = listening
    first = samples(address)
    assert abs(first.pop("petclf_live_read_timestamp_seconds") - time.time()) < 60
    assert first == {
        "petclf_live_accuracy 2.0.0": 0.5, "petclf_live_accuracy_low 2.0.0": pytest.approx(0.094531, abs=1e-6),
        "petclf_live_accuracy_high 2.0.0": pytest.approx(0.905469, abs=1e-6), "petclf_live_predictions 2.0.0": 3,
        "petclf_live_labelled 2.0.0": 2, "petclf_live_right 2.0.0": 1, "petclf_live_unsure 2.0.0": 0,
        "petclf_live_labels joined": 2, "petclf_live_labels unknown": 0, "petclf_live_labels contradictory": 0,
        "petclf_live_labels several_photos": 0, "petclf_live_labels foreign": 0, "petclf_live_broken_lines logs": 0,
        "petclf_live_broken_lines label_files": 0, "petclf_live_read_success": 1,
    }  # fmt: skip

    write_labels(files / "labels.csv", [("b", "cat"), ("a", "cat"), ("c", "dog"), ("d", "dog")])
    wait_for(address, **{"petclf_live_accuracy 2.0.0": 2 / 3, "petclf_live_labels unknown": 1})
    (files / "log").rename(files / "log.1")  # the log rotates, and the next prediction begins a new one
    write_log(files / "log", [line("d", "dog")])
    wait_for(address, **{"petclf_live_accuracy 2.0.0": 0.75, "petclf_live_labels unknown": 0})

    (files / "labels.csv").rename(files / "away.csv")
    kept = wait_for(address, **{"petclf_live_read_success": 0})
    assert kept["petclf_live_accuracy 2.0.0"] == 0.75
    (files / "away.csv").rename(files / "labels.csv")
    wait_for(address, **{"petclf_live_read_success": 1})

    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=10)
    assert (process.returncode, told.splitlines()[0]) == (
        0, f"the figures stay as they are: no label file at {files}/labels.csv; it needs the columns request_id, label",
    )  # fmt: skip


def test_only_the_metrics_are_served_and_each_has_its_help(listening: tuple[subprocess.Popen[str], str]) -> None:
    _, address = listening
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(address.replace("/metrics", "/"), timeout=10)
    assert refused.value.code == 404
    refused.value.close()
    text = urllib.request.urlopen(address, timeout=10).read().decode()
    families = list(text_string_to_metric_families(text))
    assert [(one.name, one.type) for one in families if not one.documentation or one.type != "gauge"] == []
    assert len(families) == 11


def test_a_port_that_is_taken_is_told(listening: tuple[subprocess.Popen[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    taken = listening[1].removeprefix("http://").removesuffix("/metrics")
    before = signal.getsignal(signal.SIGTERM)
    try:
        told = run(capsys, "log", "--labels", "labels.csv", "--listen", taken)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == (2, "", f"error: cannot listen on {taken}: Address already in use; choose another with --listen\n")
