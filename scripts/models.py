"""A model's versions on running servers: list, register, verify, shadow, promote, roll back, retire, history.

Exit code 0: done; 1: refused or rolled back, for the reason that is told, and what was live before is live; 2: the command was
wrong, or a server is not there; 3: `shadow` does not know yet.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from operate.aliases import exact
from operate.client import Client, UsageError, authorization
from operate.command import progress, run_command, seconds, whole
from operate.errors import NotDoneError
from operate.gate import FILE, judge, now, read_rules
from operate.labelled import labelled_photos
from operate.models import Fleet
from operate.replica import Keys, find_replicas, key_in
from operate.reports import find_comparison, told, write_comparison
from operate.shadow import ShadowError
from operate.store import Store, Stored
from operate.verify import Side, ask_both, compare
from scripts import shadow as comparison_by_log
from scripts.build_archive import ArchiveError, local_model, packed

ROOT = Path(__file__).parents[1]


def list_versions(fleet: Fleet, args: argparse.Namespace) -> int:
    rows = fleet.rows()
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    print(f"{'version':<12} {'is':<9} {'sha256':<13} {'on the servers: workers ready/wanted, requests that wait'}")
    for row in rows:
        print(
            f"{row['version']:<12} {row['role']:<9} {(row['sha256'] or 'not in store')[:12]:<13} {on_servers(row, fleet.names)}"
        )
    return 0


def on_servers(row: dict[str, Any], names: list[str]) -> str:
    told = []
    for name in names:
        if one := row["servers"].get(name):
            told.append(f"{name} {one['ready']}/{one['wanted']}, {one['queued']}{' default' if one['default'] else ''}")
    return "; ".join(told) or "not loaded"


def register(fleet: Fleet, args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="petclf-") as folder, fleet.store.locked():
        address = exact(args.archive) if ":/" in args.archive else ""
        archive = from_mlflow(address, Path(folder)) if address else Path(args.archive)
        return done(fleet.register(archive, args.workers, args.why or args.archive, address), args)


def from_mlflow(address: str, folder: Path) -> Path:
    """Build the archive of a model of MLflow's."""
    try:
        data, name = packed(local_model(address, folder))
    except ArchiveError as error:
        raise UsageError(str(error)) from None
    path = folder / name
    path.write_bytes(data)
    return path


def verify(fleet: Fleet, args: argparse.Namespace) -> int:
    """Compare, write the report, and say whether the gate is passed."""
    rules, photos = read_rules(args.gate)["verify"], labelled_photos(args.photos)
    live, candidate = fleet.store.verified(fleet.begin()[0].live), fleet.store.find(args.version)
    if live.archive.version == candidate.archive.version:
        raise UsageError(f"{candidate.archive} is live; name the version that is to be compared with it")
    for replica in fleet.replicas:
        fleet.require_ready(replica, candidate)
    pairs = ask_both(side(fleet, live, args), side(fleet, candidate, args), photos, args.jobs)
    compared = list(progress(pairs, len(photos), not args.json))
    comparison = compare(compared, live, candidate, fleet.replicas)
    reasons = judge(comparison, rules, now())
    report = write_comparison(fleet.store, comparison, reasons)
    if args.json:
        print(json.dumps({**comparison, "reasons": reasons}, indent=1, ensure_ascii=False))
    else:
        print(f"{told(comparison, reasons)}\nreport: {report}")
    return 1 if reasons else 0


def side(fleet: Fleet, stored: Stored, args: argparse.Namespace) -> Side:
    headers = authorization(args.predictions_key_file)
    return Side(
        stored,
        [
            Client(one.inference, stored.archive.name, stored.archive.version, headers=headers, connections=args.jobs)
            for one in fleet.replicas
        ],
    )


def shadow(fleet: Fleet, args: argparse.Namespace) -> int:
    """Compare by the prediction log, which a gateway shows: with whatever is live."""
    live = fleet.store.live()
    args.candidate, args.live = args.version, live.live.version if live else None
    if wrong := comparison_by_log.wrong_options(args):
        raise UsageError(wrong)
    with tempfile.TemporaryDirectory(prefix="petclf-") as folder:
        args.logs = args.logs or [one.fetch_log(Path(folder) / str(number)) for number, one in enumerate(fleet.replicas)]
        try:
            return comparison_by_log.run(args)
        except (ShadowError, UnicodeDecodeError) as error:
            raise UsageError(str(error)) from None


def promote(fleet: Fleet, args: argparse.Namespace) -> int:
    rules = read_rules(args.gate)
    with fleet.store.locked():
        live, candidate = fleet.begin()[0].live, fleet.store.find(args.version)
        comparison = find_comparison(fleet.store, (live.version, live.sha256), (candidate.archive.version, candidate.sha256))
        if live.version != candidate.archive.version:
            require_gate(comparison, rules["verify"], args)
        figures = {who: comparison[who] for who in ("live", "candidate")} if comparison else {}
        return done(fleet.promote(args.version, rules["watch"], args.watch, args.force or args.why, figures), args)


def require_gate(comparison: dict[str, Any], rules: dict[str, float], args: argparse.Namespace) -> None:
    if args.force:
        return
    if not comparison:
        raise NotDoneError(
            f"{args.version} has not been compared with what is live; run `verify {args.version} PHOTOS`, or say --force REASON"
        )
    if reasons := judge(comparison, rules, now()):
        raise NotDoneError(f"{args.version} does not pass {args.gate.name}: {'; '.join(reasons)}")


def rollback(fleet: Fleet, args: argparse.Namespace) -> int:
    with fleet.store.locked():
        return done(fleet.rollback(args.workers, args.why), args)


def retire(fleet: Fleet, args: argparse.Namespace) -> int:
    with fleet.store.locked():
        return done(fleet.retire(args.version, args.why), args)


def history(fleet: Fleet, args: argparse.Namespace) -> int:
    entries = fleet.store.history()
    if args.at:
        found = fleet.store.live_at(args.at)
        if found is None:
            raise NotDoneError(f"the history of {fleet.model} in {fleet.store.path} begins after {args.at.isoformat()}")
        entries = [found]
    if args.json:
        print(json.dumps(entries, indent=1, ensure_ascii=False))
        return 0
    for entry in entries:
        change = f" instead of {entry['from']}" if entry.get("from") else ""
        print(
            f"{entry['time']}  {entry['what']:<9} {entry['version']}{change}  {(entry['sha256'] or '')[:12]}  {entry.get('why', '')}".rstrip()
        )
    return 0


def done(text: str, args: argparse.Namespace) -> int:
    print(json.dumps({"done": text}) if args.json else text)
    return 0


def moment(text: str) -> datetime:
    """Read a time in ISO form; without a zone it is this machine's."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no time; write it like 2026-11-26T12:00:00+00:00") from None


def parse(argv: list[str] | None) -> argparse.Namespace:
    shape = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--server", action="append", metavar="MANAGEMENT[,PREDICTIONS]",
        help="a server's addresses; may be given several times, and a name of several machines is all of them "
        "(default: http://127.0.0.1:8081,http://127.0.0.1:8080)",
    )  # fmt: skip
    common.add_argument("--store", type=Path, default=ROOT / "model_store", help="the folder that the servers start from")
    common.add_argument("--model", default="petclf", help="name of the model")
    common.add_argument(
        "--key-file", type=Path, help="file with the management key, NAME:SECRET; or PETCLF_MANAGEMENT_KEY holds it"
    )
    common.add_argument("--predictions-key-file", type=Path, help="the same for predictions; or PETCLF_API_KEY holds it")
    common.add_argument("--ca", help="certificate of the authority, if this machine does not know it")
    common.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[Fleet, argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, parents=[common], help=text, description=text, formatter_class=shape)
        one.set_defaults(run=run)
        return one

    command("list", list_versions, "show every version, in the store and on the servers")
    one = command("register", register, "bring a version to the store and to every server, beside what is live")
    one.add_argument("archive", help="a .mar, or a model of MLflow such as models:/petclf@candidate")
    one.add_argument("--workers", type=whole(1), default=2, help="workers on each server")
    with_why(one)
    one = command("verify", verify, "compare a registered version with what is live, on labelled photos")
    one.add_argument("version")
    one.add_argument("photos", type=Path, help="a folder with one sub-folder a label, or a CSV with the columns photo, label")
    one.add_argument("--jobs", type=whole(1), default=4, help="photos at a time")
    one.add_argument("--gate", type=Path, default=FILE, help="what a candidate must show")
    one = command("shadow", shadow, "compare a version that the gateway asks beside what is live, by the prediction log")
    one.add_argument("version")
    one.add_argument("logs", nargs="*", type=Path, help="prediction logs; without any, the gateway is asked for its own")
    comparison_by_log.add_options(one)
    one = command("promote", promote, "make a registered version live on every server, and watch it")
    one.add_argument("version")
    one.add_argument("--gate", type=Path, default=FILE, help="what a candidate must show")
    one.add_argument("--watch", type=seconds, default=60, metavar="SECONDS", help="go back if it does badly meanwhile")
    one.add_argument("--force", default="", metavar="REASON", help="promote it whatever the gate says; the reason is kept")
    with_why(one)
    one = command("rollback", rollback, "make what was live before live again")
    one.add_argument("--workers", type=whole(1), default=2, help="workers on each server, if it is not loaded any more")
    with_why(one)
    one = command("retire", retire, "take a version that is not live from the servers; its archive stays")
    one.add_argument("version")
    with_why(one)
    one = command("history", history, "show what happened, or which version was live at a time")
    one.add_argument("--at", type=moment, metavar="TIME", help="such as 2026-11-26T12:00:00+00:00")
    return parser.parse_args(argv)


def with_why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", default="", help="a few words for the history")


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)

    def run() -> int:
        keys = Keys(key_in(args.key_file, "PETCLF_MANAGEMENT_KEY"), key_in(args.predictions_key_file, "PETCLF_API_KEY"), args.ca)
        replicas = find_replicas(args.server or ["http://127.0.0.1:8081"], keys) if args.command != "history" else []
        say = (lambda _: None) if args.json else print
        result: int = args.run(Fleet(replicas, Store(args.store, args.model), say), args)
        return result

    run_command(run)


if __name__ == "__main__":
    main()
