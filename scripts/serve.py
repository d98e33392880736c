"""Start TorchServe and stay with it: ready only when a known photo is answered right, ended when it should end."""

import argparse
import sys
from pathlib import Path

from serving.command import MOST_WORKERS
from serving.machine import LOOPBACK, require_free
from serving.say import ServeError
from serving.supervise import Supervisor

ROOT = Path(__file__).parents[1]


PORTS = (
    ("", 8080, "predictions"),
    ("management-", 8081, "managing models"),
    ("metrics-", 8082, "TorchServe's metrics"),
    ("ready-", 8083, "GET /ready, GET /metrics of the supervisor, registering and removing versions; port 0 for none"),
)


def parse(argv: list[str] | None, description: str | None = __doc__) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model-store", type=Path, default=ROOT / "model_store", help="folder with archives and live.json")
    parser.add_argument("--previous", action="store_true", help="also start what was live before, for a rollback at once")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", help="TorchServe's settings")
    parser.add_argument("--metrics-config", type=Path, default=ROOT / "metrics.yaml", help="the metrics that TorchServe shows")
    parser.add_argument("--log-config", type=Path, default=ROOT / "log4j2.xml", help="what TorchServe logs, and how")
    for what, port, name in PORTS:
        parser.add_argument(f"--{what}host", default=LOOPBACK, help=f"address for {name}")
        parser.add_argument(f"--{what}port", type=int, default=port, help=f"port for {name}")
    parser.add_argument(
        "--workers", type=int, default=0, help=f"processes that answer; 0: as many as cores, up to {MOST_WORKERS}"
    )
    parser.add_argument("--ready-seconds", type=float, default=60, help="not ready by then is an error")
    parser.add_argument("--drain-seconds", type=float, default=0, help="after SIGTERM, answer on until requests stop coming")
    parser.add_argument("--java-options", default="", help="further options for Java: --java-options='-Xmx1g -verbose:gc'")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        if args.workers < 0:
            raise ServeError("--workers must be at least 1")
        for path in (args.config, args.metrics_config, args.log_config):
            if not path.is_file():
                raise ServeError(f"no file at {path}")
        for what, _, _ in PORTS:
            name = what.replace("-", "_")
            if port := getattr(args, f"{name}port"):
                require_free(getattr(args, f"{name}host"), port, f"{what}port")
        sys.exit(Supervisor(args).run())
    except ServeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
