"""A registry on this machine, and images in it as ci names them."""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.container.stack import ROOT, docker

REGISTRY = """FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends docker-registry apache2-utils >/dev/null && rm -rf /var/lib/apt/lists/*
RUN printf 'version: 0.1\\nstorage: {filesystem: {rootdirectory: /var/lib/registry}}\\nhttp: {addr: ":5000"}\\n\
auth: {htpasswd: {realm: petclf, path: /users}}\\n' > /config.yml && htpasswd -Bbn ci secret > /users
ENTRYPOINT ["docker-registry", "serve", "/config.yml"]
"""
# as the image has it, but for the patience that a busy machine needs
SERVE = ["python", "-m", "scripts.serve", "--ready-host", "0.0.0.0", "--drain-seconds", "20", "--ready-seconds", "300"]
HEALTHY = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8083/ready', timeout=30)"
PATIENT = f"HEALTHCHECK --interval=2s --timeout=30s --start-period=300s CMD {json.dumps(['python', '-c', HEALTHY])}"
# refuses photos above 60 KB: the smoke test sends one, the client and the known photo that makes a server ready are smaller
SMALL = re.sub("(?m)^max_request_size=.*$", "max_request_size=60000", (ROOT / "config.properties").read_text(encoding="utf-8"))


def commit_of(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


@dataclass
class Registry:
    """A registry on this machine, with images that are made from petclf:local."""

    address: str

    def push(self, name: str, entrypoint: list[str] = SERVE, label: str = "") -> str:
        """Push an image as CI names it, by its commit, and forget it here; return the commit."""
        commit = commit_of(name)
        image = f"{self.address}/petclf:{commit}"
        lines = [
            "FROM petclf:local",
            f"LABEL org.opencontainers.image.revision={label or commit}",
            "COPY small.properties .",
            PATIENT,
        ]
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Dockerfile").write_text(
                "\n".join([*lines, f"ENTRYPOINT {json.dumps(entrypoint)}"]), encoding="utf-8"
            )
            (Path(folder) / "small.properties").write_text(SMALL, encoding="utf-8")
            docker("build", "-q", "-t", image, folder)
        self.send(image)
        return commit

    def send(self, image: str) -> None:
        """Push an image and forget it here."""
        with self.login() as private:
            docker("push", "-q", image, timeout=600, environment=private)
        docker("rmi", image)

    @contextmanager
    def login(self) -> Iterator[dict[str, str]]:
        """Log in without leaving a trace: a compose host has no login of its own."""
        with tempfile.TemporaryDirectory() as folder:
            private = {"DOCKER_CONFIG": folder}
            docker("login", self.address, "--username", "ci", "--password", "secret", environment=private)
            yield private
