"""Overlays of annotated and detected boxes for a tested split."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from lungdet_mmdet.figures.slab_overlays import (
    detection_boxes,
    draw_slab,
    read_slab,
    truth_boxes,
    write_png,
)
from lungdet_mmdet.testing.slab_test import SlabTestOutcome


def write_overlays(outcome: SlabTestOutcome, folder: Path, *, min_score: float) -> int:
    """Write one PNG per slab that has a nodule or a detection of at least `min_score`.

    Returns
    -------
    int
        Number of pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    annotations = defaultdict(list)
    for annotation in outcome.coco["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    images = {image["id"]: image for image in outcome.coco["images"]}
    written = 0
    for found in outcome.detections:
        image = images[found.img_id]
        kept = found.scores >= min_score
        if not kept.any() and not any(not a["iscrowd"] for a in annotations[found.img_id]):
            continue
        low, high = image["z_range_mm"]
        boxes = np.asarray(found.boxes_xyxy_px, dtype=float).reshape(-1, 4)
        picture = draw_slab(
            read_slab(outcome.slab_folder / image["file_name"]),
            truth_boxes(annotations[found.img_id])
            + detection_boxes(boxes[kept], found.scores[kept]),
            spacing_x_mm=image["spacing"][0],
            caption=f"{outcome.run.data}  ...{image['seriesuid'][-12:]}  "
            f"slab {image['slab_index']}  z {low:.1f} to {high:.1f} mm",
        )
        name = f"{image['seriesuid']}_{image['slab_index']:03d}.png"
        write_png(folder / name, picture)
        written += 1
    return written
