"""What bash completes after petclf."""

import subprocess
from pathlib import Path

import pytest

from scripts.__main__ import TOOLS

ROOT = Path(__file__).parents[2]
TAB = 'source scripts/completion.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _petclf; printf "%s\\n" "${COMPREPLY[@]}"'
NAMES = [name for tools in TOOLS.values() for name in tools]


def completed(*words: str) -> list[str]:
    """Return what bash offers when the last of the words is being typed."""
    command = ["bash", "-c", TAB, "bash", "petclf", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("",), NAMES),
        (("sc",), ["score_live", "score_many"]),
        (("models", "re"), ["register", "retire"]),
        (("models", "rollback", "--w"), ["--workers", "--why"]),
        (("predict", "photos/", "--js"), ["--json"]),
        (("serve", "--ready-p"), ["--ready-port"]),
        (("make_key", "de"), []),  # then bash offers files
        (("unknown", "--"), []),
    ],
)
def test_bash_offers_tools_their_commands_and_their_options(words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(*words) == offered


def test_the_completion_is_bound_to_petclf_wherever_it_lies() -> None:
    shown = subprocess.run(
        ["bash", "-c", "source scripts/completion.bash; complete -p petclf"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "complete -o default -F _petclf petclf\n"
