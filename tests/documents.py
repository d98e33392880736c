"""The commands in the documents, as a reader finds them."""

import re
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PROGRAMS = {"make", "curl", "docker", "kubectl", "gh", "python", "python3", "head", "sha256sum", "export"}


def commands(page: str, heading: str = "") -> list[str]:
    """Return the commands in the code blocks of a page, or of one of its sections, without the comments beside them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if heading:
        [text] = re.findall(rf"^#+ {heading}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    blocks = [token for token in MarkdownIt().parse(text) if token.type in ("code_block", "fence") and not token.info]
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for block in blocks for line in block.content.splitlines()]
    return [line for line in lines if is_command(line)]


def is_command(line: str) -> bool:
    words = [word for word in line.split() if not word.startswith("GATEWAY_")]  # a setting before its command
    return bool(words) and (words[0] in PROGRAMS or words[0].startswith(".venv/bin/"))
