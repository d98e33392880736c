"""Write the pages and drawings of docs/ that are generated from the files that hold what they say: `make pages`."""

from collections.abc import Callable
from pathlib import Path

from tooling import completion, diagrams, errors_page, settings_page, tools_page

ROOT = Path(__file__).parents[1]
PAGES: dict[str, Callable[[], str]] = {
    "docs/tools.md": tools_page.page,
    "scripts/completion.bash": completion.script,  # from the page before
    "docs/configuration.md": settings_page.page,
    "docs/troubleshooting.md": errors_page.page,
    "docs/training.svg": diagrams.training,
    "docs/serving.svg": diagrams.serving,
}


def main() -> None:
    for name, page in PAGES.items():
        (ROOT / name).write_text(page(), encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
