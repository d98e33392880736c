"""Every record begins alike, so that two can be compared."""

from pathlib import Path

import pytest

from benchmarks import record


def test_a_record_states_command_commit_and_machine_before_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "git_commit", lambda: "0123456789ab")
    monkeypatch.setattr(record, "describe_machine", lambda: "2 cores")
    monkeypatch.setattr(record.time, "strftime", lambda _: "2026-11-26")

    path = record.write_record("fuzz", "Hostile inputs", "python -m benchmarks.fuzz", ["- all answered"], "n = 1")

    assert path == tmp_path / "2026-11-26_fuzz.md"
    assert path.read_text(encoding="utf-8") == (
        "# Hostile inputs, 2026-11-26\n\n`python -m benchmarks.fuzz`, commit 0123456789ab; n = 1\n2 cores\n\n- all answered\n"
    )
