import numpy as np
import pytest

from lungdet_mmdet.models import slab_windows


def test_neighbours_overlap_and_cores_meet_between_their_pixels():
    # 128 lit pixels are two cores of 64; a window of 96 has 16 px more on either side.
    windows = slab_windows(np.ones((64, 128), bool), window_px=96, overlap_px=32)
    assert [w.start_yx for w in windows] == [(-16, -16), (-16, 48)]
    assert windows[0].core_high_yx == (np.inf, 64.0)
    assert windows[1].core_low_yx == (-np.inf, 64.0)


def test_one_lit_pixel_more_takes_one_window_more():
    assert len(slab_windows(np.ones((64, 129), bool), window_px=96, overlap_px=32)) == 3


def test_a_slab_smaller_than_a_window_lies_in_its_middle():
    (window,) = slab_windows(np.ones((50, 20), bool), window_px=96, overlap_px=32)
    assert window.start_yx == (-23, -38)


def test_no_window_is_spent_on_black():
    lit = np.zeros((300, 400), bool)
    (corner,) = slab_windows(lit, window_px=96, overlap_px=32)
    assert corner.core_low_yx == (-np.inf, -np.inf)
    lit[20:50, 10:40] = lit[30:60, 300:350] = True  # two lungs beside each other
    left, right = slab_windows(lit, window_px=96, overlap_px=32)
    assert left.core_high_yx[1] == right.core_low_yx[1] == 170.0
    lit[200, 200] = True
    assert len(slab_windows(lit, window_px=96, overlap_px=32)) == 3


@pytest.mark.parametrize("size", [(97, 300), (211, 268), (286, 402)])
def test_every_lit_point_has_one_window_that_sees_its_surroundings(size):
    rng = np.random.default_rng(0)
    for share in (1.0, 0.01):
        lit = rng.random(size) < share
        windows = slab_windows(lit, window_px=96, overlap_px=32)
        for point in np.argwhere(lit)[:: max(1, lit.sum() // 500)] + 0.5:
            (own,) = [
                w
                for w in windows
                if np.all(point >= w.core_low_yx) and np.all(point < w.core_high_yx)
            ]
            # 16 px around the point lie in the window.
            assert np.all(point - 16 >= own.start_yx)
            assert np.all(point + 16 <= np.add(own.start_yx, 96))


def test_the_cores_share_out_the_plane():
    lit = np.random.default_rng(0).random((286, 402)) < 0.001
    windows = slab_windows(lit, window_px=96, overlap_px=32)
    for point in np.random.default_rng(1).uniform(-50, 450, (300, 2)):
        assert (
            sum(
                bool(np.all(point >= w.core_low_yx) and np.all(point < w.core_high_yx))
                for w in windows
            )
            == 1
        )
