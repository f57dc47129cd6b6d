import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from lungdet_mmdet.datasets.transforms import PasteNodules, RandomSlabWindow
from lungdet_mmdet.errors import LungDetError


def sample(boxes: list[list[float]], ignored: list[bool], *, height: int = 120, width: int = 150):
    return {
        "img": np.full((height, width, 3), 100, np.uint8),
        "gt_bboxes": HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        "gt_bboxes_labels": np.zeros(len(boxes), np.int64),
        "gt_ignore_flags": np.array(ignored, dtype=bool),
    }


def test_image_and_boxes_move_together():
    np.random.seed(0)
    for _ in range(20):
        results = sample([[70.0, 50.0, 80.0, 60.0]], [False])
        results["img"][50:60, 70:80] = 250
        out = RandomSlabWindow(size_px=40, nodule_share=1.0)(results)
        assert out["img"].shape == (40, 40, 3)
        assert out["img_shape"] == (40, 40)
        x0, y0, x1, y1 = (int(v) for v in out["gt_bboxes"].tensor[0])
        assert (x1 - x0, y1 - y0) == (10, 10)
        assert (out["img"][y0:y1, x0:x1] == 250).all()


def test_windows_are_not_put_about_regions_to_be_ignored():
    np.random.seed(0)
    seen = 0
    for _ in range(50):
        out = RandomSlabWindow(size_px=40, nodule_share=1.0)(sample([[0.0, 0.0, 4.0, 4.0]], [True]))
        seen += len(out["gt_bboxes"])
    assert seen < 10


def test_boxes_outside_are_dropped_with_their_labels():
    np.random.seed(0)
    boxes = [[10.0, 10.0, 20.0, 20.0], [140.0, 110.0, 146.0, 116.0]]
    out = RandomSlabWindow(size_px=60, nodule_share=1.0)(sample(boxes, [False, False]))
    assert len(out["gt_bboxes"]) == len(out["gt_bboxes_labels"]) == len(out["gt_ignore_flags"]) == 1


def test_a_small_slab_is_filled_up_with_black():
    out = RandomSlabWindow(size_px=60)(sample([], [], height=30, width=20))
    assert out["img"].shape == (60, 60, 3)
    assert int((out["img"][..., 0] == 100).sum()) == 30 * 20


def test_a_nodule_larger_than_the_window_stays():
    out = RandomSlabWindow(size_px=40, nodule_share=1.0)(
        sample([[20.0, 20.0, 90.0, 90.0]], [False])
    )
    assert out["gt_bboxes"].tensor.tolist() == [[0.0, 0.0, 40.0, 40.0]]


def test_windows_without_a_nodule_are_put_about_dense_tissue():
    np.random.seed(0)
    for _ in range(20):
        results = sample([], [])
        results["img"][100:103, 20:23] = 200
        out = RandomSlabWindow(size_px=40, tissue_share=1.0)(results)
        assert (out["img"] == 200).any()


def test_a_slab_without_dense_tissue_gives_windows_all_the_same():
    out = RandomSlabWindow(size_px=40, tissue_share=1.0)(sample([], []))
    assert out["img"].shape == (40, 40, 3)


def test_masks_that_would_stay_behind_are_refused():
    results = {**sample([[10.0, 10.0, 20.0, 20.0]], [False]), "gt_masks": object()}
    with pytest.raises(LungDetError, match="RandomSlabWindow does not move masks"):
        RandomSlabWindow(size_px=40)(results)
    with pytest.raises(LungDetError, match="PasteNodules does not move masks"):
        PasteNodules()(results)


class FixedWindow(RandomSlabWindow):
    """The transform with the corner given."""

    def _start(self, image, boxes):
        return 50, 50


def test_what_a_window_shows_less_than_half_of_is_ignored():
    # 4 of 10 px of the first are to be seen, 6 of the second, nothing of the third.
    boxes = [[44.0, 60.0, 54.0, 70.0], [46.0, 80.0, 56.0, 90.0], [30.0, 60.0, 50.0, 70.0]]
    out = FixedWindow(size_px=60)(sample(boxes, [False, False, False]))
    assert out["gt_bboxes"].tensor.tolist() == [[0.0, 10.0, 4.0, 20.0], [0.0, 30.0, 6.0, 40.0]]
    assert out["gt_ignore_flags"].tolist() == [True, False]
