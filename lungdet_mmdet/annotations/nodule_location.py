# SPDX-License-Identifier: Apache-2.0
"""Where a nodule sits: on the pleura, on a vessel or by itself; from nodule and lung mask."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

Location = Literal["isolated", "pleural", "vascular"]
LOCATIONS: tuple[Location, ...] = ("isolated", "pleural", "vascular")

PLEURA_MM = 2.0
"""A nodule whose rim lies nearer to the lung's surface is pleural (mediastinal pleura included)."""
TISSUE_HU = -400.0
"""Half-way between aerated lung and soft tissue."""
# Tissue that leaves the nodule is looked for in a layer that lies beyond the blur of its rim.
_LAYER_MM = (2.0, 3.5)
VESSEL_MM2 = 2.0
"""A vessel has at least this section where it leaves the nodule: 1.6 mm across."""
_MARGIN_MM = 6.0


def nodule_location(
    start_zyx: tuple[int, int, int],
    nodule: np.ndarray,
    lung_mask: np.ndarray,
    volume_hu: np.ndarray,
    spacing_zyx_mm: tuple[float, float, float],
) -> Location:
    """Return the kind of place that a nodule has in the lung.

    It is pleural where its rim comes nearer than ``PLEURA_MM`` to what is not lung, else vascular
    where connected tissue leaves it with the section of a vessel, else isolated. Fissures are not
    seen, and thick spicules count as vessels.

    Parameters
    ----------
    start_zyx : voxel at which ``nodule`` begins; may be negative.
    nodule : bool (z, y, x).
    lung_mask : (z, y, x), non-zero in the lungs, nodules and vessels included.
    volume_hu : (z, y, x) on the same grid.
    spacing_zyx_mm : voxel size.
    """
    margin = [int(np.ceil(_MARGIN_MM / step)) for step in spacing_zyx_mm]
    wide = np.pad(nodule, [(m, m) for m in margin])
    first = [start - m for start, m in zip(start_zyx, margin, strict=True)]
    lung = _cut(lung_mask, first, wide.shape) > 0
    # What reaches beyond the lung mask is not lung, but it is no way out of the nodule either.
    beyond_mm = ndimage.distance_transform_edt(~wide, sampling=spacing_zyx_mm)
    if not lung.all():
        outside_mm = ndimage.distance_transform_edt(lung, sampling=spacing_zyx_mm)
        if outside_mm[wide].min(initial=np.inf) <= PLEURA_MM:
            return "pleural"
    tissue = (_cut(volume_hu, first, wide.shape) > TISSUE_HU) & lung & (beyond_mm <= _LAYER_MM[1])
    parts, _ = ndimage.label(tissue | wide, structure=np.ones((3, 3, 3)))
    joined = np.isin(parts, np.unique(parts[wide]))
    leaving = np.count_nonzero(joined & (beyond_mm > _LAYER_MM[0]) & (beyond_mm <= _LAYER_MM[1]))
    section_mm2 = leaving * float(np.prod(spacing_zyx_mm)) / (_LAYER_MM[1] - _LAYER_MM[0])
    return "vascular" if section_mm2 >= VESSEL_MM2 else "isolated"


def _cut(volume: np.ndarray, first: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Return a box of a volume; beyond its faces the outermost voxels are repeated."""
    axes = [
        np.clip(np.arange(start, start + size), 0, length - 1)
        for start, size, length in zip(first, shape, volume.shape, strict=True)
    ]
    return volume[np.ix_(*axes)]
