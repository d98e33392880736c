"""What does a candidate that is asked beside the live version cost the clients, where it hangs, is down or is slow?

The gateway is the shipped one. The server behind it is a stand-in, an nginx that answers after a fixed time, so that nothing but the
gateway makes a difference: what a candidate takes from the cores of a real server is not in these figures.
"""

import argparse
import contextlib
import os
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.load import Load, as_request, quantiles
from benchmarks.record import write_record
from benchmarks.stack import PATH, PHOTO, ROOT, free_ports, process, require_program, wait_until

ANSWER = '{"label":"cat"}'
LIVE_SECONDS = 0.005
CANDIDATES = {  # by version: what it is, and what the stand-in does
    "": ("no candidate", ""),
    "fine": ("as fast as the live version", f"ngx.sleep({LIVE_SECONDS})"),
    "slow": ("ten times slower", f"ngx.sleep({10 * LIVE_SECONDS})"),
    "hung": ("hangs", "ngx.sleep(3600)"),
    "dead": ("breaks every connection", "ngx.exit(444)"),
}
STANDIN = """
load_module modules/ndk_http_module.so;
load_module modules/ngx_http_lua_module.so;
worker_processes 1; daemon off; pid FOLDER/standin.pid; error_log stderr crit;
events { worker_connections 1024; }
http {
    access_log off; client_body_buffer_size 1m; client_max_body_size 10m; default_type application/json;
    client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi; uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    server {
        listen 127.0.0.1:PORT; keepalive_requests 1000000;
        LOCATIONS
    }
}
"""


def location(path: str, lua: str) -> str:
    answer = f"ngx.header['Content-Length'] = {len(ANSWER)} ngx.print('{ANSWER}')"
    return f"location = {path} {{ content_by_lua_block {{ ngx.req.read_body() {lua} {answer} }} }}"


@contextlib.contextmanager
def standin(folder: Path, port: int) -> Iterator[None]:
    candidates = {f"/predictions/petclf/{version}": lua for version, (_, lua) in CANDIDATES.items() if version}
    paths = {"/predictions/petclf": f"ngx.sleep({LIVE_SECONDS})", **candidates}
    config = STANDIN.replace("LOCATIONS", "\n".join(location(*one) for one in paths.items()))
    (folder / "standin.conf").write_text(config.replace("FOLDER", str(folder)).replace("PORT", str(port)), encoding="utf-8")
    command = ["nginx", "-e", "stderr", "-c", str(folder / "standin.conf"), "-g", "user root;" if os.getuid() == 0 else ""]
    with process(folder / "standin.log", command, {"PATH": PATH}):
        yield


@contextlib.contextmanager
def gateway(folder: Path, server: int, version: str, share: int) -> Iterator[int]:
    """Start one gateway; return its port."""
    port, management = free_ports(2)
    (folder / "secrets").mkdir(parents=True)
    settings = {
        "GATEWAY_WORK": str(folder / "work"), "GATEWAY_SECRETS": str(folder / "secrets"), "GATEWAY_LISTEN": "127.0.0.1",
        "GATEWAY_PORT": str(port), "GATEWAY_MANAGEMENT_PORT": str(management), "GATEWAY_LOG": str(folder / "access.log"),
        "GATEWAY_USER": "root" if os.getuid() == 0 else "", "GATEWAY_RATE": "100000", "GATEWAY_BURST": "100000",
        "GATEWAY_CONNECTIONS": "500", "PETCLF_SERVER": "127.0.0.1", "PETCLF_INFERENCE_PORT": str(server),
        "GATEWAY_SHADOW": version, "GATEWAY_SHADOW_SHARE": str(share), "PATH": PATH,
    }  # fmt: skip
    with process(folder / "gateway.log", [str(ROOT / "deploy" / "gateway" / "start")], settings) as started:
        wait_until(lambda: Load(port, [REQUEST]).constant(100, 0.02)["statuses"] == {"200": 2}, started, folder / "gateway.log")
        yield port


REQUEST = as_request(PHOTO, "/predictions/petclf", "raw")


def measure(folder: Path, share: int, rate: float, seconds: float, rounds: int) -> dict[str, Any]:
    """Ask each gateway in turn, in every round; return the answers' seconds, round by round, and their statuses."""
    found: dict[str, Any] = {version: {"rounds": [], "statuses": Counter()} for version in CANDIDATES}
    with contextlib.ExitStack() as stack:
        [port] = free_ports(1)
        stack.enter_context(standin(folder, port))
        ports = {
            version: stack.enter_context(gateway(folder / f"gateway-{version}", port, version, share)) for version in CANDIDATES
        }
        for number in range(rounds + 1):
            for version in random.Random(number).sample(list(CANDIDATES), len(CANDIDATES)):
                load = Load(ports[version], [REQUEST])
                load.constant(rate, seconds)
                if number:  # the first round warms up
                    found[version]["rounds"].append(load.outcome.answered)
                    found[version]["statuses"] += load.outcome.statuses
    return found


def table(found: dict[str, Any]) -> list[str]:
    lines = ["| candidate | answers | errors | p50 ms | p99 ms | p99 / p99 without a candidate |", "|---" * 6 + "|"]
    usual = [quantiles(one)["p99"] for one in found[""]["rounds"]]
    for version, (name, _) in CANDIDATES.items():
        rounds, statuses = found[version]["rounds"], found[version]["statuses"]
        whole = quantiles([seconds for one in rounds for seconds in one])
        ratios = [quantiles(one)["p99"] / other for one, other in zip(rounds, usual, strict=True)]
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}-{max(ratios):.2f}]" if version else ""
        pooled = f"{whole['p99'] / quantiles([seconds for one in found['']['rounds'] for seconds in one])['p99']:.2f}"
        errors = statuses.total() - statuses["200"]
        lines.append(
            f"| {name} | {statuses['200']:,} | {errors} | {whole['p50']:.2f} | {whole['p99']:.2f} | {f'{pooled}; {spread}' if version else ''} |"
        )
    return lines


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--seconds", type=float, default=1, help="of each gateway in a round")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--shares", type=int, nargs="+", default=[10, 100], help="GATEWAY_SHADOW_SHARE")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args(argv)
    require_program("nginx", "Debian: apt-get install nginx libnginx-mod-http-lua")
    lines = []
    for share in args.shares:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), share, args.rate, args.seconds, args.rounds)
        lines += [f"The candidate is asked {share} % of the requests.", "", *table(found), ""]
    print("\n".join(lines))
    if args.record:
        note = (
            f"{args.rate:g} requests a second with a photo of {len(PHOTO):,} bytes over kept connections, {args.rounds} rounds of "
            f"{args.seconds:g} s for each candidate, in turns; behind the gateway a stand-in that answers after {1000 * LIVE_SECONDS:g} ms. "
            "Ratio: of all answers; median of the rounds [range]"
        )
        print(
            write_record(
                "shadow", "The live version beside a bad candidate", "python -m benchmarks.shadow --record", lines[:-1], note
            )
        )


if __name__ == "__main__":
    main()
