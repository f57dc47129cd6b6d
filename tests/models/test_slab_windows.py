import numpy as np
import pytest

from lungdet_mmdet.models import slab_windows


def test_windows_are_spread_evenly_and_cores_meet_in_the_middle_of_overlaps():
    # 160 long: two windows of 96 start at 0 and 64, overlap from 64 to 96, cores meet at 80.
    windows = slab_windows((96, 160), window_px=96, overlap_px=32)
    assert [w.start_yx for w in windows] == [(0, 0), (0, 64)]
    assert windows[0].core_high_yx == (np.inf, 80.0)
    assert windows[1].core_low_yx == (-np.inf, 80.0)


def test_one_pixel_more_takes_one_window_more():
    assert len(slab_windows((96, 161), window_px=96, overlap_px=32)) == 3


def test_a_slab_smaller_than_a_window_gets_one():
    (window,) = slab_windows((50, 20), window_px=96, overlap_px=32)
    assert window.start_yx == (0, 0)


@pytest.mark.parametrize("size", [(97, 300), (211, 268), (286, 402)])
def test_every_point_has_one_window_that_sees_its_surroundings(size):
    windows = slab_windows(size, window_px=96, overlap_px=32)
    for point in np.stack(np.meshgrid(*[np.arange(0.5, s, 3) for s in size]), -1).reshape(-1, 2):
        (own,) = [
            w for w in windows if np.all(point >= w.core_low_yx) and np.all(point < w.core_high_yx)
        ]
        # 16 px around the point lie in the window, unless the slab itself ends before.
        low = np.maximum(point - 16, 0) - own.start_yx
        high = np.minimum(point + 16, size) - own.start_yx
        assert np.all(low >= 0)
        assert np.all(high <= 96)
