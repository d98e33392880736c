"""Commands that stand in for others: they write down how they were called, and say what the test wants."""

import json
import os
import sys
from pathlib import Path

PROGRAM = """#!{python}
import json, pathlib, sys, time
folder = pathlib.Path({folder!r})
called = [{name!r}, *sys.argv[1:]]
with (folder / "calls").open("a") as file:
    file.write(json.dumps(called) + "\\n")
words = " ".join(called)
answers = json.loads((folder / "answers").read_text())
for part, answer in answers:
    if part in words:
        out = answer.get("out", "")
        if isinstance(out, list):  # one after the other; the last stays
            out = out[0] if len(out) == 1 else out.pop(0)
            (folder / "answers").write_text(json.dumps(answers))
        print(out, flush=True)
        print(answer.get("err", ""), file=sys.stderr)
        time.sleep(answer.get("seconds", 0))
        sys.exit(answer.get("code", 0))
"""


class StandIns:
    """A folder for PATH with commands that are not the real ones."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "calls").touch()
        self.answer()
        for name in names:
            (folder / name).write_text(PROGRAM.format(python=sys.executable, folder=str(folder), name=name), encoding="utf-8")
            (folder / name).chmod(0o755)

    def answer(self, *answers: tuple[str, dict[str, object]]) -> None:
        """Say what is answered: the first whose part is in the command's line; nothing and success otherwise."""
        (self.folder / "answers").write_text(json.dumps(answers), encoding="utf-8")

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text(encoding="utf-8").splitlines()]

    def path(self) -> str:
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"
