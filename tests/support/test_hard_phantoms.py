"""Each hard case holds what its name says."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from lungdet_mmdet.errors import LungDetError
from tests.support import hard_phantoms as hard_cases

TISSUE_HU, AIR_HU = -300, -500


@cache
def case(name):
    return hard_cases.build(name, 0)


def lungs(scan):
    return (scan.lung_labels == 3) | (scan.lung_labels == 4)


def nearest_voxel(scan, point_xyz):
    return tuple(np.rint(scan.geometry.world_to_voxel(np.array(point_xyz))).astype(int))


def outside_air(scan):
    """Air connected to the front edge of the picture, and the lungs if they are too."""
    regions, _ = ndimage.label(scan.volume_hu < AIR_HU)
    return regions == regions[0, 0, 0]


def test_every_name_is_built_and_unknown_ones_are_refused():
    assert len(hard_cases.NAMES) == 19
    with pytest.raises(LungDetError, match="three_lungs"):
        hard_cases.build("three_lungs", 0)


def test_same_seed_same_bytes():
    again = hard_cases.build("apex_only", 0)
    assert again.volume_hu.tobytes() == case("apex_only").volume_hu.tobytes()
    assert hard_cases.build("apex_only", 1).volume_hu.tobytes() != again.volume_hu.tobytes()


@pytest.mark.parametrize("name", hard_cases.NAMES)
def test_nodules_lie_in_the_lungs_and_on_dense_voxels(name):
    scan = case(name)
    assert scan.volume_hu.shape == scan.geometry.size_zyx
    assert (len(scan.nodules) == 0) == (name == "no_lungs")
    for nodule in scan.nodules:
        voxel = nearest_voxel(scan, nodule.centre_xyz_mm)
        assert scan.lung_labels[voxel] in (3, 4)
        assert scan.volume_hu[voxel] > -750


def test_body_touches_border():
    scan = case("body_touches_border")
    middle = scan.volume_hu[scan.volume_hu.shape[0] // 2]
    assert np.mean(middle[:, 0] > TISSUE_HU) > 0.2
    assert np.mean(middle[:, -1] > TISSUE_HU) > 0.2


def test_table_and_blanket():
    scan = case("table_and_blanket")
    middle = ndimage.gaussian_filter(scan.volume_hu[40].astype(float), 1.0)
    column = middle[:, middle.shape[1] // 2]
    skin = np.flatnonzero(column > TISSUE_HU)
    front = column[: skin[0] - 3]
    assert front.max() > -850  # the blanket, with air between it and the skin
    back = column[skin[0] + 100 :]
    assert (back > TISSUE_HU).sum() >= 1  # the table's shell
    assert np.mean((middle[110:] > -960) & (middle[110:] < -880)) > 0.05  # its foam


def test_open_trachea():
    assert (outside_air(case("open_trachea")) & lungs(case("open_trachea"))).any()
    assert not (outside_air(case("padding_3024")) & lungs(case("padding_3024"))).any()


@pytest.mark.parametrize(("name", "value"), [("padding_2000", -2000), ("padding_3024", -3024)])
def test_padding(name, value):
    scan = case(name)
    padded = scan.volume_hu == value
    # Corners of a square around its circle: 1 - pi / 4.
    assert padded.mean() == pytest.approx(1 - np.pi / 4, abs=0.01)
    assert scan.volume_hu[~padded].min() >= -1024


def test_bowel_gas():
    scan = case("bowel_gas")
    gas = ndimage.binary_opening(scan.volume_hu < -930) & (scan.lung_labels == 0)
    regions, count = ndimage.label(gas & ~outside_air(scan))
    sizes = ndimage.sum_labels(gas, regions, range(1, count + 1)) * 3.0 * 1.5 * 1.5 / 1000.0
    assert (np.asarray(sizes) > 3.0).sum() >= 3  # stomach and loops of more than 3 ml


@pytest.mark.parametrize("name", ["pleural_nodule", "mediastinal_nodule"])
def test_nodule_on_the_wall(name):
    scan = case(name)
    (nodule,) = scan.nodules
    assert nodule.place == name.removesuffix("_nodule")
    offset = scan.geometry.voxel_to_world(np.argwhere(scan.lung_labels == 0)) - np.array(
        nodule.centre_xyz_mm
    )
    gap = np.linalg.norm(offset, axis=1).min() - 0.5 * nodule.diameter_mm
    assert -2.5 < gap < 1.5  # it touches what is not lung, and does not sink into it
    regions, _ = ndimage.label(scan.volume_hu > -400)
    centre = nearest_voxel(scan, nodule.centre_xyz_mm)
    sizes = np.bincount(regions.ravel())
    assert sizes[regions[centre]] == sizes[1:].max()  # joined to the body


def test_consolidation():
    scan = case("consolidation")
    (mass,) = scan.excluded
    assert 30.0 <= mass.diameter_mm <= 50.0
    voxel = nearest_voxel(scan, mass.centre_xyz_mm)
    assert scan.volume_hu[voxel] > -50
    assert scan.lung_labels[voxel] == 4
    airless = (scan.lung_labels == 4) & (ndimage.median_filter(scan.volume_hu, 3) > -50)
    assert airless.sum() * 3.0 * 1.5 * 1.5 > 8_000  # of the 34 ml of a ball of 40 mm
    healthy = (case("padding_3024").lung_labels == 4).sum()
    assert (scan.lung_labels == 4).sum() < 0.97 * healthy  # the effusion takes its room


def test_one_lung():
    scan = case("one_lung")
    assert not (scan.lung_labels == 3).any()
    assert (scan.lung_labels == 4).any()


def test_apex_only_and_base_only():
    assert lungs(case("apex_only"))[0].mean() > 3 * lungs(case("apex_only"))[-4].mean()
    assert lungs(case("base_only"))[-1].mean() > 3 * lungs(case("base_only"))[2].mean()
    assert lungs(case("apex_only"))[0].any()
    assert lungs(case("base_only"))[-1].any()


def test_slice_thickness():
    assert case("thin_06").geometry.spacing_zyx_mm[0] == 0.6
    assert case("thick_5").geometry.spacing_zyx_mm[0] == 5.0


def test_flipped_is_the_plain_scan_stored_backwards():
    scan, plain = case("flipped"), case("body_touches_border")
    assert scan.geometry.direction[::4] == (-1.0, -1.0, -1.0)
    left = scan.geometry.voxel_to_world(np.argwhere(scan.lung_labels == 3))
    reference = plain.geometry.voxel_to_world(np.argwhere(plain.lung_labels == 3))
    np.testing.assert_allclose(left.mean(axis=0), reference.mean(axis=0), atol=0.5)


def test_oblique():
    axes = case("oblique").geometry.axes_xyz
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    assert np.abs(axes - np.eye(3)).max() > 0.1


def test_no_lungs():
    scan = case("no_lungs")
    assert not scan.lung_labels.any()
    assert (scan.volume_hu > TISSUE_HU).mean() > 0.2


def test_joined_lungs():
    # Between the two lungs nothing but thin lung-like density: they form one region.
    def lungs_meet(scan):
        air = (scan.volume_hu < AIR_HU) & lungs(scan)
        regions, _ = ndimage.label(air)
        left = np.bincount(regions[scan.lung_labels == 3])[1:].argmax()
        right = np.bincount(regions[scan.lung_labels == 4])[1:].argmax()
        return left == right

    assert lungs_meet(case("joined_lungs"))
    assert not lungs_meet(case("padding_3024"))


def test_cut_by_fov():
    scan = case("cut_by_fov")
    padded = scan.volume_hu == -3024
    touching = ndimage.binary_dilation(padded, iterations=1) & ~padded
    assert (touching & (scan.lung_labels == 3)).any()
    assert (touching & (scan.lung_labels == 4)).any()
    assert not scan.lung_labels[padded].any()
