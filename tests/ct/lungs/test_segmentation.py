import json

import numpy as np
import pytest

from lungdet_mmdet.ct.lungs.grid import FULL, CoarseGrid
from lungdet_mmdet.ct.lungs.segmentation import (
    LungSegmentation,
    dense_part,
    shape_flags,
    verdict_of,
)

GRID = CoarseGrid.covering((20, 80, 120), (3.0, 1.5, 1.5), 3.0)


def labels_with(**boxes):
    labels = np.zeros(GRID.shape_zyx, np.uint8)
    for value, box in boxes.items():
        labels[box] = {"right": 1, "left": 2}[value]
    return labels


SOUND = labels_with(right=np.s_[2:18, 5:35, 5:27], left=np.s_[2:18, 5:35, 33:55])


def flags_of(labels, padding=None):
    padding = np.zeros(labels.shape, bool) if padding is None else padding
    return shape_flags(labels, padding, GRID.voxel_ml)


def test_sound_lungs_have_no_flags():
    assert flags_of(SOUND) == ()
    assert verdict_of(SOUND, GRID, ()) == "ok"


@pytest.mark.parametrize(
    ("labels", "flag"),
    [
        (labels_with(), "no_lungs"),
        (labels_with(right=np.s_[2:18, 5:35, 5:27]), "one_lung"),
        (labels_with(right=np.s_[2:18, 5:35, 5:27], left=np.s_[2:5, 5:35, 33:55]), "asymmetric"),
        (labels_with(right=np.s_[2:9, 5:12, 5:12], left=np.s_[2:9, 5:12, 33:40]), "tiny"),
        (labels_with(right=np.s_[0:18, 5:35, 5:27], left=np.s_[2:18, 5:35, 33:55]), "cut_below"),
        (labels_with(right=np.s_[2:20, 5:35, 5:27], left=np.s_[2:20, 5:35, 33:55]), "cut_above"),
        (labels_with(right=np.s_[2:18, 5:35, 0:22], left=np.s_[2:18, 5:35, 33:55]), "cut_by_fov"),
    ],
)
def test_each_flag_alone(labels, flag):
    assert flags_of(labels) == (flag,)


def test_lung_without_its_upper_part_is_flagged():
    # Of 16 levels the lowest 6 are not looked at; in 6 of the other 10 the left lung has nothing.
    # It lacks 6 x 0.4 of the right one's area per level, of 16 + 10 levels: 9 % of all lung.
    opacified = labels_with(right=np.s_[2:18, 5:35, 5:27], left=np.s_[2:12, 5:35, 33:55])
    assert flags_of(opacified) == ("opacified_part",)


def test_diaphragm_of_unequal_height_is_no_opacified_part():
    raised = labels_with(right=np.s_[8:18, 5:35, 5:27], left=np.s_[2:18, 5:35, 33:55])
    assert flags_of(raised) == ()


# Blocks of 6 mm: two lungs of 240 x 144 x 96 mm, 36 mm apart; a box of the right one is tissue.
CHEST = (40, 28, 44)
MIDDLE_X = 21.5


def is_dense_part(box):
    lungs = np.zeros(CHEST, np.uint8)
    lungs[:, 2:26, 3:19], lungs[:, 2:26, 25:41] = 1, 2
    air = lungs.copy()
    air[box] = 0
    return dense_part(air, air == 0, MIDDLE_X, (6.0, 6.0, 6.0))


@pytest.mark.parametrize(
    ("box", "lost"),
    [
        (np.s_[28:38, 2:14, 5:17], True),  # 60 x 72 x 72 mm, upper front
        (np.s_[28:34, 2:8, 5:11], False),  # 36 mm: no ball of 50, and air for it
        (np.s_[26:40, 2:26, 12:19], True),  # 42 mm deep, and a third less air above the base
        (np.s_[0:24, 2:13, 8:19], False),  # heart: the front half below the carina
        (np.s_[0:16, 2:26, 3:19], False),  # diaphragm
        (np.s_[16:28, 15:26, 3:15], True),  # lower lobe at the back
        (np.s_[0:0], False),
    ],
)
def test_part_that_is_tissue_where_the_other_lung_has_air(box, lost):
    assert is_dense_part(box) == lost


def test_padding_beside_the_lung_cuts_it():
    padding = np.zeros(SOUND.shape, bool)
    padding[:, :, 55:] = True
    assert flags_of(SOUND, padding) == ("cut_by_fov",)


def test_verdicts():
    assert verdict_of(labels_with(), GRID, ("no_lungs",)) == "implausible"
    assert verdict_of(SOUND, GRID, ("one_lung",)) == "suspect"
    assert verdict_of(SOUND, GRID, ("padding", "cut_above", "joined_lungs_split")) == "ok"
    huge = CoarseGrid.covering((20, 40, 60), (10.0, 10.0, 10.0), 10.0)  # 21 litres
    assert verdict_of(SOUND, huge, ()) == "implausible"


def test_small_lungs_are_implausible_only_under_loose_rules():
    apex = labels_with(right=np.s_[2:10, 5:15, 5:15])  # 800 blocks of 27 mm3 = 21.6 ml
    assert verdict_of(apex, GRID, ()) == "ok"
    assert verdict_of(apex, GRID, (), loose=True) == "implausible"


def segmentation(labels, method="otsu"):
    share, filled = (labels > 0) * np.uint8(FULL), np.zeros(labels.shape, bool)
    return LungSegmentation(labels, share, filled, GRID, 0.0, method, -450.0, (), "ok")


def test_volumes_and_shares():
    found = segmentation(SOUND)
    # 16 x 30 x 22 blocks of 27 mm3
    assert found.lung_volumes_l == pytest.approx((0.28512, 0.28512))
    assert found.volume_l == pytest.approx(0.57024)
    assert found.n_lungs == 2
    assert found.slice_share == 0.8


def test_filled_tissue_is_no_lung_volume():
    found = segmentation(SOUND)
    found.coarse_filled[2:18, 5:35, 5:7] = True  # 960 blocks of 27 mm3
    assert found.filled_ml == pytest.approx(25.92)
    assert found.lung_volumes_l == pytest.approx((0.28512 - 0.02592, 0.28512))


def test_body_has_no_lung_volume():
    found = segmentation(SOUND, method="body")
    assert (found.volume_l, found.n_lungs) == (0.0, 0)
    assert found.mask.any()


def test_mask_and_bounding_box():
    found = segmentation(SOUND)
    inside = np.zeros(found.mask.shape, np.uint8)
    inside[found.bounding_box()] = 1
    assert found.mask.shape == (20, 80, 120)
    assert (found.mask <= inside).all()
    # blocks 1:19, 4:36 and 4:56 with one block around the lungs
    assert found.bounding_box() == (slice(1, 19), slice(8, 72), slice(8, 112))
    assert found.bounding_box(rim_mm=3.0)[1] == slice(6, 74)


def test_bounding_box_of_nothing_is_the_scan():
    assert segmentation(labels_with()).bounding_box()[2] == slice(0, 120)


def test_summary_is_json():
    assert json.loads(json.dumps(segmentation(SOUND).summary()))["n_lungs"] == 2
