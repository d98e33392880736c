"""The figures of late labels as text, as a report, and as Prometheus' metrics."""

from collections.abc import Iterable, Sequence

from operate.late_labels import CONTRADICTORY, FOREIGN, JOINED, SEVERAL, UNKNOWN, LateFigures, Live
from operate.late_reader import Late
from operate.page import between, cards, page, paragraph, percent, section, table
from operate.shares import Share, share_of

HEADINGS = ["predictions", "labelled", "accuracy", "95 % interval", "when sure", "unsure"]
SHOWN = 10  # broken lines that are printed
VERSIONS = 20  # that have metrics of their own
OTHER = "other"
FATES = {
    JOINED: "joined with a prediction",
    UNKNOWN: "of requests that the log does not have",
    CONTRADICTORY: "contradictory: two labels for one request",
    SEVERAL: "of requests with several photos",
    FOREIGN: "of labels that the model does not know",
}
HELP = {
    "petclf_live_accuracy": "share of the labelled predictions that are right",
    "petclf_live_accuracy_low": "lower end of the accuracy's 95 % interval",
    "petclf_live_accuracy_high": "upper end of the accuracy's 95 % interval",
    "petclf_live_predictions": "predictions in the log and its older parts",
    "petclf_live_labelled": "predictions for which a label has come",
    "petclf_live_right": "labelled predictions that are right",
    "petclf_live_unsure": "predictions that are unsure",
    "petclf_live_labels": "request ids in the label files, by what became of them",
    "petclf_live_broken_lines": "lines that could not be read",
    "petclf_live_read_success": "1 if the files could be read the last time, 0 if the figures are older",
    "petclf_live_read_timestamp_seconds": "when the files were read the last time, seconds since 1970",
}


def as_text(late: Late) -> str:
    """Return the figures as they are printed."""
    found = late.figures
    width = max(len(name) for name, _ in named(found))
    lines = [
        f"{found.live.coverage.photos:,} predictions, {found.live.coverage.count:,} with a label",
        f"{'':<{width}}  {'predictions':>11}  {'labelled':>18}  {'accuracy':>9}  {'95 % interval':>17}  {'when sure':>9}  {'unsure':>9}",
        *(in_columns(name, one, width) for name, one in named(found)),
        *sentences(late),
        *(f"  {one}" for one in late.told[:SHOWN]),
    ]
    return "\n".join(lines)


def in_columns(name: str, one: Live, width: int) -> str:
    count, labelled, accuracy, interval, sure, unsure = cells(one)
    return f"{name:<{width}}  {count:>11}  {labelled:>18}  {accuracy:>9}  {interval:>17}  {sure:>9}  {unsure:>9}"


def named(found: LateFigures) -> list[tuple[str, Live]]:
    """Return every row of the table: all, each version, each day, and each day of each version where there are several."""
    rows = [("all", found.live), *((f"version {name}", one.live) for name, one in found.versions.items())]
    rows += [(f"day {day}", one) for day, one in found.days.items()]
    if len(found.versions) > 1:
        rows += [(f"{name} on {day}", one) for name, of in found.versions.items() for day, one in of.days.items()]
    return rows


def cells(one: Live) -> list[str]:
    coverage = one.coverage
    return [
        f"{coverage.photos:,}", f"{coverage.count:,} ({percent(coverage.share, 1)})", percent(one.accuracy.share),
        between(one.accuracy), percent(one.sure.share), percent(one.unsure.share),
    ]  # fmt: skip


def sentences(late: Late) -> list[str]:
    """Return what became of the labels, and what a reader must know before trusting the figures."""
    found = late.figures
    said = [f"labels: {', '.join(f'{count:,} {FATES[name]}' for name, count in found.labels.items() if count) or 'none'}"]
    if found.never_predicted:
        said.append(
            f"no prediction says {', '.join(found.never_predicted)}: if the model does not know it, "
            "--known with the model's labels leaves it out"
        )
    all_of, labelled = found.live.unsure, found.live.unsure_labelled
    if differ(all_of, labelled):
        said.append(
            f"the labelled predictions are not like the rest: {percent(labelled.share)} of them are unsure, of all {percent(all_of.share)}"
        )
    if lines := sum(late.broken.values()):
        said.append(
            f"{lines:,} lines cannot be read: {late.broken['logs']:,} of logs, {late.broken['label_files']:,} of label files"
        )
    return said


def differ(whole: Share, part: Share) -> bool:
    """Tell whether the share of the whole lies outside the interval of the part."""
    return whole.share is not None and part.interval is not None and not part.interval[0] <= whole.share <= part.interval[1]


def render(late: Late) -> str:
    """Return the report as HTML."""
    found = late.figures
    live = found.live
    shown = [
        (
            percent(live.accuracy.share),
            f"of {live.accuracy.photos:,} labelled predictions are right; 95 % interval {between(live.accuracy)}",
        ),
        (percent(live.coverage.share, 1), f"of {live.coverage.photos:,} predictions have a label"),
        (
            percent(live.unsure.share, 1),
            f"of all predictions are unsure, and {percent(live.unsure_labelled.share, 1)} of the labelled",
        ),
    ]
    about = f"{', '.join(late.logs)} and their older parts, joined with {', '.join(late.label_files)}. Days are UTC."
    fates = [[FATES[name], f"{count:,}"] for name, count in found.labels.items()]
    sections = [
        paragraph(about),
        *map(paragraph, sentences(late)[1:]),
        cards(shown),
        section("By version and day", table(["", *HEADINGS], [[name, *cells(one)] for name, one in named(found)])),
        section("Labels", table(["what became of them", "request ids"], fates)),
    ]
    if late.told:
        broken = [[one.file, f"{one.line:,}", one.reason] for one in late.told]
        sections.append(section("Lines that cannot be read", table(["file", "line", "reason"], broken)))
    return page("How right the server was", sections)


def metrics(late: Late, success: bool, timestamp: float) -> str:
    """Return everything in Prometheus' text format."""
    versions = bounded(late.figures)
    families: dict[str, dict[str, float]] = {
        "petclf_live_accuracy": measured((name, one.accuracy.share) for name, one in versions.items()),
        "petclf_live_accuracy_low": measured((name, (one.accuracy.interval or (None,))[0]) for name, one in versions.items()),
        "petclf_live_accuracy_high": measured((name, (one.accuracy.interval or (None,))[-1]) for name, one in versions.items()),
        "petclf_live_predictions": measured((name, one.coverage.photos) for name, one in versions.items()),
        "petclf_live_labelled": measured((name, one.coverage.count) for name, one in versions.items()),
        "petclf_live_right": measured((name, one.accuracy.count) for name, one in versions.items()),
        "petclf_live_unsure": measured((name, one.unsure.count) for name, one in versions.items()),
        "petclf_live_labels": {f'{{result="{name}"}}': count for name, count in late.figures.labels.items()},
        "petclf_live_broken_lines": {f'{{file="{name}"}}': count for name, count in late.broken.items()},
        "petclf_live_read_success": {"": int(success)},
        "petclf_live_read_timestamp_seconds": {"": round(timestamp, 3)},
    }
    return "".join(
        f"# HELP {name} {HELP[name]}\n# TYPE {name} gauge\n" + "".join(f"{name}{key} {value}\n" for key, value in values.items())
        for name, values in families.items()
    )


def measured(values: Iterable[tuple[str, float | None]]) -> dict[str, float]:
    """Return the samples of each version; an accuracy without labels has none."""
    return {f'{{version="{escaped(name)}"}}': value for name, value in values if value is not None}


def escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def bounded(found: LateFigures) -> dict[str, Live]:
    """Return the versions that were asked last, and all others as one: each version is a series in Prometheus."""
    newest = sorted(found.versions, key=lambda name: (max(found.versions[name].days), name), reverse=True)
    shown = {name: found.versions[name].live for name in newest[:VERSIONS]}
    rest = [found.versions[name].live for name in newest[VERSIONS:]]
    return shown | ({OTHER: together(rest)} if rest else {})


def together(some: Sequence[Live]) -> Live:
    """Return the figures of several sets of predictions as those of one."""
    sums = {
        name: share_of(sum(getattr(one, name).count for one in some), sum(getattr(one, name).photos for one in some))
        for name in vars(some[0])
    }
    return Live(**sums)
