import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.ct.augmentation import (
    add_gaussian_noise,
    rotate_boxes,
    rotate_slab,
    scale_brightness,
)


def disc(centre_xy: tuple[float, float], *, height: int = 80, width: int = 100) -> np.ndarray:
    """A disc of radius 6 with a soft rim; centre in box coordinates (pixel i spans [i, i + 1])."""
    y, x = np.mgrid[:height, :width] + 0.5
    distance = np.hypot(x - centre_xy[0], y - centre_xy[1])
    return np.rint(255 * np.clip(7.0 - distance, 0, 1)).astype(np.uint8)


def centroid_xy(image: np.ndarray) -> np.ndarray:
    """Centre of brightness in box coordinates."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    weights = image.astype(float)
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("angle", [-15.0, -3.3, 0.5, 15.0, 90.0])
@pytest.mark.parametrize("size", [(80, 100), (81, 99)])
def test_a_disc_lands_where_its_box_lands(angle, size):
    height, width = size
    image = disc((57.0, 31.0), height=height, width=width)
    box = np.array([[50.0, 24.0, 64.0, 38.0]])
    turned = rotate_boxes(box, angle_deg=angle, height=height, width=width)[0]
    found = centroid_xy(rotate_slab(image, angle_deg=angle))
    np.testing.assert_allclose(found, 0.5 * (turned[:2] + turned[2:]), atol=0.05)


def test_a_quarter_turn_by_hand():
    # Counter-clockwise as seen: what was right of the centre (50, 40) is now above it.
    box = rotate_boxes(np.array([[68.0, 37.0, 72.0, 43.0]]), angle_deg=90, height=80, width=100)
    np.testing.assert_allclose(box, [[48.0, 17.0, 52.0, 23.0]], atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(angle=st.floats(-180, 180), seed=st.integers(0, 2**32 - 1))
def test_boxes_keep_their_size_and_turn_back(angle, seed):
    corner = np.random.default_rng(seed).uniform(0, 60, (3, 2))
    boxes = np.hstack([corner, corner + np.random.default_rng(seed + 1).uniform(1, 20, (3, 2))])
    turned = rotate_boxes(boxes, angle_deg=angle, height=60, width=70)
    np.testing.assert_allclose(turned[:, 2:] - turned[:, :2], boxes[:, 2:] - boxes[:, :2])
    back = rotate_boxes(turned, angle_deg=-angle, height=60, width=70)
    np.testing.assert_allclose(back, boxes, atol=1e-8)


def test_no_boxes_stay_no_boxes():
    empty = rotate_boxes(np.zeros((0, 4)), angle_deg=10, height=5, width=5)
    assert empty.shape == (0, 4)


def test_rotation_keeps_channels_and_blackens_corners():
    image = np.full((40, 50, 3), 200, np.uint8)
    turned = rotate_slab(image, angle_deg=15)
    assert turned.shape == (40, 50, 3)
    assert turned.dtype == np.uint8
    assert turned[0, 0].tolist() == [0, 0, 0]
    assert turned[20, 25].tolist() == [200, 200, 200]


def test_brightness_by_hand():
    image = np.array([[0, 10, 100, 230]], np.uint8)
    brighter = scale_brightness(image, factor=1.15)
    assert brighter.dtype == np.uint8
    # 11.5 (in 32-bit floats just below) is 11 or 12; 115; 264.5 is clipped.
    assert brighter[0, [0, 2, 3]].tolist() == [0, 115, 255]
    assert scale_brightness(image.astype(np.float32), factor=0.5).tolist() == [[0, 5, 50, 115]]


@pytest.mark.parametrize("sd", [0.0025, 0.459, 5.0])
def test_noise_has_the_standard_deviation_asked_for(sd):
    image = np.full((400, 500), 100, np.uint8)
    noisy = add_gaussian_noise(image, sd=sd, rng=np.random.default_rng(0))
    assert noisy.dtype == np.float32
    # 200,000 draws: the SD is known to 0.16 %, the mean to sd / 447.
    assert np.std(noisy - 100.0) == pytest.approx(sd, rel=0.01)
    assert np.mean(noisy - 100.0) == pytest.approx(0.0, abs=0.01 * sd)


def test_noise_is_the_same_in_all_channels_and_for_the_same_seed():
    image = np.zeros((30, 40, 3), np.uint8)
    noisy = add_gaussian_noise(image, sd=2.0, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(noisy[..., 0], noisy[..., 2])
    assert noisy.min() < 0
    again = add_gaussian_noise(image, sd=2.0, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(noisy, again)
    other = add_gaussian_noise(image, sd=2.0, rng=np.random.default_rng(6))
    assert not np.array_equal(noisy, other)
