"""Answer a folder, a zip, a bucket or a CSV of photos into Parquet: python -m scripts.score_many photos/ --output answers/.

Killed, the same command goes on. The model is the one that is live in the model store. Exit code 0: every photo has its row, a
refused one with the reason; 1: stopped by a failure, and the same command goes on; 2: the command was wrong; 130: Ctrl-C.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from bulk.errors import BulkError, FailedError
from bulk.files import Output
from bulk.run import Asked, score_many
from bulk.summary import SUMMARY
from operate import bulk_report
from operate.command import whole
from serving.say import ServeError
from serving.store import find_archives

REPORT = "report.html"


def live_archive(store: Path, model: str) -> Path:
    """Return the archive that a server of this store answers with."""
    try:
        found = {archive.name: archive.path for archive in find_archives(store)}
    except ServeError as error:
        raise BulkError(f"{error}; or name an archive with --archive") from None
    if model not in found:
        raise BulkError(f"{store} has no model {model}, but {', '.join(found)}; choose with --model or --archive")
    return found[model]


def run(args: argparse.Namespace) -> int:
    workers = args.workers or (None if args.address else len(os.sched_getaffinity(0)))
    archive = args.archive or live_archive(args.model_store, args.model)
    hosts = frozenset(host.lower() for host in args.allow_host)
    found = score_many(Asked(args.photos, args.output, archive, workers, hosts, args.part, args.address, args.retry))
    write(found, Output(args.output))
    print(json.dumps(found, ensure_ascii=False) if args.json else bulk_report.told(found))
    return 0


def write(found: dict[str, Any], output: Output) -> None:
    output.write(REPORT, bulk_report.rendered(found).encode())
    output.write(SUMMARY, (json.dumps(found, ensure_ascii=False, indent=1) + "\n").encode())
    print(f"answers: {output.address}/answers, report: {output.address}/{REPORT}", file=sys.stderr)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "photos", help="folder, zip, CSV with a column photo, path or url, or an address such as s3://bucket/photos"
    )
    parser.add_argument(
        "--output", required=True, help="folder or bucket for the answers; one folder for one list of photos and one model"
    )
    parser.add_argument(
        "--archive", type=Path, help="archive that answers; the one that is live in the model store if none is named"
    )
    parser.add_argument("--model-store", type=Path, default=Path("model_store"), help="where live.json and the archives are")
    parser.add_argument("--model", default="petclf", help="name of the model in the store")
    parser.add_argument("--workers", type=whole(1), help="photos at a time; one a core if not said")
    parser.add_argument(
        "--part", type=whole(1), help="photos of one Parquet file, which is what a killed worker loses; chosen if not said"
    )
    parser.add_argument(
        "--address", help="Ray cluster to use, e.g. auto or ray-head:6379; all its machines must see photos and output"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="fetch http(s) addresses of a CSV from this host; may be repeated",
    )
    parser.add_argument("--retry", action="store_true", help="try photos again that could not be read or fetched before")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        sys.exit(run(args))
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (BulkError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
