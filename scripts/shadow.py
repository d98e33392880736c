"""Compare a candidate with the live version, by the prediction log of requests that both were asked: is it worse?

Exit code 0: it is not worse by the margin or more; 1: it is worse; 2: the command was wrong; 3: that is not known yet. The answer
holds whenever one looks, and however often.
"""

import argparse
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from operate import shadow

EXIT = {shadow.NOT_WORSE: 0, shadow.WORSE: 1, shadow.UNKNOWN: 3}


def moment(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it like 2026-11-26T18:00") from None
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("logs", nargs="+", type=Path, help="prediction logs; the rotated files beside them are read, too")
    parser.add_argument("--candidate", required=True, metavar="VERSION", help="the version of GATEWAY_SHADOW")
    parser.add_argument(
        "--live", metavar="VERSION", help="the version that answers clients; the only other one, if none is named"
    )
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    if wrong := wrong_options(args):
        parser.error(wrong)
    return args


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let a command be told what is to be compared, and how strictly; `scripts.models shadow` has them, too."""
    parser.add_argument("--share", type=int, default=10, metavar="PERCENT", help="the percentage of GATEWAY_SHADOW_SHARE")
    parser.add_argument("--margin", type=float, default=1.0, metavar="POINTS", help="how much worse would be too much")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="CSV with the columns request_id and label")
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="leave out what is older (UTC); from the first pair on, if none"
    )
    parser.add_argument("--max-age", type=float, default=24.0, metavar="HOURS", help="how old the newest pair of a pass may be")


def wrong_options(args: argparse.Namespace) -> str:
    """Return what is wrong with the options, if anything is."""
    if not 1 <= args.share <= 100 or not 0 < args.margin < 100 or not args.max_age > 0:
        return "--share must be from 1 to 100, --margin between 0 and 100, --max-age more than 0"
    if args.live == args.candidate:
        return f"{args.candidate} is the live version and the candidate; a version cannot be compared with itself"
    return ""


def run(args: argparse.Namespace) -> int:
    question = shadow.Question(
        args.candidate, args.live, args.share, args.margin / 100, args.since, timedelta(hours=args.max_age)
    )  # fmt: skip
    labels = shadow.read_labels(args.labels) if args.labels else None
    log = shadow.read_log(args.logs, args.share, args.since)
    report = shadow.compare(log, question, datetime.now(timezone.utc), labels)
    print(shadow.as_json(report) if args.json else "\n".join(shadow.describe(report)))
    return EXIT[report.verdict]


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        sys.exit(run(args))
    except (shadow.ShadowError, OSError, UnicodeDecodeError) as error:
        reason = f"cannot read {error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
