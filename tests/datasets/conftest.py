"""A prepared dataset written by hand: four slabs of two scans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest


def _image(image_id: int, uid: str, index: int) -> dict[str, Any]:
    return {
        "id": image_id,
        "file_name": f"{uid}/{index:03d}.png",
        "width": 60,
        "height": 40,
        "seriesuid": uid,
        "slab_index": index,
        "index": index,
        "z_range_mm": [7.5 * index, 7.5 * index + 7.5],
        "spacing": [0.7, 0.8, 7.5],
        "origin": [1.0, 2.0, 7.5 * index + 3.75],
        "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
    }


def _annotation(annotation_id: int, image_id: int, bbox: list[float], kind: str) -> dict[str, Any]:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": int(kind != "nodule"),
        "kind": kind,
        "nodule_id": "1.2/0",
        "diameter_mm": 7.0,
        "overlap_mm": 4.0,
    }


@pytest.fixture
def slab_folder(tmp_path: Path) -> Path:
    """Slab 1 has a nodule that grazes slab 2; slabs 3 and 4 are those of a healthy scan."""
    images = [_image(1, "1.2", 0), _image(2, "1.2", 1), _image(3, "1.3", 0), _image(4, "1.3", 1)]
    for image in images:
        path = tmp_path / "slabs" / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 60), 50 * image["id"], np.uint8))
    nodule = {
        "nodule_id": "1.2/0",
        "seriesuid": "1.2",
        "centre_xyz_mm": [15.0, 18.0, 4.0],
        "diameter_mm": 7.0,
        "coverage": 1.0,
    }
    coco = {
        "info": {"split": "train", "protocol": "strict", "data": "phantom", "seed": 0},
        "categories": [{"id": 1, "name": "nodule"}],
        "images": images,
        "annotations": [
            _annotation(1, 1, [15.5, 16.0, 10.0, 8.75], "nodule"),
            _annotation(2, 2, [18.5, 18.0, 4.0, 4.0], "grazed"),
        ],
        "series": ["1.2", "1.3"],
        "nodules": [nodule],
        "unseen_nodules": [],
        "excluded": [],
    }
    (tmp_path / "annotations").mkdir()
    for part in ("train", "val", "test"):
        (tmp_path / "annotations" / f"{part}.json").write_text(json.dumps(coco))
    return tmp_path
