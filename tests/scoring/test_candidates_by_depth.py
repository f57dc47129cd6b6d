"""Spheres in a volume, projected to slabs with the depth of their maxima, found exactly, merged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.annotations.slab_boxes import SlabStack, positive_slabs, sphere_boxes
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import mip_slabs
from lungdet_mmdet.scoring.candidates import merge_slab_detections
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections, with_depths
from tests.support.slabs import slab

SPACING_ZYX_MM = (1.25, 0.8, 0.8)
SIZE_ZYX = (48, 64, 64)
OFFSETS_MM = np.arange(0.0, 7.5, 1.25)


def merged(*spheres, scores=None, seed=0):
    """Candidates of spheres (x, y, z, diameter) in mm; the slabs' lowest face is z = -0.625 mm."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(
        *(np.arange(n) * mm for n, mm in zip(SIZE_ZYX, SPACING_ZYX_MM, strict=True)), indexing="ij"
    )
    volume = rng.normal(40, 8, SIZE_ZYX)
    for cx, cy, cz, diameter in spheres:
        distance = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2)
        inside = np.clip(diameter / 2 - distance + 0.5, 0, 1)
        volume = np.maximum(volume, 40 + inside * (160 + rng.normal(0, 8, SIZE_ZYX)))
    _, geometries, depths = mip_slabs(
        volume.clip(1, 255).astype(np.uint8), ScanGeometry(SIZE_ZYX, SPACING_ZYX_MM, (0, 0, 0))
    )
    table = np.array(spheres)
    boxes, overlaps = sphere_boxes(table[:, :3], table[:, 3], SlabStack(tuple(geometries)))
    widths = boxes[..., 2] - boxes[..., 0]
    shown = np.array([positive_slabs(o, w) for o, w in zip(overlaps, widths, strict=True)])
    values = np.ones(len(spheres)) if scores is None else np.array(scores)
    slabs = [Slab(geometry.index, "a", geometry) for geometry in geometries]
    found = [
        with_depths(
            SlabDetections(slab.img_id, boxes[shown[:, i], i], values[shown[:, i]]),
            slab,
            depths[i],
        )
        for i, slab in enumerate(slabs)
    ]
    return merge_slab_detections(slabs, found)


def hits(candidates, *spheres):
    """How many spheres hold the centre of a candidate."""
    return sum(
        any(np.linalg.norm(np.subtract(c.centre_xyz_mm, s[:3])) < s[3] / 2 for c in candidates)
        for s in spheres
    )


@pytest.mark.parametrize("diameter_mm", [4.0, 6.0, 10.0, 20.0])
def test_a_nodule_cut_by_a_face_is_one_candidate_at_its_centre(diameter_mm):
    for offset in OFFSETS_MM:
        (candidate,) = merged((25, 25, 26.0 + offset, diameter_mm))
        assert candidate.centre_xyz_mm[2] == pytest.approx(26.0 + offset, abs=1.6)
        assert candidate.z_from_depth
        low, high = candidate.z_range_mm
        assert high - low == pytest.approx(candidate.diameter_mm)


def test_two_nodules_stacked_along_z_stay_two():
    for offset in OFFSETS_MM:
        pair = (25, 25, 20 + offset, 10), (25, 25, 30 + offset, 10)
        candidates = merged(*pair, scores=(0.9, 0.8))
        assert (len(candidates), hits(candidates, *pair)) == (2, 2)


@pytest.mark.parametrize("scores", [(0.9, 0.8), (0.8, 0.9)])
def test_a_satellite_on_the_shoulder_of_a_large_nodule_is_kept(scores):
    # The centres are 10 + 2.5 mm apart: 10 in the plane, 7.5 along z; the spheres touch.
    for offset in OFFSETS_MM:
        pair = (25, 25, 24 + offset, 20), (35, 25, 31.5 + offset, 5)
        candidates = merged(*pair, scores=scores)
        assert (len(candidates), hits(candidates, *pair)) == (2, 2)


def test_the_best_box_at_the_end_of_a_large_nodule_is_part_of_it():
    # Slab 0 shows a cap of 5 mm of a sphere of 16 mm around z = 15.
    slabs = [slab_at(i) for i in range(4)]
    found = [at(0, (20, 20, 5, 0.9), z=7.2), at(1, (20, 20, 16, 0.8), z=11),
             at(2, (20, 20, 16, 0.8), z=18.5)]  # fmt: skip

    (candidate,) = merge_slab_detections(slabs, found)

    assert candidate.slab_indices == (0, 1, 2)
    assert candidate.diameter_mm == 16.0


@pytest.mark.parametrize(("diameter", "parts"), [(24, 1), (16, 2)])
def test_maxima_of_touching_slabs_may_lie_a_radius_apart(diameter, parts):
    slabs = [slab_at(0), slab_at(1)]
    found = [at(0, (20, 20, diameter, 0.9), z=1.0), at(1, (28, 20, diameter, 0.8), z=13.0)]

    candidates = merge_slab_detections(slabs, found)

    assert len(candidates) == parts


def slab_at(number):
    """A slab of 0.5 mm pixels; slab 0 spans z = 0 .. 7.5 mm."""
    return slab(number, "a", pixel_mm=0.5)


def at(number, *rows, z=None):
    """Boxes (x, y, diameter, score) in mm on a slab; pixel centre c is box coordinate c + 0.5."""
    x, y, diameter, score = np.array(rows, dtype=float).reshape(-1, 4).T
    middle, half = np.stack([x, y], axis=1) / 0.5 + 0.5, diameter[:, None]
    depths = {} if z is None else {"z_mm": np.full(len(x), z), "z_sd_mm": np.full(len(x), 0.6)}
    return SlabDetections(number, np.hstack([middle - half, middle + half]), score, **depths)


def test_a_box_lies_where_its_depth_says():
    (candidate,) = merge_slab_detections([slab_at(1)], [at(1, (10, 20, 6, 0.9), z=9.0)])

    assert candidate.centre_xyz_mm == pytest.approx((10.0, 20.0, 9.0))
    assert candidate.z_range_mm == pytest.approx((6.0, 12.0))
    assert (candidate.z_sd_mm, candidate.sides_mm) == (0.6, (6.0, 6.0))


def test_without_a_depth_a_box_lies_anywhere_in_its_slab():
    (candidate,) = merge_slab_detections([slab_at(1)], [at(1, (10, 20, 6, 0.9))])

    assert candidate.centre_xyz_mm[2] == 11.25
    assert candidate.z_range_mm == (7.5, 15.0)
    assert candidate.z_sd_mm == pytest.approx(7.5 / np.sqrt(12))
    assert not candidate.z_from_depth


def test_depths_are_measured_along_a_flipped_normal():
    # The normal points to -z: 18.75 along it is z = -18.75, and 20 along it z = -20.
    flipped = slab(
        0,
        "a",
        pixel_mm=0.5,
        low_mm=15.0,
        origin_xyz_mm=(0.0, 0.0, -18.75),
        direction=(1, 0, 0, 0, -1, 0, 0, 0, -1),
    )

    (candidate,) = merge_slab_detections([flipped], [at(0, (10, 20, 6, 0.9), z=20.0)])

    assert candidate.centre_xyz_mm == pytest.approx((10.0, -20.0, -20.0))


@pytest.mark.parametrize("faint_slab", [0, 1])
def test_a_faint_box_off_centre_does_not_move_the_mark(faint_slab):
    # The faint box of 40 mm holds the centre of the good one, 15 mm from its own.
    good, faint = (20, 20, 5, 0.9), (35, 20, 40, 0.02)
    on_slabs = [[good], []]
    on_slabs[faint_slab].append(faint)

    best, *_ = merge_slab_detections(
        [slab_at(0), slab_at(1)], [at(i, *rows) for i, rows in enumerate(on_slabs)]
    )

    assert best.centre_xyz_mm == (20.0, 20.0, 3.75)
    assert best.diameter_mm == 5.0


places = st.floats(5, 60)
strong = st.tuples(st.integers(0, 3), places, places, st.floats(4, 30), st.floats(0.5, 1.0))
weak = st.tuples(st.integers(0, 3), places, places, st.floats(1, 60), st.floats(0.0, 0.24))


@given(st.lists(strong, min_size=1, max_size=6), st.lists(weak, max_size=20), st.booleans())
@settings(max_examples=80, deadline=None)
def test_boxes_below_the_share_never_move_a_centre(strong_rows, weak_rows, with_depth):
    def found(rows):
        return [
            at(i, *[row[1:] for row in rows if row[0] == i], z=7.5 * i + 2 if with_depth else None)
            for i in range(4)
        ]

    slabs = [slab_at(i) for i in range(4)]
    alone = merge_slab_detections(slabs, found(strong_rows))
    crowded = merge_slab_detections(slabs, found([*strong_rows, *weak_rows]))

    for before, after in zip(alone, crowded, strict=False):
        assert after.centre_xyz_mm == before.centre_xyz_mm
        assert (after.score, after.diameter_mm) == (before.score, before.diameter_mm)
