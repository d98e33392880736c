"""Ask a running server about labelled photos and tell how right it is: python -m scripts.score_live photos/ --at-least 0.97.

Exit code 0: every photo was answered, and the accuracy is at least what --at-least asks for; 1: not so; 2: the command was wrong,
or the server is not there.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from operate.command import add_server_options, client_of, run_command
from operate.labelled import labelled_photos
from operate.score_live import Scored, as_json, as_text, judge, score, write_report
from operate.score_run import TrackedScore


def run(args: argparse.Namespace) -> int:
    client = client_of(args)
    photos = labelled_photos(args.photos)
    tracked = TrackedScore() if args.mlflow else None
    try:
        scored = score(client, args.photos, photos, args.jobs)
        shown = {photo.name: photo.path for photo in photos} if args.show_photos else None
        if args.report:
            write_report(scored, args.report, shown)
        if tracked:
            log(tracked, scored)
    except BaseException:
        if tracked:
            tracked.give_up()
        raise
    print(as_json(scored) if args.json else as_text(scored.figures))
    return verdict(scored, args)


def log(tracked: TrackedScore, scored: Scored) -> None:
    """Log the figures with the report, which shows no photo there."""
    with tempfile.TemporaryDirectory() as folder:
        write_report(scored, Path(folder))
        tracked.log(scored.document(), scored.figures, Path(folder))


def verdict(scored: Scored, args: argparse.Namespace) -> int:
    """Say what is written where, and whether the server is right enough; returns the exit code."""
    if args.report:
        print(f"report: {args.report / 'report.html'}", file=sys.stderr)
    enough = True
    if args.at_least is not None:
        enough, sentence = judge(scored.figures.accuracy, args.at_least)
        print(sentence, file=sys.stderr)
    if scored.figures.errors:
        print(f"{scored.figures.errors:,} of {scored.figures.photos:,} photos were not answered", file=sys.stderr)
    return 0 if enough and not scored.figures.errors else 1


def share(text: str) -> float:
    """Read a share between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1; write it like 0.97")
    return value


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder with one sub-folder a label, or a CSV with the columns photo, label")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write report.html, figures.json and answers.csv there")
    parser.add_argument("--show-photos", action="store_true", help="put the photos that were answered wrong into report.html")
    parser.add_argument(
        "--at-least", type=share, metavar="SHARE",
        help="exit with 1 unless the lower end of the accuracy's 95 %% interval reaches this share: few photos prove little",
    )  # fmt: skip
    parser.add_argument("--mlflow", action="store_true", help="log a run to MLFLOW_TRACKING_URI, or else to ./mlflow.db")
    add_server_options(parser)
    args = parser.parse_args(argv)
    if args.show_photos and not args.report:
        parser.error("--show-photos needs --report")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    run_command(lambda: run(args))


if __name__ == "__main__":
    main()
