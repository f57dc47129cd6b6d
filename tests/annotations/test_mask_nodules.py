import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lungdet_mmdet.annotations.mask_nodules import (
    MAX_NODULES,
    match_to_table,
    nodules_of_labels,
    on_grid,
    slab_masks,
)
from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import mip_slabs
from lungdet_mmdet.errors import LungDetError

# Slices of 2.5 mm from z = 100 up, pixels of 1 mm.
GRID = ScanGeometry((12, 30, 40), (2.5, 1.0, 1.0), (-10.0, 5.0, 100.0))
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


def labels_with(*boxes, dtype=np.uint8):
    """Label i + 1 fills the voxels (z0, z1, y0, y1, x0, x1) of box i."""
    labels = np.zeros(GRID.size_zyx, dtype)
    for label, (z0, z1, y0, y1, x0, x1) in enumerate(boxes, start=1):
        labels[z0:z1, y0:y1, x0:x1] = label
    return labels


ONE = (3, 5, 10, 14, 20, 26)


def projections(geometry_of_slabs, labels=None, geometry=GRID):
    volume = np.zeros(geometry_of_slabs.size_zyx, np.uint8)
    _, slabs, _ = mip_slabs(volume, geometry_of_slabs, thickness_mm=7.5)
    (found,) = nodules_of_labels(
        labels_with(ONE) if labels is None else labels, geometry, source="mask"
    )
    return slab_masks(found, geometry, geometry_of_slabs, slabs)


def test_centre_and_size_are_those_of_the_voxels():
    (found,) = nodules_of_labels(labels_with(ONE), GRID, source="mask")
    # Columns 20..25, rows 10..13, slices 3 and 4: voxel (3.5, 11.5, 22.5).
    assert found.centre_xyz_mm == (12.5, 16.5, 108.75)
    # 2 x 4 x 6 voxels of 2.5 mm3 are 120 mm3.
    assert found.diameter_mm == pytest.approx((6 * 120 / np.pi) ** (1 / 3))


def test_on_the_same_grid_boxes_are_exact():
    # Slices 3 and 4 lie in the second slab of three.
    (found,) = projections(GRID)
    assert (found.index, found.overlap_mm, found.visible_share) == (1, 5.0, 1.0)
    assert found.box_xyxy_px == (20.0, 10.0, 26.0, 14.0)
    mask = coco_mask.decode({"size": [30, 40], "counts": found.rle})
    np.testing.assert_array_equal(mask, labels_with(ONE)[3])


def test_a_nodule_across_slabs_has_a_box_on_each():
    # Slices 2 to 6: one of slab 0, three of slab 1, one of slab 2.
    found = projections(GRID, labels_with((2, 7, 10, 14, 20, 26)))
    assert [(f.index, f.overlap_mm) for f in found] == [(0, 2.5), (1, 7.5), (2, 2.5)]


def test_edges_keep_their_place_on_a_finer_grid():
    fine = GRID.resampled((1.25, 0.5, 0.5))
    (found,) = projections(fine)
    assert found.overlap_mm == 5.0
    assert found.box_xyxy_px == (40.0, 20.0, 52.0, 28.0)


def test_edges_keep_their_place_on_an_odd_grid():
    grid = GRID.resampled((1.25, 0.7, 0.7))
    (found,) = projections(grid)
    np.testing.assert_allclose(found.box_xyxy_px, np.array([20, 10, 26, 14]) / 0.7, atol=0.5 + 1e-9)


def test_a_crop_moves_and_cuts_boxes():
    crop = GRID.cropped((0, 5, 22), (12, 20, 10))
    (found,) = projections(crop)
    # Columns 20..25 begin two left of the crop: four of six are seen.
    assert found.box_xyxy_px == (0.0, 5.0, 4.0, 9.0)
    assert found.visible_share == pytest.approx(4 / 6, abs=1e-4)


def test_a_mask_beyond_the_image_gives_no_box():
    assert projections(GRID.cropped((0, 0, 0), (12, 30, 10))) == ()


def test_axes_of_the_mask_may_point_elsewhere():
    turned = ScanGeometry(GRID.size_zyx, GRID.spacing_zyx_mm, (29.0, 34.0, 100.0), FLIPPED)
    labels = labels_with(ONE)[:, ::-1, ::-1]
    (found,) = projections(GRID, labels, turned)
    assert found.box_xyxy_px == (20.0, 10.0, 26.0, 14.0)


def test_a_voxel_too_small_for_the_grid_is_kept():
    coarse = GRID.resampled((7.5, 5.0, 5.0))
    (found,) = nodules_of_labels(labels_with((4, 5, 12, 13, 22, 23)), GRID, source="mask")
    start, mask = on_grid(found, GRID, coarse)
    assert mask.sum() == 1
    # Column 22 is 22.5 mm, row 12 12.5 mm, slice 4 11.25 mm from the corner.
    assert tuple(np.argwhere(mask)[0] + start) == (1, 2, 4)


def test_a_binary_mask_is_one_nodule_per_component():
    labels = labels_with(ONE)
    labels[8, 2:4, 2:4] = 1
    assert len(nodules_of_labels(labels, GRID, source="mask")) == 2
    (whole,) = nodules_of_labels(labels, GRID, source="mask", one_per_value=True)
    assert whole.components == 2


def test_too_many_labels_are_no_nodules():
    labels = np.arange(12 * 30 * 40, dtype=np.int32).reshape(GRID.size_zyx) % 501
    with pytest.raises(LungDetError, match=f"mask.mha: 500 labels; at most {MAX_NODULES}"):
        nodules_of_labels(labels, GRID, source="mask.mha")


def test_negative_values_are_no_labels():
    with pytest.raises(LungDetError, match="lowest label is -1000"):
        nodules_of_labels(np.full(GRID.size_zyx, -1000), GRID, source="mask.mha")


def table(*spheres):
    return [Nodule(f"1.2/{i}", "1.2", (x, y, z), d) for i, (x, y, z, d) in enumerate(spheres)]


def test_matching_goes_by_place_and_takes_the_nearest_first():
    labelled = nodules_of_labels(
        labels_with(ONE, (3, 5, 10, 14, 30, 36)), GRID, source="mask"
    )  # centres at x = 12.5 and 22.5
    masks, nearest = match_to_table(table((21, 16.5, 108.75, 8), (12, 16.5, 108.75, 8)), labelled)
    assert {key: found.label for key, found in masks.items()} == {"1.2/0": 2, "1.2/1": 1}
    assert nearest == pytest.approx(0.5)


def test_ten_millimetres_away_is_another_nodule():
    labelled = nodules_of_labels(labels_with(ONE), GRID, source="mask")
    masks, nearest = match_to_table(table((2.5, 16.5, 108.75, 6)), labelled)
    assert not masks
    assert nearest == pytest.approx(10.0)
