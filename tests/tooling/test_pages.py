"""The pages that are generated say what the files say that they are generated from."""

from pathlib import Path

import pytest

from tooling.pages import PAGES
from tooling.tools_page import as_shown

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == PAGES[name](), f"{name} is stale; `make pages` writes it"


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
