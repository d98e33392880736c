"""What the commands have in common: the options that name a server, a progress bar, and how they end."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

from operate.client import SERVER, Client, UsageError, authorization  # isort: skip  (a missing urllib3 is told before a missing tqdm)
from tqdm import tqdm

from operate.errors import NotDoneError

Thing = TypeVar("Thing")


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Let a command be told which server it asks, and how patiently."""
    parser.add_argument("--server", default=SERVER, help="address of TorchServe or of its gateway")
    parser.add_argument("--model", default="petclf", help="name of the model")
    parser.add_argument("--version", help="version of the model; the server's default version if none is named")
    parser.add_argument("--key-file", type=Path, help="file with the gateway's key, NAME:SECRET; or PETCLF_API_KEY holds it")
    parser.add_argument("--jobs", type=whole(1), default=4, help="photos at a time")
    parser.add_argument("--retries", type=whole(0), default=5, help="retries of a request while the server is busy or away")
    parser.add_argument("--timeout", type=seconds, default=30, help="seconds to wait for one answer")


def client_of(args: argparse.Namespace, explain: Path | None = None) -> Client:
    """Return the client that these options ask for."""
    return Client(
        args.server, args.model, args.version, headers=authorization(args.key_file), connections=args.jobs, retries=args.retries,
        timeout=args.timeout, explain=explain,
    )  # fmt: skip


def whole(least: int) -> Callable[[str], int]:
    """Return what reads a whole number of at least this."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is no whole number of at least {least}")
        return int(text)

    return number


def seconds(text: str) -> float:
    """Read a time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0")
    return value


def progress(things: Iterable[Thing], total: int, shown: bool = True, kept: bool = True) -> Iterator[Thing]:
    """Pass things on and show on a terminal how far they are; the bar stays there at the end, if it is to be kept."""
    return iter(tqdm(things, total=total, unit=" photos", disable=None if shown else True, leave=kept))


def print_above(line: str) -> None:
    """Print a line on a terminal, above the bar that may be there."""
    tqdm.write(line)


def run_command(run: Callable[[], int]) -> NoReturn:
    """End the process with what `run` returns. What must not be done is told in one line, with exit code 1; a mistake of the user, with 2."""
    try:
        sys.exit(run())
    except NotDoneError as error:
        print(f"refused: {error}", file=sys.stderr)
        sys.exit(1)
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
