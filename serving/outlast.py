"""Wait until the gateway of this pod has ended: its process number's file is gone then, or was never there.

Kubernetes tells all containers of a pod to end at the same time. As the server's preStop hook this keeps the server up until the
gateway has answered what it had taken.
"""

import argparse
import time
from pathlib import Path

LOOK_SECONDS = 0.2


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="file that is there as long as the gateway runs")
    parser.add_argument(
        "--seconds", type=float, default=45, help="wait no longer than this: a gateway that was killed leaves its file"
    )
    args = parser.parse_args(argv)
    end = time.monotonic() + args.seconds
    while args.file.exists() and (left := end - time.monotonic()) > 0:
        time.sleep(min(LOOK_SECONDS, left))


if __name__ == "__main__":
    main()
