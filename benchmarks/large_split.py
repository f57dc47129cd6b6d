# SPDX-License-Identifier: Apache-2.0
"""A split of any size without images, to measure what reading and scoring it costs."""

from __future__ import annotations

from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM

SLABS_PER_SCAN = 40
# LUNA16: 1,186 nodules on 888 scans; each touches about two slabs of 7.5 mm.
NODULE_EVERY = 20
NODULE_CORNERS_PX = (100.0, 100.0, 112.0, 112.0)
_NODULE_MM = 8.4


def large_split(n_slabs: int) -> dict:
    """Return a split as ``make_splits.py`` writes it: one nodule box on every so many slabs.

    Parameters
    ----------
    n_slabs : number of slabs; the last scan may have fewer than the others.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    nodules: list[dict] = []
    for index in range(n_slabs):
        scan, slab = divmod(index, SLABS_PER_SCAN)
        uid = f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{scan:036d}"
        images.append(_image(index, uid, slab))
        if index % NODULE_EVERY == 0:
            annotations.append(_annotation(len(annotations) + 1, index + 1, f"{uid}/{slab}"))
            nodules.append(_nodule(uid, slab))
    return {
        "info": {"protocol": "strict", "seed": 0, "data": "synthetic"},
        "categories": [{"id": 1, "name": "nodule"}],
        "images": images,
        "annotations": annotations,
        "series": sorted({image["seriesuid"] for image in images}),
        "patients": {},
        "nodules": nodules,
        "unseen_nodules": [],
        "discarded_nodules": [],
        "excluded": [],
    }


def _image(index: int, uid: str, slab: int) -> dict:
    low = SLAB_THICKNESS_MM * slab
    return {
        "index": slab,
        "file_name": f"{uid}/{slab:03d}.png",
        "width": 512,
        "height": 400,
        "z_range_mm": [low, low + SLAB_THICKNESS_MM],
        "spacing": [0.7, 0.7, SLAB_THICKNESS_MM],
        "origin": [-180.0, -140.0, low + SLAB_THICKNESS_MM / 2],
        "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        "id": index + 1,
        "seriesuid": uid,
        "slab_index": slab,
    }


def _annotation(number: int, image_id: int, nodule_id: str) -> dict:
    x0, y0, x1, y1 = NODULE_CORNERS_PX
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
        "kind": "nodule",
        "nodule_id": nodule_id,
        "diameter_mm": _NODULE_MM,
        "overlap_mm": SLAB_THICKNESS_MM,
    }


def _nodule(uid: str, slab: int) -> dict:
    return {
        "nodule_id": f"{uid}/{slab}",
        "seriesuid": uid,
        "centre_xyz_mm": [
            -180.0 + 0.7 * 105.5,
            -140.0 + 0.7 * 105.5,
            SLAB_THICKNESS_MM * (slab + 0.5),
        ],
        "diameter_mm": _NODULE_MM,
        "coverage": 1.0,
    }
