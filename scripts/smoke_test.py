#!/usr/bin/env python3
"""Ask a running server a few things and report what is wrong: smoke_test.py [http://127.0.0.1:8080]. Needs Python only.

With the archive at hand (--archive) it also knows the right answer.
"""

import argparse
import base64
import http.client
import json
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))  # also where this file is run by its path, without an environment
from handler.model_file import ModelFile, ModelFileError, read_archive


class SmokeError(Exception):
    """What is wrong with the server."""


@dataclass(frozen=True)
class Known:
    """A photo, and the model that knows its answer; none where the archive is not at hand."""

    photo: bytes
    model: ModelFile | None = None


class Target:
    """The server that is asked."""

    def __init__(self, address: str, model: str, key: str | None) -> None:
        parts = urlsplit(address if "//" in address else f"http://{address}")
        self.secure = parts.scheme == "https"
        self.host, self.port = parts.hostname or "", parts.port
        self.model = model
        self.headers = {"Authorization": "Basic " + base64.b64encode(key.encode()).decode()} if key else {}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
        """Return status, content type and body."""
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=15)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, {**self.headers, **named})
            response = connection.getresponse()
            return response.status, response.headers.get_content_type(), response.read()
        finally:
            connection.close()

    def predict(self, body: bytes, expected: int = 200, path: str | None = None, **headers: str) -> Any:
        status, kind, answer = self.ask("POST", path or f"/predictions/{self.model}", body, **headers)
        if status != expected or kind != "application/json":
            raise SmokeError(
                f"status {status}, {kind} instead of {expected}, application/json: {answer[:200].decode(errors='replace')}"
            )
        return json.loads(answer)


def check_prediction(target: Target, known: Known) -> str:
    answer = target.predict(known.photo, Content_Type="image/png")
    given = list(answer["probabilities"].values())
    if abs(sum(given) - 1) > 1e-3 or answer["confidence"] != max(given):
        raise SmokeError(f"the probabilities do not fit together: {answer}")
    if known.model and not known.model.knows(given):
        raise SmokeError(f"a known photo is answered {given} instead of {known.model.answers[0]}")
    return f"{answer['label']} ({answer['confidence']:.1%}), {answer['model']['name']} {answer['model']['version']}"


def check_form(target: Target, known: Known) -> str:
    small, large = (form_answer(target, photo) for photo in (grey_png(64), known.photo + bytes(65_536)))
    return f"{small} as a file of a few hundred bytes, {large} of more than 64 KB"


def form_answer(target: Target, photo: bytes) -> str:
    """Return the label of a photo that is sent as a browser or `curl -F` sends it."""
    head = b'--petclf\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
    body = head + photo + b"\r\n--petclf--\r\n"
    answer = target.predict(body, Content_Type="multipart/form-data; boundary=petclf")
    plain = target.predict(photo, Content_Type="image/png")
    if answer["probabilities"] != plain["probabilities"]:
        raise SmokeError(f"a form of {len(body)} bytes is answered {answer['probabilities']} instead of {plain['probabilities']}")
    return str(answer["label"])


def check_many(target: Target, known: Known) -> str:
    text = base64.b64encode(known.photo).decode()
    body = json.dumps({"instances": [{"image": text}, {"image": "!"}, text]}).encode()
    first, second, third = target.predict(body, Content_Type="application/json")["predictions"]
    if first["probabilities"] != third["probabilities"] or second["error"]["code"] != "bad_request":
        raise SmokeError("many photos at once are not answered each in its place")
    return "3 instances, one of them refused in its place"


def check_refusal(target: Target, known: Known) -> str:
    answer = target.predict(known.photo[:50], expected=400, Content_Type="image/png")
    if answer["error"]["code"] != "not_an_image":
        raise SmokeError(f"a damaged photo is refused as {answer['error']['code']}")
    return "a damaged photo: 400 not_an_image"


def check_explanation(target: Target, known: Known) -> str:
    path = f"/explanations/{target.model}"
    status, kind, body = target.ask("POST", path, known.photo, Content_Type="image/png", Accept="image/png")
    if (status, kind) != (200, "image/png") or not body.startswith(b"\x89PNG"):
        raise SmokeError(f"status {status}, {kind} instead of 200, image/png")
    return f"a heat map of {len(body):,} bytes"


def check_page(target: Target, _: Known) -> str:
    status, kind, body = target.ask("GET", f"/predictions/{target.model}", Accept="text/html")
    if (status, kind) != (200, "text/html") or b"<title>" not in body:
        raise SmokeError(f"status {status}, {kind} instead of 200, text/html")
    return f"the page, {len(body):,} bytes"


CHECKS: dict[str, Callable[[Target, Known], str]] = {
    "prediction": check_prediction,
    "form": check_form,
    "many at once": check_many,
    "refusal": check_refusal,
    "explanation": check_explanation,
    "page": check_page,
}


def known_photo(archive: Path) -> Known:
    """Return the archive's golden photo; without an archive a grey square, whose answer nobody knows."""
    if not archive.is_file():
        return Known(grey_png(64))
    model = read_archive(archive).model
    return Known(model.photo, model)


def grey_png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes([128]) * side for _ in range(side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def wait_for(target: Target, known: Known, seconds: float) -> None:
    """Wait until the server answers; what it says last is told if it never does."""
    end = time.monotonic() + seconds
    while True:
        try:
            check_prediction(target, known)
            return
        except (OSError, http.client.HTTPException, SmokeError, ValueError, KeyError) as error:
            if time.monotonic() > end:
                reason = str(error) or type(error).__name__
                raise SmokeError(f"no right answer within {seconds:g} seconds: {reason}; is the server running?") from None
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:8080")
    parser.add_argument("--model", default="petclf")
    parser.add_argument("--archive", type=Path, default=Path(__file__).parents[1] / "model_store" / "petclf.mar")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for the server to come up")
    args = parser.parse_args()
    target = Target(args.address, args.model, os.environ.get("PETCLF_API_KEY"))
    failed = 0
    try:
        known = known_photo(args.archive)
        wait_for(target, known, args.wait)
    except (SmokeError, ModelFileError) as error:
        named = args.archive if isinstance(error, ModelFileError) else f"{args.address}:"
        print(f"error: {named} {error}", file=sys.stderr)
        sys.exit(1)
    for name, check in CHECKS.items():
        started = time.perf_counter()
        try:
            result = check(target, known)
            print(f"ok      {name:<13} {result}  [{(time.perf_counter() - started) * 1000:.0f} ms]")
        except (OSError, http.client.HTTPException, SmokeError, ValueError, KeyError, TypeError) as error:
            failed += 1
            print(f"FAILED  {name:<13} {error}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
