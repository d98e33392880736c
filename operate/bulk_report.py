"""The report of answers about many photos: what scripts/score_many.py counted, for people."""

from collections.abc import Mapping
from typing import Any

from operate import page


def rendered(found: Mapping[str, Any]) -> str:
    """Return the summary as HTML."""
    plan = found["plan"]
    about = (
        f"{found['photos']:,} photos of {plan['source']}, answered by {plan['model']} {plan['version']} "
        f"(archive sha256 {plan['archive']}, {', '.join(found['forms'])}). Files that are not called like photos: {plan['left_out']:,}."
    )
    return page.page(
        "Answers about many photos",
        [
            page.paragraph(about),
            headlines(found),
            page.section(
                "Labels", page.table(["label", "photos", "share of answered"], counted(found["labels"], found["answered"]))
            ),
            page.section("Unsure", unsure(found)),
            page.section("Confidence", page.table(["confidence", "photos"], confidence(found["confidence"]))),
            page.section("Refused", refused(found)),
            page.section("This run", page.table(["figure", "value"], run(found["run"]))),
        ],
    )


def headlines(found: Mapping[str, Any]) -> str:
    shown = [(page.percent(share(found["answered"], found["photos"])), f"of {found['photos']:,} photos are answered")]
    shown.append((page.percent(share(sum(found["unsure"].values()), found["answered"])), "of the answers are unsure"))
    if unlike := found["unsure"].get("unlike_training_photos"):
        shown.append((f"{unlike:,}", "photos are unlike the training photos"))
    shown.append((f"{sum(found['refused'].values()):,}", "photos are refused"))
    return page.cards(shown)


def counted(counts: Mapping[str, int], whole: int) -> list[list[str]]:
    return [[name.replace("_", " "), f"{count:,}", page.percent(share(count, whole))] for name, count in counts.items()]


def unsure(found: Mapping[str, Any]) -> str:
    if not found["unsure"]:
        return page.paragraph("No answer.")
    return page.table(["because", "photos", "share of answered"], counted(found["unsure"], found["answered"]))


def confidence(counts: list[int]) -> list[list[str]]:
    width = 1 / len(counts)
    return [[f"{index * width:.2f} to {(index + 1) * width:.2f}", f"{count:,}"] for index, count in enumerate(counts) if count]


def refused(found: Mapping[str, Any]) -> str:
    if not found["refused"]:
        return page.paragraph("No photo.")
    named = [[one["path"], one["error_code"], one["error"]] for one in found["shown"]]
    whole = sum(found["refused"].values())
    more = page.paragraph(f"The first {len(named):,} of {whole:,}; all are in the answers.") if whole > len(named) else ""
    codes = page.table(["reason", "photos", "share of all"], counted(found["refused"], found["photos"]))
    return codes + more + page.table(["photo", "reason", "in words"], named)


def run(facts: Mapping[str, Any]) -> list[list[str]]:
    rate = f"{facts['photos'] / facts['seconds']:,.0f} a second" if facts["photos"] and facts["seconds"] else "none"
    return [
        ["photos answered now", f"{facts['photos']:,}"],
        ["photos found answered", f"{facts['found']:,}"],
        ["seconds, start included", f"{facts['seconds']:,}"],
        ["rate", rate],
    ]


def share(count: int, whole: int) -> float | None:
    return count / whole if whole else None


def told(found: Mapping[str, Any]) -> str:
    """Return the summary as text."""
    labels = ", ".join(f"{count:,} {label}" for label, count in found["labels"].items()) or "none"
    unsure_count = sum(found["unsure"].values())
    lines = [f"{found['photos']:,} photos: {found['answered']:,} answered ({labels}), {unsure_count:,} of them unsure"]
    lines += [f"refused, {code}: {count:,}" for code, count in found["refused"].items()]
    return "\n".join(lines)
