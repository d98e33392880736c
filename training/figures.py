"""What is measured of a model, as dataclasses; reports/metrics.json holds the same names. What was not measured is left out there."""

import json
import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from training.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of some photos are answered right, with Wilson's 95 % interval."""

    accuracy: float
    interval: list[float]
    photos: int


@dataclass(frozen=True, kw_only=True)
class PhotoSet(Share):
    """All figures of one set of labelled photos."""

    balanced_accuracy: float
    f1: dict[str, float]
    roc_auc: float | None = None  # needs photos of two labels
    log_loss: float
    calibration_error: float
    confusion: list[list[int]]  # a row a true label, a column an answer


@dataclass(frozen=True, kw_only=True)
class Sure(Share):
    """The answers that are not `unsure`: their share of all answers, and how many of them are right."""

    coverage: float


@dataclass(frozen=True, kw_only=True)
class CoveragePoint:
    """What share is answered, and how much of that is right, when answers below a confidence are `unsure`."""

    threshold: float
    coverage: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Promise:
    """At most `wrong_when_sure` of the sure answers are wrong, with this confidence; nothing is promised unless `kept`.

    `sure` and `wrong` count the validation photos above the threshold: what the promise rests on.
    """

    wrong_when_sure: float
    confidence: float
    kept: bool
    sure: int
    wrong: int


@dataclass(frozen=True, kw_only=True)
class Unlike:
    """How many photos of the labels and of other things score above the threshold, and are called `unlike`."""

    threshold: float
    fitted_on_other_things: bool
    pets_refused: float
    others_refused: float | None = None
    others: int | None = None
    others_roc_auc: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    """Accuracy on test photos after each corruption, and the mean of those."""

    photos: int
    accuracy: dict[str, float]
    mean: float


@dataclass(frozen=True, kw_only=True)
class Form:
    """Figures of one form of the network, fp32 or int8, with what was fitted to that form."""

    val: PhotoSet
    test: PhotoSet
    temperature: float
    unsure_below: float
    promise: Promise | None = None  # models before 2.0 promise nothing
    sure: Sure | None = None  # of the test photos
    unlike: Unlike
    camera_photos: PhotoSet | None = None
    scorecard: Scorecard | None = None


@dataclass(frozen=True, kw_only=True)
class Int8(Form):
    """The int8 form, and how often its answer on a test photo is that of fp32."""

    same_answer: float


@dataclass(frozen=True, kw_only=True)
class Figures(Form):
    """Everything about a model: reports/metrics.json."""

    labels: list[str]
    image_size: int
    parameters: int
    data_digest: str
    photos: dict[str, int]
    training_minutes: float
    calibration: str | None = None  # sha256 of the calibration that was measured
    calibration_error_before: float
    coverage: list[CoveragePoint]
    slices: dict[str, Share]
    baselines: dict[str, float] | None = None
    int8: Int8 | None = None


def as_json(figures: Any) -> Any:
    """Return figures as metrics.json holds them."""
    if is_dataclass(figures):
        values = {field.name: getattr(figures, field.name) for field in fields(figures)}
        return {name: as_json(value) for name, value in values.items() if value is not None}
    if isinstance(figures, dict):
        return {name: as_json(value) for name, value in figures.items()}
    return [as_json(value) for value in figures] if isinstance(figures, list) else figures


def read_figures(path: Path) -> Figures:
    """Return what metrics.json holds."""
    try:
        figures: Figures = from_json(Figures, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"no figures at {path}; run `make evaluate`") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not hold the figures of an evaluation ({error}); run `make evaluate`") from None
    return figures


def from_json(kind: Any, value: Any) -> Any:
    """Return the value as the annotated type; a dataclass refuses a missing or unknown name itself."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return from_json(next(member for member in inner if member is not types.NoneType), value)
    if origin is list:
        return [from_json(inner[0], member) for member in value]
    if origin is dict:
        return {name: from_json(inner[1], member) for name, member in value.items()}
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return typing.cast("Any", kind)(**{name: from_json(hints.get(name), member) for name, member in value.items()})
    return value
