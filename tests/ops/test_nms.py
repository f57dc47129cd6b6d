import numpy as np
import pytest
import torch

from lungdet_mmdet.ops import plain_ops
from lungdet_mmdet.ops.plain_ops import nms

TALL = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU with TALL: 50 / 100
FAR = [20.0, 20.0, 30.0, 30.0]


def kept(boxes, scores, threshold, *, offset=0):
    return nms(torch.tensor(boxes), torch.tensor(scores), threshold, offset=offset).tolist()


def test_the_best_come_first_and_far_boxes_stay():
    assert kept([HALF, FAR, TALL], [0.7, 0.8, 0.9], 0.49) == [2, 1]


def test_an_overlap_at_the_threshold_is_kept():
    assert kept([TALL, HALF], [0.9, 0.8], 0.5) == [0, 1]


def test_offset_counts_the_last_pixel():
    # 11 x 6 of 11 x 11 pixels: IoU 0.545.
    assert kept([TALL, HALF], [0.9, 0.8], 0.5, offset=1) == [0]
    assert kept([TALL, HALF], [0.9, 0.8], 0.55, offset=1) == [0, 1]


def test_of_equal_scores_the_earlier_box_stays():
    assert kept([FAR, TALL, TALL, FAR], [0.5, 0.5, 0.5, 0.5], 0.5) == [0, 1]


def test_a_suppressed_box_suppresses_nothing():
    # IoU of neighbours is 60 / 140, of the outer two 20 / 180.
    chain = [[0.0, 0.0, 10.0, 10.0], [0.0, 4.0, 10.0, 14.0], [0.0, 8.0, 10.0, 18.0]]
    assert kept(chain, [0.9, 0.8, 0.7], 0.4) == [0, 2]


def test_boxes_without_area_overlap_nothing():
    point = [5.0, 5.0, 5.0, 5.0]
    assert kept([point, point, TALL], [0.9, 0.8, 0.7], 0.0) == [0, 1, 2]


def test_no_boxes():
    out = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert out.dtype == torch.long
    assert out.shape == (0,)


def greedy(boxes, scores, threshold):
    """The textbook loop, box by box."""
    left = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    chosen = []
    while left:
        best, *left = left
        chosen.append(best)
        x1, y1, x2, y2 = boxes[best]

        def iou(other, a=(x1, y1, x2, y2)):
            width = min(a[2], other[2]) - max(a[0], other[0])
            height = min(a[3], other[3]) - max(a[1], other[1])
            shared = max(width, 0) * max(height, 0)
            area = (a[2] - a[0]) * (a[3] - a[1])
            return shared / (area + (other[2] - other[0]) * (other[3] - other[1]) - shared)

        left = [i for i in left if iou(boxes[i]) <= threshold]
    return chosen


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_blocks_give_the_result_of_the_plain_loop(monkeypatch, block):
    monkeypatch.setattr(plain_ops, "BLOCK", block)
    draw = np.random.default_rng(0)
    low = draw.integers(0, 40, (60, 2))
    boxes = np.concatenate([low, low + draw.integers(5, 20, (60, 2))], axis=1).astype(float)
    scores = draw.integers(0, 10, 60) / 10  # with many ties
    expected = greedy(boxes.tolist(), scores.tolist(), 0.3)
    assert 5 < len(expected) < 50
    assert nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.3).tolist() == expected


def test_through_mmcv_with_scores_filtered_and_classes_apart(mmcv_ops):
    boxes = torch.tensor([TALL, TALL, HALF, FAR])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.1])
    dets, index = mmcv_ops.nms(boxes, scores, 0.4, score_threshold=0.2)
    assert index.tolist() == [0]
    assert dets[0].tolist() == pytest.approx([*TALL, 0.9])
    classes = torch.tensor([0, 1, 1, 0])
    _, index = mmcv_ops.batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.4})
    assert index.tolist() == [0, 1, 3]
