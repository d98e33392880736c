#!/usr/bin/env python3
"""Ask a petclf server about photos: predict.py photo.jpg folder/ 'more/*.png' -.

Exit code 0: every photo was answered; 1: some were not; 2: the command was wrong, or the server is not there.
"""

import argparse
import concurrent.futures
import csv
import glob
import itertools
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    import requests
    from tqdm import tqdm
    from urllib3.util import Retry
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is not installed here; `make setup`, then .venv/bin/python {sys.argv[0]}", file=sys.stderr)
    sys.exit(2)

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
UNREACHABLE = "the server cannot be reached"


class UsageError(Exception):
    """Something the user can put right."""


@dataclass(frozen=True)
class Result:
    """The answer to one photo, or the reason why there is none."""

    name: str
    answer: dict[str, Any] | None = None
    error: str = ""
    picture: bytes | None = None


class Client:
    """Asks one server over connections that stay open, and retries when it is busy or away."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.server = (args.server if "//" in args.server else f"http://{args.server}").rstrip("/")
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"--server {args.server} is no address; write it like http://127.0.0.1:8080")
        self.model = f"{args.model}/{args.version}" if args.version else args.model
        self.timeout, self.explain = args.timeout, bool(args.explain)
        retry = Retry(
            args.retries, status_forcelist=(429, 503), allowed_methods=None, raise_on_status=False, retry_after_max=30,
            backoff_factor=0.25, backoff_max=30, backoff_jitter=0.5,
        )  # fmt: skip
        self.session = requests.Session()
        self.session.mount(f"{parts.scheme}://", requests.adapters.HTTPAdapter(pool_maxsize=args.jobs, max_retries=retry))
        self.session.headers["Content-Type"] = "application/octet-stream"
        self.session.auth = credentials(args.key_file)

    def ask(self, name: str, path: Path | None) -> Result:
        """Return what the server says about one photo, or why there is no answer; standard input has no path."""
        try:
            data = path.read_bytes() if path else sys.stdin.buffer.read()
            answer = self.post("predictions", data, "application/json").json()
            picture = self.post("explanations", data, "image/png").content if self.explain else None
            return Result(name, answer, picture=picture)
        except requests.HTTPError as refusal:
            return Result(name, error=str(refusal))
        except requests.JSONDecodeError:
            return Result(name, error="the server's answer is no JSON; is it a petclf server?")
        except requests.RequestException as error:
            return Result(name, error=f"{UNREACHABLE}: {root_cause(error)}")
        except OSError as error:
            return Result(name, error=f"cannot be read: {error.strerror}")

    def post(self, what: str, data: bytes, kind: str) -> requests.Response:
        response = self.session.post(
            f"{self.server}/{what}/{self.model}", data, headers={"Accept": kind}, timeout=self.timeout, allow_redirects=False
        )
        if response.status_code != 200 or not response.headers.get("Content-Type", "").startswith(kind):
            raise requests.HTTPError(("no heat map: " if what == "explanations" else "") + reason(response))
        return response


def credentials(key_file: Path | None) -> requests.auth.HTTPBasicAuth | None:
    """Return the key NAME:SECRET from the environment or a file: other users can read a command line."""
    key = os.environ.get("PETCLF_API_KEY", "").encode()
    if key_file:
        try:
            key = key_file.read_bytes().strip()
        except OSError as error:
            raise UsageError(f"cannot read --key-file {key_file}: {error.strerror}") from None
    name, _, secret = key.partition(b":")
    return requests.auth.HTTPBasicAuth(name, secret) if key else None


def reason(response: requests.Response) -> str:
    """Return the message of an error: the model and the gateway nest it in `error`, TorchServe does not."""
    try:
        content = response.json()
        return str(content.get("error", content)["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"the server answered with status {response.status_code}"


def root_cause(error: BaseException) -> str:
    """Return the system's words, such as `Connection refused`, without what requests and urllib3 wrap around them."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


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


def ask_all(client: Client, photos: Iterable[tuple[str, Path | None]], jobs: int) -> Iterator[Result]:
    """Ask about several photos at a time, and return the results in the photos' order; only a few are ever in memory."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting: deque[concurrent.futures.Future[Result]] = deque()
        try:
            for name, path in photos:
                waiting.append(pool.submit(client.ask, name, path))
                if len(waiting) >= jobs * 4:
                    yield waiting.popleft().result()
            yield from (future.result() for future in waiting)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def watch(results: Iterable[Result], args: argparse.Namespace, tally: Counter[str]) -> Iterator[Result]:
    """Pass the results on, save heat maps, and count failures; stop if the server has never answered."""
    for number, result in enumerate(results, 1):
        tally["failed"] += result.answer is None
        if result.error.startswith(UNREACHABLE) and tally["failed"] == number:
            raise UsageError(f"{args.server}: {result.error}; is it running?")
        if result.picture is not None:
            stem = Path(result.name).stem if result.name != "-" else "photo"
            (args.explain / f"{number:05d}_{stem}.png").write_bytes(result.picture)  # two photos may have the same name
        yield result


def write_table(results: Iterable[Result], width: int) -> None:
    print(f"{'photo':<{width}}  {'label':<12}  {'confidence':>10}  note")
    for result in results:
        name = result.name if len(result.name) <= width else "..." + result.name[-(width - 3) :]
        if (answer := result.answer) is None:
            print(f"{name:<{width}}  {'-':<12}  {'-':>10}  error: {result.error}")
        else:
            note = f"unsure: {answer['unsure_because'].replace('_', ' ')}" if answer["unsure"] else ""
            print(f"{name:<{width}}  {answer['label']:<12}  {answer['confidence']:>10.2%}  {note}".rstrip())


def write_json(results: Iterable[Result]) -> None:
    for result in results:
        print(json.dumps({"photo": result.name, **(result.answer or {"error": result.error})}, ensure_ascii=False))


def write_csv(results: Iterator[Result]) -> None:
    """Write the header once the first answer has told the labels; failures before it wait."""
    begin = []
    for result in results:
        begin.append(result)
        if result.answer:
            break
    labels = begin[-1].answer["probabilities"] if begin and begin[-1].answer else {}
    names = ["photo", "label", "confidence", *map(column, labels), "unsure_because", "version", "error"]
    writer = csv.DictWriter(sys.stdout, names, extrasaction="ignore")
    writer.writeheader()
    for result in itertools.chain(begin, results):
        answer = result.answer or {"probabilities": {}, "model": {}}
        probabilities = {column(label): value for label, value in answer["probabilities"].items()}
        writer.writerow({"photo": result.name, "error": result.error, **answer, **answer["model"], **probabilities})


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
    watched = watch(ask_all(client, photos, args.jobs), args, tally)
    # no bar where nobody looks, or where it would mix with the answers
    results = iter(tqdm(watched, total=len(photos), unit=" photos", disable=sys.stdout.isatty() or None))
    if args.json:
        write_json(results)
    elif args.csv:
        write_csv(results)
    else:
        write_table(results, min(48, max(len(name) for name, _ in photos)))
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
