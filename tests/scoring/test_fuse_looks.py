"""Boxes of several looks at one slab, joined."""

import numpy as np
import pytest

from lungdet_mmdet.apis.model_building import LOOKS, mirrored_back
from lungdet_mmdet.scoring.candidates import fuse_looks
from lungdet_mmdet.scoring.slab_records import SlabDetections


def look(*boxes_and_scores):
    boxes = [box for box, _ in boxes_and_scores]
    return SlabDetections(
        7, np.array(boxes), np.array([s for _, s in boxes_and_scores]), seriesuid="a"
    )


def test_one_look_is_returned_as_it_is():
    only = look(((0, 0, 4, 4), 0.5))
    assert fuse_looks([only]) is only


def test_a_box_that_both_see_has_their_mean_score_and_weighted_corners():
    fused = fuse_looks([look(((0, 0, 8, 8), 0.9)), look(((0, 0, 8, 12), 0.3))])
    assert fused.scores == pytest.approx([0.6])
    assert fused.boxes_xyxy_px[0] == pytest.approx([0, 0, 8, 9])
    assert (fused.img_id, fused.seriesuid) == (7, "a")


def test_what_one_of_two_sees_counts_half():
    fused = fuse_looks([look(((0, 0, 4, 4), 0.8)), look(((20, 20, 24, 24), 0.2))])
    assert sorted(fused.scores) == pytest.approx([0.1, 0.4])


def test_a_look_has_one_vote_however_many_boxes_it_puts_on_a_nodule():
    fused = fuse_looks([look(((0, 0, 8, 8), 0.6), ((0, 0, 8, 9), 0.5)), look(((0, 0, 8, 8), 0.2))])
    assert fused.scores == pytest.approx([0.4])


def test_looks_that_saw_nothing_and_boxes_without_size_are_fine():
    empty = look()
    assert len(fuse_looks([empty, empty]).scores) == 0
    assert fuse_looks([empty, look(((3, 3, 3, 3), 0.0))]).scores == pytest.approx([0.0])


@pytest.mark.parametrize("view", LOOKS)
def test_boxes_of_a_mirrored_slab_come_back_to_their_place(view):
    slab = np.zeros((20, 30))
    slab[4:7, 11:19] = 1.0
    rows, columns = np.nonzero(slab[view])
    seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    back = mirrored_back(look((seen, 0.5)), slab.shape, view)
    assert back.boxes_xyxy_px[0].tolist() == [11, 4, 19, 7]
