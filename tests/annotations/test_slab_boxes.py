import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.annotations.slab_boxes import (
    SlabStack,
    best_slab,
    positive_slabs,
    sphere_boxes,
)
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError
from tests.support.slabs import slab_box


def slab(index: int = 0, **changes) -> SlabGeometry:
    values = {
        "index": index,
        "width": 100,
        "height": 80,
        "z_range_mm": (7.5 * index, 7.5 * index + 7.5),
        "spacing_xy_mm": (0.5, 0.25),
        "origin_xyz_mm": (10.0, 20.0, 7.5 * index + 3.75),
    }
    return SlabGeometry(**{**values, **changes})


def test_a_sphere_centred_in_the_slab_shows_its_whole_width():
    # Centre 5 mm right and 6 mm below pixel (0, 0): pixels 10 and 24, so box coordinates 10.5 and
    # 24.5; radius 2 mm = 4 pixels of 0.5 mm and 8 of 0.25 mm.
    box = slab_box((15.0, 26.0, 3.0), 4.0, slab())
    assert box is not None
    assert box.box_xyxy_px == pytest.approx((6.5, 16.5, 14.5, 32.5))
    assert box.overlap_mm == pytest.approx(4.0)


def test_a_sphere_centred_outside_shows_its_section_at_the_face():
    # Centre 3 mm above the upper face, radius 5: a disk of radius 4 (3-4-5), 2 mm deep.
    box = slab_box((15.0, 25.0, 10.5), 10.0, slab())
    assert box is not None
    assert box.box_xyxy_px == pytest.approx((10.5 - 8, 20.5 - 16, 10.5 + 8, 20.5 + 16))
    assert box.overlap_mm == pytest.approx(2.0)


def test_a_sphere_larger_than_the_slab_overlaps_by_its_thickness():
    box = slab_box((15.0, 25.0, 3.75), 30.0, slab())
    assert box is not None
    assert box.overlap_mm == pytest.approx(7.5)


@pytest.mark.parametrize("z", [9.5, 12.0, -2.0, -9.0])
def test_a_sphere_that_touches_a_face_or_nothing_has_no_box(z):
    # Radius 2: at z = 9.5 and z = -2 it touches a face in one point.
    assert slab_box((15.0, 25.0, z), 4.0, slab()) is None


def test_flipped_axes_put_the_box_where_the_pixels_are():
    # Image x runs towards -x in the world and the normal along -z. The slab spans -7.5..0 along its
    # normal, that is world z 0..7.5.
    flipped = slab(
        z_range_mm=(-7.5, 0.0),
        direction=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
        origin_xyz_mm=(10.0, 20.0, 3.75),
    )
    box = slab_box((5.0, 26.0, 3.0), 4.0, flipped)
    assert box is not None
    assert box.box_xyxy_px == pytest.approx((6.5, 16.5, 14.5, 32.5))
    assert box.overlap_mm == pytest.approx(4.0)
    assert slab_box((5.0, 26.0, -3.0), 4.0, flipped) is None


def test_many_spheres_and_slabs_at_once():
    stack = SlabStack((slab(0), slab(1)))
    boxes, overlap = sphere_boxes(
        np.array([[15.0, 26.0, 7.5], [15.0, 26.0, 12.0], [0.0, 0.0, 99.0]]),
        np.array([6.0, 2.0, 4.0]),
        stack,
    )
    assert boxes.shape == (3, 2, 4)
    assert overlap == pytest.approx(np.array([[3.0, 3.0], [0.0, 2.0], [0.0, 0.0]]))


def test_no_spheres():
    boxes, overlap = sphere_boxes(np.empty((0, 3)), np.empty(0), SlabStack((slab(),)))
    assert boxes.shape == (0, 1, 4)
    assert overlap.shape == (0, 1)


@pytest.mark.parametrize(
    ("overlap", "width", "best"),
    [
        ([1.0, 3.0, 2.0], [4.0, 6.0, 5.0], 1),
        ([1.5, 1.5], [3.0, 3.0], 0),
        ([7.5, 7.5, 7.5], [20.0, 24.0, 20.0], 1),
        ([1.5, 1.5 + 1e-12], [3.0, 3.0], 0),
        ([0.0, 0.0], [9.0, 9.0], None),
        ([], [], None),
    ],
)
def test_the_best_slab_is_deepest_then_widest_then_first(overlap, width, best):
    assert best_slab(np.array(overlap), np.array(width)) == best


def test_positive_from_the_minimum_overlap_on():
    positive = positive_slabs(np.array([1.9, 7.5, 2.0, 0.0]), np.ones(4), min_overlap_mm=2.0)
    assert positive.tolist() == [False, True, True, False]


def test_the_best_slab_is_positive_however_small_the_nodule():
    positive = positive_slabs(np.array([0.0, 0.4, 0.6]), np.ones(3), min_overlap_mm=2.0)
    assert positive.tolist() == [False, False, True]


def test_without_a_minimum_every_touched_slab_is_positive():
    positive = positive_slabs(np.array([0.0, 0.4, 0.6]), np.ones(3), min_overlap_mm=0.0)
    assert positive.tolist() == [False, True, True]


@pytest.mark.parametrize(
    "changes",
    [{"z_range_mm": (7.5, 0.0)}, {"spacing_xy_mm": (0.0, 1.0)}, {"direction": (1.0, 0.0)}],
)
def test_an_impossible_slab_is_an_error(changes):
    with pytest.raises(LungDetError, match=r"slab 0: .*Prepare the scan again"):
        slab(**changes)


def rotation(seed: int) -> np.ndarray:
    """Random orthonormal matrix, mirrored axes included."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spacing=st.tuples(st.floats(0.3, 2.0), st.floats(0.3, 2.0)),
    thickness=st.floats(1.0, 15.0),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    diameter=st.floats(2.0, 40.0),
    place=st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_the_box_mapped_back_to_the_world_is_the_sphere(
    seed, spacing, thickness, origin, diameter, place
):
    axes = rotation(seed)
    middle = float(np.dot(origin, axes[:, 2]))
    oblique = SlabGeometry(
        index=0,
        width=64,
        height=64,
        z_range_mm=(middle - thickness / 2, middle + thickness / 2),
        spacing_xy_mm=spacing,
        origin_xyz_mm=origin,
        direction=tuple(axes.ravel().tolist()),
    )
    radius = diameter / 2
    reach = thickness / 2 + radius
    offset = np.array([40.0 * place[0], 40.0 * place[1], reach * place[2]])
    centre = np.array(origin) + axes @ offset
    box = slab_box(tuple(centre), diameter, oblique)
    depth = min(reach - abs(offset[2]), diameter, thickness)
    if box is None:
        assert depth <= 1e-9
        return
    assert box.overlap_mm == pytest.approx(depth, abs=1e-6)
    # Back to the world by the geometry of scans, which knows nothing of slabs.
    plane = ScanGeometry(
        (1, 64, 64), (thickness, spacing[1], spacing[0]), origin, oblique.direction
    )
    x0, y0, x1, y1 = box.box_xyxy_px
    corners = plane.voxel_to_world(np.array([[0, y0 - 0.5, x0 - 0.5], [0, y1 - 0.5, x1 - 0.5]]))
    in_plane = axes[:, :2].T @ (corners.mean(axis=0) - centre)
    half_width = axes[:, :2].T @ (corners[1] - corners[0]) / 2
    cut = max(0.0, abs(offset[2]) - thickness / 2)
    assert np.abs(in_plane).max() <= 0.5 * min(spacing) * 1e-3
    assert half_width == pytest.approx(np.sqrt(max(radius**2 - cut**2, 0.0)), abs=1e-3)
