"""Are the photos that come now like the reference? Windows of the prediction log, tests of each statistic, and since when.

A look happens after every EVERY photos of the log, wherever the reader starts it, so reading more often adds no tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import fisher_exact, ks_2samp

from operate.photo_log import NUMBERS, SURE, WORDS, Photo

Array = np.ndarray

WINDOWS = (100, 1_000, 10_000)
EVERY = 100  # photos from one look to the next
STATISTICS = (
    "confidence",
    "unlike",
    "label",
    "unsure",
    *(name for name in (*NUMBERS, "format") if name not in ("confidence", "unlike")),
)
CHANCE = 1e-4  # of finding drift in a look where nothing has changed
LEAST_CHANGE = 0.05  # share of photos: a smaller change is certain in large windows, and of no use
REFERENCE = 1_000  # photos of the log's own that are compared with, unless another reference is named
LEAST_REFERENCE = 500
DECIMALS = {"confidence": 6, "unlike": 6}  # that the log keeps; of the others 4
LIKELY = 3.0  # a change elsewhere is less likely by a factor of 20


class DriftError(Exception):
    """Something that the operator can put right."""


@dataclass(frozen=True)
class Columns:
    """Photos as arrays, a statistic each."""

    times: Array
    values: dict[str, Array]

    @classmethod
    def of(cls, photos: Sequence[Photo]) -> "Columns":
        numbers = np.array([photo.numbers for photo in photos], dtype=float).reshape(len(photos), len(NUMBERS))
        words = np.array([photo.words for photo in photos], dtype=str).reshape(len(photos), len(WORDS))
        values = dict(zip((*NUMBERS, *WORDS), (*numbers.T, *words.T), strict=True))
        return cls(np.array([photo.time for photo in photos]), values)

    def __len__(self) -> int:
        return len(self.times)

    def at(self, where: slice | Array) -> "Columns":
        return Columns(self.times[where], {name: values[where] for name, values in self.values.items()})


@dataclass(frozen=True)
class Difference:
    """How a window differs from the reference in one statistic: most at `place`, by the share of photos there.

    A number's share counts the photos of at most `place`; a word's those that have it.
    """

    statistic: str
    place: float | str
    before: float
    now: float
    p: float  # of so large a difference where nothing has changed
    mean_before: float | None = None
    mean_now: float | None = None

    @property
    def distance(self) -> float:
        return abs(self.now - self.before)

    @property
    def found(self) -> bool:
        return self.p <= CHANCE and self.distance >= LEAST_CHANGE

    def there(self, values: Array) -> Array:
        """Tell of each photo whether it is one of those that are counted."""
        return values == self.place if isinstance(self.place, str) else values <= self.place


@dataclass(frozen=True)
class PhotosBefore:
    """A reference of photos from a log."""

    origin: str
    columns: Columns

    @property
    def photos(self) -> int:
        return len(self.columns)

    @property
    def statistics(self) -> tuple[str, ...]:
        return STATISTICS

    def mean(self, statistic: str) -> float:
        return float(self.columns.values[statistic].mean())

    def share(self, statistic: str, word: str) -> float:
        return float((self.columns.values[statistic] == word).mean())

    def steps(self, statistic: str) -> tuple[Array, Array]:
        """Return values of a number, and the share of photos up to each."""
        values = np.sort(self.columns.values[statistic])
        return values, np.arange(1, len(values) + 1) / len(values)

    def compare(self, statistic: str, now: Array) -> Difference:
        before = self.columns.values[statistic]
        return compare_words(statistic, before, now) if statistic in WORDS else compare_numbers(statistic, before, now)


def compare_numbers(statistic: str, before: Array, now: Array) -> Difference:
    """Compare two samples by Kolmogorov and Smirnov's test, which sees any change of a distribution; ties make it careful."""
    result = ks_2samp(now, before, method="asymp")  # up to a tenth below the exact p, and as fast for 10,000 photos
    place = float(result.statistic_location)
    up_to_before, up_to_now = (float((values <= place).mean()) for values in (before, now))
    p = float(result.pvalue)
    return Difference(statistic, place, up_to_before, up_to_now, p, float(before.mean()), float(now.mean()))


def compare_words(statistic: str, before: Array, now: Array) -> Difference:
    """Compare the share of each word by Fisher's exact test: chi-squared finds rare words too certain."""
    words = np.unique(np.concatenate([before, now]))
    found = [share_of(statistic, str(word), before == word, now == word) for word in words]
    best = min(found, key=rank)
    return replace(best, p=min(1.0, best.p * len(words)))


def share_of(statistic: str, word: str, before: Array, now: Array) -> Difference:
    p = fisher(int(now.sum()), len(now), int(before.sum()), len(before))
    return Difference(statistic, word, float(before.mean()), float(now.mean()), p)


def fisher(now: int, of: int, before: int, of_before: int, alternative: str = "two-sided") -> float:
    """Return how likely `now` of some photos are, or a count as far off, where `before` of others were (Fisher's exact test)."""
    return float(fisher_exact([[now, of - now], [before, of_before - before]], alternative=alternative).pvalue)


@dataclass(frozen=True)
class ModelReference:
    """The validation photos as the model file describes them: quantiles of the numbers, shares of the words."""

    origin: str
    photos: int
    levels: tuple[float, ...]
    quantiles: dict[str, Array]
    means: dict[str, float]
    shares: dict[str, dict[str, float]]

    @classmethod
    def of(cls, metadata: dict[str, Any]) -> "ModelReference":
        """Return the reference of the form that CPUs run: int8 where there is one."""
        name = f"{metadata.get('name')} {metadata.get('version')}"
        try:
            reference = {**metadata, **metadata.get("int8", {})}["reference"]
            sure = metadata["metrics"]["sure"]["coverage"]
            # each split has as many photos as another; models up to 2.0.0 do not say how many
            photos = reference.get("photos") or metadata["metrics"]["test"]["photos"]
            known = [name for name in NUMBERS if name in reference]
            quantiles = {name: np.round(reference[name]["quantiles"], DECIMALS.get(name, 4)) for name in known}
            means = {name: float(reference[name]["mean"]) for name in known}
            shares = {"label": dict(reference["label_share"]), "unsure": {SURE: float(sure)}}
            return cls(f"training ({name})", int(photos), tuple(reference["quantile_levels"]), quantiles, means, shares)
        except (KeyError, TypeError, ValueError) as error:
            raise DriftError(f"the model {name} says nothing of its photos ({error!r}); use --reference with a log") from None

    @property
    def statistics(self) -> tuple[str, ...]:
        return tuple(name for name in STATISTICS if name in self.quantiles or name in self.shares)

    def mean(self, statistic: str) -> float:
        return self.means[statistic]

    def share(self, statistic: str, word: str) -> float:
        return self.shares[statistic].get(word, 0.0)

    def steps(self, statistic: str) -> tuple[Array, Array]:
        return self.quantiles[statistic], np.array(self.levels)

    def compare(self, statistic: str, now: Array) -> Difference:
        return self.compare_shares(statistic, now) if statistic in WORDS else self.compare_quantiles(statistic, now)

    def compare_shares(self, statistic: str, now: Array) -> Difference:
        shares = self.shares[statistic]
        found = [
            Difference(statistic, word, share, float((now == word).mean()), self.test(int((now == word).sum()), len(now), share))
            for word, share in shares.items()
        ]
        best = min(found, key=rank)
        return replace(best, p=min(1.0, best.p * len(found)))

    def compare_quantiles(self, statistic: str, now: Array) -> Difference:
        """Count the photos up to each quantile: too few, or too many below it.

        Where quantiles are equal, as all widths may be, their share is at least the highest level up to them, and at most the
        lowest below them; so neither test errs, and rounding as the log rounds keeps that true.
        """
        found: list[Difference] = []
        quantiles = self.quantiles[statistic]
        for quantile in np.unique(quantiles):
            equal = [level for level, one in zip(self.levels, quantiles, strict=True) if one == quantile]
            up_to, below = float((now <= quantile).mean()), float((now < quantile).mean())
            few = self.test(round(up_to * len(now)), len(now), max(equal), "less")
            many = self.test(round(below * len(now)), len(now), min(equal), "greater")
            found.append(Difference(statistic, float(quantile), max(equal), min(up_to, max(equal)), few))
            found.append(Difference(statistic, float(np.nextafter(quantile, -np.inf)), min(equal), max(below, min(equal)), many))
        best = min(found, key=rank)
        return replace(best, p=min(1.0, best.p * len(found)), mean_before=self.means[statistic], mean_now=float(now.mean()))

    def test(self, count: int, of: int, share: float, alternative: str = "two-sided") -> float:
        return fisher(count, of, round(share * self.photos), self.photos, alternative)


Reference = PhotosBefore | ModelReference


@dataclass(frozen=True)
class Window:
    """The last photos, compared in each statistic; in none where there are too few."""

    photos: int
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> str:
        if not self.differences:
            return "too little data"
        return "drift" if self.found else "no drift found"

    @property
    def found(self) -> list[Difference]:
        return [one for one in self.differences if one.found]


@dataclass(frozen=True)
class Since:
    """The photo that a change began with, as its place among those that are kept, and the likely range of it."""

    photo: int
    earliest: int
    latest: int


@dataclass(frozen=True)
class Finding:
    """A statistic that drifted: where it is seen most clearly, and since when."""

    difference: Difference
    window: int
    since: Since


@dataclass(frozen=True)
class Look:
    """All windows that end at the same photo."""

    end: int  # photos kept before it
    windows: tuple[Window, ...]

    @property
    def verdict(self) -> str:
        verdicts = {window.verdict for window in self.windows}
        return next(one for one in ("drift", "no drift found", "too little data") if one in verdicts)


def look(reference: Reference, photos: Columns, end: int) -> Look:
    """Compare the windows that end here. p is multiplied by the number of tests, so CHANCE holds for all of them together."""
    tests = len(reference.statistics) * len(WINDOWS)
    windows = []
    for size in WINDOWS:
        now = photos.at(slice(end - size, end)).values if size <= end else {}
        differences = [reference.compare(name, now[name]) for name in reference.statistics if now]
        windows.append(Window(size, tuple(replace(one, p=min(1.0, one.p * tests)) for one in differences)))
    return Look(end, tuple(windows))


def findings(seen: Look, photos: Columns) -> list[Finding]:
    """Return each statistic that drifted, in the window that is surest of it, the surest first."""
    best: dict[str, tuple[Difference, int]] = {}
    for window in seen.windows:
        for one in window.found:
            if one.statistic not in best or rank(one) < rank(best[one.statistic][0]):
                best[one.statistic] = one, window.photos
    return [
        Finding(one, size, since(one, photos.values[one.statistic][: seen.end]))
        for one, size in sorted(best.values(), key=lambda each: rank(each[0]))
    ]


def rank(one: Difference) -> tuple[float, float, bool]:
    """Put the surest first, then the largest, then those that rose: of two labels both change alike."""
    return one.p, -round(one.distance, 9), one.now < one.before


def since(one: Difference, values: Array) -> Since:
    """Return where the change most likely began, by Page's CUSUM: what came before is known, what came after is estimated.

    ADWIN would look for a change inside the log; here one end of it is given, and these lines need no package.
    """
    rates = np.clip([one.before, one.now], 0.001, 0.999)
    gain = np.where(one.there(values), np.log(rates[1] / rates[0]), np.log((1 - rates[1]) / (1 - rates[0])))
    score = gain[::-1].cumsum()[::-1]  # for a change that began with this photo
    near = np.flatnonzero(score >= score.max() - LIKELY)
    return Since(int(score.argmax()), int(near[0]), int(near[-1]))
