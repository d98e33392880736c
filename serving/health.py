"""The one idea of health: what state a server is in, for probes, for Prometheus and for the supervisor itself."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from serving.management import Version

STATES = ("starting", "ready", "degraded", "down", "draining")

HELP = {
    "petclf_server_state": "1 for the state that the server is in: starting, ready, degraded (some worker is missing), down, draining",
    "petclf_workers_ready": "workers of a version that can answer",
    "petclf_workers_wanted": "workers that a version should have",
    "petclf_queue_depth": "requests that wait for a worker of a version",
    "petclf_version_live": "1 for the version that answers requests which name none, with the start of its archive's sha256",
    "petclf_disk_free_ratio": "free share of the disk with the prediction log, or with temporary files",
}


@dataclass(frozen=True)
class Health:
    """What the supervisor sees at one moment; no versions if TorchServe does not answer."""

    phase: str  # starting, serving or draining
    versions: list[Version] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)  # of their archives, by name and version
    folder: Path = Path("/tmp")
    reached: bool = True  # did TorchServe answer?

    @property
    def state(self) -> str:
        if self.phase != "serving":
            return self.phase
        live = [version for version in self.versions if version.live]
        if not live or not all(version.ready for version in live):
            return "down"
        return "ready" if all(version.ready >= version.wanted for version in live) else "degraded"

    def metrics(self) -> str:
        """Return everything in Prometheus' text format."""
        families: dict[str, list[str]] = {name: [] for name in HELP}
        for name, value, labels in self.samples():
            inside = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
            families[name].append(f"{name}{{{inside}}} {value:g}\n")
        return "".join(
            f"# HELP {name} {HELP[name]}\n# TYPE {name} gauge\n{''.join(lines)}" for name, lines in families.items() if lines
        )

    def samples(self) -> Iterator[tuple[str, float, dict[str, str]]]:
        for state in STATES:
            yield "petclf_server_state", float(state == self.state), {"state": state}
        for version in self.versions:
            labels = {"model": version.model, "version": version.version}
            yield "petclf_workers_ready", version.ready, labels
            yield "petclf_workers_wanted", version.wanted, labels
            yield "petclf_queue_depth", version.queued, labels
            if version.live:
                archive = self.digests.get(str(version), "unknown")
                yield "petclf_version_live", 1, {**labels, "archive": archive[:12]}
        for path, folder in disks(self.folder).items():
            usage = shutil.disk_usage(folder)
            yield "petclf_disk_free_ratio", round(usage.free / max(1, usage.total), 4), {"path": path}


def disks(temporary: Path) -> dict[str, Path]:
    """Return the folders whose disks must not be full."""
    log = os.environ.get("PETCLF_PREDICTION_LOG", "")
    folders = {"temp": temporary, "log": Path(log).parent} if log not in ("", "stdout") else {"temp": temporary}
    return {name: folder for name, folder in folders.items() if folder.is_dir()}


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
