"""Every tool's --help -> docs/tools.md, by purpose. The page is what tests compare the tools' help with."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 100
HELP_COLUMN = 24  # argparse's own, for what stands beside an option
GLUE = "\0"  # for a space at which no line ends
EACH_HELP = """
import contextlib, io, json, sys
from scripts.__main__ import main
texts = []
for call in sys.argv[1:]:  # in one process, because several import torch
    sys.argv = ["scripts", *call.split(), "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        main()
    texts.append(text.getvalue())
print(json.dumps(texts))
"""
HEAD = """\
# Tools

Every tool of petclf, with its `--help`. `.venv/bin/petclf TOOL` runs one; so does `.venv/bin/python -m scripts TOOL` in the project's folder.
`make help` lists the make targets, which give the tools their usual options. `source scripts/completion.bash` lets bash complete tools and
options.
"""


def page() -> str:
    """Return the page as the tools describe themselves now."""
    purposes = by_purpose(asked())
    helps = helps_of([call for tools in purposes.values() for name in tools for call in calls_of(name)])
    parts = [HEAD]
    for purpose, tools in purposes.items():
        parts.append(f"## {purpose}\n\n| tool | what it does |\n|---|---|\n" + "".join(map(row, tools.items())))
        parts += [f"### petclf {call}\n\n```text\n{text}```\n" for call, text in helps.items() if call.split()[0] in tools]
    return "\n".join(parts)


def by_purpose(overview: str) -> dict[str, dict[str, str]]:
    """Return what the front door lists."""
    found: dict[str, dict[str, str]] = {}
    for part in overview.split("\n\n")[1:]:
        purpose, *lines = part.splitlines()
        found[purpose.rstrip(":")] = dict(line.split(maxsplit=1) for line in lines)
    return found


def calls_of(name: str) -> list[str]:
    """Return the tool, and the tool with each of its commands."""
    commands = re.findall(r"^    ([a-z]+) ", asked(name, "--help"), re.MULTILINE) if name == "models" else []
    return [name, *(f"{name} {command}" for command in commands)]


def helps_of(calls: list[str]) -> dict[str, str]:
    """Return the help of each, the same on every machine: folded at one width, without the place of the project."""
    texts = json.loads(run("-c", EACH_HELP, *calls))
    return {call: as_shown(text) for call, text in zip(calls, texts, strict=True)}


def row(tool: tuple[str, str]) -> str:
    return f"| [`{tool[0]}`](#petclf-{tool[0]}) | {tool[1]} |\n"


def as_shown(text: str) -> str:
    lines = text.replace(f"{ROOT}{os.sep}", "").splitlines()
    return "".join(f"{folded(line)}\n" for line in lines)


def folded(line: str) -> str:
    indent = HELP_COLUMN if line.startswith("  ") else len("usage: ") if line.startswith("usage: ") else 0
    whole = re.sub(r"\[[^]]*]", lambda part: part[0].replace(" ", GLUE), line) if line.startswith("usage: ") else line
    lines = textwrap.wrap(whole, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)
    return "\n".join(lines).replace(GLUE, " ")


def asked(*arguments: str) -> str:
    return run("-m", "scripts", *arguments)


def run(*arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": "4000"}  # argparse folds nothing: it would where the project's place is long
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
