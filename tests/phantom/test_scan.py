import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.phantom.anatomy import Anatomy
from lungdet_mmdet.phantom.findings import PhantomNodule
from lungdet_mmdet.phantom.scan import Protocol, Recipe, build_scan

# A short piece of the chest on a coarse grid: quick to build, and lungs on both sides.
PIECE = Protocol(spacing_zyx_mm=(3.0, 2.0, 2.0), n_pixels=140, z_range_mm=(-60.0, 0.0))
NODULES = tuple(PhantomNodule((0.0, 0.0, 0.0), d) for d in (12.0, 10.0, 8.0))


def piece(**options):
    recipe = Recipe(
        anatomy=Anatomy(scale_xyz=(0.72,) * 3), protocol=PIECE, leaves_per_lung=40, **options
    )
    return build_scan(11, recipe=recipe)


def test_same_seed_same_bytes_other_seed_other_scan():
    one, two = piece(), piece()
    assert one.volume_hu.tobytes() == two.volume_hu.tobytes()
    assert one.nodules == two.nodules
    assert build_scan(12, recipe=Recipe(protocol=PIECE)).nodules != one.nodules


def test_arrays_and_geometry_agree(small_scan):
    assert small_scan.volume_hu.dtype == np.int16
    assert small_scan.lung_labels.dtype == np.uint8
    assert small_scan.volume_hu.shape == small_scan.lung_labels.shape
    assert small_scan.volume_hu.shape == small_scan.geometry.size_zyx
    assert set(np.unique(small_scan.lung_labels)) == {0, 3, 4, 5}


def test_lungs_have_the_density_of_lung_and_the_body_that_of_tissue(small_scan):
    lung = small_scan.volume_hu[(small_scan.lung_labels == 3) | (small_scan.lung_labels == 4)]
    assert -900 < np.median(lung) < -800
    assert np.median(small_scan.volume_hu[small_scan.lung_labels == 5]) < -930
    share_of_tissue = np.mean((small_scan.volume_hu > -200) & (small_scan.volume_hu < 1500))
    assert share_of_tissue > 0.25


def test_left_lung_lies_towards_positive_x(small_scan):
    left = np.argwhere(small_scan.lung_labels == 3).mean(axis=0)
    right = np.argwhere(small_scan.lung_labels == 4).mean(axis=0)
    world = small_scan.geometry.voxel_to_world(np.stack([left, right]))
    assert world[0, 0] > world[1, 0] + 50


def test_nodules_are_denser_than_the_lung_around_them():
    scan = piece(nodules=NODULES)
    assert len(scan.nodules) == 3
    background = np.median(scan.volume_hu[(scan.lung_labels == 3) | (scan.lung_labels == 4)])
    for nodule in scan.nodules:
        k, j, i = np.rint(scan.geometry.world_to_voxel(np.array(nodule.centre_xyz_mm))).astype(int)
        assert scan.volume_hu[k, j, i] > background + 500
        assert scan.lung_labels[k, j, i] in (3, 4)


def test_nodules_do_not_overlap():
    scan = piece(nodules=NODULES, excluded_count=4)
    found = [
        (np.array(n.centre_xyz_mm), max(n.diameter_mm, 1.0)) for n in scan.nodules + scan.excluded
    ]
    assert len(found) == 7
    for i, (centre, diameter) in enumerate(found):
        for other, size in found[:i]:
            assert np.linalg.norm(centre - other) > 0.5 * (diameter + size)


def test_excluded_findings_are_below_three_mm_or_of_unknown_size():
    diameters = [f.diameter_mm for f in piece(nodules=(), excluded_count=12).excluded]
    assert -1.0 in diameters
    assert max(diameters) < 3.0
    assert all(d == -1.0 or d > 1.5 for d in diameters)


def test_healthy_scan_has_no_nodule():
    assert piece(nodules=()).nodules == ()


def test_nodule_that_fits_nowhere_is_left_out_and_counted():
    # No lung of this piece has room for a ball of 90 mm: it must be in neither scan nor table.
    scan = piece(nodules=(PhantomNodule((0.0, 0.0, 0.0), 90.0), *NODULES))
    assert [n.diameter_mm for n in scan.nodules] == [12.0, 10.0, 8.0]
    assert scan.n_unplaced - piece(nodules=NODULES).n_unplaced == 1


def test_padding_is_outside_the_circle():
    recipe = Recipe(
        anatomy=Anatomy(scale_xyz=(0.72,) * 3),
        leaves_per_lung=10,
        protocol=Protocol(
            spacing_zyx_mm=(3.0, 2.0, 2.0), n_pixels=80, z_range_mm=(-20.0, 0.0), padding_hu=-3024
        ),
    )
    scan = build_scan(0, recipe=recipe)
    padded = scan.volume_hu == -3024
    assert padded[:, 0, 0].all()
    assert not padded[:, 40, 40].any()
    assert not scan.lung_labels[padded].any()


def test_unknown_size_is_refused():
    with pytest.raises(LungDetError, match="medium"):
        build_scan(0, size="medium")
