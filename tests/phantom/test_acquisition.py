import numpy as np
import pytest

from lungdet_mmdet.phantom.anatomy import Anatomy
from lungdet_mmdet.phantom.scan import (
    Protocol,
    add_noise,
    draw_protocol,
    pad_outside_circle,
)

QUARTER_TURN = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # patient x becomes world y


def protocol(**options):
    return Protocol(spacing_zyx_mm=(2.0, 1.0, 1.0), n_pixels=5, z_range_mm=(0.0, 8.0), **options)


def test_grid_covers_the_range_between_the_outer_faces():
    grid = protocol(centre_xy_mm=(10.0, 20.0)).grid(Anatomy())
    assert grid.size_zyx == (4, 5, 5)
    assert grid.axis_mm(0).tolist() == [1.0, 3.0, 5.0, 7.0]
    assert grid.axis_mm(1).tolist() == [18.0, 19.0, 20.0, 21.0, 22.0]
    assert grid.axis_mm(2).tolist() == [8.0, 9.0, 10.0, 11.0, 12.0]


@pytest.mark.parametrize("rotation", [Protocol.rotation, QUARTER_TURN])
@pytest.mark.parametrize("flip", [(False, False, False), (True, True, False), (True, True, True)])
def test_stored_voxel_keeps_its_world_point(flip, rotation):
    chosen = protocol(flip_xyz=flip, rotation=rotation, shift_xyz_mm=(100.0, 0.0, -50.0))
    grid = chosen.grid(Anatomy())
    volume = np.zeros(grid.size_zyx, np.int16)
    volume[3, 1, 4] = 7  # patient point x 2, y -1, z 7
    world = chosen.to_world(np.array([[2.0, -1.0, 7.0]]))
    k, j, i = np.rint(chosen.geometry(grid).world_to_voxel(world)[0]).astype(int)
    assert chosen.stored(volume)[k, j, i] == 7


def test_flip_turns_the_direction_and_moves_the_origin_to_the_other_end():
    chosen = protocol(flip_xyz=(True, False, False))
    geometry = chosen.geometry(chosen.grid(Anatomy()))
    assert geometry.direction == (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    assert geometry.origin_xyz_mm == (2.0, -2.0, 1.0)


def test_noise_has_its_standard_deviation_and_is_correlated():
    volume = np.zeros((6, 128, 128), np.int16)
    add_noise(volume, 20.0, np.random.default_rng(0))
    noise = volume.astype(float)
    assert noise.std() == pytest.approx(20.0, rel=0.06)
    neighbours = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    assert neighbours > 0.4


def test_padding_fills_the_corners_only():
    volume = np.zeros((2, 20, 20), np.int16)
    pad_outside_circle(volume, -3024)
    assert volume[1, 0, 0] == -3024
    assert volume[1, 0, 10] == 0
    assert volume[1, 10, 10] == 0


@pytest.mark.parametrize("size", ["small", "fine", "full"])
def test_drawn_protocols_vary(size):
    rng = np.random.default_rng(0)
    drawn = [draw_protocol(rng, Anatomy(), size=size) for _ in range(60)]
    assert {p.padding_hu for p in drawn} == {None, -2000, -3024}
    assert 0.1 < np.mean([any(p.flip_xyz) for p in drawn]) < 0.45
    assert len({p.spacing_zyx_mm[0] for p in drawn}) >= 3
    if size == "fine":
        assert all(0.66 <= p.spacing_zyx_mm[2] <= 0.77 for p in drawn)
    if size == "full":
        assert {p.n_pixels for p in drawn} == {512}
        assert all(0.55 <= p.spacing_zyx_mm[2] <= 0.9 for p in drawn)
