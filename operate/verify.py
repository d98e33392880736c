"""Candidate and live version on the same labelled photos, both asked through the running servers: which is better, and how sure is that?"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from operate.client import Client, in_order
from operate.labelled import Answered, Figures, Photo, ask, figures
from operate.replica import Replica
from operate.store import Stored, now


@dataclass(frozen=True)
class Pair:
    """Both answers about one photo."""

    live: Answered
    candidate: Answered


@dataclass(frozen=True)
class Side:
    """One of the two versions: its archive, and one client for each server."""

    stored: Stored
    clients: Sequence[Client]


def ask_both(live: Side, candidate: Side, photos: Iterable[Photo], jobs: int) -> Iterator[Pair]:
    """Ask both versions about each photo, one after the other, in turns which one first: both see the same load."""

    def pair(number: int, photo: Photo) -> Pair:
        client, other = (side.clients[number % len(side.clients)] for side in (live, candidate))
        if number % 2:
            first = ask(client, photo)
            return Pair(first, ask(other, photo))
        first = ask(other, photo)
        return Pair(ask(client, photo), first)

    with closing(in_order(pair, photos, jobs)) as pairs:
        yield from pairs


def compare(pairs: Sequence[Pair], live: Stored, candidate: Stored, replicas: Sequence[Replica]) -> dict[str, Any]:
    """Return everything that the gate and the report need; what cannot be known is null."""
    answered = [pair for pair in pairs if pair.live.error is None and pair.candidate.error is None]
    right = Counter((pair.live.is_right, pair.candidate.is_right) for pair in answered)
    labels = Counter(pair.live.truth for pair in answered)
    known = {label for pair in answered for label in pair.live.probabilities}
    return {
        "format": 1,
        "time": now(),
        "model": live.archive.name,
        "servers": [str(replica) for replica in replicas],
        "photos": len(answered),
        "labels": dict(sorted(labels.items())),
        "fewest_of_a_label": min((labels[label] for label in known), default=None),
        "live": summary(figures(pair.live for pair in pairs), live, replicas),
        "candidate": summary(figures(pair.candidate for pair in pairs), candidate, replicas),
        "both_right": right[True, True],
        "only_live_right": right[True, False],
        "only_candidate_right": right[False, True],
        "both_wrong": right[False, False],
        "worse_p": worse_p(right[True, False], right[False, True]) if answered else None,
        "agreement": sum(pair.live.label == pair.candidate.label for pair in answered) / len(answered) if answered else None,
        "differences": [
            {
                "photo": pair.live.photo,
                "truth": pair.live.truth,
                "live": pair.live.label,
                "candidate": pair.candidate.label,
                "live_confidence": pair.live.confidence,
                "candidate_confidence": pair.candidate.confidence,
            }
            for pair in answered
            if pair.live.label != pair.candidate.label
        ],
    }


def summary(found: Figures, stored: Stored, replicas: Sequence[Replica]) -> dict[str, Any]:
    """Return one version's figures; none of its answers counts if another archive gave some of them."""
    same = set(found.archives) <= {stored.sha256}
    memory = [replica.memory(stored.archive.name, stored.archive.version) for replica in replicas]
    return {
        "version": stored.archive.version,
        "sha256": stored.sha256,
        "answered_share": found.answered / found.photos if found.photos and same else None,
        "accuracy": found.accuracy.share,
        "accuracy_interval": found.accuracy.interval,
        "balanced_accuracy": found.balanced_accuracy,
        "calibration_error": found.calibration_error,
        "unsure": found.unsure.share,
        "unlike": found.unlike.share,
        "sure_accuracy": found.sure.share,
        "p50": found.milliseconds.p50 if found.milliseconds else None,
        "p95": found.milliseconds.p95 if found.milliseconds else None,
        "p99": found.milliseconds.p99 if found.milliseconds else None,
        # TorchServe says 0 of a worker that it has not looked at yet
        "memory_mb": round(sum(memory) / 1e6, 1) if memory and all(memory) else None,
    }


def worse_p(only_live_right: int, only_candidate_right: int) -> float:
    """Return the exact one-sided McNemar p-value of `the candidate is at least as good`: the sign test on photos that differ."""
    different = only_live_right + only_candidate_right
    return math.fsum(math.comb(different, count) for count in range(only_candidate_right + 1)) / 2**different
