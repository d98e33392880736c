"""What MkDocs needs to be told about docs/, which is written to be read on GitHub as well (mkdocs.yml).

Links to files outside docs/ lead to SITE_SOURCE, the address of the files of this commit; without it their text stays.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}  # of the project's folder, by their place in the site
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
ITEM = re.compile(r"( *)(-|\d+\.) ")


def on_config(config: Any) -> Any:
    """Fill in the decisions, which have no list of their own."""
    decisions = [{title(path): f"decisions/{path.name}"} for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    for section in config["nav"]:
        for pages in section.values():
            for page in pages if isinstance(pages, list) else []:
                if "Decisions" in page:
                    page["Decisions"] = decisions
    return config


def title(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File  # noqa: PLC0415  (only where the site is built)

    for name, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    place = page.file.src_uri
    source = next((name for name, where in PAGES.items() if where == place), f"docs/{place}")
    return "\n".join(outside_code(markdown, place, source))


def outside_code(markdown: str, place: str, source: str) -> list[str]:
    """Return the lines, changed where they are no code."""
    lines: list[str] = []
    is_code = False
    for line in markdown.splitlines():
        is_code ^= line.startswith("```")
        lines += [line] if is_code or line.startswith("```") else as_python_markdown(relinked(line, place, source), lines)
    return lines


def as_python_markdown(line: str, before: list[str]) -> list[str]:
    """Return a list's item with what GitHub does without: an empty line before the first, four columns for an inner one."""
    item = ITEM.match(line)
    if not item:
        return [line]
    indent = " " * 4 if item[1] else ""
    last = before[-1] if before else ""
    is_first = last.strip() and not last.startswith(" ") and not ITEM.match(last)
    return [*([""] if is_first and not indent else []), indent + line[len(item[1]) :] if len(item[1]) < 5 else line]


def relinked(line: str, place: str, source: str) -> str:
    """Return the line with its links as they are in the site; `place` is the page's there, `source` its file's."""

    def moved(link: re.Match[str]) -> str:
        picture, text, address, anchor = link[1], link[2], link[3], link[4] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), address))
        if target in PAGES or (target.startswith("docs/") and target.endswith(".md")):
            page = PAGES.get(target, target.removeprefix("docs/"))
            return f"[{text}]({posixpath.relpath(page, posixpath.dirname(place) or '.')}{anchor})"
        if source.startswith("docs/") and target.startswith("docs/"):
            return link[0]
        if files := os.environ.get("SITE_SOURCE"):
            return f"[{text}]({files}/{target}{anchor})"
        return f"{text} (`{target}`)" if picture else text

    return LINK.sub(moved, line)
