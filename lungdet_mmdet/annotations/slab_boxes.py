# SPDX-License-Identifier: Apache-2.0
"""A nodule on slabs: the box of a sphere on each, and how much of it a lung mask keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError

# A slab is positive when the nodule reaches at least this far into it. Two millimetres is more
# than half of LUNA16's smallest nodule (3.25 mm), so a small nodule seldom labels two slabs, and
# at 2 mm depth a 7 mm nodule shows a disk of 6.3 mm: something a reader can see.
MIN_OVERLAP_MM = 2.0
# A nodule with a smaller share of its voxels in the lung mask is reported; without any it is lost.
WELL_COVERED = 0.9
PositiveRule = Literal["overlap", "half", "midplane"]
POSITIVE_RULES: tuple[PositiveRule, ...] = ("overlap", "half", "midplane")
# Overlaps that differ by less are ties: far below a voxel, far above rounding of coordinates.
_TIE_MM = 1e-6


class SlabStack:
    """The slabs of one scan as arrays, for boxes of many spheres at once.

    Attributes
    ----------
    faces_mm : (S, 2) low and high face along the normal.
    spacing_xy_mm : (S, 2) pixel size.
    origins_xyz_mm : (S, 3) world position of pixel (0, 0)'s centre.
    axes_xyz : (S, 3, 3) matrices whose columns are image x, image y and normal in world space.
    """

    def __init__(self, slabs: tuple[SlabGeometry, ...]) -> None:
        def rows(name: str, *shape: int) -> np.ndarray:
            return np.array([getattr(slab, name) for slab in slabs], float).reshape(-1, *shape)

        self.slabs = slabs
        self.faces_mm = rows("z_range_mm", 2)
        self.spacing_xy_mm = rows("spacing_xy_mm", 2)
        self.origins_xyz_mm = rows("origin_xyz_mm", 3)
        self.axes_xyz = rows("direction", 3, 3)


def cut_sphere(
    height_mm: np.ndarray, radius_mm: np.ndarray, low_mm: np.ndarray, high_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cut spheres by slabs, everything measured along the slab normal; arguments broadcast.

    Returns
    -------
    overlap_mm : depth of the sphere inside the slab, 0 where they do not meet.
    section_mm : radius of the largest cross-section within the slab, 0 where they do not meet.
    """
    overlap = np.minimum(height_mm + radius_mm, high_mm) - np.maximum(height_mm - radius_mm, low_mm)
    # Distance from the centre to the nearest plane of the slab: there the section is largest.
    distance = np.maximum(np.maximum(low_mm - height_mm, height_mm - high_mm), 0.0)
    section = np.sqrt(np.maximum(radius_mm**2 - distance**2, 0.0))
    return np.maximum(overlap, 0.0), section


def sphere_boxes(
    centres_xyz_mm: np.ndarray, diameters_mm: np.ndarray, stack: SlabStack
) -> tuple[np.ndarray, np.ndarray]:
    """Cut N spheres by S slabs.

    Parameters
    ----------
    centres_xyz_mm : (N, 3) world points.
    diameters_mm : (N,).
    stack : the S slabs.

    Returns
    -------
    boxes_xyxy_px : (N, S, 4) continuous slab pixels, not clipped; meaningless where overlap is 0.
    overlap_mm : (N, S) depth of the sphere inside the slab, 0 where they do not meet.
    """
    centres = np.asarray(centres_xyz_mm, dtype=float).reshape(-1, 3)
    radius = 0.5 * np.asarray(diameters_mm, dtype=float).reshape(-1, 1)
    offset = centres[:, None] - stack.origins_xyz_mm  # (N, S, 3)
    in_plane = np.einsum("nsk,skj->nsj", offset, stack.axes_xyz[:, :, :2])  # (N, S, 2) mm
    height = np.einsum("nk,sk->ns", centres, stack.axes_xyz[:, :, 2])  # (N, S) mm on the normal
    low, high = stack.faces_mm[:, 0], stack.faces_mm[:, 1]
    overlap, section = cut_sphere(height, radius, low, high)
    # A voxel-index coordinate c (centre of pixel i is i) is the box coordinate c + 0.5.
    middle_px = in_plane / stack.spacing_xy_mm + 0.5
    half_px = section[..., None] / stack.spacing_xy_mm
    return np.concatenate([middle_px - half_px, middle_px + half_px], axis=-1), overlap


def best_slab(overlap_mm: np.ndarray, section_px: np.ndarray) -> int | None:
    """Return the slab that shows a nodule best: largest overlap, then largest cross-section.

    Where a large nodule fills several slabs, the one with its widest section is the best. Remaining
    ties go to the lower position.

    Parameters
    ----------
    overlap_mm : (S,) from ``sphere_boxes``.
    section_px : (S,) width of the boxes.
    """
    overlap_mm = np.asarray(overlap_mm, dtype=float)
    if overlap_mm.size == 0 or overlap_mm.max() <= 0:
        return None
    tied = overlap_mm >= overlap_mm.max() - _TIE_MM
    widths = np.where(tied, section_px, -np.inf)
    return int(np.flatnonzero(widths >= widths.max() - _TIE_MM)[0])


def positive_slabs(
    overlap_mm: np.ndarray, section_px: np.ndarray, *, min_overlap_mm: float = MIN_OVERLAP_MM
) -> np.ndarray:
    """Return (S,) bool: where one nodule is a positive; elsewhere it grazes or is absent.

    A slab is positive from ``min_overlap_mm`` on. The slab that shows the nodule best is always
    positive, so no nodule is lost to the rule, however small.
    """
    positive = np.asarray(overlap_mm) >= min_overlap_mm - _TIE_MM
    positive &= np.asarray(overlap_mm) > 0
    best = best_slab(overlap_mm, section_px)
    if best is not None:
        positive[best] = True
    return positive


def positives_by_rule(
    rule: PositiveRule,
    overlap_mm: np.ndarray,
    section_px: np.ndarray,
    *,
    thickness_mm: np.ndarray | float,
    cuts_middle: np.ndarray,
    min_overlap_mm: float = MIN_OVERLAP_MM,
) -> np.ndarray:
    """Return (S,) bool: where one nodule is a positive under one of three rules.

    "overlap" is `positive_slabs`. Under "half" a nodule is one where it fills at least half of the
    slab's depth, under "midplane" where the slab's middle plane cuts it; these two may leave a
    small nodule without any slab, and then it counts as missed.

    Parameters
    ----------
    overlap_mm, section_px : (S,) as in `positive_slabs`.
    thickness_mm : (S,) or one number.
    cuts_middle : (S,) bool, whether the middle plane meets the nodule.
    """
    shown = np.asarray(overlap_mm) > 0
    if rule == "half":
        return shown & (np.asarray(overlap_mm) >= 0.5 * np.asarray(thickness_mm) - _TIE_MM)
    if rule == "midplane":
        return shown & np.asarray(cuts_middle)
    return positive_slabs(overlap_mm, section_px, min_overlap_mm=min_overlap_mm)


MIN_SAMPLES_ACROSS = 12
"""Samples along a nodule's diameter; fewer make the sphere's volume uneven."""
MAX_SAMPLES_ACROSS = 256
"""More would fill the memory for the sake of the fourth digit."""


def core_value(
    volume: np.ndarray,
    centre_zyx_voxel: Sequence[float] | np.ndarray,
    diameter_mm: float,
    spacing_zyx_mm: tuple[float, float, float],
) -> float:
    """Return the mean of a volume (z, y, x) in the inner half of a sphere; NaN outside it."""
    centre, spacing = np.asarray(centre_zyx_voxel), np.asarray(spacing_zyx_mm)
    reach = np.maximum(diameter_mm / 4 / spacing, 0.5)
    low = np.maximum(np.ceil(centre - reach), 0).astype(int)
    high = np.minimum(np.floor(centre + reach) + 1, volume.shape).astype(int)
    if np.any(high <= low):
        return math.nan
    part = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return float(part.mean())


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
