"""Pictures of a dataset's slabs as they are stored and as the detector is shown them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lungdet_mmdet.datasets.luna16_slabs import LUNA16SlabDataset, slab_kind
from lungdet_mmdet.reports.slab_overlays import (
    IGNORED_COLOUR,
    TRUTH_COLOUR,
    OverlayBox,
    draw_slab,
    read_slab,
    truth_boxes,
)
from lungdet_mmdet.splits.coco_json import read_coco

Kind = Literal["positive", "healthy", "ignored", "all"]
SHORT_SIDE_PX = 360


def choose_slabs(dataset: LUNA16SlabDataset, kind: Kind, *, count: int, seed: int) -> list[int]:
    """Draw slabs of one kind.

    Parameters
    ----------
    dataset : to draw from.
    kind : "positive" (with a nodule), "ignored" (with ignore regions only), "healthy" or "all".
    count : at most so many.
    seed : of the draw.

    Returns
    -------
    Sorted indices into the dataset.
    """
    indices = [
        i for i in range(len(dataset)) if kind in ("all", slab_kind(dataset.get_data_info(i)))
    ]
    drawn = np.random.default_rng(seed).permutation(np.array(indices, dtype=int))[:count]
    return sorted(drawn.tolist())


def slab_pictures(
    dataset: LUNA16SlabDataset, indices: Sequence[int], *, repeats: int = 1
) -> list[list[np.ndarray]]:
    """Draw each slab as stored, and beside it what the pipeline makes of it.

    Parameters
    ----------
    dataset : with its pipeline.
    indices : of the slabs.
    repeats : how often the pipeline is run on each slab; it draws new augmentations every time.

    Returns
    -------
    One row of uint8 pictures (y, x, 3) per slab. Where the pipeline carries no annotations, as in
    testing, its pictures have no boxes.
    """
    annotations = defaultdict(list)
    for annotation in read_coco(Path(dataset.ann_file))["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    rows = []
    for index in indices:
        info = dataset.get_data_info(index)
        low, high = info["z_range_mm"]
        where = f"slab {info['slab_index']} z {low:.1f} to {high:.1f}"
        here = annotations[info["img_id"]]
        stored = draw_slab(
            read_slab(info["img_path"]),
            truth_boxes(here),
            spacing_x_mm=info["spacing"][0],
            caption=f"..{info['seriesuid'][-8:]} {where}",
            min_short_side=SHORT_SIDE_PX,
        )
        shown = [_shown(dataset[index], info["spacing"][0]) for _ in range(repeats)]
        rows.append([stored, *shown])
    return rows


def _shown(packed: dict[str, Any], spacing_x_mm: float) -> np.ndarray:
    image, sample = packed["inputs"], packed["data_samples"]
    # (c, y, x); of slabs with three different channels, the middle one is the slab itself.
    grey = np.clip(np.rint(image[1].float().numpy()), 0, 255).astype(np.uint8)
    scale = sample.metainfo.get("scale_factor", (1.0, 1.0))[0]
    boxes = [
        *_boxes(sample.get("ignored_instances"), IGNORED_COLOUR),
        *_boxes(sample.get("gt_instances"), TRUTH_COLOUR),
    ]
    flipped = sample.metainfo.get("flip_direction")
    caption = "as the detector is shown it" + (f", flipped: {flipped}" if flipped else "")
    return draw_slab(
        grey,
        boxes,
        spacing_x_mm=spacing_x_mm / scale,
        caption=caption,
        min_short_side=SHORT_SIDE_PX,
    )


def _boxes(instances: Any, colour: tuple[int, int, int]) -> list[OverlayBox]:
    if instances is None or "bboxes" not in instances:
        return []
    boxes = getattr(instances.bboxes, "tensor", instances.bboxes)
    return [OverlayBox(tuple(box), colour) for box in boxes.tolist()]
