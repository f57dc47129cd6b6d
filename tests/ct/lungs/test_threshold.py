import numpy as np
import pytest

from lungdet_mmdet.ct.lungs.threshold import clamped_otsu, otsu_threshold


def test_two_values_are_cut_in_the_middle():
    volume = np.array([-800] * 7 + [0] * 3, np.int16)
    assert otsu_threshold(volume) == -400.0


def test_skewed_classes():
    # Cutting off 40 alone: 1 * 4 * (40 - 5)^2 = 4900. Between 0 and 10 it is
    # 2 * 3 * (20 - 0)^2 = 2400. So the cut lies between 10 and 40, at 25.
    volume = np.array([0, 0, 10, 10, 40], np.int16)
    assert otsu_threshold(volume) == 25.0


def test_padding_stays_out():
    volume = np.array([-3024] * 1000 + [-2000] * 50 + [-800] * 7 + [0] * 3, np.int16)
    assert otsu_threshold(volume) == -400.0


def test_constant_and_all_padding_have_no_threshold():
    assert otsu_threshold(np.full(8, 40, np.int16)) is None
    assert otsu_threshold(np.full(8, -3024, np.int16)) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-800, 0], (-400.0, False)),
        ([-100, 300], (-350.0, True)),
        ([-1000, -700], (-550.0, True)),
        ([7, 7], (-450.0, True)),
    ],
)
def test_clamp_moves_and_says_so(values, expected):
    assert clamped_otsu(np.array(values, np.int16), (-550.0, -350.0)) == expected
