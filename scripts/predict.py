#!/usr/bin/env python3
"""Ask a petclf server about photos: predict.py photo.jpg folder/ 'more/*.png' -.

Exit code 0: every photo was answered; 1: some were not; 2: the command was wrong, or the server is not there.
"""

import argparse
import contextlib
import csv
import itertools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # also where this file is run by its path
try:
    from operate.client import UNREACHABLE, Result, UsageError, ask_all, find_photos
    from operate.command import add_server_options, client_of, print_above, progress, run_command
    from operate.labelled import labelled_photos
    from operate.score_live import as_csv, as_json, as_text, score
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed here; `make setup`, then .venv/bin/python {sys.argv[0]}", file=sys.stderr)
    sys.exit(2)

BOLD, RED, YELLOW = "1", "31", "33"  # as terminals know them


def count_failures(results: Iterable[Result], tally: Counter[str], server: str) -> Iterator[Result]:
    """Pass the results on; stop if the server has never answered, because then it will not answer the rest."""
    for result in results:
        tally["failed" if "error" in result else "answered"] += 1
        if not tally["answered"] and result["error"].startswith(UNREACHABLE):
            raise UsageError(f"{server}: {result['error']}; is it running?")
        yield result


@dataclass(frozen=True)
class Table:
    """Where the answers are shown for people: a terminal gets colours, and names that fit; a file gets every name as it is."""

    names: int  # columns
    labels: int
    screen: bool

    @classmethod
    def of(cls, photos: Sequence[str], first: Result) -> "Table":
        screen = sys.stdout.isatty()
        labels = max([5, *map(len, first.get("probabilities", ["x" * 12]))])
        room = shutil.get_terminal_size().columns - labels - len("  confidence  unsure: unlike training photos  ")
        longest = max(5, *map(len, photos))
        return cls(min(longest, max(16, room)) if screen else longest, labels, screen)

    def write(self, name: str, label: str, confidence: str, note: str, colour: str = "") -> None:
        shown = name if len(name) <= self.names else "..." + name[-(self.names - 3) :]
        row = f"{shown:<{self.names}}  {label:<{self.labels}}  {confidence:>10}  {note}".rstrip()
        show = print_above if self.screen else print
        show(f"\033[{colour}m{row}\033[0m" if self.coloured and colour else row)

    @property
    def coloured(self) -> bool:
        return self.screen and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_table(results: Iterator[Result], photos: Sequence[str]) -> None:
    first = next(results)
    table = Table.of(photos, first)
    table.write("photo", "label", "confidence", "note", BOLD)
    given, unsure = Counter[str](), 0
    for result in itertools.chain([first], results):
        if "error" in result:
            table.write(result["photo"], "-", "-", f"error: {result['error']}", RED)
            continue
        given[result["label"]] += 1
        unsure += result["unsure"]
        note = f"unsure: {result['unsure_because'].replace('_', ' ')}" if result["unsure"] else ""
        table.write(result["photo"], result["label"], f"{result['confidence']:.2%}", note, YELLOW if note else "")
    if table.screen and given.total() > 1:
        print_above(", ".join(f"{count:,} {label}" for label, count in given.most_common()) + f"; {unsure:,} of them unsure")


def write_json(results: Iterable[Result]) -> None:
    for result in results:
        print(json.dumps(result, ensure_ascii=False))


def write_csv(results: Iterator[Result]) -> None:
    """Write the header once the first answer has told the labels; failures before it wait."""
    begin: list[Result] = []
    while (not begin or "error" in begin[-1]) and (result := next(results, None)):
        begin.append(result)
    labels = begin[-1].get("probabilities", {})
    names = ["photo", "label", "confidence", *map(column, labels), "unsure_because", "version", "error", "code"]
    writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore")
    writer.writeheader()
    for result in itertools.chain(begin, results):
        probabilities = {column(label): value for label, value in result.get("probabilities", {}).items()}
        writer.writerow({**result, **result.get("model", {}), **probabilities})


def column(label: str) -> str:
    return f"probability_{label}"  # a label may be called like another column


def run_labelled(args: argparse.Namespace) -> int:
    """Print how right the answers are, instead of the answers."""
    if len(args.photos) != 1 or args.list or args.explain:
        raise UsageError("--labelled takes one folder or CSV, and neither --list nor --explain")
    source = Path(args.photos[0])
    scored = score(client_of(args), source, labelled_photos(source), args.jobs)
    if args.json:
        print(as_json(scored))
    elif args.csv:
        print(as_csv(scored.answers), end="")
    else:
        print(as_text(scored.figures))
    return failures_told(scored.figures.errors, scored.figures.photos)


def failures_told(failed: int, photos: int) -> int:
    """Return the exit code, and say how many photos were not answered."""
    if failed:
        print(f"{failed} of {photos} photos were not answered", file=sys.stderr)
    return 1 if failed else 0


def run(args: argparse.Namespace) -> int:
    if args.labelled:
        return run_labelled(args)
    client = client_of(args, args.explain)
    listed = [line.strip() for line in sys.stdin if line.strip()] if args.list else []
    photos = list(find_photos([*args.photos, *listed]))
    if not photos:
        raise UsageError("no photo given; name photos, folders, or - for standard input")
    if args.explain:
        args.explain.mkdir(parents=True, exist_ok=True)
    tally: Counter[str] = Counter()
    with contextlib.closing(ask_all(client, photos, args.jobs)) as asked:
        # no bar where it would mix with the answers; the table is written above it
        table = not (args.json or args.csv)
        shown = len(photos) > 1 if table else not sys.stdout.isatty()
        results = count_failures(progress(asked, len(photos), shown, kept=not sys.stdout.isatty()), tally, client.server)
        if args.json:
            write_json(results)
        elif args.csv:
            write_csv(results)
        else:
            write_table(results, photos)
    return failures_told(tally["failed"], len(photos))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("photos", nargs="*", help="photos, folders, patterns, or - for one photo on standard input")
    parser.add_argument("--list", action="store_true", help="standard input names the photos, one a line")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print one JSON object a line")
    shape.add_argument("--csv", action="store_true", help="print CSV, with a column for each label's probability")
    parser.add_argument(
        "--labelled", action="store_true",
        help="print how right the answers are; the photos are one folder with a sub-folder a label, or one CSV: photo, label",
    )  # fmt: skip
    parser.add_argument("--explain", type=Path, metavar="FOLDER", help="write a heat map of each photo into this folder")
    add_server_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    run_command(lambda: run(args))


if __name__ == "__main__":
    main()
