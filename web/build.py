"""page.html, page.css, page.js, the example photos and what is known of a model -> the page as one file, which goes into the archive."""

import base64
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXAMPLES = HERE / "examples"
# By how many of its places a heat map lies right of and below its photo: mirroring 142 photos gave medians of 0.80 and 0.84
SHIFT = {"efficientnet_lite0": 0.8}


def page(metadata: dict[str, Any]) -> bytes:
    """Return the page as one file: style, script, what it says of the model, and the example photos."""
    parts = {
        '<link rel="stylesheet" href="page.css">': f"<style>{read('page.css')}</style>",
        '<script id="facts" type="application/json">{}</script>': f'<script id="facts" type="application/json">{facts(metadata)}</script>',
        '<script src="page.js"></script>': f"<script>{read('page.js')}</script>",
    }
    text = read("page.html")
    for mark, part in parts.items():
        assert mark in text, mark
        text = text.replace(mark, part)
    return text.encode()


def read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def facts(metadata: dict[str, Any]) -> str:
    """Return what the page says of the model, as JSON that cannot end the element it stands in."""
    labels = metadata.get("labels", [])
    measured = {"fp32": metadata.get("metrics", {}), "int8": metadata.get("int8", {}).get("metrics", {})}
    origin = metadata.get("provenance", {})
    content = {
        **{key: metadata.get(key) for key in ("version", "labels", "parameters")},
        "trained": origin.get("exported_at", "")[:10],
        "commit": origin.get("git_commit", "")[:12],
        "shift": SHIFT.get(origin.get("training", {}).get("network"), 0),
        "measured": {form: figures for form, metrics in measured.items() if (figures := page_figures(metrics))},
        "examples": [
            {key: one[key] for key in ("file", "name", "author", "licence")}
            | {"photo": "data:image/jpeg;base64," + base64.b64encode((EXAMPLES / one["file"]).read_bytes()).decode()}
            for one in examples(labels)
        ],
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def page_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that the page shows, of those that were measured."""
    wanted = {"accuracy": ("test", "accuracy"), "photos": ("test", "photos"), "others_refused": ("unlike", "others_refused")}
    return {name: metrics[part][key] for name, (part, key) in wanted.items() if key in metrics.get(part, {})}


def examples(labels: list[str]) -> list[dict[str, Any]]:
    """Return the example photos for a model: those of its labels, and of none; without any of its labels, none at all."""
    known = [one for one in json.loads(read("examples/sources.json")) if set(one["shows"]) <= set(labels)]
    return known if any(one["shows"] for one in known) else []
