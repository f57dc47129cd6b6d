import numpy as np
import pytest

from lungdet_mmdet.ct.lungs.parts import (
    LEFT,
    LOOSE_RULES,
    RIGHT,
    EnclosedAir,
    PartRules,
    find_gas,
    label_lungs,
)

SPACING = (3.0, 3.0, 3.0)


def air_of(*boxes, hu=-850, shape=(24, 40, 60), rays=8):
    """Boxes of air (z, y, x slices) in tissue, the body's middle at x = 29.5."""
    coarse = np.full(shape, 40, np.int16)
    for box in boxes:
        coarse[box] = hu
    candidate = (coarse < -450).astype(np.uint8)
    return EnclosedAir(
        coarse_hu=coarse,
        candidate=candidate,
        outside=np.zeros(shape, np.uint8),
        rays=np.full(shape, rays, np.uint8),
        middle_x=29.5,
        spacing_zyx_mm=SPACING,
    )


LUNG_ON_RIGHT = np.s_[2:22, 5:35, 4:24]
LUNG_ON_LEFT = np.s_[2:22, 5:35, 36:56]


def labelled(air, rules=None, erosion_mm=3.0):
    return label_lungs(air, erosion_mm=erosion_mm, rules=rules or PartRules())


def test_two_lungs_keep_their_surface():
    air = air_of(LUNG_ON_RIGHT, LUNG_ON_LEFT)
    labels, flags = labelled(air)
    assert flags == ()
    np.testing.assert_array_equal(labels > 0, air.candidate > 0)
    assert (labels[LUNG_ON_RIGHT] == RIGHT).all()
    assert (labels[LUNG_ON_LEFT] == LEFT).all()


def test_lungs_joined_in_front_are_split():
    air = air_of(LUNG_ON_RIGHT, LUNG_ON_LEFT, np.s_[4:12, 5:10, 24:36])
    labels, flags = labelled(air)
    assert flags == ("joined_lungs_split",)
    assert (labels[LUNG_ON_RIGHT] == RIGHT).all()
    assert (labels[LUNG_ON_LEFT] == LEFT).all()
    assert (labels > 0).sum() == air.candidate.sum()


def test_a_block_over_the_middle_stays_one():
    labels, flags = labelled(air_of(np.s_[2:22, 5:35, 10:50]))
    assert flags == ("lungs_joined",)
    assert len(np.unique(labels[labels > 0])) == 1


def test_collapsed_lung_is_kept():
    # 6 x 6 x 6 blocks of 27 mm3 are 5.8 ml; the other lung holds 324 ml.
    small = np.s_[10:16, 15:21, 40:46]
    labels, _ = labelled(air_of(LUNG_ON_RIGHT, np.s_[10:18, 15:23, 40:48]))
    assert (labels[small] == LEFT).all()


def test_gas_is_no_lung_however_it_touches():
    air = air_of(LUNG_ON_RIGHT, LUNG_ON_LEFT)
    air.coarse_hu[LUNG_ON_LEFT] = -990
    labels, _ = labelled(air)
    assert not (labels == LEFT).any()


def test_light_but_large_is_emphysema():
    labels, _ = labelled(air_of(LUNG_ON_RIGHT, LUNG_ON_LEFT, hu=-945))
    assert {RIGHT, LEFT} <= set(np.unique(labels))


@pytest.mark.parametrize(("rays", "found"), [(3, False), (5, True)])
def test_lungs_see_the_body_around_them(rays, found):
    labels, _ = labelled(air_of(LUNG_ON_RIGHT, rays=rays))
    assert labels.any() == found


def test_air_beside_outside_air_is_no_lung():
    air = air_of(LUNG_ON_RIGHT)
    air.outside[:, :, :4] = 1
    air.outside[:, :5] = 1
    assert not labelled(air)[0].any()
    assert labelled(air, rules=LOOSE_RULES)[0].any()


def test_nothing_gives_nothing():
    labels, flags = labelled(air_of())
    assert not labels.any()
    assert flags == ()


def test_bubble_that_joins_the_lung_is_found_below():
    air = air_of(np.s_[8:22, 5:35, 36:56])
    bubble = np.s_[2:8, 14:22, 40:50]
    air.coarse_hu[bubble] = -990
    air.candidate[bubble] = 1
    gas = find_gas(air.coarse_hu, air.candidate, SPACING)
    assert gas[bubble].mean() > 0.5
    assert gas.sum() == gas[bubble].sum()


def test_bulla_in_the_lung_is_no_gas():
    air = air_of(LUNG_ON_LEFT)
    air.coarse_hu[4:10, 14:22, 40:50] = -990
    assert not find_gas(air.coarse_hu, air.candidate, SPACING).any()
