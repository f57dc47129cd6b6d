"""Slabs with three channels: projections of several thicknesses, or the neighbouring slabs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slab_geometry import SlabGeometry
from lungdet_mmdet.errors import LungDetError


def mip_channels(
    volume: np.ndarray,
    geometry: ScanGeometry,
    slabs: Sequence[SlabGeometry],
    *,
    thicknesses_mm: Sequence[float],
) -> np.ndarray:
    """Project a volume over several thicknesses about the middle of each slab.

    Parameters
    ----------
    volume : array (z, y, x).
    geometry : its grid.
    slabs : where the slabs lie; their mid-planes are the middle of every channel.
    thicknesses_mm : one per channel; 0 takes the one slice nearest to the middle. Channels that
        reach beyond the scan end with it.

    Returns
    -------
    array (n_slabs, y, x, c) of the volume's dtype.

    Raises
    ------
    LungDetError
        If a thickness is negative or not finite, or there is none.
    """
    if not thicknesses_mm or not all(0 <= t < math.inf for t in thicknesses_mm):
        raise LungDetError(
            f"channel thicknesses are {tuple(thicknesses_mm)} mm: at least one is needed, each >= 0"
        )
    n_slices, dz = volume.shape[0], geometry.spacing_zyx_mm[0]
    channels = np.empty((len(slabs), *volume.shape[1:], len(thicknesses_mm)), dtype=volume.dtype)
    for index, slab in enumerate(slabs):
        middle = float(geometry.world_to_voxel(np.asarray(slab.origin_xyz_mm))[0])
        for channel, thickness in enumerate(thicknesses_mm):
            first, stop = _slices_about(middle, max(1, round(thickness / dz)), n_slices)
            channels[index, ..., channel] = volume[first:stop].max(axis=0)
    return channels


def _slices_about(middle: float, depth: int, n_slices: int) -> tuple[int, int]:
    """First slice and stop of ``depth`` slices about a slice coordinate, cut off at the scan."""
    # A mid-plane is a whole or a half slice; where depth and it do not agree, the lower slice wins.
    # The hundredth keeps rounding errors of world coordinates from deciding that.
    first = math.ceil(middle - depth / 2.0 - 0.01)
    return max(0, min(first, n_slices - 1)), max(1, min(first + depth, n_slices))


def neighbour_channels(slabs: np.ndarray) -> np.ndarray:
    """Put the slab below and the slab above beside each slab; end slabs are their own neighbours.

    Parameters
    ----------
    slabs : array (n_slabs, y, x), lowest slab first.

    Returns
    -------
    array (n_slabs, y, x, 3): below, the slab itself, above.
    """
    n = len(slabs)
    below = np.maximum(np.arange(n) - 1, 0)
    above = np.minimum(np.arange(n) + 1, n - 1)
    return np.stack([slabs[below], slabs, slabs[above]], axis=-1)
