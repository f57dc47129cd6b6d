"""Write and read the detections of a run as json, so that reports need no second run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.atomic_files import write_bytes
from lungdet_mmdet.scoring.slab_records import SlabDetections, SlabSet


def unique_by_slab(detections: Iterable[SlabDetections]) -> list[SlabDetections]:
    """Keep the first record of every slab, ordered by image id.

    Distributed runs pad the last batch with slabs that another process has already seen.
    """
    first: dict[int, SlabDetections] = {}
    for item in detections:
        first.setdefault(item.img_id, item)
    return [first[img_id] for img_id in sorted(first)]


def write_predictions(
    path: str | Path, slab_set: SlabSet, detections: Sequence[SlabDetections]
) -> None:
    """Write a list of {img_id, seriesuid, slab_index, bboxes, scores}, one entry per slab.

    Boxes are xyxy in slab pixels. The file appears whole or not at all.
    """
    rows = [
        {
            "img_id": item.img_id,
            "seriesuid": slab_set.slabs[item.img_id].seriesuid,
            "slab_index": slab_set.slabs[item.img_id].slab_index,
            "bboxes": item.boxes_xyxy_px.tolist(),
            "scores": item.scores.tolist(),
        }
        for item in detections
    ]
    write_bytes(Path(path), json.dumps(rows).encode("utf-8"))


def read_predictions(path: str | Path) -> list[SlabDetections]:
    """Read what ``write_predictions`` wrote.

    Raises
    ------
    LungDetError
        When the file is missing or not of that form.
    """
    path = Path(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [
            SlabDetections(row["img_id"], np.asarray(row["bboxes"]), np.asarray(row["scores"]))
            for row in rows
        ]
    except FileNotFoundError:
        raise LungDetError(f"{path}: no such prediction file; run the test command first") from None
    except (KeyError, TypeError, ValueError) as error:
        raise LungDetError(
            f"{path}: not a prediction file of this package ({error}); run the test command again"
        ) from error
