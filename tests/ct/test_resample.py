import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.resample import nearest_on_grid, resample_volume
from lungdet_mmdet.errors import LungDetError

SPACINGS = st.tuples(*[st.floats(0.4, 3.0)] * 3)


def world_positions(geometry: ScanGeometry) -> np.ndarray:
    """(z, y, x, 3) world points of all voxel centres."""
    return geometry.voxel_to_world(np.moveaxis(np.indices(geometry.size_zyx), 0, -1))


def grid(size_zyx, spacing_zyx_mm, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)) -> ScanGeometry:
    return ScanGeometry(size_zyx, spacing_zyx_mm, (-7.0, 11.0, 3.0), direction)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), own=SPACINGS, wanted=SPACINGS)
def test_a_function_of_the_world_stays_the_same_function(random_geometry, seed, own, wanted):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(4, 12, size=3).tolist())
    geometry = grid(size, own, random_geometry(seed).direction)
    gradient = rng.uniform(-200.0, 200.0, size=3)

    def hu(where: ScanGeometry) -> np.ndarray:
        return (world_positions(where) - geometry.origin_xyz_mm) @ gradient

    source = np.rint(hu(geometry)).astype(np.int16)
    volume, target = resample_volume(source, geometry, wanted)

    assert volume.shape == target.size_zyx
    assert target.spacing_zyx_mm == pytest.approx(wanted, rel=2e-5)
    inside = geometry.world_to_voxel(world_positions(target))
    inside = np.all((inside >= 0) & (inside <= np.asarray(size) - 1), axis=-1)
    # Linear interpolation is exact on a linear function but for the rounding of the source, of the
    # slice and of the blend to whole HU, and for positions rounded to 1/32 pixel.
    per_pixel = np.abs(geometry.axes_xyz.T @ gradient * geometry.spacing_xyz_mm)
    tolerance = 1.6 + per_pixel[:2].sum() / 32
    difference = np.abs(volume - hu(target))[inside]
    assert difference.max(initial=0.0) <= tolerance


def test_a_slice_of_nearly_the_target_spacing_is_not_just_copied():
    # 200 pixels of 0.6986 mm are 199.6, so again 200, pixels of 0.7 mm. Pixel 199 of the result has
    # its centre at 199.5 * 0.7 / 0.6986 - 0.5 = 199.4 of the source, past the edge; pixel 150 at
    # 150.5 * 0.7 / 0.6986 - 0.5 = 150.30.
    ramp = np.tile(np.arange(200, dtype=np.int16) * 100, (1, 200, 1))
    geometry = grid((1, 200, 200), (1.0, 0.6986, 0.6986))
    volume, target = resample_volume(ramp, geometry, (1.0, 0.7, 0.7))
    assert target.size_zyx == (1, 200, 200)
    assert volume[0, 100, 150] == pytest.approx(15030, abs=4)
    assert volume[0, 100, 199] == 19900


@pytest.mark.parametrize("own", [(2.5, 0.82, 0.82), (1.25, 0.68, 0.68), (0.6, 0.5, 0.9)])
@pytest.mark.parametrize("wanted", [(1.25, 0.7, 0.7), (2.0, 1.0, 0.5)])
@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1)])
def test_a_sphere_stays_in_place(own, wanted, direction):
    size = tuple(math.ceil(30.0 / step) for step in own)
    geometry = grid(size, own, direction)
    centre = geometry.voxel_to_world(0.47 * np.asarray(size))
    distance = np.linalg.norm(world_positions(geometry) - centre, axis=-1)
    # A ball with a soft rim of 6 mm, so that sampling alone does not move its centre of mass.
    source = np.rint(1000 * np.clip((11.0 - distance) / 6.0, 0, 1)).astype(np.int16)

    volume, target = resample_volume(source, geometry, wanted)

    weights = volume.astype(float)[..., None]
    found = (world_positions(target) * weights).sum(axis=(0, 1, 2)) / weights.sum()
    offset_voxels = target.world_to_voxel(found) - target.world_to_voxel(centre)
    assert np.abs(offset_voxels).max() < 0.05


def test_halving_a_row_by_hand():
    # Pixels of 1 mm with values 0, 10, 20 become pixels of 0.5 mm with centres at -0.25, 0.25,
    # 0.75 ... of the source; the outermost repeat the edge.
    row = np.array([[[0, 10, 20]]], np.int16)
    volume, _ = resample_volume(row, grid((1, 1, 3), (1.0, 1.0, 1.0)), (1.0, 1.0, 0.5))
    assert volume.tolist() == [[[0, 2, 8, 12, 18, 20]]]


def test_slices_are_blended_by_their_distance():
    # 2 slices of 3 mm, values 0 and 100, to 1 mm: centres at -1/3, 0, 1/3, 2/3, 1, 4/3.
    column = np.array([[[0]], [[100]]], np.int16)
    volume, target = resample_volume(column, grid((2, 1, 1), (3.0, 1.0, 1.0)), (1.0, None, None))
    assert volume.ravel().tolist() == [0, 0, 33, 67, 100, 100]
    assert target.spacing_zyx_mm == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("wanted_z", [0.5, 1.25, 10.0])
def test_a_single_slice_repeats_or_stays(wanted_z):
    # One slice of 2.5 mm: 5, 2 or 1 slices.
    source = np.arange(12, dtype=np.int16).reshape(1, 3, 4)
    volume, _ = resample_volume(source, grid((1, 3, 4), (2.5, 1.0, 1.0)), (wanted_z, 1.0, 1.0))
    assert len(volume) == max(round(2.5 / wanted_z), 1)
    assert all(np.array_equal(slice_yx, source[0]) for slice_yx in volume)


def test_8_bit_volumes_stay_8_bit():
    source = np.full((2, 4, 4), 200, np.uint8)
    volume, _ = resample_volume(source, grid((2, 4, 4), (2.0, 1.0, 1.0)), (1.0, 0.5, 0.5))
    assert volume.dtype == np.uint8
    assert np.all(volume == 200)


def test_a_scan_of_the_wanted_spacing_is_returned_as_it_is():
    source = np.zeros((2, 3, 4), np.int16)
    geometry = grid((2, 3, 4), (1.25, 0.7000001, 0.7))
    volume, target = resample_volume(source, geometry, (1.25, 0.7, None))
    assert volume is source
    assert target is geometry


def test_a_cropped_view_resamples_as_its_copy():
    whole = np.random.default_rng(0).integers(-1000, 400, (6, 20, 24)).astype(np.int16)
    view = whole[1:5, 3:17, 5:21]
    geometry = grid(view.shape, (2.0, 0.9, 0.8))
    from_view, _ = resample_volume(view, geometry, (1.25, 0.7, 0.7))
    from_copy, _ = resample_volume(view.copy(), geometry, (1.25, 0.7, 0.7))
    np.testing.assert_array_equal(from_view, from_copy)


@pytest.mark.parametrize("wanted", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, math.nan)])
def test_an_impossible_target_spacing_is_refused(wanted):
    with pytest.raises(LungDetError, match="target spacing"):
        resample_volume(np.zeros((2, 2, 2), np.int16), grid((2, 2, 2), (1.0, 1.0, 1.0)), wanted)


@pytest.mark.parametrize(("own_x", "wanted_x"), [(0.7, 7.0), (70.0, 0.0001)])
def test_slices_that_would_vanish_or_explode_are_refused(own_x, wanted_x):
    volume = np.zeros((1, 2, 2), np.int16)
    with pytest.raises(LungDetError, match="cannot be resampled"):
        resample_volume(volume, grid((1, 2, 2), (1.0, 1.0, own_x)), (1.0, 1.0, wanted_x))


def test_labels_come_to_another_grid_by_nearest_neighbour():
    labels = np.array([[[1, 2]]], np.uint8)  # voxels of 2 mm, centres at x = 0 and 2
    source = ScanGeometry((1, 1, 2), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0))
    target = ScanGeometry((1, 1, 6), (1.0, 1.0, 0.8), (-1.5, 0.0, 0.0))
    # Target centres -1.5, -0.7, 0.1, 0.9, 1.7, 2.5; the labels cover -1 to 3.
    assert nearest_on_grid(labels, source, target).tolist() == [[[0, 1, 1, 1, 2, 2]]]
    assert nearest_on_grid(labels, source, target, outside=9)[0, 0, 0] == 9


def test_labels_of_another_direction_are_refused():
    source = grid((1, 1, 2), (1.0, 1.0, 1.0))
    turned = grid((1, 1, 2), (1.0, 1.0, 1.0), (0, 1, 0, 1, 0, 0, 0, 0, -1))
    with pytest.raises(LungDetError, match="do not belong together"):
        nearest_on_grid(np.zeros((1, 1, 2), np.uint8), source, turned)


def test_a_few_huge_voxels_do_not_ask_for_all_memory():
    # 2 x 2 x 2 voxels of 1.5 m would be 42 thousand million voxels, 81 GiB.
    geometry = ScanGeometry((2, 2, 2), (1500.0, 1500.0, 1500.0), (0.0, 0.0, 0.0))
    with pytest.raises(LungDetError, match="no chest CT is that coarse"):
        resample_volume(np.zeros((2, 2, 2), np.int16), geometry, (1.25, 0.7, 0.7))
