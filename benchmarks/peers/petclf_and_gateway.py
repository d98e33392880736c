"""petclf as it is shipped with the gateway in front: both, until told to stop."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from benchmarks.peers.ports import free_ports

ROOT = Path(__file__).parents[2]


def main(port: int, folder: Path) -> None:
    told_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # not blocked: what is started here would never hear them either
        signal.signal(number, lambda *_: told_to_stop.set())
    inner, management, metrics, ready, gateway_management = free_ports(5)
    server = subprocess.Popen(
        [
            sys.executable, "-m", "scripts.serve", "--workers", "2", "--port", str(inner), "--management-port", str(management),
            "--metrics-port", str(metrics), "--ready-port", str(ready),
        ],
        cwd=ROOT,
    )  # fmt: skip
    settings = {
        "GATEWAY_WORK": str(folder / "gateway"), "GATEWAY_SECRETS": str(folder), "GATEWAY_LISTEN": "127.0.0.1",
        "GATEWAY_PORT": str(port), "GATEWAY_MANAGEMENT_PORT": str(gateway_management), "GATEWAY_LOG": str(folder / "access.log"),
        "GATEWAY_USER": "root" if os.getuid() == 0 else "", "PETCLF_SERVER": "127.0.0.1",
        "PETCLF_INFERENCE_PORT": str(inner), "PETCLF_MANAGEMENT_PORT": str(management), "PETCLF_READY_PORT": str(ready),
        # one client asks for all: the limits for each are left out of the measurement
        "GATEWAY_RATE": "100000", "GATEWAY_BURST": "100000", "GATEWAY_CONNECTIONS": "2000",
        "PATH": f"{os.environ['PATH']}:/usr/sbin",
    }  # fmt: skip
    gateway = subprocess.Popen([ROOT / "deploy" / "gateway" / "start"], env={**os.environ, **settings})
    told_to_stop.wait()
    gateway.terminate()
    server.terminate()
    gateway.wait(20)
    server.wait(20)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
