"""How much of a nodule a lung mask holds: what lies outside can never be found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lungdet_mmdet.errors import LungDetError

MIN_SAMPLES_ACROSS = 12
"""Samples along a nodule's diameter; fewer make the sphere's volume uneven."""
MAX_SAMPLES_ACROSS = 256
"""More would fill the memory for the sake of the fourth digit."""


def nodule_coverage(
    mask: np.ndarray,
    centre_zyx_voxel: Sequence[float] | np.ndarray,
    diameter_mm: float,
    spacing_zyx_mm: tuple[float, float, float],
) -> float:
    """Compute the share of a sphere that lies inside a mask.

    Voxels are cut into equal parts until at least twelve lie along the diameter, so that a nodule
    of a voxel or less has a coverage too.

    Parameters
    ----------
    mask : bool or uint8 (z, y, x), non-zero inside. Outside the array counts as not covered.
    centre_zyx_voxel : centre of the sphere in voxels; the centre of voxel i is i.
    diameter_mm : diameter of the sphere.
    spacing_zyx_mm : voxel size.

    Returns
    -------
    0.0 to 1.0.

    Raises
    ------
    LungDetError
        If the diameter or the centre is not finite, or the diameter not positive.
    """
    if not (math.isfinite(diameter_mm) and diameter_mm > 0):
        raise LungDetError(f"nodule diameter is {diameter_mm} mm: it must be > 0")
    if not np.all(np.isfinite(centre_zyx_voxel)):
        raise LungDetError(f"nodule centre is {tuple(centre_zyx_voxel)}: it must be finite")
    offsets_mm, voxels = [], []
    for centre, spacing in zip(centre_zyx_voxel, spacing_zyx_mm, strict=True):
        samples, voxel = _samples(float(centre), 0.5 * diameter_mm / spacing)
        offsets_mm.append((samples - centre) * spacing)
        voxels.append(voxel)
    z, y, x = np.ix_(*offsets_mm)
    ball = z**2 + y**2 + x**2 <= (0.5 * diameter_mm) ** 2
    inside = np.zeros(ball.shape, bool)
    held = [(v >= 0) & (v < n) for v, n in zip(voxels, mask.shape, strict=True)]
    picked = np.ix_(*(v[h] for v, h in zip(voxels, held, strict=True)))
    inside[np.ix_(*held)] = mask[picked] > 0
    return float(np.count_nonzero(inside & ball) / np.count_nonzero(ball))


def _samples(centre: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples along one axis that the sphere can reach, and the voxel of each."""
    parts = max(1, math.ceil(MIN_SAMPLES_ACROSS / (2 * radius)))
    first = math.floor(centre - radius)
    # Part j of voxel i is centred at i - 1/2 + (j + 1/2) / parts.
    low, high = ((end - first + 0.5) * parts - 0.5 for end in (centre - radius, centre + radius))
    begin, stop = max(math.floor(low), 0), math.ceil(high) + 1
    numbers = np.arange(begin, stop, math.ceil((stop - begin) / MAX_SAMPLES_ACROSS))
    return first - 0.5 + (numbers + 0.5) / parts, first + numbers // parts
