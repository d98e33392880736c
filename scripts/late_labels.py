"""Join labels that come later with the prediction log: python -m scripts.late_labels predictions.jsonl --labels labels.csv.

A label file is a CSV with the columns request_id, label. Its lines may come in any order and more than once. An id with two different
labels is left out, and so is a request with several photos. The older parts of a log (LOG.1, LOG.2, ...) are read too.

Exit code 0: the figures are there; 2: the command was wrong, or a file is missing.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from operate.command import run_command, seconds
from operate.files import write_whole
from operate.labelled import tidy
from operate.late_labels import facts_of
from operate.late_page import as_text, render
from operate.late_reader import Late, Reader
from operate.late_watch import listen


def run(args: argparse.Namespace) -> int:
    reader = Reader(args.log, args.labels, args.known, [facts_of(path) for path in args.archive])
    if args.listen:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container is not ended by it otherwise
        listen(reader, args.listen, args.every)
    late = reader.read()
    if args.report:
        write_report(late, args.report)
        print(f"report: {args.report / 'report.html'}", file=sys.stderr)
    print(json.dumps(late.document(), ensure_ascii=False, allow_nan=False) if args.json else as_text(late))
    return 0


def write_report(late: Late, folder: Path) -> None:
    write_whole(folder / "figures.json", json.dumps(late.document(), ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    write_whole(folder / "report.html", render(late))


def label_names(text: str) -> list[str]:
    """Read `cat,dog`."""
    names = [tidy(name) for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("name the model's labels like cat,dog")
    return names


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("log", nargs="+", type=Path, help="prediction log, as PETCLF_PREDICTION_LOG names it")
    parser.add_argument(
        "--labels", action="append", type=Path, required=True, metavar="CSV", help="label file; name as many as there are"
    )
    parser.add_argument(
        "--known", type=label_names, default=[], metavar="LABELS", help="the model's labels, cat,dog; others are left out"
    )
    parser.add_argument(
        "--archive", action="append", type=Path, default=[], metavar="MAR",
        help="archive that is served: predictions about its known photo, which probes ask about all day, are left out",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write report.html and figures.json there")
    parser.add_argument(
        "--listen", metavar="ADDRESS", help="serve Prometheus' metrics there, such as 127.0.0.1:8086, until ended"
    )
    parser.add_argument("--every", type=seconds, default=60, metavar="SECONDS", help="how often --listen looks at the files")
    args = parser.parse_args(argv)
    if args.listen and (args.json or args.report):
        parser.error("--listen goes neither with --json nor with --report")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    run_command(lambda: run(args))


if __name__ == "__main__":
    main()
