import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes

from lungdet_mmdet.datasets.transforms import RandomSlabRotate


def sample(boxes: list[list[float]], *, height: int = 80, width: int = 100) -> dict:
    return {
        "img": np.full((height, width, 3), 100, np.uint8),
        "gt_bboxes": HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        "gt_bboxes_labels": np.arange(len(boxes)),
        "gt_ignore_flags": np.array([i % 2 == 1 for i in range(len(boxes))]),
    }


class QuarterTurn(RandomSlabRotate):
    """The transform with the angle given."""

    def _angle(self) -> float:
        return 90.0


def test_image_and_boxes_turn_together():
    # Counter-clockwise about (50, 40): 20 right of the centre becomes 20 above it.
    results = sample([[68.0, 37.0, 72.0, 43.0]])
    results["img"][38:42, 68:72] = 250
    out = QuarterTurn()(results)
    assert isinstance(out["gt_bboxes"], HorizontalBoxes)
    assert out["gt_bboxes"].tensor.dtype == torch.float32
    assert out["gt_bboxes"].tensor[0].tolist() == pytest.approx([48, 17, 52, 23], abs=1e-4)
    bright = np.argwhere(out["img"][..., 0] > 200)
    assert (bright.mean(axis=0) + 0.5).tolist() == pytest.approx([20, 50], abs=0.3)


def test_boxes_are_clipped_and_those_outside_dropped_with_their_labels():
    # The image is 80 high: 45 right of the centre turns to 5 above the image, 38 right to 2 below
    # its upper edge, 41 right to 1 above it: less than half of that one is to be seen.
    out = QuarterTurn()(
        sample(
            [
                [93.0, 38.0, 97.0, 42.0], [85.0, 37.0, 91.0, 43.0], [48.0, 38.0, 52.0, 42.0],
                [97.0, 38.0, 99.0, 42.0], [88.0, 37.0, 94.0, 43.0],
            ]
        )
    )  # fmt: skip
    boxes = out["gt_bboxes"].tensor.tolist()
    assert boxes[0] == pytest.approx([47, 0, 53, 5], abs=1e-4)
    assert boxes[1] == pytest.approx([48, 38, 52, 42], abs=1e-4)
    assert boxes[2] == pytest.approx([47, 0, 53, 2], abs=1e-4)
    assert out["gt_bboxes_labels"].tolist() == [1, 2, 4]
    assert out["gt_ignore_flags"].tolist() == [True, False, True]


def test_a_healthy_slab_stays_healthy():
    out = RandomSlabRotate()(sample([]))
    assert out["gt_bboxes"].tensor.shape == (0, 4)
    assert len(out["gt_bboxes_labels"]) == 0


def test_a_slab_without_boxes_is_rotated_too():
    out = QuarterTurn()({"img": np.full((80, 100), 100, np.uint8)})
    assert out["img"][40, 0] == 0
    assert "gt_bboxes" not in out


def test_angles_stay_within_the_limit_and_reach_it():
    np.random.seed(0)
    transform = RandomSlabRotate(max_angle_deg=15.0)
    angles = [transform._angle() for _ in range(500)]
    assert -15 <= min(angles) < -14.5
    assert 14.5 < max(angles) <= 15


def test_probability_zero_leaves_the_slab_alone():
    results = sample([[68.0, 37.0, 72.0, 43.0]])
    image = results["img"]
    out = RandomSlabRotate(prob=0.0)(results)
    assert out["img"] is image
    assert out["gt_bboxes"].tensor.tolist() == [[68, 37, 72, 43]]


def test_the_same_seed_turns_the_same_way():
    outs = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        outs.append(RandomSlabRotate()(sample([[68.0, 37.0, 72.0, 43.0]])))
    np.testing.assert_array_equal(outs[0]["img"], outs[1]["img"])
    assert torch.equal(outs[0]["gt_bboxes"].tensor, outs[1]["gt_bboxes"].tensor)
    assert not torch.equal(outs[0]["gt_bboxes"].tensor, outs[2]["gt_bboxes"].tensor)
