"""The manifest as MLflow's data sets: one a split, with its counts, under the digest of the whole."""

import json
import os
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from training.manifest import SPLITS, Manifest, Row

CONTEXTS = {"train": "training", "val": "validation", "test": "test"}
DIGEST_LENGTH = 36  # what MLflow's table of data sets has room for
ARCHIVES = {".zip"}


def dataset_inputs(manifest: Manifest) -> list[Any]:
    """Return the splits as MLflow takes a run's inputs."""
    from mlflow.entities import DatasetInput, InputTag  # noqa: PLC0415  (takes seconds, and only tracking needs it)
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT  # noqa: PLC0415

    return [
        DatasetInput(dataset(manifest, split), [InputTag(MLFLOW_DATASET_CONTEXT, CONTEXTS[split])])
        for split in SPLITS
        if manifest.split(split)
    ]


def dataset(manifest: Manifest, split: str) -> Any:
    """Return one split as an MLflow data set; its digest begins like the tag `data_digest`."""
    from mlflow.entities import Dataset  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    rows = manifest.split(split)
    source = source_of(manifest.rows)
    columns = Schema([ColSpec("binary", "photo"), ColSpec("string", "label")])
    return Dataset(
        name=f"{PurePosixPath(source).name} {split}",
        digest=manifest.digest[:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": source}),
        schema=json.dumps({"mlflow_colspec": columns.to_dict()}),
        profile=json.dumps(profile(rows)),
    )


def profile(rows: list[Row]) -> dict[str, Any]:
    """Return how many photos there are, and how many of each label."""
    counts = Counter(row.label for row in rows)
    return {"num_rows": len(rows), "labels": {label: counts[label] for label in sorted(counts)}}


def source_of(rows: list[Row]) -> str:
    """Return the folder or zip that holds all of the manifest's files."""
    together = os.path.commonpath([str(PurePosixPath(row.path).parent) for row in rows])
    path = PurePosixPath(together)
    archive = next((one for one in (path, *path.parents) if one.suffix.lower() in ARCHIVES), path)
    return archive.as_posix()
