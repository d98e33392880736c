"""What is known about drift, as sentences and as JSON."""

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from operate.drift import CHANCE, Difference, Finding, Since
from operate.drift_watch import State
from operate.photo_log import SURE

SAME = 0.02  # of a mean: where a smaller part of it changed, the spread is what differs


def time_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    """Return a share without decimals, but never a full or an empty one that is not."""
    text = f"{share:.0%}".replace("%", " %")
    return (
        f"{share * 100:.2g} %" if text == "0 %" and share else f"{100 * share:.4g} %" if text == "100 %" and share < 1 else text
    )


def likelihood(p: float) -> str:
    return "p < 1e-12" if p < 1e-12 else f"p = {p:.1g}"


def difference_in_words(one: Difference, window: int) -> str:
    """Say how a statistic changed: "brightness fell from 0.46 to 0.31 ..."."""
    shares = f"{percent(one.now)} of the last {window:,}, {percent(one.before)} before"
    if isinstance(one.place, str):
        what = "sure answers" if (one.statistic, one.place) == ("unsure", SURE) else f"{one.statistic} {one.place}"
        return f"{what}: {shares}"
    before, now = one.mean_before or 0.0, one.mean_now or 0.0
    if abs(now - before) < SAME * abs(before):
        changed = f"is spread differently around {number(now)}"
    else:
        changed = f"{'fell' if now < before else 'rose'} from {number(before)} to {number(now)} on average"
    return f"{one.statistic} {changed}; up to {number(one.place)}: {shares}"


def since_in_words(since: Since, state: State) -> str:
    """Say when a change began, and how certain that is."""
    if since.earliest == 0:
        return (
            "since the first of these photos" if state.count == len(state.photos) else f"for {len(state.photos):,} photos or more"
        )
    times = state.photos.times
    text = f"since {time_of(times[since.photo])}, {len(times) - since.photo:,} photos ago"
    furthest, nearest = len(times) - since.earliest, len(times) - since.latest
    return f"{text} (likely {nearest:,} to {furthest:,})" if nearest < furthest else text


def lines(state: State) -> Iterator[str]:
    """Yield the answer for people."""
    found = state.findings
    if state.lacking:
        yield f"{state.verdict}: {state.lacking}"
    elif not found:
        yield state.verdict
    else:
        yield f"drift {since_in_words(found[0].since, state)}"
        for one in found:
            yield f"  {difference_in_words(one.difference, one.window)} ({likelihood(one.difference.p)})"
            yield f"    {since_in_words(one.since, state)}"
    if state.looks:
        yield ""
        for window in state.looks[-1].windows:
            named = f" in {', '.join(one.statistic for one in window.found)}" if window.found else ""
            yield f"last {window.photos:>6,} photos: {window.verdict}{named}"
        yield ""
    yield from notes(state)


def notes(state: State) -> Iterator[str]:
    """Yield what was compared, and what was left out."""
    if state.reference:
        yield f"version {state.version}, {state.count:,} photos against {state.reference.origin}"
    if state.looks:
        last = state.photos.times[state.looks[-1].end - 1]
        yield f"last look: {time_of(last)}; where nothing changes, a look finds drift in at most 1 of {1 / CHANCE:,.0f} cases"
    if state.other_versions:
        yield f"left out: {state.other_versions:,} photos that other versions answered"
    if state.broken:
        yield f"left out: {state.broken:,} broken lines"


def as_json(state: State) -> dict[str, Any]:
    """Return the answer for programs."""
    return {
        "verdict": state.verdict,
        "lacking": state.lacking or None,
        "version": state.version or None,
        "reference": {"origin": state.reference.origin, "photos": state.reference.photos} if state.reference else None,
        "photos": state.count,
        "other_versions": state.other_versions,
        "broken_lines": state.broken,
        "last_look": iso(state.photos.times[state.looks[-1].end - 1]) if state.looks else None,
        "windows": [
            {
                "photos": window.photos,
                "verdict": window.verdict,
                "statistics": {one.statistic: facts(one) for one in window.differences},
            }
            for window in (state.looks[-1].windows if state.looks else ())
        ],
        "drift": [finding_as_json(one, state) for one in state.findings],
    }


def facts(one: Difference) -> dict[str, Any]:
    return {"p": one.p, "distance": round(one.distance, 4), "drift": one.found}


def finding_as_json(one: Finding, state: State) -> dict[str, Any]:
    times, total = state.photos.times, len(state.photos)
    return {
        "statistic": one.difference.statistic,
        "window": one.window,
        "p": one.difference.p,
        "words": difference_in_words(one.difference, one.window),
        "since": {
            "time": iso(times[one.since.photo]),
            "photos_ago": total - one.since.photo,
            "likely_photos_ago": [total - one.since.latest, total - one.since.earliest],
            "or_before": one.since.earliest == 0,
        },
    }


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
