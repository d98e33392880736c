#!/usr/bin/env python3
"""Ask a petclf server about photos: predict.py photo.jpg folder/ 'more/*.png' -.

Exit code 0: every photo was answered; 1: some were not; 2: the command was wrong, or the server is not there.
"""

import argparse
import concurrent.futures
import contextlib
import csv
import glob
import itertools
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    import urllib3
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed here; `make setup`, then .venv/bin/python {sys.argv[0]}", file=sys.stderr)
    sys.exit(2)

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
UNREACHABLE = "the server cannot be reached"
Result = dict[str, Any]  # a line of --json: `photo`, and the answer or `error`


class UsageError(Exception):
    """Something the user can put right."""


class RefusedError(Exception):
    """The server does not answer this request; the text is its reason."""


class Client:
    """Asks one server over connections that stay open, and retries when it is busy or away."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.server = (args.server if "//" in args.server else f"http://{args.server}").rstrip("/")
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--server {args.server} is no address; write it like http://127.0.0.1:8080")
        self.model = f"{args.model}/{args.version}" if args.version else args.model
        self.explain = args.explain
        retry = urllib3.Retry(
            args.retries, status_forcelist=(429, 503), allowed_methods=None, raise_on_status=False, retry_after_max=30,
            backoff_factor=0.25, backoff_max=30, backoff_jitter=0.5,
        )  # fmt: skip
        self.http = urllib3.PoolManager(maxsize=args.jobs, retries=retry, timeout=args.timeout)
        self.headers = {"Content-Type": "application/octet-stream", **authorization(args.key_file)}

    def ask(self, number: int, name: str) -> Result:
        """Return the answer to a photo, or the reason why there is none."""
        try:
            data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
            answer = self.post("predictions", data, "application/json").json()
            if self.explain:
                picture = self.post("explanations", data, "image/png").data
                target = self.explain / f"{number:05d}_{'photo' if name == '-' else Path(name).stem}.png"
                target.write_bytes(picture)  # numbered, because two photos may have the same name
            return {"photo": name, **answer}
        except RefusedError as refusal:
            error = str(refusal)
        except urllib3.exceptions.HTTPError as cause:
            error = f"{UNREACHABLE}: {root_cause(cause)}"
        except (ValueError, TypeError):
            error = "the server's answer is no JSON; is it a petclf server?"
        except OSError as cause:
            error = f"cannot use {cause.filename or name}: {cause.strerror}"
        return {"photo": name, "error": error}

    def post(self, what: str, data: bytes, kind: str) -> urllib3.BaseHTTPResponse:
        headers = {**self.headers, "Accept": kind}
        response = self.http.request("POST", f"{self.server}/{what}/{self.model}", body=data, headers=headers, redirect=False)
        if response.status != 200 or not response.headers.get("Content-Type", "").startswith(kind):
            raise RefusedError(("no heat map: " if what == "explanations" else "") + reason(response))
        return response


def authorization(key_file: Path | None) -> dict[str, str]:
    """Return the header for the key NAME:SECRET, from the environment or a file: other users can read a command line."""
    key = key_file.read_text(encoding="utf-8").strip() if key_file else os.environ.get("PETCLF_API_KEY", "")
    return urllib3.make_headers(basic_auth=key) if key else {}


def reason(response: urllib3.BaseHTTPResponse) -> str:
    """Return the message of an error: the model and the gateway nest it in `error`, TorchServe does not."""
    try:
        content = response.json()
        return str(content.get("error", content)["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"the server answered with status {response.status}"


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
    """Ask about several photos at a time, and return the results in the photos' order; only a few are ever in memory."""
    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    waiting: deque[concurrent.futures.Future[Result]] = deque()
    try:
        for number, name in enumerate(photos, 1):
            waiting.append(pool.submit(client.ask, number, name))
            if len(waiting) >= jobs * 4:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def count_failures(results: Iterable[Result], tally: Counter[str], server: str) -> Iterator[Result]:
    """Pass the results on; stop if the server has never answered, because then it will not answer the rest."""
    for result in results:
        tally["failed" if "error" in result else "answered"] += 1
        if not tally["answered"] and result["error"].startswith(UNREACHABLE):
            raise UsageError(f"{server}: {result['error']}; is it running?")
        yield result


def write_table(results: Iterable[Result], width: int) -> None:
    print(f"{'photo':<{width}}  {'label':<12}  {'confidence':>10}  note")
    for result in results:
        name = result["photo"] if len(result["photo"]) <= width else "..." + result["photo"][-(width - 3) :]
        if "error" in result:
            print(f"{name:<{width}}  {'-':<12}  {'-':>10}  error: {result['error']}")
        else:
            note = f"unsure: {result['unsure_because'].replace('_', ' ')}" if result["unsure"] else ""
            print(f"{name:<{width}}  {result['label']:<12}  {result['confidence']:>10.2%}  {note}".rstrip())


def write_json(results: Iterable[Result]) -> None:
    for result in results:
        print(json.dumps(result, ensure_ascii=False))


def write_csv(results: Iterator[Result]) -> None:
    """Write the header once the first answer has told the labels; failures before it wait."""
    begin: list[Result] = []
    while (not begin or "error" in begin[-1]) and (result := next(results, None)):
        begin.append(result)
    labels = begin[-1].get("probabilities", {})
    names = ["photo", "label", "confidence", *map(column, labels), "unsure_because", "version", "error"]
    writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore")
    writer.writeheader()
    for result in itertools.chain(begin, results):
        probabilities = {column(label): value for label, value in result.get("probabilities", {}).items()}
        writer.writerow({**result, **result.get("model", {}), **probabilities})


def column(label: str) -> str:
    return f"probability_{label}"  # a label may be called like another column


def run(args: argparse.Namespace) -> int:
    client = Client(args)
    listed = [line.strip() for line in sys.stdin if line.strip()] if args.list else []
    photos = list(find_photos([*args.photos, *listed]))
    if not photos:
        raise UsageError("no photo given; name photos, folders, or - for standard input")
    if args.explain:
        args.explain.mkdir(parents=True, exist_ok=True)
    tally: Counter[str] = Counter()
    with contextlib.closing(ask_all(client, photos, args.jobs)) as asked:
        # no bar where nobody looks, or where it would mix with the answers
        bar = tqdm(asked, total=len(photos), unit=" photos", disable=sys.stdout.isatty() or None)
        results = count_failures(bar, tally, client.server)
        if args.json:
            write_json(results)
        elif args.csv:
            write_csv(results)
        else:
            write_table(results, min(48, max(map(len, photos))))
    if tally["failed"]:
        print(f"{tally['failed']} of {len(photos)} photos were not answered", file=sys.stderr)
    return 1 if tally["failed"] else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("photos", nargs="*", help="photos, folders, patterns, or - for one photo on standard input")
    parser.add_argument("--list", action="store_true", help="standard input names the photos, one a line")
    parser.add_argument("--server", default="http://127.0.0.1:8080", help="address of TorchServe or of its gateway")
    parser.add_argument("--model", default="petclf", help="name of the model")
    parser.add_argument("--version", help="version of the model; the server's default version if none is named")
    parser.add_argument("--key-file", type=Path, help="file with the gateway's key, NAME:SECRET; or PETCLF_API_KEY holds it")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print one JSON object a line")
    shape.add_argument("--csv", action="store_true", help="print CSV, with a column for each label's probability")
    parser.add_argument("--explain", type=Path, metavar="FOLDER", help="write a heat map of each photo into this folder")
    parser.add_argument("--jobs", type=int, default=4, help="photos at a time")
    parser.add_argument("--retries", type=int, default=5, help="retries of a request while the server is busy or away")
    parser.add_argument("--timeout", type=float, default=30, help="seconds to wait for one answer")
    args = parser.parse_args(argv)
    if args.jobs < 1 or args.retries < 0 or args.timeout <= 0:
        parser.error("--jobs must be at least 1, --retries at least 0, --timeout more than 0")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    try:
        sys.exit(run(args))
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UsageError, OSError) as error:
        reason = f"cannot use {error.filename or 'standard output'}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        os._exit(130)  # photos that are being asked about need not be waited for


if __name__ == "__main__":
    main()
