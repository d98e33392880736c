"""Is the promise of sure answers kept? Validation and test answers are dealt anew, and each deal is fitted and measured."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import write_record
from training.config import PARAMS, EvaluateConfig, load_params
from training.fit import choose
from training.paths import REPORTS

ANSWERS = REPORTS / "answers.npz"


@dataclass(frozen=True)
class Answers:
    """A form's answers to validation photos, then to test photos."""

    logits: torch.Tensor
    unlike: torch.Tensor
    truth: torch.Tensor
    fitted_on: int  # how many of them are validation photos


@dataclass(frozen=True)
class Deal:
    """What became of the promise of one deal."""

    kept: bool  # enough photos to promise anything
    coverage: float
    wrong: float


def read_answers(path: Path) -> dict[str, Answers]:
    """Return the answers of each form that `make evaluate` measured."""
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    truth = torch.cat([arrays["val_truth"], arrays["test_truth"]])
    joined = {
        (form, kind): torch.cat([arrays[f"{form}_{split}_{kind}"] for split in ("val", "test")])
        for form in ("fp32", "int8") if f"{form}_val_logits" in arrays for kind in ("logits", "unlike")
    }  # fmt: skip
    return {form: Answers(joined[form, "logits"], joined[form, "unlike"], truth, len(arrays["val_truth"])) for form, _ in joined}


def deals(answers: Answers, config: EvaluateConfig, count: int) -> Iterator[Deal]:
    """Fit on as many photos as validation has, measure on the others, again and again."""
    random = np.random.default_rng(0)
    for _ in range(count):
        order = torch.from_numpy(random.permutation(len(answers.truth)))
        fitted, measured = order[: answers.fitted_on], order[answers.fitted_on :]
        temperature, unlike_above, unsure_below, promise = choose(
            answers.logits[fitted], answers.truth[fitted], answers.unlike[fitted], config
        )
        confidence, labels = torch.softmax(answers.logits[measured] / temperature, 1).max(1)
        sure = (confidence >= unsure_below) & (answers.unlike[measured] <= unlike_above)
        wrong = (labels != answers.truth[measured])[sure].double().mean().item() if sure.any() else 0.0
        yield Deal(promise.kept, sure.double().mean().item(), wrong)


def describe(form: str, answers: Answers, found: list[Deal], limit: float) -> str:
    """Return a row of the table."""
    promised = [deal for deal in found if deal.kept]
    broken = sum(deal.wrong > limit for deal in promised)
    sure, wrong = ([f"{value:.2%}" for value in np.quantile(values, (0.5, 0, 1))] for values in columns(promised or found))
    photos = f"{answers.fitted_on:,} + {len(answers.truth) - answers.fitted_on:,}"
    ranges = " | ".join(f"{middle} [{low}-{high}]" for middle, low, high in (sure, wrong))
    return f"| {form} | {photos} | {len(promised)} of {len(found)} | {broken} ({broken / len(found):.1%}) | {ranges} |"


def columns(found: list[Deal]) -> tuple[list[float], list[float]]:
    return [deal.coverage for deal in found], [deal.wrong for deal in found]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=Path, default=ANSWERS, help="what `make evaluate` wrote")
    parser.add_argument("--params", type=Path, default=PARAMS)
    parser.add_argument("--deals", type=int, default=500)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args(argv)
    config = load_params(args.params).evaluate
    lines = [
        f"Promised: at most {config.wrong_when_sure:.2%} of the sure answers are wrong, with {config.promise_confidence:.0%} "
        "confidence. Broken: the measured share is higher.",
        "",
        "| form | photos fitted + measured | promised | broken | sure answers, median [range] | wrong among them, median [range] |",
        "|---|---|---|---|---|---|",
    ]
    for form, answers in read_answers(args.answers).items():
        lines.append(describe(form, answers, list(deals(answers, config, args.deals)), config.wrong_when_sure))
    print("\n".join(lines))
    if args.record:
        print(write_record("promise", "The promise of sure answers", "python -m benchmarks.promise --record", lines))


if __name__ == "__main__":
    main()
