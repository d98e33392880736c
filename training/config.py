"""params.yaml -> frozen settings; an unknown, missing or mistyped key is refused with a sentence."""

import types
import typing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from training.errors import UserError

PARAMS = Path("params.yaml")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the manifest is made from."""

    photos: str
    keep_splits: bool
    doubtful_up_to: int

    def __post_init__(self) -> None:
        require(self.doubtful_up_to >= 0, "data.doubtful_up_to must be at least 0")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that a training run depends on; logged whole to MLflow."""

    network: str
    pretrained: bool
    start_from: str | None
    frozen: int
    remember: float
    image_size: int
    sizes: list[int]
    size_shares: list[float]
    epochs: int | None
    minutes: float | None
    batch_size: int
    optimizer: str
    learning_rate: float
    learning_rate_other: float
    warmup: float
    weight_decay: float
    label_smoothing: float
    mixup: float
    ema_decay: float
    zoom: list[float]
    aspect: float
    rotation: float
    colour: float
    corruption: float
    outliers: str | None
    outlier_share: float
    precision: str
    seed: int
    tracking: bool

    def __post_init__(self) -> None:
        require(64 <= self.image_size <= 512, f"train.image_size is {self.image_size}; it must be 64 to 512")
        require(bool(self.sizes) and all(32 <= size <= 512 for size in self.sizes), "train.sizes must be 32 to 512")
        require(len(self.sizes) == len(self.size_shares), "train.sizes and train.size_shares differ in length")
        require(abs(sum(self.size_shares) - 1) < 1e-6, "train.size_shares must add up to 1")
        require(self.epochs is None or self.epochs >= 0, "train.epochs must be 0 or more, or null")
        require(
            self.epochs != 0 or self.pretrained or self.start_from is not None,
            "train.epochs: 0 fits the last layer only, which needs train.pretrained or train.start_from",
        )
        require(self.frozen >= 0, "train.frozen must be 0 or more")
        require(
            not self.frozen or self.pretrained or self.start_from is not None,
            "train.frozen keeps layers as they are; set it to 0 where they start at random",
        )
        require(self.remember >= 0, "train.remember must be 0 or more")
        require(
            not self.remember or (self.network == "efficientnet_lite0" and self.pretrained),
            "train.remember is for efficientnet_lite0 with train.pretrained: true; set it to 0 for other networks",
        )
        require(self.optimizer in ("muon", "adamw"), "train.optimizer must be muon or adamw")
        require(self.minutes is None or self.minutes > 0, "train.minutes must be more than 0, or null")
        require(self.batch_size >= 2, "train.batch_size must be at least 2")
        require(self.learning_rate > 0 and self.learning_rate_other > 0, "learning rates must be more than 0")
        require(len(self.zoom) == 2 and 0 < self.zoom[0] <= self.zoom[1] <= 1, "train.zoom must be [low, high] within 0-1")
        require(self.aspect >= 1, "train.aspect must be at least 1")
        require(self.precision in ("auto", "bf16", "fp32"), "train.precision must be auto, bf16 or fp32")
        require(0 < self.outlier_share <= 0.5, "train.outlier_share must be more than 0, up to 0.5")
        require(0 <= self.mixup <= 1, "train.mixup must be from 0 to 1")
        require(0 <= self.corruption <= 1, "train.corruption must be from 0 to 1")
        for name in ("warmup", "label_smoothing", "ema_decay", "colour"):
            require(0 <= getattr(self, name) < 1, f"train.{name} must be from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is measured, and how sure an answer must be."""

    outliers: str | None
    photos: str | None
    refuse: float
    wrong_when_sure: float
    promise_confidence: float
    int8_loss: float
    scorecard_photos: int
    baselines: bool

    def __post_init__(self) -> None:
        require(0 < self.refuse < 0.5, "evaluate.refuse must be from 0 to 0.5")
        require(0 < self.wrong_when_sure < 0.5, "evaluate.wrong_when_sure must be from 0 to 0.5")
        require(0.5 <= self.promise_confidence < 1, "evaluate.promise_confidence must be from 0.5 to below 1")
        require(0 <= self.int8_loss < 1, "evaluate.int8_loss must be from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What the released model is called."""

    name: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Params:
    """params.yaml, whole."""

    data: DataConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    export: ExportConfig


def load_params(path: Path = PARAMS) -> Params:
    """Read the settings; every mistake is told with the key's name."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no settings at {path}; run from the project's folder or give --params") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold the sections {', '.join(field.name for field in fields(Params))}")
    sections = {field.name: field.type for field in fields(Params)}
    check_keys(f"{path}", content, set(sections))
    return Params(**{name: build(f"{path}: {name}", kind, content[name]) for name, kind in sections.items()})


def build(where: str, kind: Any, values: Any) -> Any:
    """Return the section's dataclass, filled from `values`."""
    if not isinstance(values, dict):
        raise UserError(f"{where} must be a section with keys and values")
    expected = typing.get_type_hints(kind)
    check_keys(where, values, set(expected))
    return kind(**{key: convert(f"{where}.{key}", expected[key], value) for key, value in values.items()})


def check_keys(where: str, values: dict[str, Any], expected: set[str]) -> None:
    """Refuse keys that nothing reads, and say which are missing."""
    if unknown := sorted(map(str, set(values) - expected)):
        raise UserError(f"{where} has an unknown key: {', '.join(unknown)}; known are {', '.join(sorted(expected))}")
    if missing := sorted(expected - set(values)):
        raise UserError(f"{where} lacks {', '.join(missing)}")


def convert(where: str, kind: Any, value: Any) -> Any:
    """Return the value as the annotated type, or say what it should be."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if value is None:
            return None
        return convert(where, next(member for member in inner if member is not types.NoneType), value)
    if origin is list and isinstance(value, list):
        return [convert(where, inner[0], member) for member in value]
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if origin is None and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise UserError(f"{where} is {value!r}; it must be {name}")


def require(fact: bool, message: str) -> None:
    """Raise the message as the user's mistake unless the fact holds."""
    if not fact:
        raise UserError(f"params: {message}")
