"""What is known about drift, as one HTML file that needs no network: its plots are SVG, in the colours of the reader's screen."""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from operate.drift import EVERY, Array, Difference, Reference, Window
from operate.drift_watch import State
from operate.drift_words import difference_in_words, likelihood, notes, number, percent, since_in_words, time_of
from operate.files import write_whole
from operate.photo_log import WORDS

PAGE = Path(__file__).with_name("drift_report.html")
WIDTH, HEIGHT, LEFT, BELOW = 480, 190, 58, 30  # of a plot, and the room for its axes
POINTS = 100  # of a curve


def write_report(state: State, folder: Path) -> Path:
    """Write report.html whole or not at all; returns its path."""
    path = folder / "report.html"
    write_whole(path, page(state))
    return path


def page(state: State) -> str:
    found = state.findings
    title = f"{state.verdict}{f' {since_in_words(found[0].since, state)}' if found else ''}"
    parts = [f"<h1>{escape(title[:1].upper() + title[1:])}</h1>", paragraphs([state.lacking, *notes(state)])]
    if found:
        sentences = [
            f"{difference_in_words(one.difference, one.window)} ({likelihood(one.difference.p)}); {since_in_words(one.since, state)}"
            for one in found
        ]
        parts.append("<ul>" + "".join(f"<li>{escape(text)}</li>" for text in sentences) + "</ul>")
    if state.looks and state.reference:
        names = dict.fromkeys([*(one.difference.statistic for one in found), *state.reference.statistics])
        parts += [table(state.looks[-1].windows), *(section(name, state, state.reference) for name in names)]
    return Template(PAGE.read_text(encoding="utf-8")).substitute(title=escape(f"petclf: {state.verdict}"), body="\n".join(parts))


def paragraphs(texts: Iterable[str]) -> str:
    return "".join(f'<p class="note">{escape(text)}</p>' for text in texts if text)


def table(windows: tuple[Window, ...]) -> str:
    """Return how far each window is from the reference, and how likely that is by chance."""
    full = [window for window in windows if window.differences]
    head = "".join(f"<th>last {window.photos:,}</th>" for window in full)
    columns = [{one.statistic: one for one in window.differences} for window in full]
    rows = [f"<tr><td>{name}</td>{''.join(cell(column[name]) for column in columns)}</tr>" for name in columns[0]]
    caption = "Share of photos by which a window differs from the reference, and how likely that is where nothing changed (p, corrected)"
    lacking = [f"last {window.photos:,}: {window.verdict}" for window in windows if not window.differences]
    return (
        f'<h2>Windows</h2>{paragraphs([caption, *lacking])}<div class="scroll"><table><tr><th>statistic</th>{head}</tr>'
        f"{''.join(rows)}</table></div>"
    )


def cell(one: Difference) -> str:
    return f"<td{' class=drift' if one.found else ''}>{percent(one.distance)}, {escape(likelihood(one.p))}</td>"


def section(name: str, state: State, reference: Reference) -> str:
    """Return the plots of one statistic: over time, and as a distribution where it is a number."""
    values = state.photos.values[name][: state.looks[-1].end]
    full = [window for window in state.looks[-1].windows if window.differences]
    differences = {window.photos: one for window in full for one in window.differences if one.statistic == name}
    if name in WORDS:
        word = str(max(differences.values(), key=lambda one: one.distance).place)
        there, usual, what = (values == word).astype(float), reference.share(name, word), f"share of {name} {word}"
        second = ""
    else:
        there, usual, what = values.astype(float), reference.mean(name), f"mean {name}"
        second = distribution(name, values, reference, [*differences])
    return f'<h2>{name}</h2><div class="pictures">{timeline(name, what, there, usual, state)}{second}</div>'


def timeline(name: str, what: str, values: Array, usual: float, state: State) -> str:
    """Draw the mean of every EVERY photos, the reference's, and where a change began."""
    count = len(values) // EVERY
    means = values[len(values) - count * EVERY :].reshape(count, EVERY).mean(1)
    low, high = spread(np.append(means, usual))
    drifted = {look.end for look in state.looks for window in look.windows for one in window.found if one.statistic == name}
    ends = [len(values) - (count - 1 - index) * EVERY for index in range(count)]
    xs = [place(end, 0, len(values), LEFT, WIDTH) for end in ends]
    ys = [place(mean, low, high, HEIGHT - BELOW, 8) for mean in means]
    level = place(usual, low, high, HEIGHT - BELOW, 8)
    drawn = [
        f'<polyline class="before" points="{LEFT},{level:.1f} {WIDTH},{level:.1f}"/>',
        f'<polyline class="now" points="{points(xs, ys)}"/>',
        *(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.2 if end in drifted else 1.8}"{" class=drift" if end in drifted else ""}/>'
            for x, y, end in zip(xs, ys, ends, strict=True)
        ),
    ]
    for one in state.findings:
        if one.difference.statistic == name:
            x = place(one.since.photo, 0, len(values), LEFT, WIDTH)
            drawn.append(f'<polyline class="began" points="{x:.1f},0 {x:.1f},{HEIGHT - BELOW}"/>')
    times = state.photos.times
    ends_of_axis = (time_of(times[0])[:16], time_of(times[len(values) - 1])[:16])
    caption = f"{what} of every {EVERY} photos; dashed: the reference; large: a look found drift; dotted: where it began"
    return plot(drawn, (number(low), number(high)), ends_of_axis, caption)


def distribution(name: str, values: Array, reference: Reference, windows: list[int]) -> str:
    """Draw the share of photos up to each value: the reference's, and those of the shortest and the longest window."""
    known, shares = reference.steps(name)
    shown = sorted({windows[0], windows[-1]})
    samples = {size: np.sort(values[-size:]) for size in shown}
    low, high = spread(np.concatenate([np.quantile(one, (0.01, 0.99)) for one in (known, *samples.values())]))
    curves = [("before", known, shares)]
    for size in reversed(shown):
        curves.append(("last" if size == shown[0] else "now", samples[size], np.arange(1, size + 1) / size))
    drawn = []
    for style, xs, ys in curves:
        some = np.unique(np.linspace(0, len(xs) - 1, POINTS).astype(int))
        across = [place(x, low, high, LEFT, WIDTH) for x in np.clip(xs[some], low, high)]
        drawn.append(
            f'<polyline class="{style}" points="{points(across, [place(y, 0, 1, HEIGHT - BELOW, 8) for y in ys[some]])}"/>'
        )
    longer = f"; blue: the last {shown[1]:,}" if len(shown) > 1 else ""
    caption = f"share of photos up to each {name}; dashed: the reference; orange: the last {shown[0]:,}{longer}"
    return plot(drawn, ("0 %", "100 %"), (number(low), number(high)), caption)


def spread(values: Array) -> tuple[float, float]:
    """Return where an axis begins and ends: never at one place."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def place(value: float, low: float, high: float, start: float, end: float) -> float:
    return start + float(value - low) / (high - low) * (end - start)


def points(xs: Iterable[float], ys: Iterable[float]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))


def plot(drawn: list[str], vertical: tuple[str, str], horizontal: tuple[str, str], caption: str) -> str:
    bottom = HEIGHT - BELOW
    axes = [
        f'<polyline class="axis" points="{LEFT},8 {LEFT},{bottom} {WIDTH},{bottom}"/>',
        f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">{escape(vertical[0])}</text>',
        f'<text x="{LEFT - 6}" y="16" text-anchor="end">{escape(vertical[1])}</text>',
        f'<text x="{LEFT}" y="{HEIGHT - 10}">{escape(horizontal[0])}</text>',
        f'<text x="{WIDTH}" y="{HEIGHT - 10}" text-anchor="end">{escape(horizontal[1])}</text>',
    ]
    picture = (
        f'<svg viewBox="0 0 {WIDTH + 10} {HEIGHT}" role="img" aria-label="{escape(caption)}">{"".join([*axes, *drawn])}</svg>'
    )
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"
