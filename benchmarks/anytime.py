"""How often does the sequential test of a candidate raise a false alarm, and after how many requests does it see a worse one?

Each stream is a live version and a candidate that answer the same labelled photos. It is looked at after every request: by the
test of operate/anytime.py, and by McNemar's test, which promises 5 % for one look at a number of requests fixed beforehand.
"""

import argparse
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.record import write_record
from operate.anytime import ALPHA, log_capital

Z = 1.6449  # one-sided, 5 %
ENOUGH = 10  # pairs of which one is right: before, nobody would use the normal approximation
Moments = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """How often, in percent of the requests, only the live version is right, and only the candidate."""

    name: str
    only_live: float
    only_candidate: float


@dataclass(frozen=True)
class Stream:
    """The requests with which the tally changed, and the tally from then on."""

    moments: Moments
    only_live: Moments
    only_candidate: Moments


EQUAL = [Pairs("equal", share, share) for share in (0.5, 2, 5)]
WORSE = [Pairs("3 points worse", share + 3, share) for share in (0.5, 2, 5)]
Test = Callable[[Stream], npt.NDArray[np.bool_]]


def draw(pairs: Pairs, requests: int, random: np.random.Generator) -> Stream:
    drawn = random.random(requests)
    only_live, only_candidate = drawn < pairs.only_live / 100, drawn >= 1 - pairs.only_candidate / 100
    changes = np.flatnonzero(only_live | only_candidate)
    return Stream(changes + 1, np.cumsum(only_live, dtype=np.int64)[changes], np.cumsum(only_candidate, dtype=np.int64)[changes])


def anytime(stream: Stream) -> npt.NDArray[np.bool_]:
    """Between two changes the evidence stays as it is: pairs that are both right or both wrong say nothing."""
    return log_capital(0, {-1: stream.only_candidate, 0: 0 * stream.moments, 1: stream.only_live}) >= math.log(1 / ALPHA)


def peeking(stream: Stream) -> npt.NDArray[np.bool_]:
    both = stream.only_live + stream.only_candidate
    return (both >= ENOUGH) & (stream.only_live - stream.only_candidate > Z * np.sqrt(both))


def within_margin(stream: Stream, margin: float) -> npt.NDArray[np.bool_]:
    """Tell at each change whether "worse by `margin` or more" is refuted, from what came before it: the best moment to look."""
    before = {-1: stream.only_candidate[:-1], 1: stream.only_live[:-1]}
    counts = {-1: before[1], 0: stream.moments[1:] - 1 - before[-1] - before[1], 1: before[-1]}
    return np.append(False, log_capital(-margin, counts) >= math.log(1 / ALPHA))


def first_alarm(stream: Stream, alarms: npt.NDArray[np.bool_]) -> int | None:
    return int(stream.moments[np.argmax(alarms)]) if alarms.any() else None


def shown(found: list[int | None]) -> str:
    """Return how many streams had an alarm, and after how many requests."""
    alarms = [one for one in found if one is not None]
    share = f"{len(alarms) / len(found):.1%}"
    if len(alarms) * 2 < len(found):
        return f"{share} |"
    low, middle, high = np.quantile(alarms, (0.05, 0.5, 0.95))
    return f"{share} | {middle:,.0f} [{low:,.0f}-{high:,.0f}]"


def compare(every: Iterable[Pairs], streams: int, requests: int) -> list[str]:
    lines = ["| candidate | only live right | only candidate right | test | alarms | requests until then |", "|---" * 6 + "|"]
    for pairs in every:
        random = np.random.default_rng(0)
        drawn = [draw(pairs, requests, random) for _ in range(streams)]
        found: dict[str, list[int | None]] = {
            "anytime, after every request": [first_alarm(stream, anytime(stream)) for stream in drawn],
            "McNemar, after every request": [first_alarm(stream, peeking(stream)) for stream in drawn],
        }
        head = f"| {pairs.name} | {pairs.only_live:g} % | {pairs.only_candidate:g} %"
        lines += [f"{head} | {name} | {shown(ones)} |" for name, ones in found.items()]
        at_the_end = sum(bool(peeking(stream)[-1]) for stream in drawn) / streams
        lines.append(f"{head} | McNemar, once after {requests:,} | {at_the_end:.1%} | |")
    return lines


def passes(streams: int, requests: int, margin: float) -> list[str]:
    """How soon an equal candidate passes, and how often one that is worse by just the margin does."""
    lines = ["| candidate | only live right | only candidate right | passes | requests until then |", "|---" * 5 + "|"]
    just_worse = [Pairs("worse by the margin", pairs.only_live + 100 * margin, pairs.only_candidate) for pairs in EQUAL]
    for pairs in (*EQUAL, *just_worse):
        random = np.random.default_rng(0)
        drawn = [draw(pairs, requests, random) for _ in range(streams)]
        found = [first_alarm(stream, within_margin(stream, margin)) for stream in drawn]
        lines.append(f"| {pairs.name} | {pairs.only_live:g} % | {pairs.only_candidate:g} % | {shown(found)} |")
    return lines


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--margin", type=float, default=0.01)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args(argv)
    lines = [
        f"An alarm says that the candidate is worse; {ALPHA:.0%} of equal candidates may get one. Requests: median [5-95 %] of the "
        "streams with an alarm.",
        "",
        *compare((*EQUAL, *WORSE), args.streams, args.requests),
        "",
        f'Passes: "not worse by {100 * args.margin:g} percentage points or more", looked at whenever one of the two is wrong alone.',
        "",
        *passes(args.streams, args.requests, args.margin),
    ]
    print("\n".join(lines))
    if args.record:
        note = f"{args.streams:,} simulated streams of {args.requests:,} labelled requests per row"
        print(
            write_record("anytime", "A test that may be looked at always", "python -m benchmarks.anytime --record", lines, note)
        )


if __name__ == "__main__":
    main()
