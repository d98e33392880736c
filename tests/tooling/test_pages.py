"""The pages that are generated say what the files say that they are generated from."""

from pathlib import Path

import pytest
from PIL import Image

from handler import refusal
from tooling import diagrams, errors_page, picture, settings_page
from tooling.pages import PAGES
from tooling.tools_page import as_shown

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES[name](), f"{name} is stale; `make pages` writes it"


def test_the_picture_of_the_page_shows_the_page_as_it_is() -> None:
    with Image.open(picture.PICTURE) as opened:
        assert opened.info["page"] == picture.digest(), "docs/page.png is stale; `make picture` takes it again"


def test_every_file_in_a_drawing_is_there() -> None:
    files = [one.file for rows in (diagrams.TRAINING, diagrams.SERVING) for row in rows for one in row if one.file]
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert len(files) > 12


def test_help_is_shown_without_the_place_of_the_project_and_folded_at_one_width() -> None:
    options = "".join(f" [--option-{number} VALUE]" for number in range(9))
    text = f"usage: tool.py{options}\n\n  --store STORE         {'many words ' * 12}(default: {ROOT}/model_store)\n"
    assert as_shown(text) == (
        "usage: tool.py [--option-0 VALUE] [--option-1 VALUE] [--option-2 VALUE] [--option-3 VALUE]\n"
        "       [--option-4 VALUE] [--option-5 VALUE] [--option-6 VALUE] [--option-7 VALUE]\n"
        "       [--option-8 VALUE]\n"
        "\n"
        "  --store STORE         many words many words many words many words many words many words many words\n"
        "                        many words many words many words many words many words (default:\n"
        "                        model_store)\n"
    )


def test_a_setting_without_words_and_words_without_a_setting_are_told() -> None:
    with pytest.raises(settings_page.UndescribedError, match="Compose: A, C must be read by a file"):
        settings_page.variables("Compose", "", {"A": "1", "B": "2"}, {"B": "both", "C": "nobody reads it"})
    with pytest.raises(settings_page.UndescribedError, match=r"gate\.yaml: say what this is, after a #: photos: 3"):
        settings_page.setting("  photos: 3", r"  (\w+): +(.*?) +# (.*)", "gate.yaml")


def test_defaults_are_read_from_shell_compose_and_python(tmp_path: Path) -> None:
    shell, python = tmp_path / "start", tmp_path / "a.py"
    shell.write_text('port=${PORT_A:-8080}\n[ -z "${SPARE:-}" ] || echo ${USER_A:+-g} ${PORT_A:-8080} ${STORE:?which folder}')
    python.write_text('a = os.environ.get("LOG", "here.txt")\nb = setting("SECONDS") or "5"\nc = os.environ.get("KEY")')
    assert settings_page.read_by(settings_page.IN_SHELL, [shell]) == {"PORT_A": "8080", "SPARE": "", "USER_A": "", "STORE": ""}
    assert settings_page.read_by(settings_page.IN_PYTHON, [python]) == {"LOG": "here.txt", "SECONDS": "5", "KEY": ""}


def test_an_error_that_has_no_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(errors_page.REMEDIES, "503 busy")
    monkeypatch.setitem(errors_page.REMEDIES, "418 teapot", "Nobody answers this.")
    with pytest.raises(errors_page.UndescribedError, match="418 teapot, 503 busy: must be in the code, and have a remedy"):
        errors_page.page()


def test_messages_are_shown_with_the_limits_that_they_name() -> None:
    found = {(one.title, one.message, one.source) for one in [*errors_page.of_handler(), *errors_page.of_gateway()]}
    assert ("422 too_many_instances", "... instances; the limit is 32 a request", "server") in found
    assert ("400 bad_request", "pixels must be rows of [red, green, blue], whole numbers from 0 to 255", "server") in found
    assert ("503 busy", "too many requests at once from everybody; try again", "gateway") in found
    handlers = {one.title for one in errors_page.of_handler()}
    assert {f"{status} {code}" for code, status in refusal.STATUS.items()} <= handlers
