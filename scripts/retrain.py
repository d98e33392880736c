"""Train a new version from the live one and from all photos, old and new, and make it live if it passes the gate.

It runs these steps: prepare, train, fit, evaluate, export, register, verify, promote. Killed at any moment, the same command goes on.
Exit code 0: the new version is live. 1: it was not good enough, and what was live is live. 2: a wrong command, or a step that failed.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from operate.client import UsageError
from operate.command import run_command, seconds
from operate.gate import FILE
from operate.retrain import Asked, Plan, Retraining, next_version, written
from operate.store import Store
from serving.say import ServeError
from serving.store import find_archives

ROOT = Path(__file__).parents[1]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "photos",
        nargs="*",
        help="folders, zips, or CSVs with the columns photo and label: old photos and new ones; data.photos if none",
    )
    parser.add_argument("--outliers", default="", help="photos of other things, as for `make train`")
    parser.add_argument("--labelled", default="", help="compare on these labelled photos, not on the test photos")
    parser.add_argument(
        "--late-labels", action="append", default=[], metavar="CSV", help="first report how right the live version was"
    )
    parser.add_argument("--log", action="append", default=[], metavar="FILE", help="prediction log that --late-labels belong to")
    parser.add_argument("--minutes", type=seconds, help="a time budget for training")
    parser.add_argument(
        "--version", default="", help="version of the new model; the next minor version that is free if none is named"
    )
    parser.add_argument("--gate", type=Path, default=FILE, help="what a candidate must show")
    parser.add_argument("--watch", type=seconds, default=60, metavar="SECONDS", help="go back if it does badly meanwhile")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings of the training")
    parser.add_argument("--work", type=Path, default=Path("build/retrain"), help="folder for all that is made")
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever was not finished")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    servers = parser.add_argument_group("servers, as for scripts.models")
    servers.add_argument("--server", action="append", default=[], metavar="MANAGEMENT[,PREDICTIONS]", help="a server's addresses")
    servers.add_argument("--store", type=Path, default=ROOT / "model_store", help="the folder that the servers start from")
    servers.add_argument("--model", default="petclf", help="name of the model")
    servers.add_argument("--key-file", default="", help="file with the management key")
    servers.add_argument("--predictions-key-file", default="", help="file with the key for predictions")
    servers.add_argument("--ca", default="", help="certificate of the authority, if this machine does not know it")
    args = parser.parse_args(argv)
    if bool(args.late_labels) != bool(args.log):
        parser.error("--late-labels and --log belong together")
    return args


def options_for_models(args: argparse.Namespace) -> tuple[str, ...]:
    words = [word for server in args.server for word in ("--server", server)]
    words += ["--store", str(args.store), "--model", args.model]
    for name in ("key-file", "predictions-key-file", "ca"):
        if value := getattr(args, name.replace("-", "_")):
            words += [f"--{name}", value]
    return tuple(words)


def asked_for(args: argparse.Namespace) -> Asked:
    return Asked(
        tuple(args.photos), args.outliers, args.labelled, tuple(args.late_labels), tuple(args.log), args.minutes, str(args.gate), args.watch
    )  # fmt: skip


def read_params(path: Path) -> dict[str, Any]:
    """Return the settings; what is in them is checked by the first step."""
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        params["train"]["tracking"], params["export"]["name"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    return dict(params)


def retrain(args: argparse.Namespace) -> int:
    job, asked = Retraining(args.work, options_for_models(args)), asked_for(args)
    if args.dry_run:
        plan, done = job.begin(asked, args.fresh) or (new_plan(args, asked), [])
        print("\n".join(written(plan, job.steps(plan), done, args.work)))
        return 0
    with job.locked():
        if (found := job.begin(asked, args.fresh)) is None:
            found = new_plan(args, asked), []
            job.make_ready(found[0], read_params(args.params), live_archive(args))
        print(job.go_on(*found))
    return 0


def new_plan(args: argparse.Namespace, asked: Asked) -> Plan:
    live, store = live_archive(args), Store(args.store, args.model)
    taken = [one.archive.version for one in store.all()] + [entry["version"] for entry in store.history()]
    if args.version in taken:
        raise UsageError(f"{args.model} {args.version} is there already; give the new one another version")
    tracked = bool(read_params(args.params)["train"]["tracking"])
    return Plan(asked, args.model, live.version, args.version or next_version(live.version, taken), tracked)


def live_archive(args: argparse.Namespace) -> Any:
    try:
        return next(one for one in find_archives(args.store) if one.name == args.model)
    except StopIteration:
        raise UsageError(f"no version of {args.model} is live in {args.store}") from None
    except ServeError as error:
        raise UsageError(str(error)) from None


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    run_command(lambda: retrain(args))


if __name__ == "__main__":
    main()
