"""One slab in memory, as the merging of candidates and the model's own pipeline read it."""

from __future__ import annotations

from typing import Any

import numpy as np

from lungdet_mmdet.ct.slab_geometry import SlabGeometry
from lungdet_mmdet.scoring.slab_records import Slab


def slab_of(geometry: SlabGeometry, *, seriesuid: str) -> Slab:
    """Return a slab as the merging of candidates reads it; its id is its index."""
    low, high = geometry.z_range_mm
    return Slab(
        img_id=geometry.index,
        seriesuid=seriesuid,
        slab_index=geometry.index,
        spacing_mm=(*geometry.spacing_xy_mm, high - low),
        origin_xyz_mm=geometry.origin_xyz_mm,
        direction=geometry.direction,
        z_range_mm=geometry.z_range_mm,
    )


def three_channels(image: np.ndarray) -> np.ndarray:
    """Return a slab (y, x) as (y, x, 3), three equal channels, as OpenCV reads a grey PNG."""
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def slab_input(image: np.ndarray, slab: Slab) -> dict[str, Any]:
    """Return what the model's own pipeline expects, under the names of the prepared dataset.

    Parameters
    ----------
    image : uint8 array (y, x) or (y, x, 3).
    slab : where it lies.
    """
    return {
        "img": three_channels(image),
        "img_id": slab.img_id,
        "seriesuid": slab.seriesuid,
        "slab_index": slab.slab_index,
        "z_range_mm": list(slab.z_range_mm),
        "spacing": list(slab.spacing_mm),
        "origin": list(slab.origin_xyz_mm),
        "direction": list(slab.direction),
    }
