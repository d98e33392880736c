"""Photos by name: what is missing is told, what is there is not fetched again."""

from pathlib import Path

import pytest

from training.errors import UserError
from training.sources import photos_at
from training.torchvision_ops import declare_missing


def test_a_path_is_a_path(tmp_path: Path) -> None:
    assert photos_at("some/photos.zip", tmp_path) == Path("some/photos.zip")


def test_without_the_kaggle_command_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UserError, match="the kaggle command is missing; `pip install kaggle`"):
        photos_at("kaggle:tongpython/cat-and-dog", tmp_path)


def fake_kaggle(folder: Path, script: str) -> None:
    command = folder / "bin" / "kaggle"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)


def test_kaggles_refusal_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kaggle(tmp_path, "echo '403 - Forbidden' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")

    with pytest.raises(UserError, match=r"kaggle could not download a/b: 403 - Forbidden; is the name right, and your key"):
        photos_at("kaggle:a/b", tmp_path)


def test_a_downloaded_dataset_is_kept_and_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kaggle(tmp_path, 'mkdir -p "$6"; echo zip > "$6/photos.zip"; echo called >> "' + str(tmp_path) + '/calls"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")

    first, second = (photos_at("kaggle:a/pets", tmp_path) for _ in range(2))

    assert (first, second) == (tmp_path / "a+pets.zip", tmp_path / "a+pets.zip")
    assert (tmp_path / "a+pets.zip").read_text() == "zip\n"
    assert (tmp_path / "calls").read_text() == "called\n"


def test_a_failing_oxford_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declare_missing()
    from torchvision.datasets import OxfordIIITPet

    def refuse(_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(OxfordIIITPet, "_download", refuse)

    with pytest.raises(UserError, match="cannot download oxford-iiit-pet: no network"):
        photos_at("oxford-iiit-pet", tmp_path)
