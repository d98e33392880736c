"""Do well-behaved clients get their answers while another client behaves badly? On the real stack: `make up` first."""

import argparse
import http.client
import json
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.attack import ATTACKS
from benchmarks.drawing import draw_photo, encoded
from benchmarks.load import quantiles
from benchmarks.record import write_record

ATTACK = Path(__file__).with_name("attack.py")
PAUSE = 0.1  # between two photos of the well-behaved client
PHOTO = encoded(draw_photo("cat", 1, (500, 375)), quality=90)


def well_behaved(port: int, seconds: float) -> dict[str, Any]:
    """Ask about a photo ten times a second; return what came back, and how long it took."""
    statuses: Counter[str] = Counter()
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST", "/predict", PHOTO, {"Content-Type": "image/jpeg"})
            statuses[str(connection.getresponse().status)] += 1
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            statuses[type(error).__name__] += 1
        times.append(time.monotonic() - started)
        time.sleep(PAUSE)
    return {"statuses": dict(statuses), **quantiles(times)}


def under_attack(kind: str, port: int, network: str, host: str, image: str, seconds: float) -> dict[str, Any]:
    """Let a container beside the gateway attack it, from an address of its own; ask from here meanwhile."""
    command = ["docker", "run", "--rm", "--network", network, "-v", f"{ATTACK}:/attack.py:ro", "--entrypoint", "python", image]
    attacker = subprocess.Popen(
        [*command, "/attack.py", kind, host, str(seconds + 2)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with attacker:
        time.sleep(3)
        result = well_behaved(port, seconds - 2)
        said, wrong = attacker.communicate(timeout=seconds + 60)
    if attacker.returncode:
        raise SystemExit(f"error: the attacker could not run: {wrong.strip()}")
    return {"attack": kind, "attacker": json.loads(said), **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--network", default="petclf_public", help="the network that only the gateway answers on")
    parser.add_argument("--host", default="gateway")
    parser.add_argument("--image", default="petclf:local", help="an image with Python in it")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    rows = [{"attack": "none", "attacker": {}, **well_behaved(args.port, args.seconds)}]
    for kind in ATTACKS:
        rows.append(under_attack(kind, args.port, args.network, args.host, args.image, args.seconds))
        time.sleep(3)
    lines = ["| attack | well-behaved: statuses | p50 ms | p99 ms | max ms | the attacker got |", "|---|---|---|---|---|---|"]
    for row in rows:
        told = [", ".join(f"{name}: {count:,}" for name, count in row[who].items()) for who in ("statuses", "attacker")]
        lines.append(f"| {row['attack']} | {told[0]} | {row['p50']:.0f} | {row['p99']:.0f} | {row['max']:.0f} | {told[1]} |")
    print("\n".join(lines))
    if args.record:
        note = "gateway, server and attacker on the same cores"
        write_record("overload", "Well-behaved clients while another behaves badly", "python -m benchmarks.overload", lines, note)


if __name__ == "__main__":
    main()
