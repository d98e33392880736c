"""The comparison of two versions as files: JSON for the gate, HTML for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from operate import page
from operate.client import UsageError
from operate.store import Store, write_durably

ROWS = (
    ("answered", "answered_share", 100, " %"),
    ("accuracy", "accuracy", 100, " %"),
    ("balanced accuracy", "balanced_accuracy", 100, " %"),
    ("calibration error", "calibration_error", 1, ""),
    ("unsure", "unsure", 100, " %"),
    ("right when sure", "sure_accuracy", 100, " %"),
    ("unlike the training photos", "unlike", 100, " %"),
    ("median ms", "p50", 1, ""),
    ("p95 ms", "p95", 1, ""),
    ("p99 ms", "p99", 1, ""),
    ("memory of its workers, MB", "memory_mb", 1, ""),
)


def folder(store: Store) -> Path:
    return store.path / "comparisons"


def path_of(store: Store, live: str, candidate: str) -> Path:
    """Return where the comparison of two versions lies; their names hold no character that a file's name cannot."""
    return folder(store) / f"{store.model}-{candidate}-against-{live}.json"


def write_comparison(store: Store, comparison: Mapping[str, Any], reasons: list[str]) -> Path:
    """Write both files; returns the one for people."""
    folder(store).mkdir(exist_ok=True)
    path = path_of(store, comparison["live"]["version"], comparison["candidate"]["version"])
    html = path.with_suffix(".html")
    write_durably(rendered(comparison, reasons).encode(), html)
    write_durably((json.dumps(comparison, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode(), path)
    return html


def find_comparison(store: Store, live: tuple[str, str], candidate: tuple[str, str]) -> dict[str, Any]:
    """Return the comparison of exactly these archives, (version, sha256) each; empty if there is none."""
    path = path_of(store, live[0], candidate[0])
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        compared = tuple((found[who]["version"], found[who]["sha256"]) for who in ("live", "candidate"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read: {error!r}; run `verify` again") from None
    return found if compared == (live, candidate) else {}


def told(comparison: Mapping[str, Any], reasons: list[str]) -> str:
    """Return the comparison as text."""
    live, candidate = comparison["live"], comparison["candidate"]
    lines = [f"{comparison['photos']} photos answered by both; {summary(comparison)}"]
    lines.append(f"{'':<28} {'live ' + live['version']:>20} {'candidate ' + candidate['version']:>24}")
    lines += [
        f"{name:<28} {shown(live[key], by, unit):>20} {shown(candidate[key], by, unit):>24}" for name, key, by, unit in ROWS
    ]
    lines += [f"does not pass: {reason}" for reason in reasons] or ["passes the gate"]
    return "\n".join(lines)


def summary(comparison: Mapping[str, Any]) -> str:
    agreement = shown(comparison["agreement"], 100, " %")
    return (
        f"{agreement} answered alike; only the live version is right on {comparison['only_live_right']}, "
        f"only the candidate on {comparison['only_candidate_right']} (p {shown(comparison['worse_p'], 1, '')})"
    )


def shown(value: float | None, by: float, unit: str) -> str:
    return "unknown" if value is None else f"{value * by:.4g}{unit}"


def rendered(comparison: Mapping[str, Any], reasons: list[str]) -> str:
    live, candidate = comparison["live"], comparison["candidate"]
    rows = [[name, shown(live[key], by, unit), shown(candidate[key], by, unit)] for name, key, by, unit in ROWS]
    verdict = "It passes the gate." if not reasons else "It does not pass the gate: " + "; ".join(reasons) + "."
    different = [
        [
            one["photo"],
            one["truth"],
            f"{one['live']} {one['live_confidence']:.1%}",
            f"{one['candidate']} {one['candidate_confidence']:.1%}",
        ]
        for one in comparison["differences"]
    ]
    return page.page(
        f"{comparison['model']} {candidate['version']} against {live['version']}",
        [
            page.paragraph(verdict),
            page.paragraph(f"{comparison['photos']} photos answered by both; {summary(comparison)}. {comparison['time']}"),
            page.section("Figures", page.table(["figure", f"live {live['version']}", f"candidate {candidate['version']}"], rows)),
            page.section(
                "Photos that they answer differently",
                page.table(["photo", "label", "live", "candidate"], different) if different else page.paragraph("None."),
            ),
        ],
    )
