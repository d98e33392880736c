"""Say whether the photos of a prediction log have changed, in what, and since when: drift.py predictions.jsonl.

Rotated files (.1, .2, ...) are read too. Logs of several servers are joined. Exit code 0: no drift found; 1: drift; 2: too little
data to tell, or the command was wrong.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

try:
    from operate.drift import REFERENCE, DriftError
    from operate.drift_exporter import Exporter
    from operate.drift_report import write_report
    from operate.drift_watch import TOO_LITTLE, Watcher, references_of_log, references_of_model
    from operate.drift_words import as_json, lines
    from operate.photo_log import LogError, PhotoLog
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed here; `make setup`, then .venv/bin/petclf drift", file=sys.stderr)
    sys.exit(2)

HISTORY = 100  # looks whose drift a report shows


def watcher_of(args: argparse.Namespace) -> Watcher:
    references = None
    if args.reference:
        references = references_of_log(args.reference)
    elif args.model:
        references = references_of_model(args.model)
    return Watcher([PhotoLog(path) for path in args.logs], references, args.version)


def run(args: argparse.Namespace) -> int:
    watcher = watcher_of(args)
    if args.listen:
        return serve(watcher, args)
    watcher.read()
    state = watcher.state(HISTORY if args.report else 1)
    print(json.dumps(as_json(state)) if args.json else "\n".join(lines(state)))
    if args.report:
        print(f"report: {write_report(state, args.report)}", file=sys.stderr)
    return {"drift": 1, TOO_LITTLE: 2}.get(state.verdict, 0)


def serve(watcher: Watcher, args: argparse.Namespace) -> int:
    """Look again and again, and show Prometheus what was seen."""
    host, _, port = args.listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise DriftError(f"--listen {args.listen} is no address; write it like 127.0.0.1:8087")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container is not ended by it otherwise
    exporter = Exporter(watcher, args.seconds)
    try:
        exporter.start(host, int(port))
    except OSError as error:
        raise DriftError(f"cannot listen on {args.listen}: {error.strerror}; choose another with --listen") from None
    with contextlib.suppress(KeyboardInterrupt):
        exporter.run()
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="a prediction log, the file of PETCLF_PREDICTION_LOG")
    against = parser.add_mutually_exclusive_group()
    against.add_argument(
        "--reference", type=Path, metavar="LOG", help=f"compare with this log, not with the first {REFERENCE:,} photos"
    )
    against.add_argument("--model", type=Path, metavar="FILE", help="compare with what this archive or petclf.pt was trained on")
    parser.add_argument("--version", help="version of the model; the one that answered last if none is named")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write report.html with plots into this folder")
    parser.add_argument("--listen", metavar="ADDRESS", help="go on, and show Prometheus metrics at this address: 127.0.0.1:8087")
    parser.add_argument("--seconds", type=float, default=60, help="time between two readings of the log, with --listen")
    args = parser.parse_args(argv)
    if args.seconds <= 0:
        parser.error("--seconds must be more than 0")
    if args.listen and (args.json or args.report):
        parser.error("--listen shows metrics only; leave out --json and --report")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        sys.exit(run(args))
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (DriftError, LogError, OSError) as error:
        reason = f"cannot use {error.filename or 'standard output'}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
