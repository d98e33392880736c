"""What the comparison says, in tables and in ratios."""

import json
import statistics
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

CONNECTIONS = (1, 8, 32, 64)
SHARES = (0.5, 0.8, 1.5)  # of what the system answered at 32 connections a moment before
PRICE = 0.04  # dollars for one core for one hour: what the large clouds ask, roughly
CEILING = "ceiling"
Cell = dict[str, Any]


def spread(cells: list[Cell], key: str, **wanted: Any) -> list[float]:
    """Return one figure in every round, where there is one."""
    name, _, part = key.partition(".")
    some = [cell for cell in cells if all(cell.get(other) == value for other, value in wanted.items())]
    values = [cell.get(name, {}).get(part) if part else cell.get(name) for cell in some]
    return [value for value in values if value is not None]


def median(cells: list[Cell], key: str, **wanted: Any) -> float | None:
    """Return the median over the rounds of one figure, or nothing where there is none."""
    values = spread(cells, key, **wanted)
    return statistics.median(values) if values else None


def ceiling_rate(cells: list[Cell], batch: int = 8) -> float | None:
    """Return what the cores give at most, and not what they were asked for."""
    return median(cells, "rate", system=CEILING, batch=batch, share=None)


def shown(value: float | None, form: str = ",.0f") -> str:
    return "" if value is None else format(value, form)


def tables(cells: list[Cell]) -> list[str]:
    """Return the result as Markdown."""
    names = [name for name in dict.fromkeys(cell["system"] for cell in cells) if name != CEILING]
    return [
        f"In-process ceiling, batches of 8: {shown(ceiling_rate(cells))} photos a second; photo by photo {shown(ceiling_rate(cells, 1))}.",
        "",
        *over_connections(cells, names),
        "",
        *costs(cells, names),
        "",
        *at_rates(cells, (CEILING, *names)),
    ]


def over_connections(cells: list[Cell], names: Sequence[str]) -> list[str]:
    counts = [count for count in CONNECTIONS if any(cell.get("connections") == count for cell in cells)]
    heads = [f"{count} conn" for count in counts]
    lines = [f"| photos a second (p50 / p99 ms) | {' | '.join(heads)} | of ceiling at 32 |", "|---" * (len(counts) + 2) + "|"]
    ceiling = ceiling_rate(cells)
    for name in names:
        row = []
        for count in counts:
            rates = spread(cells, "rate", system=name, connections=count)
            p50, p99 = (median(cells, f"answered_ms.{point}", system=name, connections=count) for point in ("p50", "p99"))
            row.append(
                f"{statistics.median(rates):,.0f} [{min(rates):,.0f}-{max(rates):,.0f}] ({shown(p50, ',.1f')} / {shown(p99, ',.0f')})"
            )
        at_32 = median(cells, "rate", system=name, connections=32)
        share = at_32 / ceiling if at_32 and ceiling else None
        lines.append(f"| {name} | {' | '.join(row)} | {shown(share, '.2f')} |")
    return lines


def costs(cells: list[Cell], names: Sequence[str]) -> list[str]:
    lines = [
        "| | start s | memory MB | CPU ms a photo: 1 / 32 conn | CPU unasked, % of a core | dollars a million photos | not 200 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        one, many = (median(cells, "cpu_ms", system=name, connections=count) for count in (1, 32))
        memory, idle = median(cells, "memory", system=name), median(cells, "idle", system=name)
        asked = [cell["statuses"] for cell in cells if cell["system"] == name and "connections" in cell]
        failed = sum(sum(statuses.values()) - statuses.get("200", 0) for statuses in asked)
        lines.append(
            f"| {name} | {shown(median(cells, 'start_seconds', system=name), '.1f')} | {shown(memory and memory / 1e6)} | "
            f"{shown(one, '.2f')} / {shown(many, '.2f')} | {shown(idle and 100 * idle, '.1f')} | "
            f"{shown(many and many * 1e6 / 1000 / 3600 * PRICE, '.3f')} | {failed} |"
        )
    return lines


def at_rates(cells: list[Cell], names: Sequence[str]) -> list[str]:
    lines = [
        "| at a constant rate | asked / s | answered / s | of capacity | p50 / p99 ms | refused, p99 ms | clients' CPU, % of a core | other |",
        "|---" * 8 + "|",
    ]
    for name, share in product(names, SHARES):
        some = [cell for cell in cells if cell["system"] == name and cell.get("share") == share]
        if not some:
            continue
        capacity, rate, kept = (statistics.median(cell[key] for cell in some) for key in ("capacity", "rate", "kept"))
        statuses = {status for cell in some for status in cell["statuses"]} - {"200"}
        others = {status: sum(cell["statuses"].get(status, 0) for cell in some) for status in sorted(statuses)}
        p50, p99, refused = (median(some, key) for key in ("answered_ms.p50", "answered_ms.p99", "refused_ms.p99"))
        clients = median(some, "clients_cpu")
        told = ", ".join(f"{status}: {number:,}" for status, number in others.items())
        lines.append(
            f"| {name}, {share:.0%} | {share * capacity:,.0f} | {rate:,.0f} | {kept:.2f} | {shown(p50, ',.1f')} / {shown(p99, ',.0f')} "
            f"| {shown(refused, ',.0f')} | {shown(clients and 100 * clients)} | {told} |"
        )
    return lines


def ratios(cells: list[Cell]) -> dict[str, list[float]]:
    """Return what the goals speak of, a share a round: of what was measured seconds before or after, on a machine as fast as then."""
    rounds = sorted({cell["round"] for cell in cells})
    by_round = [[cell for cell in cells if cell["round"] == number] for number in rounds]

    def paired(key: str, one: Cell, other_key: str, other: Cell) -> list[float]:
        pairs = [(median(some, key, **one), median(some, other_key, **other)) for some in by_round]
        return [mine / theirs for mine, theirs in pairs if mine and theirs]

    def shares(one: Cell, other: Cell) -> list[float]:
        return paired("rate", one, "rate", other)

    def at(name: str, connections: int) -> Cell:
        return {"system": name, "connections": connections}

    found = {"ceiling at 32": shares(at("petclf", 32), {"system": CEILING, "batch": 8, "share": None})}
    found["with gateway at 32"] = shares(at("petclf with gateway", 32), at("petclf", 32))
    others = sorted({cell["system"] for cell in cells if not cell["system"].startswith(("petclf", CEILING))})
    for connections in CONNECTIONS:
        against = {name: shares(at("petclf", connections), at(name, connections)) for name in others}
        if measured := [name for name in others if against[name]]:
            best = min(measured, key=lambda name: statistics.median(against[name]))
            found[f"against {best} at {connections}"] = against[best]
    found["against TorchServe stock at 32"] = shares(at("petclf", 32), at("TorchServe stock", 32))
    for name in ("petclf", "petclf with gateway"):
        found[f"{name}: answered at 150 %, of capacity"] = spread(cells, "kept", system=name, share=1.5)
        wait = ("answered_ms.p99", {"system": name, "share": 0.8})
        found[f"{name}: p99 at 80 %, of one photo in process"] = paired(*wait, "photo_ms", {"system": CEILING, "batch": 1})
        found[f"{name}: p99 at 80 %, of the least possible"] = paired(*wait, "answered_ms.p99", {"system": CEILING, "share": 0.8})
    return {name: values for name, values in found.items() if values}


def as_list(found: dict[str, list[float]]) -> list[str]:
    """Return each ratio's median over the rounds, with the least and the most."""
    return [f"- {name}: {statistics.median(values):.2f} [{min(values):.2f}-{max(values):.2f}]" for name, values in found.items()]


def against_record(found: dict[str, list[float]], records: Path) -> list[str]:
    """Say what became slower; never an error, for a machine may have been busy."""
    paths = sorted(records.glob("*_peers.json"))
    recorded = json.loads(paths[-1].read_text(encoding="utf-8"))["ratios"] if paths else {}
    lines = []
    for name in sorted(found.keys() & recorded.keys()):
        now, then = statistics.median(found[name]), recorded[name]
        worse = now > then / 0.9 if "p99" in name else now < 0.9 * then
        lines.append(f"{'warning' if worse else 'ok'}: {name}: {now:.2f}, recorded {then:.2f}")
    return lines
