"""Slabs and spheres: whatever the numbers, an answer that makes sense or an error."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungdet_mmdet.annotations.slab_boxes import SlabStack, nodule_coverage, sphere_boxes
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import SlabGeometry, slab_slices
from lungdet_mmdet.errors import LungDetError
from tests.fuzz.cases import TRIED, fuzzed

pytestmark = pytest.mark.reliability("fuzzing: slab geometry")

ANY = st.floats()
JSON = st.one_of(st.none(), st.booleans(), st.integers(), ANY, st.text(max_size=4), st.lists(ANY))
PLACES = st.floats(-1e5, 1e5)


@fuzzed()
@given(n_slices=st.integers(0, 400), spacing=ANY, thickness=ANY, stride=st.one_of(st.none(), ANY))
def test_slabs_of_any_thickness_and_stride(n_slices, spacing, thickness, stride):
    TRIED["slab geometry"] += 1
    try:
        slabs = slab_slices(n_slices, spacing, thickness_mm=thickness, stride_mm=stride)
    except LungDetError:
        return
    firsts = [first for first, _ in slabs]
    assert firsts == sorted(set(firsts))
    assert all(depth >= 1 and first + depth <= n_slices for first, depth in slabs)
    if stride is None or stride <= max(thickness, spacing):
        seen = {index for first, depth in slabs for index in range(first, first + depth)}
        assert seen == set(range(n_slices))


@fuzzed()
@given(
    changes=st.dictionaries(
        st.sampled_from(
            ["index", "width", "height", "z_range_mm", "spacing", "origin", "direction", "more"]
        ),
        JSON,
        min_size=1,
    ),
    dropped=st.sampled_from(["", "index", "width", "z_range_mm", "spacing", "origin", "direction"]),
)
def test_a_record_of_a_slab_is_sound_or_refused(changes, dropped):
    sound = SlabGeometry(0, 8, 9, (0.0, 7.5), (0.7, 0.7), (1.0, 2.0, 3.75)).as_record()
    record = {key: value for key, value in (sound | changes).items() if key != dropped}
    TRIED["slab geometry"] += 1
    try:
        slab = SlabGeometry.from_record(record)
    except LungDetError:
        return
    assert SlabGeometry.from_record(slab.as_record()) == slab
    assert all(map(math.isfinite, (*slab.z_range_mm, *slab.origin_xyz_mm, *slab.direction)))


@fuzzed()
@given(
    centre=st.tuples(PLACES, PLACES, PLACES),
    diameter=st.floats(1e-3, 200),
    spacing=st.tuples(*[st.floats(0.01, 30)] * 3),
)
def test_the_coverage_of_any_nodule_is_a_share(centre, diameter, spacing):
    TRIED["slab geometry"] += 1
    covered = nodule_coverage(np.ones((3, 4, 5), np.uint8), centre, diameter, spacing)
    assert 0.0 <= covered <= 1.0


@fuzzed()
@given(
    centre=st.tuples(PLACES, PLACES, PLACES),
    diameter=st.floats(1e-3, 200),
    faces=st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=8, unique=True),
)
def test_a_sphere_reaches_into_all_its_slabs_together_as_deep_as_it_is(centre, diameter, faces):
    edges = sorted(faces)
    slabs = [
        SlabGeometry(i, 8, 8, (low, high), (0.7, 0.7), (0.0, 0.0, (low + high) / 2))
        for i, (low, high) in enumerate(zip(edges, edges[1:], strict=False))
    ]
    TRIED["slab geometry"] += 1
    boxes, overlap = sphere_boxes(np.array([centre]), np.array([diameter]), SlabStack(tuple(slabs)))
    assert np.isfinite(boxes).all()
    low, high = centre[2] - diameter / 2, centre[2] + diameter / 2
    within = max(0.0, min(high, edges[-1]) - max(low, edges[0]))
    assert overlap.sum() == pytest.approx(within, abs=1e-6)
    assert (overlap >= 0).all()


@fuzzed()
@given(
    size=st.tuples(*[st.integers(-2, 10**6)] * 3),
    spacing=st.tuples(ANY, ANY, ANY),
    origin=st.tuples(ANY, ANY, ANY),
    direction=st.lists(ANY, max_size=10),
    is_axial=st.booleans(),
)
def test_a_grid_takes_points_there_and_back_or_is_refused(
    size, spacing, origin, direction, is_axial
):
    axes = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0) if is_axial else tuple(direction)
    TRIED["slab geometry"] += 1
    try:
        geometry = ScanGeometry(size, spacing, origin, axes)
    except LungDetError:
        return
    assert min(geometry.size_zyx) >= 1
    assert min(geometry.spacing_zyx_mm) > 0
    assert geometry.world_to_voxel(np.array(origin)).tolist() == [0.0, 0.0, 0.0]
