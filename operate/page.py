"""The parts of a report: one HTML file that needs no network."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from operate.shares import Share

TEMPLATE = Path(__file__).with_name("report.html")


def page(title: str, sections: Iterable[str]) -> str:
    """Return the whole file."""
    body = "\n".join([f"<h1>{escape(title)}</h1>", *sections])
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(title=escape(title), body=body)


def section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def cards(shown: Iterable[tuple[str, str]]) -> str:
    """Return the figures that matter first, large, each with what it is."""
    boxes = (f'<div class="card"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in shown)
    return f'<div class="cards">{"".join(boxes)}</div>'


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; columns of numbers are aligned right."""
    numeric = [all(row[column][:1].isdecimal() for row in rows if row[column]) for column in range(len(headings))]
    numeric[0] = False  # the name of the row
    head = "".join(cell("th", *one) for one in zip(headings, numeric, strict=True))
    body = "".join(f"<tr>{''.join(cell('td', *one) for one in zip(row, numeric, strict=True))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cell(kind: str, text: str, is_number: bool) -> str:
    place = ' class="number"' if is_number else ""
    return f"<{kind}{place}>{escape(text)}</{kind}>"


def percent(share: float | None, digits: int = 2) -> str:
    return "unknown" if share is None else f"{share * 100:.{digits}f} %"


def between(share: Share) -> str:
    """Return an interval in words."""
    return f"{share.interval[0] * 100:.2f} to {share.interval[1] * 100:.2f} %" if share.interval else ""
