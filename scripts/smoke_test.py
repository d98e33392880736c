#!/usr/bin/env python3
"""Ask a running server a few things and report what is wrong: smoke_test.py [http://127.0.0.1:8080]. Needs Python only.

With the archive at hand (--archive) it also knows the right answer. PETCLF_API_KEY holds the gateway's key, NAME:SECRET.
"""

import argparse
import base64
import http.client
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))  # also where this file is run by its path, without an environment
from handler.model_file import ModelFile, ModelFileError, are_alike, read_archive
from serving.say import ServeError
from serving.store import find_archives

STORE = Path(__file__).parents[1] / "model_store"

GREY = base64.b64decode(  # a PNG of 64x64 grey pixels in 98 bytes
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAKUlEQVR42u3MQREAAAwCIKMb3RD77SAA6VEEAoFAIBAIBAKBQCAQfA8G320AeXC6efoAAAAASUVORK5CYII="
)


class SmokeError(Exception):
    """What is wrong with the server."""


class Target:
    """The server that is asked; the answer to the photo is known if the archive is at hand."""

    def __init__(self, address: str, model: str, archive: Path | None) -> None:
        self.server = urlsplit(address if "//" in address else f"http://{address}")
        self.model = model
        self.known: ModelFile | None = read_archive(archive).model if archive and archive.is_file() else None
        self.photo = self.known.photo if self.known else GREY
        key = os.environ.get("PETCLF_API_KEY", "").encode()
        self.key = {"Authorization": "Basic " + base64.b64encode(key).decode()} if key else {}

    def ask(
        self, path: str, body: bytes | None, kind: str, status: int = 200, content: str = "image/png", accept: str = "*/*"
    ) -> bytes:
        """Return the body of the answer, which must have this status and content type."""
        secure = self.server.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(self.server.hostname or "", self.server.port, timeout=15)
        try:
            method, about = ("GET", {}) if body is None else ("POST", {"Content-Type": content})
            connection.request(method, f"/{path}/{self.model}", body, {"Accept": accept, **about, **self.key})
            response = connection.getresponse()
            answer, found = response.read(), response.headers.get_content_type()
        finally:
            connection.close()
        if (response.status, found) != (status, kind):
            words = " ".join(answer[:200].decode(errors="replace").split())
            raise SmokeError(f"status {response.status}, {found} instead of {status}, {kind}: {words}")
        return answer

    def predict(self, body: bytes, status: int = 200, content: str = "image/png") -> Any:
        return json.loads(self.ask("predictions", body, "application/json", status, content))


def prediction(target: Target) -> str:
    answer = target.predict(target.photo)
    given = list(answer["probabilities"].values())
    if abs(sum(given) - 1) > 1e-3 or answer["confidence"] != max(given):
        raise SmokeError(f"the probabilities do not fit together: {answer}")
    if target.known and not target.known.knows(given):
        raise SmokeError(f"a known photo is answered {given} instead of {target.known.answers[0]}")
    return f"{answer['label']} ({answer['confidence']:.1%}), {answer['model']['name']} {answer['model']['version']}"


def same(one: Any, other: Any) -> bool:
    """Tell whether both answers may be about the same photo; other clients' photos in a batch change the last digit."""
    return are_alike(one["probabilities"].values(), other["probabilities"].values())


def form(target: Target) -> str:
    """Send photos as a browser or `curl -F` sends them: TorchServe takes another way for small ones."""
    head = b'--petclf\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
    for photo in (GREY, target.photo + bytes(65_536)):
        body = head + photo + b"\r\n--petclf--\r\n"
        answers = target.predict(body, content="multipart/form-data; boundary=petclf"), target.predict(photo)
        if not same(*answers):
            raise SmokeError(f"a form of {len(body)} bytes is answered {answers[0]}, its photo alone {answers[1]}")
    return "a file of a hundred bytes, and one of more than 64 KB"


def many(target: Target) -> str:
    text = base64.b64encode(target.photo).decode()
    body = json.dumps({"instances": [{"image": text}, {"image": "!"}, text]}).encode()
    first, second, third = target.predict(body, content="application/json")["predictions"]
    if not same(first, third) or second["error"]["code"] != "bad_request":
        raise SmokeError("many photos at once are not answered each in its place")
    return "3 instances, one of them refused in its place"


def refusal(target: Target) -> str:
    code = target.predict(target.photo[:50], status=400)["error"]["code"]
    if code != "not_an_image":
        raise SmokeError(f"a damaged photo is refused as {code}")
    return "a damaged photo: 400 not_an_image"


def explanation(target: Target) -> str:
    body = target.ask("explanations", target.photo, "image/png", accept="image/png")
    if not body.startswith(b"\x89PNG"):
        raise SmokeError("the heat map is no PNG")
    return f"a heat map of {len(body):,} bytes"


def page(target: Target) -> str:
    body = target.ask("predictions", None, "text/html", accept="text/html")
    if b"<title>" not in body:
        raise SmokeError("the page has no title")
    return f"the page, {len(body):,} bytes"


CHECKS = (prediction, form, many, refusal, explanation, page)


def attempt(check: Callable[[Target], str], target: Target) -> tuple[bool, str]:
    """Return whether the check passes, and what it says."""
    try:
        return True, check(target)
    except (OSError, http.client.HTTPException, SmokeError, ValueError, KeyError, TypeError) as error:
        return False, str(error) or type(error).__name__


def live_archive() -> Path | None:
    try:
        return find_archives(STORE)[0].path
    except ServeError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:8080", help="address of TorchServe or of its gateway")
    parser.add_argument("--model", default="petclf", help="name of the model")
    parser.add_argument("--archive", type=Path, help="archive that is served; what is live in model_store/, if there is one")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="how long the server may take to come up")
    args = parser.parse_args()
    try:
        target = Target(args.address, args.model, args.archive or live_archive())
    except ModelFileError as error:
        sys.exit(f"error: {args.archive} {error}")
    end = time.monotonic() + args.wait
    while not (tried := attempt(prediction, target))[0]:
        if time.monotonic() > end:
            sys.exit(f"error: {args.address}: no right answer within {args.wait:g} seconds: {tried[1]}; is the server running?")
        time.sleep(0.2)
    passed = []
    for check in CHECKS:
        started = time.perf_counter()
        right, words = attempt(check, target)
        passed.append(right)
        print(f"{'ok' if right else 'FAILED':<7} {check.__name__:<12} {words}  [{(time.perf_counter() - started) * 1000:.0f} ms]")
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
