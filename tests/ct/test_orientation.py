from itertools import permutations, product

import numpy as np
import pytest

from lungdet_mmdet.ct.geometry import ScanGeometry, to_canonical

STORAGES = [(p, f) for p in permutations(range(3)) for f in product((1, -1), repeat=3)]
# 20 degrees about z, then 15 degrees about x: nearest to the identity, and to nothing else.
_TURN_Z = np.array([[0.939693, -0.342020, 0], [0.342020, 0.939693, 0], [0, 0, 1]])
_TURN_X = np.array([[1, 0, 0], [0, 0.965926, -0.258819], [0, 0.258819, 0.965926]])


def world_positions(geometry: ScanGeometry) -> np.ndarray:
    """(z, y, x, 3) world points of all voxel centres."""
    return geometry.voxel_to_world(np.moveaxis(np.indices(geometry.size_zyx), 0, -1))


def geometry_of(positions: np.ndarray) -> ScanGeometry:
    """The grid whose voxels lie at the given world points."""
    steps = [np.take(positions, 1, axis) - np.take(positions, 0, axis) for axis in range(3)]
    steps = [step.reshape(-1, 3)[0] for step in steps]
    spacing = [float(np.linalg.norm(step)) for step in steps]
    columns = [steps[axis] / spacing[axis] for axis in (2, 1, 0)]
    return ScanGeometry(
        size_zyx=positions.shape[:3],
        spacing_zyx_mm=tuple(spacing),
        origin_xyz_mm=tuple(positions[0, 0, 0].tolist()),
        direction=tuple(np.stack(columns, axis=1).ravel().tolist()),
    )


@pytest.mark.parametrize("axes", [np.eye(3), _TURN_Z @ _TURN_X], ids=["axial", "oblique"])
@pytest.mark.parametrize(("order", "flips"), STORAGES)
def test_every_storage_of_a_scan_gives_the_same_array(order, flips, axes):
    geometry = ScanGeometry((2, 3, 4), (3.0, 2.0, 1.0), (5.0, 6.0, 7.0), tuple(axes.ravel()))
    volume = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    flip = tuple(slice(None, None, step) for step in flips)
    stored = volume.transpose(order)[flip]
    stored_geometry = geometry_of(world_positions(geometry).transpose(*order, 3)[flip])

    canonical, found = to_canonical(stored, stored_geometry)

    np.testing.assert_array_equal(canonical, volume)
    assert found.spacing_zyx_mm == pytest.approx(geometry.spacing_zyx_mm)
    np.testing.assert_allclose(world_positions(found), world_positions(geometry), atol=1e-4)


def test_a_canonical_scan_is_not_copied():
    volume = np.zeros((2, 3, 4), np.int16)
    canonical, _ = to_canonical(volume, ScanGeometry((2, 3, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    assert np.shares_memory(canonical, volume)


def test_a_single_slice_is_turned_too():
    # Feet first in a file that runs downward: one slice, flipped along x.
    geometry = ScanGeometry(
        (1, 1, 3), (1.0, 1.0, 2.0), (10.0, 0.0, 0.0), (-1, 0, 0, 0, 1, 0, 0, 0, -1)
    )
    canonical, found = to_canonical(np.array([[[1, 2, 3]]], np.int16), geometry)
    assert canonical.tolist() == [[[3, 2, 1]]]
    # Stored at x = 10, 8, 6.
    assert found.origin_xyz_mm == pytest.approx((6.0, 0.0, 0.0))
