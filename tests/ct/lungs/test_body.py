import numpy as np
import pytest

from lungdet_mmdet.ct.lungs.body import (
    clamped_otsu,
    enclosing_rays,
    filled_body,
    find_body,
    otsu_threshold,
    outside_air,
)

RING = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 1, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0, 1, 0],
        [0, 1, 0, 0, 0, 1, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    np.uint8,
)[None]


def test_rays_inside_and_outside_a_ring():
    rays = enclosing_rays(RING)[0]
    assert (rays[2:5, 2:5] == 8).all()
    assert rays[0, 0] == 1  # only the diagonal through the ring
    assert rays[0, 3] == 3  # down and both diagonals
    assert rays[3, 0] == 3


def test_rays_of_an_open_cup():
    cup = RING.copy()
    cup[0, 1, 2:5] = 0  # open towards smaller y, corners left standing
    rays = enclosing_rays(cup)[0]
    assert rays[3, 3] == 7  # straight up is open
    assert rays[2, 3] == 5  # the diagonals leave through the opening, too


def test_rays_do_not_cross_slices():
    body = np.concatenate([RING, np.zeros_like(RING)])
    assert not enclosing_rays(body)[1].any()


def test_table_is_not_body():
    solid = np.zeros((10, 40, 40), np.uint8)
    solid[:, 5:25, 5:35] = 1
    solid[:, 30, :] = 1  # a shell of one voxel, 3 mm
    body = find_body(solid, (3.0, 3.0, 3.0))
    assert body[5, 15, 20] == 1
    assert not body[:, 28:].any()


def test_no_body_in_air():
    assert not find_body(np.zeros((4, 9, 9), np.uint8), (3.0, 3.0, 3.0)).any()


def test_outside_air_has_blind_parts_but_a_cut_lung_has_not():
    air = np.ones((1, 1, 8), np.uint8)
    air[0, 0, 4] = 0
    rays = np.array([[[1, 3, 4, 4, 8, 4, 4, 3]]], np.uint8)
    assert outside_air(air, rays).ravel().tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_filled_body_has_no_lungs_left_open():
    filled = filled_body(RING)[0]
    assert filled.sum() == 25
    assert filled[0].sum() == 0


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
