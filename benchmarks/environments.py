"""An environment for each peer, beside petclf's: its own packages first, torch and Pillow from petclf's."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from benchmarks.systems import ENVIRONMENTS, SYSTEMS


def make(folder: Path, packages: tuple[str, ...]) -> None:
    venv.create(folder, with_pip=True)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "zz_petclf.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True
    )


def main() -> None:
    for system in SYSTEMS:
        folder = ENVIRONMENTS / system.environment_name
        if not system.needs or folder.exists():
            continue
        print(f"{folder.name}: {', '.join(system.needs)}", flush=True)
        unfinished = folder.with_name(f".{folder.name}")
        try:
            make(unfinished, system.needs)
        except subprocess.CalledProcessError:
            sys.exit(f"error: {' '.join(system.needs)} cannot be installed; see above")
        unfinished.rename(folder)


if __name__ == "__main__":
    main()
