import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from lungdet_mmdet.datasets.transforms import PasteNodules
from lungdet_mmdet.errors import LungDetError


def write_split(folder, *, iscrowd=(0,)):
    """One slab of grey 60 with a nodule of grey 200, 10 px wide, about (30, 20)."""
    y, x = np.mgrid[:60, :80] + 0.5
    slab = np.where(np.hypot(y - 20, x - 30) < 5, 200, 60).astype(np.uint8)
    (folder / "slabs" / "scan").mkdir(parents=True)
    cv2.imwrite(str(folder / "slabs" / "scan" / "0.png"), slab)
    (folder / "annotations").mkdir()
    annotations = [
        {"id": i, "image_id": 1, "bbox": [25.0, 15.0, 10.0, 10.0], "iscrowd": crowd}
        for i, crowd in enumerate(iscrowd)
    ]
    coco = {
        "info": {},
        "images": [{"id": 1, "seriesuid": "scan", "file_name": "scan/0.png"}],
        "annotations": annotations,
        "series": ["scan"],
        "nodules": [],
    }
    (folder / "annotations" / "train.json").write_text(json.dumps(coco))
    return folder


def healthy(boxes=()) -> dict:
    return {
        "img": np.full((64, 64, 3), 70, np.uint8),
        "gt_bboxes": HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        "gt_bboxes_labels": np.zeros(len(boxes), np.int64),
        "gt_ignore_flags": np.ones(len(boxes), dtype=bool),
    }


def exact(folder) -> PasteNodules:
    """Pastes nodules as they are."""
    step = PasteNodules(most=3, scale=(1.0, 1.0), contrast=(1.0, 1.0))
    step.source = folder / "annotations" / "train.json", folder / "slabs"
    return step


def test_what_is_pasted_is_annotated_and_seen(tmp_path):
    np.random.seed(0)
    transform = exact(write_split(tmp_path))
    pasted = 0
    for _ in range(10):
        out = transform(healthy())
        boxes = out["gt_bboxes"].tensor.numpy()
        pasted += len(boxes)
        for x0, y0, x1, y1 in boxes:
            assert (x1 - x0, y1 - y0) == (10, 10)
            middle = out["img"][int((y0 + y1) / 2), int((x0 + x1) / 2)]
            assert middle.tolist() == [200, 200, 200]
        assert len(out["gt_bboxes_labels"]) == len(out["gt_ignore_flags"]) == len(boxes)
        assert not out["gt_ignore_flags"].any()
    assert pasted > 5


def test_boxes_that_were_there_stay_first_and_are_not_covered(tmp_path):
    np.random.seed(0)
    transform = exact(write_split(tmp_path))
    for _ in range(10):
        out = transform(healthy([[0.0, 0.0, 30.0, 64.0]]))
        boxes = out["gt_bboxes"].tensor.numpy()
        assert boxes[0].tolist() == [0, 0, 30, 64]
        assert out["gt_ignore_flags"][0]
        assert (boxes[1:, 0] >= 30).all()


def test_the_same_seed_pastes_the_same(tmp_path):
    transform = exact(write_split(tmp_path))
    images = []
    for _ in range(2):
        np.random.seed(3)
        images.append(transform(healthy())["img"])
    assert (images[0] == images[1]).all()


def test_a_split_without_a_nodule_is_an_error(tmp_path):
    np.random.seed(1)  # draws one nodule
    transform = exact(write_split(tmp_path, iscrowd=(1,)))
    with pytest.raises(LungDetError, match="no nodule to paste"):
        transform(healthy())


def test_a_missing_slab_is_named(tmp_path):
    np.random.seed(1)  # draws one nodule
    transform = exact(write_split(tmp_path))
    (tmp_path / "slabs" / "scan" / "0.png").unlink()
    with pytest.raises(LungDetError, match=r"0\.png"):
        transform(healthy())
