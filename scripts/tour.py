"""Walk through a model's whole life in a few minutes, with the real tools: what `make tour` runs.

It draws 50 photos, trains a model, serves it, tries a better one beside it, makes that one live, finds out that the photos have changed, and
goes back. Everything is in build/tour, which is made anew each time.
"""

import argparse
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageEnhance

from operate.gate import FILE as GATE
from serving.machine import free_port, open_here

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("moon", "sun")
PORTS = ("port", "management-port", "metrics-port", "ready-port")
LOG = "predictions.jsonl"
MARK = ".tour"  # a folder with it may be emptied
WIDTH = 100


class TourError(Exception):
    """A step that did not end as it should."""


class Tour:
    """A folder of its own, the commands that run in it, and the server that they talk to."""

    def __init__(self, folder: Path, photos: int) -> None:
        self.folder, self.photos, self.drawn = folder, photos, 0
        self.ports = {name: free_port() for name in PORTS}
        self.address = f"http://127.0.0.1:{self.ports['port']}/predictions/petclf"
        management = f"http://127.0.0.1:{self.ports['management-port']}"
        self.servers = ("--server", f"{management},http://127.0.0.1:{self.ports['port']}", "--store", "model_store")

    def run(self) -> None:
        self.clear()
        self.first_version()
        with self.server():
            self.first_answer()
            self.second_version()
            self.shadow()
            self.promote()
            self.drift()
            self.roll_back()
        self.end()

    def clear(self) -> None:
        """Begin with an empty folder; only what a tour has made is removed."""
        if self.folder.exists() and not (self.folder / MARK).is_file() and any(self.folder.iterdir()):
            raise TourError(f"{self.folder} holds files that are none of a tour's; name another --folder")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        (self.folder / MARK).touch()

    # --- the chapters

    def first_version(self) -> None:
        tell("Photos", "A label is a folder of photos. These 50 are drawn, so that the tour needs none of yours: suns and moons.")
        self.draw_folder("photos", 50)
        tell(
            "Train",
            "Each photo gets its place (train, validate, test), then the network learns. So few photos teach its last layer only.",
        )
        self.train("1.0.0", "photos")
        tell(
            "Pack",
            "The archive holds the model, the handler, the settings and where all of it comes from. TorchServe loads this one file.",
        )
        self.petclf("build_archive", "--model", "build/petclf.pt")

    def first_answer(self) -> None:
        tell("Ask", "Any client that can send a file can ask. The answer says how sure the model is, and which version answered.")
        photo = self.draw("sun")
        (self.folder / "photo.jpg").write_bytes(photo)
        show(f"curl -T photo.jpg {self.address}")
        print(json.dumps(self.ask(photo)))

    def second_version(self) -> None:
        tell(
            "A better version",
            "50 more photos, and the same steps. (`make retrain` does all that follows here with one command.)",
        )
        self.draw_folder("more", 50)
        self.train("1.1.0", "photos", "more")
        self.petclf("build_archive", "--model", "build/petclf.pt", "--output", "petclf-1.1.0.mar")
        tell(
            "Register", "The new version is loaded beside the live one, and must answer a known photo. Nobody else is sent to it."
        )
        self.petclf("models", "register", "petclf-1.1.0.mar", "--workers", "1", *self.servers)

    def shadow(self) -> None:
        tell("Shadow", f"Both versions get the same {self.photos} photos; clients see the live one's answers only. In production the gateway does "
             "that, here the tour does. Looking at any time is allowed: the test counts it in. Exit code 3 says that more photos are needed.")  # fmt: skip
        self.send(self.photos, versions=("", "/1.1.0"))
        self.petclf("shadow", LOG, "--candidate", "1.1.0", "--share", "100", ends=(0, 3))

    def promote(self) -> None:
        tell("Promote", f"The gate compares both versions on {self.photos} labelled photos, and lets the new one pass if every rule holds. Then it "
             "is live, and would be taken back by itself if it did badly while it is watched. (`unsure` is set on 11 and on 22 photos here, so "
             "that its share is half chance: the tour's gate lets it rise by 0.3, the shipped one by 0.05.)")  # fmt: skip
        self.draw_folder("labelled", self.photos)
        gate = ("--gate", "gate.yaml", *self.servers)
        self.write_gate()
        self.petclf("models", "verify", "1.1.0", "labelled", *gate)
        self.petclf("models", "promote", "1.1.0", "--watch", "5", "--why", "more photos", *gate)

    def drift(self) -> None:
        tell("Drift", "What the new version has answered until now is the reference. Then it gets dark: the next 200 photos have a third of the "
             "light. No label is needed to see that; exit code 1 says that the photos have changed.")  # fmt: skip
        self.send(100)
        shutil.copyfile(self.folder / LOG, self.folder / "reference.jsonl")
        self.send(200, light=0.35)
        self.petclf("drift", LOG, "--reference", "reference.jsonl", "--report", "drift", ends=(1,))

    def roll_back(self) -> None:
        tell(
            "Roll back",
            "The version before is still loaded, so that the way back takes a moment. Everything that was done is kept.",
        )
        self.petclf("models", "rollback", "--why", "the tour ends", *self.servers)
        self.petclf("models", "history", "--store", "model_store")

    def end(self) -> None:
        tell("The end", f"All of it is in {self.folder}: reports/report.html (how good the model is), drift/report.html, model_store/ and the "
             "prediction log. Your own photos: docs/your-own-photos.md.")  # fmt: skip

    # --- what they are made of

    def petclf(self, *words: str, ends: tuple[int, ...] = (0,)) -> None:
        """Run a tool in the folder, as one would type it, and show what it says."""
        show(shlex.join(["petclf", *words]))
        code = subprocess.run([sys.executable, ROOT / "scripts", *words], cwd=self.folder, check=False).returncode
        if code not in ends:
            raise TourError(
                f"`petclf {words[0]}` ended with exit code {code}, for the reason above; all files are in {self.folder}"
            )

    def train(self, version: str, *photos: str) -> None:
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["evaluate"] |= {"scorecard_photos": 0, "baselines": False}
        params["export"]["version"] = version
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        for words in (("manifest", *photos), ("train", "--fresh"), ("fit",), ("evaluate",), ("export",)):
            self.petclf(*words)

    def write_gate(self) -> None:
        rules = yaml.safe_load(GATE.read_text(encoding="utf-8"))
        rules["verify"] |= {"unsure_rise_at_most": 0.3, "unlike_rise_at_most": 0.3}
        (self.folder / "gate.yaml").write_text(yaml.safe_dump(rules, sort_keys=False), encoding="utf-8")

    @contextmanager
    def server(self) -> Iterator[None]:
        tell("Serve", "TorchServe answers on one port, is managed on another, and gives Prometheus its metrics on a third.")
        options = [word for name, port in self.ports.items() for word in (f"--{name}", str(port))]
        words = ["serve", "--model-store", "model_store", "--workers", "1", *options]
        show(f"{shlex.join(['petclf', *words])} > serve.log &")
        log = self.folder / "serve.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, ROOT / "scripts", *words], cwd=self.folder, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, "PETCLF_PREDICTION_LOG": str(self.folder / LOG)},
            )  # fmt: skip
        try:
            while '"ready in ' not in log.read_text(encoding="utf-8"):
                if process.poll() is not None:  # it ends by itself when it does not become ready
                    raise TourError(f"the server did not start; {log} says why")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait()

    def ask(self, photo: bytes, version: str = "", request_id: str = "") -> Any:
        headers = {"Content-Type": "image/jpeg", "X-Request-Id": request_id or str(uuid.uuid4())}
        with open_here(urllib.request.Request(self.address + version, photo, headers), 60) as response:
            return json.load(response)

    def send(self, count: int, light: float = 1.0, versions: tuple[str, ...] = ("",)) -> None:
        """Ask about new photos, four at a time."""
        print(f"\n(sends {count} photos)", flush=True)
        photos = [self.draw(label, light) for label in in_turn(count)]

        def one(photo: bytes) -> None:
            request_id = str(uuid.uuid4())
            for version in versions:
                self.ask(photo, version, request_id)

        with ThreadPoolExecutor(4) as clients:
            list(clients.map(one, photos))
        time.sleep(2)  # workers write the log when the answer is out

    def draw_folder(self, name: str, count: int) -> None:
        for index, label in enumerate(in_turn(count)):
            path = self.folder / name / label / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.draw(label))
        print(f"\n(draws {count} photos into {self.folder / name})", flush=True)

    def draw(self, label: str, light: float = 1.0) -> bytes:
        """Return the next photo, unlike all before."""
        self.drawn += 1
        return draw(label, self.drawn, light)


def draw(label: str, seed: int, light: float = 1.0) -> bytes:
    """Return a JPEG of a sun or a moon over hills."""
    random = np.random.default_rng(seed)
    sky = random.uniform(40, 200, 3) + np.linspace(-30, 30, 150)[:, None, None] + random.normal(0, 8, (150, 200, 3))
    photo = Image.fromarray(sky.clip(0, 255).astype("uint8"))
    pen = ImageDraw.Draw(photo)
    for _ in range(4):
        left, top, wide = (int(random.integers(*among)) for among in ((-60, 180), (100, 145), (60, 160)))
        pen.ellipse([left, top, left + wide, 220], fill=tuple(random.integers(20, 130, 3).tolist()))
    x, y, radius = random.uniform(60, 140), random.uniform(45, 85), random.uniform(22, 36)
    bright = tuple(random.integers(210, 256, 3).tolist())
    if label == "sun":
        for angle in np.arange(0, 2 * np.pi, np.pi / 6):
            pen.line([x, y, x + 1.6 * radius * np.cos(angle), y + 1.6 * radius * np.sin(angle)], fill=bright, width=4)
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=bright)
    if label == "moon":  # what is dark of it
        shift = radius * 0.7
        dark = photo.getpixel((2, 2))
        pen.ellipse([x - radius + shift, y - radius, x + radius + shift, y + radius], fill=dark)
    file = io.BytesIO()
    ImageEnhance.Brightness(photo).enhance(light).save(file, "JPEG", quality=90)
    return file.getvalue()


def in_turn(count: int) -> list[str]:
    return [LABELS[index % len(LABELS)] for index in range(count)]


def tell(title: str, text: str) -> None:
    print(f"\n=== {title}\n" + textwrap.fill(text, WIDTH), flush=True)


def show(command: str) -> None:
    print(f"\n$ {command}", flush=True)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("build/tour"),
        help="folder for all that is made; what an earlier tour left there is removed",
    )
    parser.add_argument("--photos", type=int, default=240, help="photos that both versions are compared on; the gate wants 200")
    args = parser.parse_args(argv)
    try:
        Tour(args.folder.resolve(), args.photos).run()
    except (TourError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
