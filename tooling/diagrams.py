"""The two drawings of docs/architecture.md: boxes in rows, read like text, from left to right and then the next row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, GAP, MARGIN = 196, 74, 44, 12
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 11.5px; fill: #57606a }
  rect { fill: #f6f8fa; stroke: #8c6d46; rx: 6 } path { fill: none; stroke: #8c6d46; stroke-width: 1.5; marker-end: url(#tip) } #tip path { fill: #8c6d46; stroke: none }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .small { fill: #9da7b3 } rect { fill: #161b22 } }
"""


@dataclass(frozen=True)
class Box:
    name: str
    what: str  # two lines at most, parted by |
    file: str = ""  # where it is in the repository, shown as the name


def box(file: str, what: str) -> Box:
    return Box(file, what, file)


TRAINING = [
    [
        Box("photos", "folder, zip or CSV|one folder per label"),
        box("training/manifest.py", "label, split and verdict|of every photo"),
        box("training/dataset.py", "uint8 tensors,|augmented views"),
        box("training/train.py", "weights, with a checkpoint|that it resumes from"),
    ],
    [
        box("training/fit.py", "calibration, unsure, unlike;|opens no test photo"),
        box("training/evaluate.py", "figures and report;|chooses nothing"),
        box("training/export.py", "petclf.pt (TorchScript),|and its int8 form"),
        box("scripts/build_archive.py", "petclf-VERSION.mar:|model, handler, page"),
    ],
    [
        Box("register", "workers beside the live|version; known photo right"),
        Box("verify", "both versions on labelled|photos; operate/gate.yaml"),
        Box("shadow", "a share of real traffic,|clients notice nothing"),
        Box("promote", "live, watched;|rolled back if it does badly"),
    ],
]
SERVING = [
    [
        Box("client", "curl, page, program"),
        box("deploy/gateway/nginx.conf", "TLS, keys, limits;|the only public part"),
        Box("TorchServe", "as pip installs it:|queue, batches of 8"),
        box("handler/petclf_handler.py", "rows and headers of|TorchServe -> questions"),
    ],
    [
        box("handler/cost.py", "what a photo will cost;|who gives way"),
        box("handler/photo_input.py", "bytes -> upright RGB pixels,|or one clear refusal"),
        box("handler/classifier.py", "petclf.pt: probabilities,|unlike; heat maps"),
        box("handler/answer.py", "label, confidence,|unsure and why"),
    ],
    [
        box("handler/recorder.py", "metrics, prediction log,|the last photos"),
        box("serving/supervise.py", "readiness, lost workers,|draining"),
        Box("Prometheus", "rules, alerts,|Grafana's dashboard"),
        Box("scripts: drift, late_labels", "has it changed?|is it right?"),
    ],
]


def draw(rows: Sequence[Sequence[Box]], title: str) -> str:
    width = 2 * MARGIN + max(map(len, rows)) * (WIDTH + GAP) - GAP
    height = 2 * MARGIN + len(rows) * (HEIGHT + GAP) - GAP
    parts = [part for row in range(len(rows)) for part in drawn_row(rows, row)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{escape(title)}">',
            f"<style>{STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0 8 4 0 8z"/></marker></defs>',
            *parts,
            "</svg>\n",
        ]
    )


def drawn_row(rows: Sequence[Sequence[Box]], row: int) -> Iterator[str]:
    top = MARGIN + row * (HEIGHT + GAP)
    for column, one in enumerate(rows[row]):
        left = MARGIN + column * (WIDTH + GAP)
        yield f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}"/>'
        yield f'<text x="{left + 10}" y="{top + 23}">{escape(one.name)}</text>'
        for number, line in enumerate(one.what.split("|")):
            yield f'<text class="small" x="{left + 10}" y="{top + 44 + 16 * number}">{escape(line)}</text>'
        if column:
            yield f'<path d="M{left - GAP + 3} {top + HEIGHT // 2}H{left - 3}"/>'
    if row:  # from the end of the row above to the beginning of this one
        last = MARGIN + (len(rows[row - 1]) - 1) * (WIDTH + GAP) + WIDTH // 2
        yield f'<path d="M{last} {top - GAP + 3}V{top - GAP // 2}H{MARGIN + WIDTH // 2}V{top - 3}"/>'


def training() -> str:
    return draw(TRAINING, "From photos to a live model")


def serving() -> str:
    return draw(SERVING, "From a request to an answer, and who watches")
