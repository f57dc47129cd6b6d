import numpy as np
import pytest

from lungdet_mmdet.ct.resample import in_plane_bounds, slice_range_with_lung
from lungdet_mmdet.errors import LungDetError


def mask_with_areas(*areas: int) -> np.ndarray:
    mask = np.zeros((len(areas), 10, 10), np.uint8)
    for slice_mask, area in zip(mask, areas, strict=True):
        slice_mask.ravel()[:area] = 1
    return mask


def test_small_slices_at_the_ends_go_and_inner_ones_stay():
    # A fifth of the largest area is 20 pixels.
    mask = mask_with_areas(0, 19, 20, 3, 0, 100, 50, 19, 0)
    assert slice_range_with_lung(mask, min_area_share=0.2) == (2, 7)


def test_with_no_least_area_only_empty_slices_go():
    assert slice_range_with_lung(mask_with_areas(0, 1, 100, 0), min_area_share=0.0) == (1, 3)


def test_an_empty_mask_is_refused():
    with pytest.raises(LungDetError, match="mask is empty"):
        slice_range_with_lung(mask_with_areas(0, 0), min_area_share=0.02)
    with pytest.raises(LungDetError, match="mask is empty"):
        in_plane_bounds(mask_with_areas(0, 0), margin_yx=(1, 1))


@pytest.mark.parametrize("dtype", [bool, np.uint8])
def test_bounds_reach_around_all_slices_and_stay_in_the_image(dtype):
    mask = np.zeros((2, 10, 12), dtype)
    mask[0, 3, 4] = 1
    mask[1, 5, 10] = 1
    assert in_plane_bounds(mask, margin_yx=(0, 0)) == ((3, 6), (4, 11))
    assert in_plane_bounds(mask, margin_yx=(2, 3)) == ((1, 8), (1, 12))
