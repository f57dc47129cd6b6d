import numpy as np
import pytest

from lungdet_mmdet.ct.lungs.closing import air_share, complete_lungs
from lungdet_mmdet.ct.lungs.grid import FULL
from lungdet_mmdet.ct.lungs.parts import LEFT, RIGHT

SPACING = (3.0, 3.0, 3.0)
MIDDLE_X = 39.5


def two_lungs(shape=(40, 60, 80)):
    """Two boxes of 34 x 44 x 30 blocks, 12 mm apart."""
    labels = np.zeros(shape, np.uint8)
    labels[3:37, 8:52, 5:35] = RIGHT
    labels[3:37, 8:52, 45:75] = LEFT
    return labels


def complete(labels, outside=None, closing_mm=9.0, middle_x=None):
    outside = np.zeros_like(labels) if outside is None else outside
    shares = {v: (labels == v) * np.uint8(FULL) for v in (RIGHT, LEFT)}
    return complete_lungs(
        shares,
        outside,
        closing_mm=closing_mm,
        spacing_zyx_mm=SPACING,
        tissue=((labels == 0) & (outside == 0)).astype(np.uint8),
        middle_x=middle_x,
    )


def test_pleural_nodule_is_closed_into_its_own_lung():
    labels = two_lungs()
    nodule = np.s_[19:21, 29:31, 5:9]  # 6 mm wide, 12 mm deep
    labels[nodule] = 0
    whole = complete(labels)
    np.testing.assert_array_equal(whole.labels, two_lungs())
    assert not whole.filled.any()


def test_lungs_close_apart_do_not_close_the_mediastinum():
    assert not complete(two_lungs(), closing_mm=18.0).labels[:, :, 35:45].any()


def test_enclosed_nodule_of_any_size_is_filled():
    labels = two_lungs()
    labels[10:30, 18:42, 12:28] = 0
    np.testing.assert_array_equal(complete(labels).labels, two_lungs())


def test_outside_air_is_never_added():
    labels = two_lungs()
    hole = np.s_[18:22, 28:32, 5:9]
    labels[hole] = 0
    outside = np.zeros_like(labels)
    outside[hole] = 1
    assert not complete(labels, outside, middle_x=MIDDLE_X).labels[hole].any()


def with_ball(centre_zyx, diameter_mm):
    z, y, x = np.ogrid[:40, :60, :80]
    cz, cy, cx = centre_zyx
    ball = ((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2) * 9.0 <= (diameter_mm / 2) ** 2
    labels = two_lungs()
    lost = ball & (labels > 0)
    labels[ball] = 0
    return labels, lost


@pytest.mark.parametrize(
    ("centre", "least"),
    [
        ((20, 30, 5), 0.85),
        ((20, 51, 18), 0.85),
        ((20, 8, 18), 0.85),
        ((20, 30, 34), 0.6),
        ((36, 30, 18), 0.6),
        ((3, 30, 18), 0.6),
    ],
    ids=["lateral", "posterior", "anterior", "mediastinal", "apex", "base"],
)
@pytest.mark.parametrize("diameter_mm", [20, 30])
def test_lesion_on_the_pleura_is_kept_wherever_it_is(centre, least, diameter_mm):
    labels, lost = with_ball(centre, diameter_mm)
    whole = complete(labels, closing_mm=16.0, middle_x=MIDDLE_X)
    assert (whole.labels[lost] == RIGHT).mean() >= least


def test_filled_lesion_is_marked():
    labels, lost = with_ball((20, 30, 5), 30)
    whole = complete(labels, middle_x=MIDDLE_X)
    assert whole.filled[lost].mean() > 0.5
    assert not whole.filled[labels > 0].any()


@pytest.mark.parametrize(("diameter_mm", "is_large"), [(12, False), (30, True)])
def test_lesion_that_holds_a_ball_of_16_mm_is_told(diameter_mm, is_large):
    labels, _ = with_ball((20, 30, 8), diameter_mm)
    assert complete(labels, middle_x=MIDDLE_X).has_large_lesion == is_large


def test_large_tumour_with_a_narrow_mouth_towards_the_chest_wall_is_filled():
    labels = two_lungs()
    labels[8:32, 16:44, 5:20] = 0  # 72 x 84 x 45 mm
    whole = complete(labels, middle_x=MIDDLE_X)
    assert (whole.labels[8:32, 16:44, 5:20] == RIGHT).mean() > 0.9


def test_heart_is_not_filled_even_beside_a_single_lung():
    labels = two_lungs()
    labels[labels == RIGHT] = 0
    labels[3:25, 16:44, 45:60] = 0  # 66 mm high on the diaphragm, 84 mm long, 45 mm deep
    whole = complete_lungs(
        {LEFT: (labels == LEFT) * np.uint8(FULL)},
        np.zeros_like(labels),
        closing_mm=9.0,
        spacing_zyx_mm=SPACING,
        tissue=(labels == 0).astype(np.uint8),
        middle_x=MIDDLE_X,
    )
    assert (whole.labels[3:20, 20:40, 45:55] == 0).all()


def with_bulge(radii_mm):
    """The left lung with half an ellipsoid of tissue in its medial side, a little to the front."""
    z, y, x = (np.arange(n) * 3.0 for n in (40, 60, 80))
    rz, ry, rx = radii_mm
    inside = (
        ((z[:, None, None] - 60) / rz) ** 2 + ((y[:, None] - 80) / ry) ** 2 + ((x - 132) / rx) ** 2
    ) <= 1
    labels = two_lungs()
    lost = inside & (labels == LEFT)
    labels[lost] = 0
    return labels, lost


def test_rounded_side_of_heart_or_aorta_is_no_bay():
    labels, side = with_bulge((27.0, 36.0, 12.0))  # 54 mm high, 72 mm long, 12 mm deep
    assert (complete(labels, middle_x=MIDDLE_X).labels[side] > 0).mean() < 0.2


def test_tissue_beside_the_spine_is_kept_whatever_its_shape():
    labels, side = with_bulge((27.0, 36.0, 12.0))
    labels, side = labels[:, ::-1], side[:, ::-1]
    assert (complete(labels, middle_x=MIDDLE_X).labels[side] > 0).mean() > 0.5


@pytest.mark.parametrize("radius_mm", [10.0, 15.0, 20.0])
def test_mass_at_the_mediastinum_is_kept(radius_mm):
    labels, mass = with_bulge((radius_mm,) * 3)
    whole = complete(labels, closing_mm=16.0, middle_x=MIDDLE_X)
    assert (whole.labels[mass] == LEFT).mean() >= 0.6


def test_sound_lungs_stay_as_they_are():
    whole = complete(two_lungs(), closing_mm=16.0, middle_x=MIDDLE_X)
    np.testing.assert_array_equal(whole.labels, two_lungs())
    assert not whole.filled.any()


def test_share_of_air_is_half_at_the_threshold_and_none_in_other_air():
    hu = np.full((1, 3, 5), 40, np.int16)
    hu[0, 1] = [-900, -450, -250, -650, -900]
    lung = np.zeros(hu.shape, np.uint8)
    lung[0, 1, :2] = 1
    other = np.zeros(hu.shape, np.uint8)
    other[0, 1, 4] = 1
    share = air_share(lung, hu, other, threshold_hu=-450.0)
    # 400 HU below the threshold all, at it half, 200 HU above a quarter; -650 touches no lung.
    assert share[0, 1].tolist() == [FULL, FULL // 2, FULL // 4, 0, 0]
    assert not share[0, 0].any()
