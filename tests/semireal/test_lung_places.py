import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.semireal.insertion import blocks_for, map_lungs

SPACING = (2.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def chest():
    """A lung of 80 x 80 x 80 mm in tissue of 20 mm, with a vessel of 4 mm along z in its middle."""
    volume = np.full((60, 60, 60), 40, np.int16)
    volume[10:50, 10:50, 10:50] = -850
    volume[10:50, 29:31, 29:31] = 40
    mask = np.zeros(volume.shape, np.uint8)
    mask[10:50, 10:50, 10:50] = 1
    return volume, mask


def test_distances_to_wall_and_vessel(chest):
    found = map_lungs(*chest, SPACING)
    voxel = np.array([30, 30, 20])
    block = tuple(((voxel - found.start_zyx) // found.factors_zyx).tolist())
    assert found.to_scan(np.array(block)).tolist() == voxel.tolist()
    # Voxel 9 is wall: 11 voxels of 2 mm. The vessel's first voxel is 29, nine further.
    assert found.depth_mm[block] == pytest.approx(22.0)
    assert found.vessel_mm[block] == pytest.approx(18.0)


def test_a_vessel_is_no_wall(chest):
    found = map_lungs(*chest, SPACING)
    under = found.wall_under((slice(28, 32), slice(28, 32), slice(28, 32)))
    assert not under.any()
    assert found.wall_under((slice(25, 30), slice(25, 30), slice(4, 9))).all()


def test_outward_points_to_the_nearest_wall(chest):
    found = map_lungs(*chest, SPACING)
    block = (np.array([30, 24, 13]) - found.start_zyx) // found.factors_zyx
    assert found.outward(block) == pytest.approx((0, 0, -1), abs=1e-6)


def test_isolated_places_keep_clear_of_wall_and_vessel(chest):
    found = map_lungs(*chest, SPACING)
    blocks = tuple(blocks_for(found, "isolated", radius_mm=6.0, reach_mm=6.0).T)
    assert found.depth_mm[blocks].min() > 7.5
    assert found.vessel_mm[blocks].min() > 7.0


def test_places_beside_vessels_are_beside_vessels(chest):
    found = map_lungs(*chest, SPACING)
    blocks = tuple(blocks_for(found, "vessel", radius_mm=5.0, reach_mm=5.0).T)
    assert found.vessel_mm[blocks].min() > 2.0
    assert found.vessel_mm[blocks].max() < 6.0


def test_pleural_places_lie_as_deep_as_the_nodule_reaches(chest):
    found = map_lungs(*chest, SPACING)
    blocks = tuple(blocks_for(found, "pleural", radius_mm=5.0, reach_mm=10.0).T)
    # Depth counts from the middle of the first block of wall, 1 mm behind its face.
    depths = found.depth_mm[blocks]
    assert depths.min() > 7.2 + 1
    assert depths.max() < 9.5 + 1


def test_no_place_is_large_enough_for_a_huge_nodule(chest):
    found = map_lungs(*chest, SPACING)
    assert len(blocks_for(found, "isolated", radius_mm=50.0, reach_mm=50.0)) == 0


def test_an_empty_mask_and_a_mask_of_tissue_are_refused(chest):
    volume, mask = chest
    with pytest.raises(LungDetError, match="empty"):
        map_lungs(volume, np.zeros_like(mask), SPACING)
    with pytest.raises(LungDetError, match="no air"):
        map_lungs(np.full_like(volume, 40), mask, SPACING)
