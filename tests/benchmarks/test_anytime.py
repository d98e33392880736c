"""The table says which test raises false alarms."""

import re

import pytest

from benchmarks import anytime


def test_peeking_at_a_test_for_one_look_is_seen_to_raise_false_alarms(capsys: pytest.CaptureFixture[str]) -> None:
    anytime.main(["--streams", "40", "--requests", "4000"])
    out = capsys.readouterr().out
    rows = re.findall(r"^\| ([\w. ]+) \| [\d.]+ % \| ([\d.]+) % \| (?:(.+?) \| )?([\d.]+)% \|", out, re.MULTILINE)
    alarms = {(name, share, test): float(percent) for name, share, test, percent in rows}
    assert len(alarms) == 6 * 3 + 6
    assert alarms["equal", "5", "anytime, after every request"] <= 5
    assert alarms["equal", "5", "McNemar, after every request"] >= 20
    assert alarms["3 points worse", "2", "anytime, after every request"] == 100
    assert alarms["worse by the margin", "2", ""] <= 10
    assert alarms["equal", "0.5", ""] >= 90
