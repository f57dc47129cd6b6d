import numpy as np

from lungdet_mmdet.ct.lungs.closing import close_lungs, fill_chest_wall_bays
from lungdet_mmdet.ct.lungs.parts import LEFT, RIGHT

SPACING = (3.0, 3.0, 3.0)


def two_lungs(shape=(20, 40, 60)):
    labels = np.zeros(shape, np.uint8)
    labels[2:18, 5:35, 4:26] = RIGHT
    labels[2:18, 5:35, 34:56] = LEFT
    return labels


def close(labels, outside=None, closing_mm=8.0):
    outside = np.zeros_like(labels) if outside is None else outside
    return close_lungs(labels, outside, closing_mm=closing_mm, spacing_zyx_mm=SPACING)


def test_pleural_nodule_is_closed_into_its_own_lung():
    labels = two_lungs()
    nodule = np.s_[9:11, 19:21, 4:8]  # 6 mm wide, 12 mm deep
    labels[nodule] = 0
    closed = close(labels)
    assert (closed[nodule] == RIGHT).all()
    np.testing.assert_array_equal(closed, two_lungs())


def test_lungs_close_apart_do_not_close_the_mediastinum():
    assert not close(two_lungs(), closing_mm=15.0)[:, :, 26:34].any()


def test_enclosed_nodule_of_any_size_is_filled():
    labels = two_lungs()
    labels[6:14, 12:28, 10:22] = 0
    np.testing.assert_array_equal(close(labels), two_lungs())


def test_outside_air_is_never_added():
    labels = two_lungs()
    labels[8:12, 18:22, 4:8] = 0
    outside = np.zeros_like(labels)
    outside[8:12, 18:22, 4:8] = 1
    np.testing.assert_array_equal(close(labels, outside), labels)


def wedge(labels, side):
    """Cut a bay of 36 mm by 36 mm by 30 mm out of the right lung."""
    cut = labels.copy()
    cut[5:15, 14:26, (slice(4, 16) if side == "chest wall" else slice(14, 26))] = 0
    return cut


def test_bay_towards_the_chest_wall_is_filled():
    labels = wedge(two_lungs(), "chest wall")
    hu = np.where(labels > 0, -850, 40).astype(np.int16)
    filled, added_ml = fill_chest_wall_bays(labels, hu, np.zeros_like(labels), SPACING)
    bay = (labels == 0) & (two_lungs() > 0)
    assert (filled[bay] == RIGHT).mean() > 0.9
    assert added_ml == (filled != labels).sum() * 0.027


def test_bay_towards_the_heart_stays():
    labels = wedge(two_lungs(), "heart")
    hu = np.where(labels > 0, -850, 40).astype(np.int16)
    filled, added_ml = fill_chest_wall_bays(labels, hu, np.zeros_like(labels), SPACING)
    np.testing.assert_array_equal(filled, labels)
    assert added_ml == 0


def test_bay_of_air_stays():
    labels = wedge(two_lungs(), "chest wall")
    hu = np.full(labels.shape, -950, np.int16)
    filled, _ = fill_chest_wall_bays(labels, hu, np.zeros_like(labels), SPACING)
    np.testing.assert_array_equal(filled, labels)


def test_bay_in_one_slice_only_stays():
    labels = two_lungs()
    labels[9, 14:26, 4:16] = 0
    hu = np.where(labels > 0, -850, 40).astype(np.int16)
    filled, _ = fill_chest_wall_bays(labels, hu, np.zeros_like(labels), SPACING)
    np.testing.assert_array_equal(filled, labels)
