"""Read the annotations of a split (COCO json) as records for scoring."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.nodules.tables import UNKNOWN_DIAMETER, Finding, Nodule
from lungdet_mmdet.scoring.slab_records import Slab, SlabSet, TruthBox, UnseenNodule


def read_slab_set(path: str | Path) -> SlabSet:
    """Read the COCO json of one split.

    Raises
    ------
    LungDetError
        When the file is missing, is no json, or lacks a field.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LungDetError(f"{path}: no such annotation file; make the splits first") from None
    except ValueError as error:
        raise LungDetError(f"{path}: not a json file ({error}); make the splits again") from error
    try:
        return slab_set_from_coco(content)
    except (KeyError, TypeError, ValueError) as error:
        raise LungDetError(
            f"{path}: an image or annotation has a missing or unusable field ({error}); make the "
            "splits again with this version of the package"
        ) from error


def slab_set_from_coco(content: Mapping[str, Any]) -> SlabSet:
    """Build a slab set from the parsed COCO json of one split."""
    boxes: dict[int, list[TruthBox]] = {}
    for annotation in content["annotations"]:
        is_ignored = bool(annotation.get("iscrowd", 0))
        x, y, width, height = (float(value) for value in annotation["bbox"])
        box = TruthBox(
            bbox_xywh_px=(x, y, width, height),
            diameter_mm=float(annotation["diameter_mm"]),
            is_ignored=is_ignored,
            kind=annotation.get("kind") or ("grazed" if is_ignored else "nodule"),
            nodule_id=str(annotation.get("nodule_id") or ""),
        )
        boxes.setdefault(annotation["image_id"], []).append(box)
    slabs = {image["id"]: _slab(image, boxes.get(image["id"], ())) for image in content["images"]}
    of_slabs = sorted({slab.seriesuid for slab in slabs.values()})
    return SlabSet(
        slabs=slabs,
        series=tuple(dict.fromkeys([*content.get("series", ()), *of_slabs])),
        nodules=tuple(_nodule(item) for item in content.get("nodules", ())),
        excluded=tuple(_finding(item) for item in content.get("excluded", ())),
        discarded=tuple(_nodule(item) for item in content.get("discarded_nodules", ())),
        unseen=tuple(
            UnseenNodule(item["seriesuid"], float(item["diameter_mm"]))
            for item in content.get("unseen_nodules", ())
        ),
        info=content.get("info", {}),
    )


def _slab(image: Mapping[str, Any], boxes: Sequence[TruthBox]) -> Slab:
    sx, sy, thickness = (float(value) for value in image["spacing"])
    ox, oy, oz = (float(value) for value in image["origin"])
    low, high = (float(value) for value in image["z_range_mm"])
    return Slab(
        img_id=image["id"],
        seriesuid=image["seriesuid"],
        slab_index=int(image["slab_index"]),
        spacing_mm=(sx, sy, thickness),
        origin_xyz_mm=(ox, oy, oz),
        direction=tuple(float(value) for value in image["direction"]),
        z_range_mm=(low, high),
        boxes=tuple(boxes),
    )


def _nodule(item: Mapping[str, Any]) -> Nodule:
    return Nodule(
        str(item["nodule_id"]), item["seriesuid"], _centre(item), float(item["diameter_mm"])
    )


def _finding(item: Mapping[str, Any]) -> Finding:
    diameter_mm = item.get("diameter_mm")
    known = UNKNOWN_DIAMETER if diameter_mm is None else float(diameter_mm)
    return Finding(item["seriesuid"], _centre(item), known)


def _centre(item: Mapping[str, Any]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in item["centre_xyz_mm"])
    return x, y, z
