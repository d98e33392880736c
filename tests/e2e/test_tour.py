"""`make tour`: a model's whole life, with the real tools."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.tour import Tour, TourError
from tests.e2e.conftest import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
LEARN = ["manifest", "train", "fit", "evaluate", "export", "build_archive"]
LINES = [
    "50 files, labels moon, sun",
    "petclf 1.0.0, .* labels moon, sun",
    '"label": "sun", .*"version": "1.0.0"',
    "100 files, labels moon, sun",
    "petclf 1.1.0 is registered on 1 server",
    "200 compared, 0 without an answer of 1.1.0",
    "200 photos answered by both",
    "passes the gate",
    "petclf 1.1.0 is live on 1 server",
    "drift since ",
    "brightness fell from ",
    "petclf 1.0.0 is live again on 1 server",
    "rollback +1.0.0 instead of 1.1.0",
]


def test_the_tour_goes_from_fifty_photos_to_a_rollback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.tour", "--folder", str(tmp_path / "tour"), "--photos", "200"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
    tools = [" ".join(words.split()[:2]) for words in re.findall(r"^\$ petclf (.*)$", result.stdout, re.MULTILINE)]
    assert [re.match(r"models \w+|\w+", words).group() for words in tools] == [  # type: ignore[union-attr]
        *LEARN, "serve", *LEARN, "models register", "shadow", "models verify", "models promote", "drift", "models rollback", "models history",
    ]  # fmt: skip
    found = [re.search(line, result.stdout) for line in LINES]
    assert [line for line, match in zip(LINES, found, strict=True) if match is None] == []
    places = [match.start() for match in found if match]
    assert places == sorted(places)
    assert (tmp_path / "tour" / "drift" / "report.html").is_file()


def test_a_step_that_fails_ends_the_tour_with_its_own_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TourError, match=r"`petclf manifest` ended with exit code 2, for the reason above; all files are in "):
        Tour(tmp_path, 200).petclf("manifest", "nowhere", "--params", str(ROOT / "params.yaml"))
    assert "error: no photos at nowhere" in capfd.readouterr().err


def test_a_folder_that_no_tour_has_made_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(TourError, match="holds files that are none of a tour's; name another --folder"):
        Tour(tmp_path, 200).run()
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_what_an_earlier_tour_left_is_removed(tmp_path: Path) -> None:
    tour = Tour(tmp_path / "tour", 200)
    tour.clear()
    (tour.folder / "params.yaml").write_text("of the tour before")
    tour.clear()
    assert [path.name for path in tour.folder.iterdir()] == [".tour"]
