import cv2
import numpy as np
import pytest

from lungdet_mmdet.ct.scan import apply_clahe, window_hu
from lungdet_mmdet.errors import LungDetError


def volume_of(*values: int) -> np.ndarray:
    return np.array([[values]], np.int16)


def test_the_lung_window_by_hand():
    # -1350..150 HU to 0..255: 0.17 grey levels a HU. -600 is 127.5, which rounds to the even 128;
    # -1000 is 59.5, to 60; 0 is 229.5, to 230.
    volume = volume_of(-3024, -1350, -1000, -600, 0, 150, 3000)
    assert window_hu(volume).ravel().tolist() == [0, 0, 60, 128, 230, 255, 255]


def test_another_window():
    # 0..100 HU: 2.55 grey levels a HU.
    grey = window_hu(volume_of(0, 10, 50, 100), level_hu=50, width_hu=100)
    assert grey.ravel().tolist() == [0, 26, 128, 255]


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_zero_means_outside_the_mask_and_nothing_else(dtype):
    mask = np.array([[[1, 0, 1, 0]]], dtype)
    grey = window_hu(volume_of(-2000, -2000, 150, 150), mask=mask)
    assert grey.ravel().tolist() == [1, 0, 255, 0]


def test_labels_serve_as_a_mask():
    # LUNA16 writes its lungs as 3 and 4.
    grey = window_hu(volume_of(150, 150, 150), mask=np.array([[[0, 3, 4]]], np.uint8))
    assert grey.ravel().tolist() == [0, 255, 255]


def test_a_constant_scan_stays_constant():
    assert np.all(window_hu(np.full((2, 3, 4), -1000, np.int16)) == 60)


@pytest.mark.parametrize("width", [0.0, -5.0, float("nan")])
def test_a_window_without_width_is_refused(width):
    with pytest.raises(LungDetError, match="window width"):
        window_hu(volume_of(0), width_hu=width)


def test_cropped_views_are_windowed_as_their_copies():
    rng = np.random.default_rng(0)
    volume = rng.integers(-1200, 300, (3, 20, 24)).astype(np.int16)[:, 3:15, 2:20]
    for mask in (rng.random((3, 20, 24)) > 0.5, rng.integers(0, 2, (3, 20, 24), np.uint8)):
        view = mask[:, 3:15, 2:20]
        from_copy = window_hu(volume.copy(), mask=view.copy())
        np.testing.assert_array_equal(window_hu(volume, mask=view), from_copy)


@pytest.mark.parametrize("tiles_yx", [(8, 8), (4, 6)])
def test_clahe_is_opencvs_on_the_windowed_slice(tiles_yx):
    volume = np.random.default_rng(0).integers(-1200, 300, (3, 61, 50)).astype(np.int16)
    grey = window_hu(volume)
    out = apply_clahe(grey, clip_limit=2.0, tiles_yx=tiles_yx, keep_zero=False)
    for slice_yx, equalised in zip(grey, out, strict=True):
        clahe = cv2.createCLAHE(2.0, (tiles_yx[1], tiles_yx[0]))
        np.testing.assert_array_equal(equalised, clahe.apply(slice_yx))
    assert not np.array_equal(out, grey)


def test_clahe_keeps_black_what_is_black():
    volume = np.random.default_rng(0).integers(0, 256, (2, 40, 40)).astype(np.uint8)
    volume[:, :, :15] = 0
    kept = apply_clahe(volume)
    equalised = apply_clahe(volume, keep_zero=False)
    assert np.all(kept[volume == 0] == 0)
    assert np.any(equalised[volume == 0] > 0)
    np.testing.assert_array_equal(kept[volume > 0], equalised[volume > 0])


def test_cropped_views_are_equalised_as_their_copies():
    view = np.random.default_rng(0).integers(0, 256, (3, 50, 60)).astype(np.uint8)[1:, 5:41, 7:52]
    np.testing.assert_array_equal(apply_clahe(view), apply_clahe(view.copy()))


def test_clahe_wants_grey_levels():
    with pytest.raises(LungDetError, match="not int16: window first"):
        apply_clahe(np.zeros((1, 8, 8), np.int16))
