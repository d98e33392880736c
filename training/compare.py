"""This model against the one before it: every headline figure, and whether the difference is larger than its noise."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handler.model_file import ModelFileError, read_model_file
from training.errors import UserError
from training.figures import Figures, PhotoSet, Scorecard, Share, Unlike, from_json, read_figures
from training.measures import interval

LIVE = Path("pretrained/metrics.json")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a model: all of metrics.json, or the less that travels inside petclf.pt."""

    name: str
    labels: list[str]
    data_digest: str
    test: PhotoSet
    unlike: Unlike
    camera_photos: PhotoSet | None = None
    scorecard: Scorecard | None = None
    sure: Share | None = None
    coverage: float | None = None  # the share of answers that are sure
    int8_test: PhotoSet | None = None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure before and now. Without an interval its noise is not known."""

    name: str
    before: float
    now: float
    kind: str  # "share" or "number"
    interval: list[float] | None = None
    better: int = 1  # 1 where more is better, -1 where less is

    @property
    def difference(self) -> float:
        return self.now - self.before

    @property
    def verdict(self) -> str:
        if self.interval is None:
            return "noise not known"
        low, high = self.interval
        if low <= 0 <= high:
            return "within noise"
        return "better" if self.difference * self.better > 0 else "worse"


def known(figures: Figures, name: str) -> Known:
    """Return what can be compared of a model that was measured whole."""
    return Known(
        name=name,
        labels=figures.labels,
        data_digest=figures.data_digest,
        test=figures.test,
        unlike=figures.unlike,
        camera_photos=figures.camera_photos,
        scorecard=figures.scorecard,
        sure=figures.sure,
        coverage=figures.sure.coverage if figures.sure else None,
        int8_test=figures.int8.test if figures.int8 else None,
    )


def read_known(path: Path) -> Known:
    """Return what is known of the model whose metrics.json or petclf.pt this is."""
    if path.suffix != ".pt":
        beside = path.with_name("petclf.pt")
        name = named(read_metadata(beside)) if beside.exists() else str(path)
        return known(read_figures(path), name)
    metadata = read_metadata(path)
    metrics = metadata["metrics"]
    try:
        return Known(
            name=named(metadata),
            labels=metadata["labels"],
            data_digest=metadata["provenance"]["data_digest"],
            test=from_json(PhotoSet, metrics["test"]),
            unlike=from_json(Unlike, metrics["unlike"]),
            camera_photos=from_json(PhotoSet, metrics["camera_photos"]) if "camera_photos" in metrics else None,
            int8_test=from_json(PhotoSet, metadata["int8"]["metrics"]["test"]) if "int8" in metadata else None,
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not hold figures to compare with ({error})") from None


def read_metadata(path: Path) -> dict[str, Any]:
    try:
        return read_model_file(path).metadata
    except (OSError, ModelFileError) as error:
        raise UserError(f"cannot compare with {path}: {error}") from None


def named(metadata: dict[str, Any]) -> str:
    return f"{metadata['name']} {metadata['version']}"


def live_model(labels: list[str], path: Path = LIVE) -> Known | None:
    """Return the released model, if there is one and it tells the same labels apart."""
    if not path.exists():
        return None
    found = read_known(path)
    return found if found.labels == labels else None


def differences(before: Known, now: Known) -> list[Difference]:
    """Return every headline figure that both models have."""
    rows = [
        shares("test accuracy", before.test, now.test),
        shares("camera photos, accuracy", before.camera_photos, now.camera_photos),
        shares("test accuracy in int8", before.int8_test, now.int8_test),
        shares("sure answers, accuracy", before.sure, now.sure),
        shares("sure answers, share of all", sure_share(before), sure_share(now)),
        shares("other things refused as unlike", others(before), others(now)),
        shares("test photos refused as unlike", refused(before), refused(now), better=-1),
        numbers("calibration error", before.test.calibration_error, now.test.calibration_error, better=-1),
        numbers("log loss", before.test.log_loss, now.test.log_loss, better=-1),
        numbers("area under ROC", before.test.roc_auc, now.test.roc_auc),
    ]
    if before.scorecard and now.scorecard:
        rows += corruptions(before.scorecard, now.scorecard)
    return [row for row in rows if row is not None]


def corruptions(before: Scorecard, now: Scorecard) -> list[Difference | None]:
    """Compare the corruption scorecards: the worst one, and the mean as if it were of one set of photos."""
    same = sorted(set(before.accuracy) & set(now.accuracy))
    if not same:
        return []
    means = [sum(card.accuracy[name] for name in same) / len(same) for card in (before, now)]
    worst = [min(card.accuracy[name] for name in same) for card in (before, now)]
    return [
        shares("corruptions, mean accuracy", as_share(means[0], before.photos), as_share(means[1], now.photos)),
        shares("corruptions, worst accuracy", as_share(worst[0], before.photos), as_share(worst[1], now.photos)),
    ]


def shares(name: str, before: Share | None, now: Share | None, better: int = 1) -> Difference | None:
    if before is None or now is None:
        return None
    return Difference(
        name=name, before=before.accuracy, now=now.accuracy, kind="share", interval=newcombe(before, now), better=better
    )


def numbers(name: str, before: float | None, now: float | None, better: int = 1) -> Difference | None:
    if before is None or now is None:
        return None
    return Difference(name=name, before=before, now=now, kind="number", better=better)


def newcombe(before: Share, now: Share) -> list[float]:
    """Return the 95 % interval of the difference of two shares (Newcombe 1998, method 10: from both Wilson intervals).

    It takes the two sets of photos for independent. On the same photos the true interval is narrower, never wider
    where the models err on the same ones: a difference that this calls larger than its noise is.
    """
    difference = now.accuracy - before.accuracy
    below = math.hypot(now.accuracy - now.interval[0], before.interval[1] - before.accuracy)
    above = math.hypot(now.interval[1] - now.accuracy, before.accuracy - before.interval[0])
    return [difference - below, difference + above]


def as_share(value: float, photos: int) -> Share:
    return Share(accuracy=value, interval=interval(round(value * photos), photos), photos=photos)


def sure_share(model: Known) -> Share | None:
    return None if model.coverage is None else as_share(model.coverage, model.test.photos)


def others(model: Known) -> Share | None:
    unlike = model.unlike
    return None if unlike.others_refused is None or not unlike.others else as_share(unlike.others_refused, unlike.others)


def refused(model: Known) -> Share:
    return as_share(model.unlike.pets_refused, model.test.photos)
