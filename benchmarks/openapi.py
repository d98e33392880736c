"""Does the gateway keep what openapi.json promises? schemathesis asks a real server what the document allows and what it forbids."""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.environments import make
from benchmarks.record import write_record
from benchmarks.stack import ROOT, running
from benchmarks.systems import ENVIRONMENTS

DOCUMENT = ROOT / "deploy" / "gateway" / "docs" / "openapi.json"
PINNED = "schemathesis==4.32.5"
# random bytes are no photo, and a photo with an odd header is one all the same: what is accepted is tests/e2e's business
LEFT_OUT = "positive_data_acceptance,negative_data_rejection"


def schemathesis() -> Path:
    """Return the program, from an environment of its own."""
    folder = ENVIRONMENTS / "schemathesis"
    if not folder.exists():
        ENVIRONMENTS.mkdir(exist_ok=True)
        unfinished = folder.with_name(".schemathesis")
        make(unfinished, (PINNED,))
        unfinished.rename(folder)
    return folder / "bin" / "python"


def ask(python: Path, port: int, count: int, seed: int, folder: Path) -> tuple[int, str]:
    """Return the exit code, and what was said."""
    where = [str(DOCUMENT), "--url", f"http://127.0.0.1:{port}", "--request-timeout", "30"]
    what = ["--exclude-checks", LEFT_OUT, "--max-examples", str(count), "--seed", str(seed), "--continue-on-failure"]
    command = [str(python), "-m", "schemathesis.cli", "--no-color", "run", *where, *what]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


def totals(said: str) -> list[str]:
    """Return the lines of the summary that count something."""
    _, _, end = said.rpartition(" SUMMARY ")
    lines = [re.sub(r"^\W+", "", line) for line in end.splitlines()]
    return [line for line in lines if re.search(r": \d|^\d+ generated", line) and not line.startswith("Seed")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="examples for each operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    python = schemathesis()
    with tempfile.TemporaryDirectory() as folder:
        # the limit on one address would refuse most requests before anybody looks at them
        with running(Path(folder) / "stack", GATEWAY_RATE="100000", GATEWAY_BURST="100000") as stack:
            code, said = ask(python, stack.port, args.count, args.seed, Path(folder))
    print(said)
    if args.record:
        lines = [f"- {line}" for line in totals(said)]
        write_record(
            "openapi", "The gateway against its OpenAPI document", f"python -m benchmarks.openapi --count {args.count}", lines
        )
    sys.exit(code)


if __name__ == "__main__":
    main()
