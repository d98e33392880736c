"""docs/tools.md -> scripts/completion.bash: what the shell completes after petclf. A file, because starting Python at each Tab takes too long."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = """\
# `source scripts/completion.bash` lets bash complete petclf's tools and options. Written by `make pages`.
_petclf() {
  local words=""
  case "$COMP_CWORD ${COMP_WORDS[1]} ${COMP_WORDS[2]}" in
    "1 "*) words="TOOLS" ;;
CASES
  esac
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _petclf petclf
"""


def script() -> str:
    """Return the script for the tools and options that the page shows; a tool's commands stand after it."""
    options = options_by_call((ROOT / "docs" / "tools.md").read_text(encoding="utf-8"))
    tools = [call for call in options if " " not in call]
    cases = []
    for tool in tools:
        commands = [call.split()[1] for call in options if call.startswith(f"{tool} ")]
        cases += [f'    "2 {tool} "*) words="{" ".join(commands)}" ;;'] if commands else []
        cases += [f'    *" {tool} {command}") words="{options[f"{tool} {command}"]}" ;;' for command in commands]
        cases += [] if commands else [f'    *" {tool} "*) words="{options[tool]}" ;;']
    return SCRIPT.replace("TOOLS", " ".join(tools)).replace("CASES", "\n".join(cases))


def options_by_call(page: str) -> dict[str, str]:
    helps = re.findall(r"^### petclf ([\w ]+)\n\n```text\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    return {call: " ".join(dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][\w-]*", text.split("\n\n")[0]))) for call, text in helps}
