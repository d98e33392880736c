"""Asks a petclf server about photos, over connections that stay open; retries while the server is busy or away."""

import concurrent.futures
import glob
import http.client
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
UNREACHABLE = "the server cannot be reached"
SERVER = "http://127.0.0.1:8080"
Result = dict[str, Any]  # `photo`, and the answer or `error`
Asked = TypeVar("Asked")
Found = TypeVar("Found")


class UsageError(Exception):
    """Something the user can put right."""


class RefusedError(Exception):
    """The server does not answer this request; the text is its reason, the code is the server's name for it, where it has one."""

    def __init__(self, reason: str, code: str = "") -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True)
class Reply:
    """The body and the headers of an answer, and how long the client waited for it, retries included."""

    data: bytes
    headers: Mapping[str, str]
    milliseconds: float


class Client:
    """Asks one model of one server. Threads may share it."""

    def __init__(
        self,
        server: str = SERVER,
        model: str = "petclf",
        version: str | None = None,  # the server's default version
        *,
        headers: Mapping[str, str] | None = None,  # sent with every request; see `authorization`
        connections: int = 4,
        retries: int = 5,
        timeout: float = 30.0,  # seconds that one attempt may take
        explain: Path | None = None,  # folder for the heat maps of `ask`
    ) -> None:
        self.server = (server if "//" in server else f"http://{server}").rstrip("/")
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--server {server} is no address; write it like http://127.0.0.1:8080")
        self.model = f"{model}/{version}" if version else model
        self.explain = explain
        retry = urllib3.Retry(
            retries, status_forcelist=(429, 503), allowed_methods=None, raise_on_status=False, retry_after_max=30,
            backoff_factor=0.25, backoff_max=30, backoff_jitter=0.5,
        )  # fmt: skip
        self.http = urllib3.PoolManager(maxsize=connections, retries=retry, timeout=timeout)
        self.headers = {"Content-Type": "application/octet-stream", **(headers or {})}

    def ask(self, number: int, name: str) -> Result:
        """Return the answer to a photo, or the reason why there is none."""
        try:
            data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
            answer, _ = self.predict(data)
            if self.explain:
                picture = self.post("explanations", data, "image/png").data
                target = self.explain / f"{number:05d}_{'photo' if name == '-' else Path(name).stem}.png"
                target.write_bytes(picture)  # numbered, because two photos may have the same name
            return {"photo": name, **answer}
        except FAILURES as failure:
            code = getattr(failure, "code", "")
            return {"photo": name, "error": why(failure, name), **({"code": code} if code else {})}

    def predict(self, data: bytes, headers: Mapping[str, str] | None = None) -> tuple[dict[str, Any], Reply]:
        """Return the answer to a photo, and the reply that it came in; raises one of FAILURES."""
        reply = self.post("predictions", data, "application/json", headers)
        answer = json.loads(reply.data)
        if not isinstance(answer, dict):
            raise TypeError("no object")
        return answer, reply

    def post(self, what: str, data: bytes, kind: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Return the reply to `predictions` or `explanations`, which must be of this kind."""
        all_headers = {**self.headers, **(headers or {}), "Accept": kind}
        address = f"{self.server}/{what}/{self.model}"
        started = time.perf_counter()
        response = self.http.request("POST", address, body=data, headers=all_headers, redirect=False)
        milliseconds = (time.perf_counter() - started) * 1000
        if response.status != 200 or not response.headers.get("Content-Type", "").startswith(kind):
            text, code = reason(response)
            raise RefusedError(("no heat map: " if what == "explanations" else "") + text, code)
        return Reply(response.data, response.headers, milliseconds)


FAILURES = (RefusedError, urllib3.exceptions.HTTPError, ValueError, TypeError, OSError)  # what asking about a photo may raise


def why(failure: Exception, name: str) -> str:
    """Return in one sentence why there is no answer to this photo."""
    if isinstance(failure, RefusedError):
        return str(failure)
    if isinstance(failure, urllib3.exceptions.HTTPError):
        return f"{UNREACHABLE}: {root_cause(failure)}"
    if isinstance(failure, OSError):
        return f"cannot use {failure.filename or name}: {failure.strerror}"
    return "the server's answer is no JSON; is it a petclf server?"


def authorization(key_file: Path | None) -> dict[str, str]:
    """Return the header for the key NAME:SECRET, from the environment or a file: other users can read a command line."""
    key = key_file.read_text(encoding="utf-8").strip() if key_file else os.environ.get("PETCLF_API_KEY", "")
    return urllib3.make_headers(basic_auth=key) if key else {}


def reason(response: urllib3.BaseHTTPResponse) -> tuple[str, str]:
    """Return the message of an error and its code: the model and the gateway nest them in `error`; TorchServe has no code of this kind."""
    try:
        content = response.json()
        nested = content.get("error", {})
        return str((nested or content)["message"]), str(nested.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        name = http.client.responses.get(response.status, "")
        return f"the server answered {response.status} {name}".rstrip() + ", without a reason", ""


def root_cause(error: BaseException) -> str:
    """Return the system's words, such as `Connection refused`, without what urllib3 wraps around them."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def find_photos(arguments: list[str]) -> Iterator[str]:
    """Return the name of every photo, in the order in which they were named; `-` is standard input."""
    for argument in arguments:
        path = Path(argument)
        if argument == "-" or path.is_file():
            yield argument
        elif path.is_dir():
            found = [str(file) for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
            if not found:
                raise UsageError(f"no photo in {argument}; known are {', '.join(sorted(SUFFIXES))}")
            yield from found
        else:
            found = [match for match in sorted(glob.glob(argument, recursive=True)) if Path(match).is_file()]  # noqa: PTH207  (also patterns that begin with /)
            if not found:
                raise UsageError(f"no photo at {argument}")
            yield from found


def ask_all(client: Client, photos: Iterable[str], jobs: int) -> Generator[Result, None, None]:
    """Ask about several photos at a time, and return the results in the photos' order."""
    return in_order(client.ask, photos, jobs)


def in_order(ask: Callable[[int, Asked], Found], things: Iterable[Asked], jobs: int) -> Generator[Found, None, None]:
    """Ask about several things at a time, numbered from 1, and yield what was found in their order; few are ever in memory."""
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    waiting: deque[concurrent.futures.Future[Found]] = deque()
    try:
        for number, thing in enumerate(things, 1):
            waiting.append(pool.submit(ask, number, thing))
            if len(waiting) >= jobs * 4:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
