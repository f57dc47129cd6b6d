import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.semireal.job import (
    AS_IT_IS,
    LungVariant,
    apply_geometry,
    apply_grain,
    draw_variant,
    moved_points,
)

GEOMETRY = ScanGeometry((6, 8, 10), (1.0, 0.5, 0.5), (-7.0, 3.0, 100.0))


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(-1000, 0, (6, 8, 10)).astype(np.int16)


def change(volume, variant):
    changed, geometry = apply_geometry(volume, GEOMETRY, variant)
    apply_grain(changed, variant, np.random.default_rng(1))
    return changed, geometry


def test_as_it_is_is_an_equal_copy(volume):
    changed, geometry = change(volume, AS_IT_IS)
    assert np.array_equal(changed, volume)
    assert not np.shares_memory(changed, volume)
    assert geometry == GEOMETRY


@pytest.mark.parametrize("joined", [1, 2])
def test_points_move_with_what_they_mark(volume, joined):
    volume[2:4, 5, 1] = 700
    variant = LungVariant(mirrored=True, slices_joined=joined)
    changed, geometry = change(volume, variant)
    point = GEOMETRY.voxel_to_world(np.array([[2.5, 5.0, 1.0]]))
    z, y, x = geometry.world_to_voxel(moved_points(point, GEOMETRY, variant))[0]
    assert (y, x) == pytest.approx((5.0, 8.0))
    assert z == pytest.approx(2.5 if joined == 1 else 1.0)
    assert changed[int(z), 5, 8] == 700


@pytest.mark.parametrize("joined", [1, 2])
def test_points_move_with_a_lung_that_leans_and_grows(joined):
    geometry = ScanGeometry((40, 60, 50), (1.0, 0.8, 0.8), (-7.0, 3.0, 100.0))
    z, y, x = np.indices(geometry.size_zyx)
    centre = np.array([[22.0, 41.0, 12.0]])
    distance = (z - 22) ** 2 + 0.64 * ((y - 41) ** 2 + (x - 12) ** 2)
    volume = np.where(distance < 9, 40, -800).astype(np.int16)
    variant = LungVariant(mirrored=True, slices_joined=joined, lean_yx_deg=(8.0, -10.0), scale=1.1)
    changed, grid = apply_geometry(volume, geometry, variant)
    weights = (changed + 800.0).ravel()
    found = np.array([np.average(i.ravel(), weights=weights) for i in np.indices(changed.shape)])
    expected = moved_points(geometry.voxel_to_world(centre), geometry, variant)
    assert np.abs(grid.voxel_to_world(found[None]) - expected).max() < 0.25
    assert np.abs(grid.voxel_to_world(found[None]) - geometry.voxel_to_world(centre)).max() > 2
    assert grid.spacing_zyx_mm == pytest.approx((1.1 * joined, 0.88, 0.88))


def test_a_stretched_length_is_no_longer_than_stated():
    geometry = ScanGeometry((41, 41, 41), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    variant = LungVariant(lean_yx_deg=(10.0, 10.0), scale=1.1)
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    ends = 10.0 * directions / np.linalg.norm(directions, axis=1, keepdims=True) + 20.0
    moved = moved_points(np.vstack([ends, [[20.0, 20.0, 20.0]]]), geometry, variant)
    longest = np.linalg.norm(moved[:-1] - moved[-1], axis=1).max() / 10.0
    assert 0.99 * variant.stretch < longest <= variant.stretch + 1e-9


def test_a_lean_repeats_the_outermost_slices_and_mixes_only_neighbours(volume):
    changed, _ = change(volume, LungVariant(lean_yx_deg=(0.0, 80.0)))
    assert np.array_equal(changed[:, :, 0], np.repeat(volume[:1, :, 0], 6, axis=0))
    assert np.array_equal(changed[:, :, 9], np.repeat(volume[-1:, :, 9], 6, axis=0))


def test_joined_slices_are_means_and_lie_between(volume):
    changed, geometry = change(volume, LungVariant(slices_joined=2))
    assert changed.shape == (3, 8, 10)
    assert geometry.spacing_zyx_mm == (2.0, 0.5, 0.5)
    assert geometry.origin_xyz_mm == (-7.0, 3.0, 100.5)
    means = (volume[0].astype(float) + volume[1]) / 2
    assert np.abs(changed[0] - means).max() <= 0.5


def test_padding_keeps_its_value(volume):
    volume[:, :2] = -3024
    changed, _ = change(volume, LungVariant(smoothing_px=0.6, noise_hu=20.0))
    assert (changed[:, :2] == -3024).all()
    assert not np.array_equal(changed[:, 2:], volume[:, 2:])


def test_noise_has_the_asked_strength():
    noisy = np.full((20, 64, 64), -500, np.int16)
    apply_grain(noisy, LungVariant(noise_hu=20.0), np.random.default_rng(2))
    assert noisy.std() == pytest.approx(20.0, rel=0.05)


def test_thick_slices_are_not_joined():
    drawn = [draw_variant(np.random.default_rng(seed), 2.5) for seed in range(40)]
    assert {v.slices_joined for v in drawn} == {1}
    assert {v.mirrored for v in drawn} == {True, False}
    leans = np.abs([v.lean_yx_deg for v in drawn])
    assert 8 < leans.max() <= 10
    scales = [v.scale for v in drawn]
    assert 0.9 <= min(scales) < 0.93 < 1.07 < max(scales) <= 1.1
    thin = [draw_variant(np.random.default_rng(seed), 1.25) for seed in range(40)]
    assert {v.slices_joined for v in thin} == {1, 2}


def test_no_points_stay_no_points():
    assert moved_points(np.zeros((0, 3)), GEOMETRY, LungVariant(mirrored=True)).shape == (0, 3)
