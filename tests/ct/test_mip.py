import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import mip_slabs, slab_slices
from lungdet_mmdet.errors import LungDetError


def grid(n_slices: int, dz: float = 1.25, **changes) -> ScanGeometry:
    values = {
        "size_zyx": (n_slices, 3, 4),
        "spacing_zyx_mm": (dz, 0.8, 0.7),
        "origin_xyz_mm": (10.0, 20.0, -300.0),
    }
    return ScanGeometry(**{**values, **changes})


@pytest.mark.parametrize(
    ("n_slices", "dz", "thickness", "stride", "expected"),
    [
        (12, 1.25, 7.5, None, [(0, 6), (6, 6)]),
        # The last slab ends with the scan and is thinner.
        (14, 1.25, 7.5, None, [(0, 6), (6, 6), (12, 2)]),
        # Overlapping slabs: none lies wholly inside the one before.
        (10, 1.25, 7.5, 3.75, [(0, 6), (3, 6), (6, 4)]),
        # Thickness 0: every single slice.
        (3, 1.25, 0.0, None, [(0, 1), (1, 1), (2, 1)]),
        # Thicker than the scan.
        (4, 1.25, 7.5, None, [(0, 4)]),
        # 7.5 mm are 3.75 slices of 2 mm: 4; the next slab starts where this one ends.
        (9, 2.0, 7.5, None, [(0, 4), (4, 4), (8, 1)]),
        # 7.5 mm are 3.4 slices of 2.2 mm: 3 deep, and the stride of 3.4 must not skip slice 6.
        (9, 2.2, 7.5, 7.5, [(0, 3), (3, 3), (6, 3)]),
        # A stride below the slice spacing gives each slab once.
        (3, 2.0, 2.0, 0.5, [(0, 1), (1, 1), (2, 1)]),
        # Slices thicker than the slab.
        (2, 10.0, 7.5, None, [(0, 1), (1, 1)]),
        # A stride above the thickness leaves gaps, as asked for.
        (9, 1.0, 2.0, 4.0, [(0, 2), (4, 2), (8, 1)]),
        (1, 1.25, 7.5, None, [(0, 1)]),
    ],
)
def test_slabs_by_hand(n_slices, dz, thickness, stride, expected):
    assert slab_slices(n_slices, dz, thickness_mm=thickness, stride_mm=stride) == expected


@settings(max_examples=150, deadline=None)
@given(
    n_slices=st.integers(1, 80),
    dz=st.floats(0.4, 6.0),
    thickness=st.floats(0.0, 20.0),
    share=st.none() | st.floats(0.05, 1.0),
)
def test_no_slice_is_left_out(n_slices, dz, thickness, share):
    stride = None if share is None else max(share * thickness, 0.05)
    slabs = slab_slices(n_slices, dz, thickness_mm=thickness, stride_mm=stride)
    covered = [slice_ for first, depth in slabs for slice_ in range(first, first + depth)]
    assert sorted(set(covered)) == list(range(n_slices))
    if stride is None:
        assert len(covered) == n_slices
    firsts = [first for first, _ in slabs]
    assert firsts == sorted(set(firsts))


@pytest.mark.parametrize(
    ("thickness", "stride"),
    [(-1.0, None), (7.5, 0.0), (7.5, -1.0), (math.nan, None), (7.5, math.inf)],
)
def test_impossible_slabs_are_refused(thickness, stride):
    with pytest.raises(LungDetError, match="slab thickness"):
        slab_slices(10, 1.25, thickness_mm=thickness, stride_mm=stride)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize(("thickness", "stride"), [(7.5, None), (10.0, 2.5), (0.0, None)])
def test_a_slab_is_the_highest_value_over_its_slices(dtype, thickness, stride):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    volume = rng.integers(info.min, info.max, (23, 5, 6), endpoint=True).astype(dtype)
    geometry = grid(23, size_zyx=(23, 5, 6))
    slabs, geometries, _ = mip_slabs(volume, geometry, thickness_mm=thickness, stride_mm=stride)
    ranges = slab_slices(23, 1.25, thickness_mm=thickness, stride_mm=stride)
    assert slabs.dtype == dtype
    assert len(slabs) == len(geometries) == len(ranges)
    for slab, (first, depth) in zip(slabs, ranges, strict=True):
        for y in range(5):
            for x in range(6):
                assert slab[y, x] == max(int(v) for v in volume[first : first + depth, y, x])


def test_a_slab_lies_around_its_slices():
    # Slices of 1.25 mm: slab 1 holds slices 6 and 7, centres at -292.5 and -291.25, faces half a
    # slice further out.
    _, geometries, _ = mip_slabs(np.zeros((8, 3, 4), np.uint8), grid(8))
    assert [g.index for g in geometries] == [0, 1]
    assert (geometries[1].width, geometries[1].height) == (4, 3)
    assert geometries[1].spacing_xy_mm == pytest.approx((0.7, 0.8))
    assert geometries[1].z_range_mm == pytest.approx((-293.125, -290.625))
    assert geometries[1].origin_xyz_mm == pytest.approx((10.0, 20.0, -291.875))
    assert geometries[0].z_range_mm == pytest.approx((-300.625, -293.125))


def test_a_slab_of_a_flipped_scan():
    # Normal along -z: slice k lies at -300 - 1.25 k, and positions on the normal are 300 + 1.25 k.
    flipped = grid(6, direction=(1.0, 0, 0, 0, -1.0, 0, 0, 0, -1.0))
    _, (geometry,), _ = mip_slabs(np.zeros((6, 3, 4), np.uint8), flipped)
    assert geometry.origin_xyz_mm == pytest.approx((10.0, 20.0, -303.125))
    assert geometry.z_range_mm == pytest.approx((299.375, 306.875))
    assert geometry.direction == flipped.direction


def test_a_slab_of_an_oblique_scan():
    # Turned about x so that the normal is (0, 0.6, 0.8): the mid-plane of 6 slices lies 3.125 mm
    # along it, and the origin's own position on it is 20 * 0.6 - 300 * 0.8 = -228.
    oblique = grid(6, direction=(1.0, 0, 0, 0, 0.8, 0.6, 0, -0.6, 0.8))
    _, (geometry,), _ = mip_slabs(np.zeros((6, 3, 4), np.uint8), oblique)
    assert geometry.origin_xyz_mm == pytest.approx((10.0, 21.875, -297.5))
    assert geometry.z_range_mm == pytest.approx((-228.625, -221.125))


def depths_of(columns: list[list[int]], **options) -> list[list[float]]:
    """Depths in slices from the low face, slab by slab, of columns of grey levels."""
    volume = np.array(columns, np.uint8).T[:, None, :]
    geometry = grid(len(volume), size_zyx=volume.shape)
    _, geometries, depths = mip_slabs(volume, geometry, **options)
    slices = [(g.z_range_mm[1] - g.z_range_mm[0]) / 1.25 for g in geometries]
    return [
        (depth[0] / 255 * n).tolist() for depth, n in zip(depths, slices, strict=True)
    ]  # fmt: skip


def test_the_depth_is_the_middle_of_the_highest_slice():
    (depths,) = depths_of([[9, 1, 1, 1, 1, 1], [1, 1, 1, 9, 1, 1], [1, 1, 1, 1, 1, 9]])
    assert depths == pytest.approx([0.5, 3.5, 5.5], abs=0.02)


def test_several_highest_slices_have_their_middle():
    # Slices 1 to 3; 0 and 5; all six (as outside the lungs).
    (depths,) = depths_of([[1, 9, 9, 9, 1, 1], [9, 1, 1, 1, 1, 9], [0, 0, 0, 0, 0, 0]])
    assert depths == pytest.approx([2.5, 3.0, 3.0], abs=0.02)


def test_a_thinner_last_slab_has_depths_of_its_own_thickness():
    first, last = depths_of([[1, 1, 1, 1, 1, 1, 1, 9], [9, 1, 1, 1, 1, 1, 9, 1]])
    assert first == pytest.approx([3.0, 0.5], abs=0.02)
    assert last == pytest.approx([1.5, 0.5], abs=0.02)


def test_depths_of_more_slices_than_a_byte_counts():
    column = [0] * 300
    column[280] = 1
    (depths,) = depths_of([column], thickness_mm=1000.0)
    assert depths == pytest.approx([280.5], abs=0.6)


def test_depths_can_be_left_out():
    volume = np.zeros((6, 3, 4), np.uint8)
    assert mip_slabs(volume, grid(6), with_depth=False)[2] is None
