"""petclf beside what people would pick instead: the same photos, the same petclf.pt, rounds in turn, one table at the end."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.fuzz import RESULTS
from benchmarks.load import read_photos
from benchmarks.machine import describe_machine, git_commit
from benchmarks.peers.core import Core
from benchmarks.systems import ONE_THREAD, ROOT, SYSTEMS, Running, System, running
from tests.drawing import draw_photo, encoded

CONNECTIONS = (1, 8, 32, 64)
SHARES = (0.5, 0.8, 1.5)  # of what the system answered at 32 connections a moment before
AT_A_RATE = ("petclf", "petclf with gateway", "FastAPI 2 processes")
PRICE = 0.04  # dollars for one core for one hour: what the large clouds ask, roughly
CEILING = "ceiling"
Cell = dict[str, Any]


def ask(system: System, server: Running, photos: Path, seconds: float, *how: object) -> Cell:
    """Ask for some seconds; returns what came back, and the CPU time that an answer took."""
    command = [sys.executable, "-m", "benchmarks.load", server.port, photos, "--path", system.path, "--form", system.form]
    before = server.cpu_seconds()
    result = subprocess.run(
        [str(part) for part in (*command, "--seconds", seconds, *how)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    cell: Cell = json.loads(result.stdout)
    answers = cell["statuses"].get("200", 0)
    cell["cpu_ms"] = 1000 * (server.cpu_seconds() - before) / answers if answers else None
    return cell


def measure(system: System, photos: Path, folder: Path, seconds: float, warm_up: float, known: tuple[bytes, str]) -> list[Cell]:
    """Start a system, ask it in every way, stop it."""
    cells = []
    with running(system, folder, *known) as server:
        facts = {"system": system.name, "start_seconds": server.start_seconds}
        ask(system, server, photos, warm_up, "--connections", 32)
        for connections in CONNECTIONS:
            cells.append(
                {**facts, "connections": connections, **ask(system, server, photos, seconds, "--connections", connections)}
            )
            if connections == 32:
                facts["memory"] = cells[-1]["memory"] = server.memory()
        capacity = cells[CONNECTIONS.index(32)]["rate"]
        for share in SHARES if system.name in AT_A_RATE else ():
            cell = ask(system, server, photos, seconds, "--rate", share * capacity)
            cells.append({"system": system.name, "share": share, "capacity": capacity, **cell})
    return cells


def measure_ceiling(photos: Path, seconds: float) -> list[Cell]:
    cells = [run_ceiling(photos, seconds, "--batch", batch) for batch in (1, 8)]
    capacity = cells[-1]["rate"]
    for share in SHARES:
        if share < 1:  # above, an endless queue says nothing
            cells.append({"share": share, "capacity": capacity, **run_ceiling(photos, seconds, "--rate", share * capacity)})
    return cells


def run_ceiling(photos: Path, seconds: float, *how: object) -> Cell:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ceiling", photos, "--seconds", seconds, *how]
    environment = {**os.environ, **ONE_THREAD}
    result = subprocess.run(
        [str(part) for part in command], cwd=ROOT, check=True, capture_output=True, text=True, env=environment
    )
    return {"system": CEILING, **json.loads(result.stdout)}


def median(cells: list[Cell], key: str, **wanted: Any) -> float | None:
    """Return the median over the rounds of one figure, or nothing where there is none."""
    values = spread(cells, key, **wanted)
    return statistics.median(values) if values else None


def spread(cells: list[Cell], key: str, **wanted: Any) -> list[float]:
    name, _, part = key.partition(".")
    some = [cell for cell in cells if all(cell.get(other) == value for other, value in wanted.items())]
    values = [cell.get(name, {}).get(part) if part else cell.get(name) for cell in some]
    return [value for value in values if value is not None]


def ceiling_rate(cells: list[Cell], batch: int = 8) -> float | None:
    """Return what the cores give at most, and not what they were asked for."""
    return median([cell for cell in cells if "share" not in cell], "rate", system=CEILING, batch=batch)


def shown(value: float | None, form: str = ",.0f") -> str:
    return "" if value is None else format(value, form)


def tables(cells: list[Cell]) -> list[str]:
    """Return the result as Markdown."""
    names = [name for name in dict.fromkeys(cell["system"] for cell in cells) if name != CEILING]
    ceiling = ceiling_rate(cells)
    lines = [
        f"In-process ceiling, batches of 8: {shown(ceiling)} photos a second; photo by photo {shown(ceiling_rate(cells, 1))}.",
        "",
    ]
    lines.append(
        "| photos a second (p50 / p99 ms) | " + " | ".join(f"{count} conn" for count in CONNECTIONS) + " | of ceiling at 32 |"
    )
    lines.append("|---" * (len(CONNECTIONS) + 2) + "|")
    for name in names:
        row = []
        for count in CONNECTIONS:
            rates = spread(cells, "rate", system=name, connections=count)
            p50, p99 = (median(cells, f"answered_ms.{point}", system=name, connections=count) for point in ("p50", "p99"))
            row.append(
                f"{statistics.median(rates):,.0f} [{min(rates):,.0f}-{max(rates):,.0f}] ({shown(p50, ',.1f')} / {shown(p99, ',.0f')})"
            )
        at_32 = median(cells, "rate", system=name, connections=32)
        share = at_32 / ceiling if at_32 and ceiling else None
        lines.append(f"| {name} | " + " | ".join(row) + f" | {shown(share, '.2f')} |")
    lines += [
        "",
        "| | start s | memory MB | CPU ms a photo: 1 / 32 conn | dollars a million photos | not 200 |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        one, many = (median(cells, "cpu_ms", system=name, connections=count) for count in (1, 32))
        memory = median(cells, "memory", system=name, connections=32)
        failed = sum(
            sum(cell["statuses"].values()) - cell["statuses"].get("200", 0)
            for cell in cells
            if cell["system"] == name and "connections" in cell
        )
        lines.append(
            f"| {name} | {shown(median(cells, 'start_seconds', system=name, connections=1), '.1f')} | {shown(memory and memory / 1e6)} | "
            f"{shown(one, '.2f')} / {shown(many, '.2f')} | {shown(many and many * 1e6 / 1000 / 3600 * PRICE, '.3f')} | {failed} |"
        )
    lines += [
        "",
        "| at a constant rate | asked / s | answered / s | of capacity | p50 / p99 ms | refused, p99 ms | other |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in (CEILING, *names):
        for share in SHARES:
            some = [cell for cell in cells if cell["system"] == name and cell.get("share") == share]
            if not some:
                continue
            capacity, rate = (
                statistics.median(cell["capacity"] for cell in some),
                statistics.median(cell["rate"] for cell in some),
            )
            kept = statistics.median(cell["rate"] / cell["capacity"] for cell in some)
            statuses = {status for cell in some for status in cell["statuses"]} - {"200"}
            others = {status: sum(cell["statuses"].get(status, 0) for cell in some) for status in sorted(statuses)}
            p50, p99 = (median(cells, f"answered_ms.{point}", system=name, share=share) for point in ("p50", "p99"))
            refused = median(cells, "refused_ms.p99", system=name, share=share)
            told = ", ".join(f"{status}: {number:,}" for status, number in others.items())
            lines.append(
                f"| {name}, {share:.0%} | {share * capacity:,.0f} | {rate:,.0f} | {kept:.2f} | {shown(p50, ',.1f')} / {shown(p99, ',.0f')} "
                f"| {shown(refused, ',.0f')} | {told} |"
            )
    return lines


def ratios(cells: list[Cell]) -> dict[str, float]:
    """Return what the goals speak of: petclf against the ceiling, with the gateway, and against the best of the others."""

    def rate(name: str, connections: int) -> float:
        return median(cells, "rate", system=name, connections=connections) or 0.0

    ceiling = ceiling_rate(cells)
    result = {"ceiling at 32": rate("petclf", 32) / ceiling} if ceiling else {}
    if rate("petclf with gateway", 32):
        result["with gateway at 32"] = rate("petclf with gateway", 32) / rate("petclf", 32)
    others = {cell["system"] for cell in cells} - {CEILING, "petclf", "petclf with gateway"}
    for connections in CONNECTIONS:
        best = max(others, key=lambda name: rate(name, connections), default=None)
        if best and rate(best, connections):
            result[f"against {best} at {connections}"] = rate("petclf", connections) / rate(best, connections)
    if rate("TorchServe stock", 32):
        result["against TorchServe stock at 32"] = rate("petclf", 32) / rate("TorchServe stock", 32)
    return result


def draw_into(folder: Path) -> Path:
    """Return a folder of drawn photos, where there are no real ones."""
    for index in range(32):
        (folder / f"{index}.jpg").write_bytes(encoded(draw_photo("cat" if index % 2 else "dog", index, (500, 375)), quality=90))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of *.jpg; without it photos are drawn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="for each way of asking")
    parser.add_argument("--warm-up", type=float, default=4)
    parser.add_argument("--only", nargs="*", help="names, or beginnings of names, of systems")
    parser.add_argument("--against-record", action="store_true", help="warn where a ratio is a tenth below the last record's")
    parser.add_argument("--record", metavar="THEME", help="write benchmarks/results/<date>_THEME.md and .json")
    args = parser.parse_args()
    chosen = [system for system in SYSTEMS if not args.only or any(system.name.startswith(name) for name in args.only)]
    for system in chosen:
        if system.missing:
            print(f"left out: {system.name}: {system.missing}")
    chosen = [system for system in chosen if not system.missing]
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="petclf-") as scratch:
        (drawn := Path(scratch, "photos")).mkdir()
        photos = (args.photos or draw_into(drawn)).resolve()
        first = read_photos(photos)[0]
        known = (first, Core().answer(first)["label"])
        for number in range(args.rounds):
            cells += [{"round": number, **cell} for cell in measure_ceiling(photos, args.seconds)]
            for place in range(len(chosen)):
                system = chosen[(place + number) % len(chosen)]
                folder = Path(scratch, f"{number}-{place}")
                found = measure(system, photos, folder, args.seconds, args.warm_up, known)
                cells += [{"round": number, **cell} for cell in found]
                rates = ", ".join(f"{cell['rate']:,.0f}" for cell in found)
                print(f"round {number + 1}, {system.name}: {rates} a second", flush=True)
    named = [name for name in (system.name for system in SYSTEMS) if name in {cell["system"] for cell in cells}]
    cells.sort(key=lambda cell: (named.index(cell["system"]) if cell["system"] in named else -1, cell["round"]))
    found_ratios = ratios(cells)
    lines = [*tables(cells), "", "petclf's share:", "", *(f"- {name}: {value:.2f}" for name, value in found_ratios.items())]
    print("\n".join(lines))
    if args.against_record:
        compare_with_record(found_ratios)
    if args.record:
        record(args, lines, cells, found_ratios)


def compare_with_record(found: dict[str, float]) -> None:
    """Say what became slower; never an error, for a machine may have been busy."""
    records = sorted(RESULTS.glob("*_peers.json"))
    if not records:
        return
    recorded = json.loads(records[-1].read_text(encoding="utf-8"))["ratios"]
    for name in sorted(found.keys() & recorded.keys()):
        slower = found[name] < 0.9 * recorded[name]
        print(f"{'warning' if slower else 'ok'}: {name}: {found[name]:.2f}, recorded {recorded[name]:.2f}")


def record(args: argparse.Namespace, lines: list[str], cells: list[Cell], found: dict[str, float]) -> None:
    date, machine, commit = time.strftime("%Y-%m-%d"), describe_machine(), git_commit()
    photos = "--photos ... " if args.photos else ""
    command = f"python -m benchmarks.compare {photos}--rounds {args.rounds} --seconds {args.seconds:g} --warm-up {args.warm_up:g}"
    path = RESULTS / f"{date}_{args.record}.md"
    head = [f"# petclf beside other servers, {date}", "", f"`{command}`, commit {commit}", machine, ""]
    path.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")
    content = {"command": command, "commit": commit, "machine": machine, "ratios": found, "cells": cells}
    path.with_suffix(".json").write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
