"""What decides whether a candidate may be promoted, and whether it may stay: gate.yaml's rules over measured figures."""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from operate.client import UsageError

FILE = Path(__file__).with_name("gate.yaml")


def read_rules(path: Path = FILE) -> dict[str, dict[str, float]]:
    """Return the rules; refuse a file in which one is missing or is no number, for a missing rule would pass everything."""
    wanted = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    try:
        rules = yaml.safe_load(path.read_text(encoding="utf-8"))
        for part, names in wanted.items():
            if set(rules[part]) != set(names):
                raise ValueError(f"{part} must have exactly {', '.join(names)}")
            for name, value in rules[part].items():
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                    raise ValueError(f"{part}.{name} must be a number")
        return dict(rules)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is no gate: {error}") from None


def number(figures: Mapping[str, Any], *path: str) -> float:
    """Return a figure, NaN where there is none: NaN keeps no rule."""
    found: Any = figures
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
    return float(found) if is_number else math.nan


def judge(comparison: Mapping[str, Any], rules: Mapping[str, float], moment: datetime) -> list[str]:
    """Return why a comparison does not pass; nothing if it does. Each rule is `figure, sign, limit`, so that NaN breaks it."""

    def rise(name: str) -> float:
        return number(comparison, "candidate", name) - number(comparison, "live", name)

    figures = {
        "photos_at_least": number(comparison, "photos"),
        "photos_of_each_label_at_least": number(comparison, "fewest_of_a_label"),
        "hours_at_most": hours_since(comparison.get("time"), moment),
        "answered_at_least": least(number(comparison, who, "answered_share") for who in ("candidate", "live")),
        "accuracy_loss_at_most": -rise("accuracy"),
        "worse_p_at_least": number(comparison, "worse_p"),
        "calibration_error_at_most": number(comparison, "candidate", "calibration_error"),
        "unsure_rise_at_most": rise("unsure"),
        "unlike_rise_at_most": rise("unlike"),
        "latency_ratio_at_most": divided(number(comparison, "candidate", "p50"), number(comparison, "live", "p50")),
    }
    return [told(name, figures[name], limit) for name, limit in rules.items() if not keeps(name, figures[name], limit)]


def keeps(name: str, figure: float, limit: float) -> bool:
    tolerance = 1e-12  # 0.95 - 0.94 is a little more than 0.01
    return figure >= limit - tolerance if name.endswith("_at_least") else figure <= limit + tolerance


def told(name: str, figure: float, limit: float) -> str:
    words = name.replace("_at_least", "").replace("_at_most", "").replace("_", " ")
    found = "is not known" if math.isnan(figure) else f"is {figure:.4g}"
    return f"{words} {found}, must be at {'least' if name.endswith('_at_least') else 'most'} {limit:g}"


def hours_since(time: Any, moment: datetime) -> float:
    """Return the age of a comparison; NaN for one from the future, or from no time at all."""
    try:
        hours = (moment - datetime.fromisoformat(time)).total_seconds() / 3600
    except (TypeError, ValueError):
        return math.nan
    return hours if hours >= -0.1 else math.nan  # two clocks differ by minutes at most


def least(figures: Iterable[float]) -> float:
    """Return the smallest figure, NaN if one is: min() would pass over it."""
    known = list(figures)
    return math.nan if any(map(math.isnan, known)) else min(known)


def divided(one: float, other: float) -> float:
    return one / other if other > 0 else math.nan


def now() -> datetime:
    return datetime.now(timezone.utc)
