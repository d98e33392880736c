#!/usr/bin/env python3
"""Ask a petclf server about photos: predict.py photo.jpg folder/ 'more/*.png' -. Needs Python only.

Exit code 0: every photo was answered; 1: some were not; 2: the command was wrong, or the server is not there.
"""

import argparse
import base64
import concurrent.futures
import csv
import glob
import http.client
import json
import os
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
BUSY = (429, 503)
LONGEST_PAUSE = 30.0


class UsageError(Exception):
    """Something the user can put right."""


@dataclass(frozen=True)
class Result:
    """What became of one photo."""

    name: str
    answer: dict[str, Any] | None = None
    error: str = ""
    picture: bytes | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"photo": self.name, **(self.answer or {"error": self.error})}


class Client:
    """Asks one server, each thread over a connection of its own that stays open."""

    def __init__(self, args: argparse.Namespace) -> None:
        address = args.server if "//" in args.server else f"http://{args.server}"
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--server {args.server} is no address; write it like http://127.0.0.1:8080")
        self.kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.host, self.port = parts.hostname, parts.port
        version = f"/{args.version}" if args.version else ""
        self.paths = {
            "predictions": f"/predictions/{args.model}{version}",
            "explanations": f"/explanations/{args.model}{version}",
        }
        self.timeout, self.retries, self.explain = args.timeout, args.retries, bool(args.explain)
        self.headers = {"Content-Type": "application/octet-stream", **authorization(args.key_file)}
        self.local = threading.local()

    def ask(self, name: str, data: bytes) -> Result:
        """Return what the server says of one photo; trying again is for what may pass."""
        try:
            status, kind, body = self.post(self.paths["predictions"], data)
            if status != 200 or kind != "application/json":
                return Result(name, error=explain_error(status, body))
            picture = None
            if self.explain:
                status, kind, picture = self.post(self.paths["explanations"], data, Accept="image/png")
                if (status, kind) != (200, "image/png"):
                    return Result(name, error=f"no heat map: {explain_error(status, picture)}")
            return Result(name, json.loads(body), picture=picture)
        except (OSError, http.client.HTTPException) as error:
            return Result(
                name,
                error=f"the server cannot be reached: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}",
            )
        except ValueError:
            return Result(name, error="the server's answer is no JSON; is it a petclf server?")

    def post(self, path: str, data: bytes, **headers: str) -> tuple[int, str, bytes]:
        """Send until there is an answer that will not get better by waiting."""
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            pause = min(LONGEST_PAUSE, 0.25 * 2**attempt) * random.uniform(0.5, 1.5)  # not all clients at the same moment
            try:
                connection = self.connection()
                connection.request("POST", path, data, {**self.headers, **headers})
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                self.close()
                if last:
                    raise
            else:
                if response.will_close:
                    self.close()
                if response.status not in BUSY or last:
                    return response.status, response.headers.get_content_type(), body
                wished = response.headers.get("Retry-After", "")
                pause = min(LONGEST_PAUSE, max(pause, float(wished))) if wished.isdecimal() else pause
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def connection(self) -> http.client.HTTPConnection:
        if getattr(self.local, "connection", None) is None:
            self.local.connection = self.kind(self.host, self.port, timeout=self.timeout)
        connection: http.client.HTTPConnection = self.local.connection
        return connection

    def close(self) -> None:
        if getattr(self.local, "connection", None) is not None:
            self.local.connection.close()
            self.local.connection = None


def authorization(key_file: Path | None) -> dict[str, str]:
    """Return the header for a key NAME:SECRET, from the environment or a file: a command line is no place for it."""
    key = os.environ.get("PETCLF_API_KEY", "")
    if key_file:
        try:
            key = key_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UsageError(f"cannot read --key-file {key_file}: {error.strerror}") from None
    return {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()} if key else {}


def explain_error(status: int, body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered with status {status}"


def find_photos(arguments: list[str]) -> Iterator[tuple[str, Path | None]]:
    """Return name and path of every photo, in the order in which they were named; `-` is standard input."""
    for argument in arguments:
        path = Path(argument)
        if argument == "-":
            yield "-", None
        elif path.is_dir():
            found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
            if not found:
                raise UsageError(f"no photo in {argument}; known are {', '.join(sorted(SUFFIXES))}")
            yield from ((str(file), file) for file in found)
        elif path.is_file():
            yield argument, path
        else:
            matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  (also patterns that begin with /)
            if not matches:
                raise UsageError(f"no photo at {argument}")
            yield from ((match, Path(match)) for match in matches if Path(match).is_file())


def answers(client: Client, photos: Iterable[tuple[str, Path | None]], jobs: int) -> Iterator[Result]:
    """Ask about several photos at a time, and return the results in the photos' order; only a few are ever in memory."""

    def one(name: str, path: Path | None) -> Result:
        try:
            data = path.read_bytes() if path else sys.stdin.buffer.read()
        except OSError as error:
            return Result(name, error=f"cannot be read: {error.strerror}")
        return client.ask(name, data)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting: deque[concurrent.futures.Future[Result]] = deque()
        try:
            for name, path in photos:
                waiting.append(pool.submit(one, name, path))
                if len(waiting) >= jobs * 4:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def table(output: TextIO, width: int) -> Callable[[Result], None]:
    output.write(f"{'photo':<{width}}  {'label':<12}  {'confidence':>10}  note\n")

    def write(result: Result) -> None:
        name = result.name if len(result.name) <= width else "..." + result.name[-(width - 3) :]
        if result.answer is None:
            output.write(f"{name:<{width}}  {'-':<12}  {'-':>10}  error: {result.error}\n")
            return
        note = f"unsure: {result.answer['unsure_because'].replace('_', ' ')}" if result.answer["unsure"] else ""
        output.write(
            f"{name:<{width}}  {result.answer['label']:<12}  {result.answer['confidence']:>10.2%}  {note}".rstrip() + "\n"
        )

    return write


def json_lines(output: TextIO) -> Callable[[Result], None]:
    return lambda result: print(json.dumps(result.as_dict(), ensure_ascii=False), file=output)


def csv_lines(output: TextIO) -> Callable[[Result], None]:
    writer = csv.writer(output)
    writer.writerow(["photo", "label", "confidence", "unsure_because", "version", "error"])

    def write(result: Result) -> None:
        answer = result.answer
        if answer is None:
            writer.writerow([result.name, "", "", "", "", result.error])
        else:
            version = answer["model"]["version"]
            writer.writerow([result.name, answer["label"], answer["confidence"], answer["unsure_because"] or "", version, ""])

    return write


class Progress:
    """A line on the terminal that tells how far it is; nothing where nobody looks."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.started, self.told = total, 0, time.monotonic(), 0.0
        self.shown = sys.stderr.isatty() and not sys.stdout.isatty()

    def step(self) -> None:
        self.done += 1
        now = time.monotonic()
        if self.shown and (now - self.told > 0.1 or self.done == self.total):
            self.told = now
            rate = self.done / max(1e-6, now - self.started)
            filled = 24 * self.done // max(1, self.total)
            print(
                f"\r{'█' * filled}{'░' * (24 - filled)} {self.done}/{self.total}  {rate:.0f} photos/s ", end="", file=sys.stderr
            )
            if self.done == self.total:
                print(file=sys.stderr)


def save_picture(folder: Path, result: Result, number: int) -> None:
    """Write the heat map under a name that two photos of the same name do not share."""
    stem = Path(result.name).stem if result.name != "-" else "photo"
    target = folder / f"{number:05d}_{stem}.png"
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_bytes(result.picture or b"")
    temporary.replace(target)


def run(args: argparse.Namespace) -> int:
    client = Client(args)
    photos = list(
        find_photos([*args.photos, *(line.strip() for line in sys.stdin if line.strip())] if args.list else args.photos)
    )
    if not photos:
        raise UsageError("no photo given; name photos, folders, or - for standard input")
    if args.explain:
        args.explain.mkdir(parents=True, exist_ok=True)
    width = min(48, max(len(name) for name, _ in photos))
    write = json_lines(sys.stdout) if args.json else csv_lines(sys.stdout) if args.csv else table(sys.stdout, width)
    progress, failed = Progress(len(photos)), 0
    for number, result in enumerate(answers(client, photos, args.jobs), 1):
        if result.error.startswith("the server cannot be reached") and failed == number - 1:
            raise UsageError(
                f"{args.server}: {result.error}; is it running?"
            )  # nothing was ever answered: no need to try them all
        failed += result.answer is None
        write(result)
        if result.picture is not None:
            save_picture(args.explain, result, number)
        progress.step()
    if failed:
        print(f"{failed} of {len(photos)} photos were not answered", file=sys.stderr)
    return 1 if failed else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", nargs="*", help="photos, folders, patterns, or - for one photo on standard input")
    parser.add_argument("--list", action="store_true", help="standard input names the photos, one a line")
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--model", default="petclf")
    parser.add_argument("--version", default="", help="ask this version instead of the default one")
    parser.add_argument("--key-file", type=Path, help="a file with NAME:SECRET (or PETCLF_API_KEY in the environment)")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON object a line")
    shape.add_argument("--csv", action="store_true")
    parser.add_argument("--explain", type=Path, metavar="FOLDER", help="write a heat map of each photo there")
    parser.add_argument("--jobs", type=int, default=4, help="photos at a time")
    parser.add_argument("--retries", type=int, default=5, help="when the server is busy or away")
    parser.add_argument("--timeout", type=float, default=30, help="seconds for one answer")
    args = parser.parse_args(argv)
    if args.jobs < 1 or args.retries < 0 or args.timeout <= 0:
        parser.error("--jobs must be at least 1, --retries at least 0, --timeout more than 0")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        sys.exit(run(args))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        os._exit(130)  # photos that are being asked about need not be waited for


if __name__ == "__main__":
    main()
