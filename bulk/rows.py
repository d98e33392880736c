"""One row a photo: the columns of the Parquet files, and what goes into them."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from handler import answer
from handler.classifier import Judgement
from handler.refusal import Refusal

Row = dict[str, Any]
DIGITS = 6  # of `unlike`; answer.py rounds the rest


def schema(labels: Sequence[str]) -> pa.Schema:
    """Return the columns. What is not known of a photo is null: sha256 of one that could not be read, label of a refused one."""
    return pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            ("sha256", pa.string()),
            ("label", pa.string()),
            ("confidence", pa.float64()),
            *((column(label), pa.float64()) for label in labels),
            ("unsure", pa.bool_()),
            ("unsure_because", pa.string()),
            ("unlike", pa.float64()),
            pa.field("model", pa.string(), nullable=False),
            pa.field("version", pa.string(), nullable=False),
            pa.field("archive", pa.string(), nullable=False),
            pa.field("form", pa.string(), nullable=False),
            ("error_code", pa.string()),
            ("error", pa.string()),
        ]
    )


def column(label: str) -> str:
    return f"probability_{label}"  # as predict.py --csv calls it; a label may be called like another column


def answered(judgement: Judgement, model: Mapping[str, str]) -> Row:
    """Return what the server would answer."""
    content = answer.prediction(judgement, model, "", 0, 0)
    probabilities = {column(label): value for label, value in content["probabilities"].items()}
    told = {name: content[name] for name in ("label", "confidence", "unsure", "unsure_because")}
    return {**told, **probabilities, "unlike": round(judgement.unlike, DIGITS)}


def refused(refusal: Refusal) -> Row:
    return {"error_code": refusal.code, "error": refusal.message}


def named(name: bytes) -> str:
    """Return a photo's name as text; bytes that are none in UTF-8 are written \\xff."""
    return name.decode("utf-8", "backslashreplace")


def digest(data: bytes | Refusal) -> str | None:
    return None if isinstance(data, Refusal) else hashlib.sha256(data).hexdigest()


def as_parquet(rows: Sequence[Row], columns: pa.Schema) -> bytes:
    """Return a part: the same rows give the same bytes."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, columns), buffer, compression="zstd")
    return buffer.getvalue()
