"""petclf beside what people would pick instead: the same photos, the same petclf.pt, one table at the end.

A few are started at a time and asked in turns of a second: a shared machine's speed changes within minutes by more than what servers
differ by, and so it meets them alike. Not all at once, for some take a third of a core when nobody asks. Start and memory are measured
of each by itself, for what several share would be counted to each in part.
"""

import argparse
import gc
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.ceiling import Ceiling
from benchmarks.drawing import draw_folder
from benchmarks.load import Load, as_request, read_photos
from benchmarks.machine import describe_machine, git_commit
from benchmarks.peers.core import Core
from benchmarks.record import RESULTS, write_record
from benchmarks.report import CEILING, CONNECTIONS, SHARES, Cell, against_record, as_list, ratios, tables
from benchmarks.systems import SYSTEMS, Running, System, running

AT_A_RATE = ("petclf", "FastAPI 2 processes")  # names begin so
LEAD = 0.25  # seconds until a system has its data in the caches, and its queue has formed
RATES_TAKE = 3  # turns: at half as much again as it can, a second goes by until it must refuse


@dataclass(frozen=True)
class Course:
    """What all are asked, and for how long."""

    photos: list[bytes]
    label: str  # of the first photo
    connections: Sequence[int]
    shares: Sequence[float]
    seconds: float
    warm_up: float
    scratch: Path

    def started(self, system: System, what: str) -> AbstractContextManager[Running]:
        folder = self.scratch / f"{system.name}-{what}".replace(" ", "-")  # some programs take no spaces
        return running(system, folder, self.photos[0], self.label)

    def load(self, system: System, server: Running) -> Load:
        return Load(server.port, [as_request(photo, system.path, system.form) for photo in self.photos])

    def closed(self, system: System, server: Running, connections: int, seconds: float) -> Cell:
        """Ask over connections; returns what came back, and the CPU time that an answer took."""
        load, before = self.load(system, server), server.cpu_seconds()
        found = load.closed(connections, seconds, LEAD)
        spent = server.cpu_seconds() - before
        cpu_ms = 1000 * spent / load.answered if load.answered else None
        return {"system": system.name, "connections": connections, "cpu_ms": cpu_ms, **found}

    def alone(self, system: System, number: int) -> Cell:
        """Start it with nothing beside it; returns how long that took and what it takes after some work."""
        with self.started(system, f"start-{number}") as server:
            self.closed(system, server, 32, self.warm_up)
            return {"system": system.name, "start_seconds": server.start_seconds, "memory": server.memory()}

    def in_turns(self, ceiling: Ceiling, servers: Sequence[tuple[System, Running]]) -> list[Cell]:
        """Ask all of them in one way after the other."""
        cells = []
        for connections in self.connections:
            if batch := {1: 1, 32: 8}.get(connections):
                cells.append(at_most(ceiling, batch, self.seconds))
            cells += [self.closed(*each, connections, self.seconds) for each in servers]
        for share in self.shares:
            if share < 1:  # above, an endless queue says nothing
                capacity = at_most(ceiling, ceiling.batch, self.seconds)["rate"]
                found = ceiling.at_rate(share * capacity, RATES_TAKE * self.seconds)
                cells.append({"system": CEILING, "share": share, "capacity": capacity, "kept": found["rate"] / capacity, **found})
            cells += [self.at(share, *each) for each in servers if each[0].name.startswith(AT_A_RATE)]
        return cells + self.unasked(servers)

    def at(self, share: float, system: System, server: Running) -> Cell:
        """Ask at a share of what it answers just now."""
        capacity = self.closed(system, server, 32, self.seconds)["rate"]
        found = self.load(system, server).constant(share * capacity, RATES_TAKE * self.seconds)
        return {"system": system.name, "share": share, "capacity": capacity, "kept": found["rate"] / capacity, **found}

    def unasked(self, servers: Sequence[tuple[System, Running]]) -> list[Cell]:
        """Return which part of a core each takes when nobody asks."""
        before = [server.cpu_seconds() for _, server in servers]
        time.sleep(self.seconds)
        spent = [server.cpu_seconds() - earlier for (_, server), earlier in zip(servers, before, strict=True)]
        return [{"system": system.name, "idle": one / self.seconds} for (system, _), one in zip(servers, spent, strict=True)]


def at_most(ceiling: Ceiling, batch: int, seconds: float) -> Cell:
    found = ceiling.at_most(batch, seconds)
    return {"system": CEILING, "photo_ms": 1000 * found["processes"] / found["rate"], **found}


def groups(systems: Sequence[System]) -> list[list[System]]:
    """Return who is asked in turns with whom: those that are asked at a rate, and then petclf with each of the others."""
    first = [system for system in systems if system.name.startswith(AT_A_RATE)] or list(systems[:1])
    return [first, *([first[0], system] for system in systems if system not in first)]


def compare(course: Course, systems: Sequence[System], starts: int, rounds: int) -> list[Cell]:
    """Measure all systems, started anew several times, for some processes are luckier with the caches than others."""
    cells: list[Cell] = []
    for start in range(starts):
        cells += [{"round": -1, **course.alone(system, start)} for system in systems]
        for place, group in enumerate(groups(systems)):
            part = replace(course, shares=() if place else course.shares, scratch=course.scratch / f"{start}-{place}")
            first = max((cell["round"] for cell in cells), default=-1) + 1
            cells += in_group(part, group, range(first, first + rounds))
    return cells


def in_group(course: Course, group: Sequence[System], rounds: range) -> list[Cell]:
    """Start some systems and ask them in turns."""
    cells = []
    with ExitStack() as stack:
        ceiling = stack.enter_context(Ceiling(course.photos))
        servers = [(system, stack.enter_context(course.started(system, "turns"))) for system in group]
        for each in servers:
            course.closed(*each, 32, course.warm_up)
        for number in rounds:
            first = number % len(servers)
            found = course.in_turns(ceiling, servers[first:] + servers[:first])
            cells += [{"round": number, **cell} for cell in found]
            for name in (CEILING, *(system.name for system in group)):
                rates = ", ".join(f"{cell['rate']:,.0f}" for cell in found if cell["system"] == name and "rate" in cell)
                print(f"round {number + 1}, {name}: {rates} a second", flush=True)
    return cells


def chosen(only: list[str] | None, against: Sequence[Path]) -> list[System]:
    """Return the systems that are wanted and are here."""
    systems = [system for system in SYSTEMS if not only or any(system.name.startswith(name) for name in only)]
    systems += [replace(SYSTEMS[0], name=f"petclf of {path.name}", root=path.resolve()) for path in against]
    for system in systems:
        if system.missing:
            print(f"left out: {system.name}: {system.missing}")
    return [system for system in systems if not system.missing]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of *.jpg; without it photos are drawn")
    parser.add_argument("--starts", type=int, default=3, help="of all systems anew")
    parser.add_argument("--rounds", type=int, default=3, help="after each start")
    parser.add_argument("--seconds", type=float, default=1, help="for each turn")
    parser.add_argument("--warm-up", type=float, default=4)
    parser.add_argument("--connections", nargs="*", type=int, default=CONNECTIONS)
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES, help="of what 32 connections get, at a constant rate")
    parser.add_argument("--only", nargs="*", help="names, or beginnings of names, of systems")
    parser.add_argument("--against", nargs="*", type=Path, default=(), metavar="CHECKOUT", help="others, their archives built")
    parser.add_argument("--against-record", action="store_true", help="warn where a ratio is a tenth below the last record's")
    parser.add_argument("--record", metavar="THEME", help="write benchmarks/results/<date>_THEME.md and .json")
    args = parser.parse_args()
    systems = chosen(args.only, args.against)
    if not systems:
        sys.exit("error: no system of these names is here; benchmarks/systems.py lists them")
    with tempfile.TemporaryDirectory(prefix="petclf-") as scratch:
        photos = read_photos(args.photos or draw_folder(Path(scratch, "photos")))
        if not photos:
            sys.exit(f"error: no *.jpg in {args.photos}")
        label = Core().answer(photos[0])["label"]
        gc.freeze()  # what is here by now need not be looked through while requests are timed
        course = Course(photos, label, args.connections, args.shares, args.seconds, args.warm_up, Path(scratch))
        cells = compare(course, systems, args.starts, args.rounds)
    names = [CEILING, *(system.name for system in systems)]
    cells.sort(key=lambda cell: (names.index(cell["system"]), cell["round"]))
    found = ratios(cells)
    lines = [*tables(cells), "", "petclf's share, median of the rounds [least-most]:", "", *as_list(found)]
    print("\n".join(lines))
    if args.against_record:
        print("\n".join(against_record(found, RESULTS)))
    if args.record:
        record(args, lines, cells, found)


def record(args: argparse.Namespace, lines: list[str], cells: list[Cell], found: dict[str, list[float]]) -> None:
    places = {str(args.photos), *(str(path) for path in args.against)}  # nobody else has them
    command = shlex.join(["python", "-m", "benchmarks.compare", *("..." if word in places else word for word in sys.argv[1:])])
    path = write_record(args.record, "petclf beside other servers", command, lines)
    medians = {name: statistics.median(values) for name, values in found.items()}
    content = {"command": command, "commit": git_commit(), "machine": describe_machine(), "ratios": medians, "cells": cells}
    path.with_suffix(".json").write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
