# SPDX-License-Identifier: Apache-2.0
"""Three-dimensional binary morphology with a ball given in millimetres.

Everything works on uint8 arrays of 0 and 1. The world outside the array counts as empty for
dilation and as full for erosion, so structures cut by the end of the scan do not shrink there.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy import ndimage

Mask = np.ndarray
Spacing = tuple[float, float, float]

BLUNT_TIPS = 0.25
"""Part of a voxel added to the radius of a closing."""


def _disk(radius_mm: float, spacing_yx_mm: tuple[float, float]) -> Mask:
    """Voxels of a plane whose centre lies within ``radius_mm`` of the middle one."""
    half_y, half_x = (int(radius_mm / s + 1e-6) for s in spacing_yx_mm)
    y, x = np.ogrid[-half_y : half_y + 1, -half_x : half_x + 1]
    distance2 = (y * spacing_yx_mm[0]) ** 2 + (x * spacing_yx_mm[1]) ** 2
    return (distance2 <= radius_mm**2 + 1e-6).astype(np.uint8)


def dilate(mask: Mask, radius_mm: float, spacing_zyx_mm: Spacing) -> Mask:
    """Add everything within ``radius_mm`` of the mask (uint8 (z, y, x); grey levels: maximum)."""
    depth, height, width = mask.shape
    # A ball may be taller than the scan.
    reach_z = min(int(radius_mm / spacing_zyx_mm[0] + 1e-6), depth - 1)
    # All slices stand in one tall image, kept apart by empty rows: one call instead of `depth`.
    gap = int(radius_mm / spacing_zyx_mm[1] + 1e-6)
    tall = np.zeros((depth, height + gap, width), np.uint8)
    tall[:, :height] = mask
    flat = tall.reshape(-1, width)
    out = np.zeros(mask.shape, np.uint8)
    for dz in range(reach_z + 1):
        level2 = max(radius_mm**2 - (dz * spacing_zyx_mm[0]) ** 2, 0.0)
        disk = _disk(math.sqrt(level2), spacing_zyx_mm[1:])
        grown = cv2.dilate(flat, disk, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        grown = grown.reshape(tall.shape)[:, :height]
        np.maximum(out[dz:], grown[: depth - dz], out=out[dz:])
        if dz:
            np.maximum(out[: depth - dz], grown[dz:], out=out[: depth - dz])
    return out


def erode(mask: Mask, radius_mm: float, spacing_zyx_mm: Spacing) -> Mask:
    """Keep what lies further than ``radius_mm`` from the outside (uint8 (z, y, x))."""
    return dilate(mask ^ 1, radius_mm, spacing_zyx_mm) ^ 1


def opening(mask: Mask, radius_mm: float, spacing_zyx_mm: Spacing) -> Mask:
    """Remove what a ball of ``radius_mm`` does not fit into."""
    return dilate(erode(mask, radius_mm, spacing_zyx_mm), radius_mm, spacing_zyx_mm) & mask


def closing(mask: Mask, radius_mm: float, spacing_zyx_mm: Spacing) -> Mask:
    """Fill the gaps and bays that a ball of ``radius_mm`` does not fit into.

    Grey levels are closed level by level, so a surface between two blocks stays between them.

    The world outside repeats the array's outermost voxels, so that neither a lung cut by the end
    of the scan vanishes there, nor one near the end grows up to it. A lung that narrows towards
    the end of the scan has a kink where the repetition begins; near such an end only what each
    slice alone would fill is filled, or a ring around the lung would be.
    """
    # A radius of whole voxels gives the ball tips of one voxel, which enter every bay.
    radius_mm += BLUNT_TIPS * min(spacing_zyx_mm) if radius_mm > 0 else 0.0
    z, y, x = (int(radius_mm / s + 1e-6) for s in spacing_zyx_mm)
    wide = np.pad(mask, ((z, z), (y, y), (x, x)), mode="edge")
    wide = ~dilate(~dilate(wide, radius_mm, spacing_zyx_mm), radius_mm, spacing_zyx_mm)
    depth, height, width = mask.shape
    closed = np.maximum(wide[z : z + depth, y : y + height, x : x + width], mask)
    for end, near in ((0, range(min(z, depth))), (-1, range(max(depth - z, 0), depth))):
        for k in near if mask[end].any() else ():
            alone = _closed_slice(mask[k], radius_mm, spacing_zyx_mm[1:])
            np.minimum(closed[k], alone, out=closed[k])
    return closed


def _closed_slice(plane: Mask, radius_mm: float, spacing_yx_mm: tuple[float, float]) -> np.ndarray:
    disk = _disk(radius_mm, spacing_yx_mm)
    y, x = disk.shape[0] // 2, disk.shape[1] // 2
    wide = cv2.morphologyEx(np.pad(plane, ((y, y), (x, x)), mode="edge"), cv2.MORPH_CLOSE, disk)
    return np.maximum(wide[y : y + plane.shape[0], x : x + plane.shape[1]], plane)


def fill_holes(mask: Mask) -> Mask:
    """Fill what is enclosed in three dimensions."""
    return ndimage.binary_fill_holes(mask).astype(np.uint8)


def largest_component(mask: Mask) -> Mask:
    """Keep the largest face-connected component; an empty mask stays empty."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (labels == sizes.argmax()).astype(np.uint8)


def grow_labels(seeds: np.ndarray, air: Mask) -> np.ndarray:
    """Let labelled seeds grow through ``air``, voxel by voxel, until they meet.

    Parameters
    ----------
    seeds : uint8 (z, y, x), 0 where there is no seed.
    air : where labels may go; seeds outside are dropped.

    Returns
    -------
    uint8 (z, y, x) labels; 0 where no seed is connected. Ties go to the larger label.
    """
    labels = seeds * air
    free = air * (labels == 0)
    depth, height, width = labels.shape
    tall = np.zeros((depth, height + 1, width), np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    while True:
        tall[:, :height] = labels
        grown = cv2.dilate(
            tall.reshape(-1, width), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        near: np.ndarray = grown.reshape(tall.shape)[:, :height].copy()
        np.maximum(near[1:], labels[:-1], out=near[1:])
        np.maximum(near[:-1], labels[1:], out=near[:-1])
        near *= free
        if not near.any():
            return labels
        labels += near
        free[near > 0] = 0


def bounding_box(
    mask: Mask, margin_zyx: tuple[int, int, int] = (0, 0, 0)
) -> tuple[slice, slice, slice]:
    """Return the smallest box around a non-empty mask, widened and clipped to the array."""
    box = []
    for axis, margin in enumerate(margin_zyx):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        first, stop = int(hit[0]) - margin, int(hit[-1]) + 1 + margin
        box.append(slice(max(first, 0), min(stop, mask.shape[axis])))
    return box[0], box[1], box[2]
