"""Cutting a scan down to the part that holds lung."""

from __future__ import annotations

import numpy as np

from lungdet_mmdet.errors import LungDetError


def slice_range_with_lung(mask: np.ndarray, *, min_area_share: float) -> tuple[int, int]:
    """Return the range of slices to keep: the paper's removal of slices near the periphery.

    Only slices at either end go; a thin slice between larger ones stays.

    Parameters
    ----------
    mask : bool or uint8 array (z, y, x), non-zero in the lungs.
    min_area_share : a slice at the end is dropped while its non-zero area is below this share of
        the largest slice's area.

    Returns
    -------
    first, stop : kept slices are ``first .. stop - 1``.

    Raises
    ------
    LungDetError
        If the mask is empty.
    """
    area = np.count_nonzero(mask.reshape(mask.shape[0], -1), axis=1)
    if area.max() == 0:
        raise LungDetError("the lung mask is empty: no slice would be left")
    kept = np.flatnonzero(area >= max(min_area_share * area.max(), 1))
    return int(kept[0]), int(kept[-1]) + 1


def in_plane_bounds(
    mask: np.ndarray, *, margin_yx: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the in-plane bounding box of a mask, widened by a margin and clipped to the image.

    Parameters
    ----------
    mask : bool or uint8 array (z, y, x), non-zero in the lungs.
    margin_yx : pixels to add on each side along y and x.

    Returns
    -------
    (y_first, y_stop), (x_first, x_stop)

    Raises
    ------
    LungDetError
        If the mask is empty.
    """
    flat = np.zeros(mask.shape[1:], dtype=bool)
    for slice_mask in mask:  # one slice at a time: no temporary of the volume's size
        flat |= slice_mask.astype(bool, copy=False)
    if not flat.any():
        raise LungDetError("the lung mask is empty: nothing would be left of the slices")
    bounds = []
    for axis, margin in ((1, margin_yx[0]), (0, margin_yx[1])):
        hit = np.flatnonzero(flat.any(axis=axis))
        bounds.append(
            (max(int(hit[0]) - margin, 0), min(int(hit[-1]) + 1 + margin, flat.shape[1 - axis]))
        )
    return bounds[0], bounds[1]
