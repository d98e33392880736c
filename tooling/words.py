"""Checks how README and docs are written: words and shapes that readers stumble over. `make words`; `--figures` shows a line a page.

Reading ease is Flesch's (90: a child's book, 60: plain English, 30: a law), with syllables counted as groups of vowels. textstat, which
counts them by a dictionary, fetches that from another host before its first figure.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
MOST_WORDS = 35  # of one sentence
MOST_FIGURES = 8  # of one paragraph; more are a table
LEAST_EASE = 60
RULES = [
    (r"\b(?:is|are|was|were) told\b(?! apart)|\btells? (?:of|that|whether|where|why|how|what|who|which)\b", "reports, shows, says or explains"),
    (r"(?:^|[.!?:] )Who\b(?![^.]*\?)", "name who it is: clients that ..., an operator who ..."),
    (r"\b[Ww]hoever\b", "anyone who, a client that"),
    (r"slowest (?:hundredth|tenth)", "p99, p90"),
    (r"half as much again|as much again", "150 % load, twice the load"),
    (r"\b(?:milliseconds?|ms|seconds?|bytes|[KMG]B) an? (?:photo|request|core|worker|server|replica|million)\b", "per photo, per request"),
    (r"(?<!there )(?<!There )\b(?:is|are|was|were) no (?!longer|more|less|other)\w+", "is not a"),
    (r"\bfinds? (?:no )?room\b", "the queue is full"),
    (r"\bcounted no longer\b|\bany longer\b", "no longer counted"),
    (r"(?:^|[.!?] )Of (?!course)", "subject first: the sizes that ..., 3 of the 20 photos ..."),
    (r"[Nn]othing is (?:said|promised)\b", "say what is: ratio alerts need at least 50 requests"),
    (r"(?:can|shall|must) be read (?:there|here)\b", "see ..."),
]  # fmt: skip


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, an item or a table's row, without code, addresses and marks."""

    line: int
    text: str
    is_row: bool

    @property
    def sentences(self) -> list[str]:
        return [one for one in re.split(r"(?<=[.!?:;])\s+", self.text) if len(one.split()) > 2]


def paragraphs(text: str) -> Iterator[Paragraph]:
    is_code, lines, start = False, list[str](), 1
    for number, line in enumerate([*text.splitlines(), ""], 1):
        is_fence = line.startswith("```")
        is_code ^= is_fence
        is_other = is_code or is_fence or line.startswith(("    ", "#", "|")) or not line.strip()
        if (is_other or re.match(r"\s*(?:- |\d+\. )", line)) and lines:
            yield Paragraph(start, plain(" ".join(lines)), False)
            lines = []
        if line.startswith("|") and not is_code:
            yield Paragraph(number, plain(line), True)
        if not is_other:
            start = start if lines else number
            lines.append(line)


def plain(text: str) -> str:
    text = re.sub(r"<!--.*?-->", "", text)
    text = re.sub(r"`[^`]*`", "X", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\s*(?:- |\d+\. )", "", text)
    return " ".join(text.replace("**", "").split())


def problems(text: str) -> Iterator[tuple[int, str]]:
    """Return the line of each problem, and what to do."""
    for one in paragraphs(text):
        for pattern, instead in RULES:
            for found in re.finditer(pattern, one.text):
                yield one.line, f"{found[0].strip(' .:!?')!r}: write {instead}"
        for sentence in [] if one.is_row else one.sentences:
            if (count := len(sentence.split())) > MOST_WORDS:
                yield one.line, f"{count} words in one sentence; the limit is {MOST_WORDS}: {sentence[:40]} ..."
        figures = len(re.findall(r"(?<![\w.-])\d[\d,.]*(?![\w-])", one.text))
        if figures > MOST_FIGURES and not one.is_row:
            yield one.line, f"{figures} figures in one paragraph; write a table: {one.text[:40]} ..."


def ease(text: str) -> float:
    """Return Flesch's reading ease of what is no table."""
    sentences = [one for paragraph in paragraphs(text) if not paragraph.is_row for one in paragraph.sentences]
    words = [word for one in sentences for word in re.findall(r"[A-Za-z']+", one)]
    if not words:
        return 100
    return 206.835 - 1.015 * len(words) / len(sentences) - 84.6 * sum(map(syllables, words)) / len(words)


def syllables(word: str) -> int:
    """Count groups of vowels, without a last e that is not heard."""
    groups = len(re.findall(r"[aeiouy]+", word.lower()))
    is_silent = re.search(r"[^aeiouyl]e$|[^aeiouytd]ed$", word.lower())
    return max(1, groups - bool(is_silent))


def pages() -> list[str]:
    return [*TOP, *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]


def all_problems() -> list[str]:
    found = []
    for name in pages():
        text = (ROOT / name).read_text(encoding="utf-8")
        found += [f"{name}:{line}: {what}" for line, what in problems(text)]
        if ease(text) < LEAST_EASE:
            found.append(f"{name}:1: reading ease {ease(text):.0f}; the least is {LEAST_EASE}: shorter sentences and words")
    return found


def main() -> None:
    if "--figures" in sys.argv:
        for name in pages():
            print(f"{ease((ROOT / name).read_text(encoding='utf-8')):5.0f}  {name}")
        return
    found = all_problems()
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
