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


def _with_gaps(mask: Mask, gap_yx: tuple[int, int]) -> np.ndarray:
    """Put empty rows and columns behind every slice and row.

    A step in any direction is then one shift of the flattened array, and what leaves a row or a
    slice falls into the gap.
    """
    depth, height, width = mask.shape
    room = np.zeros((depth, height + gap_yx[0], width + gap_yx[1]), np.uint8)
    room[:, :height, :width] = mask
    return room


def _raise_to_shifted(out: np.ndarray, values: np.ndarray, step: int) -> None:
    """Raise a flat array to what another one holds ``step`` places before and behind."""
    np.maximum(out[step:], values[:-step], out=out[step:])
    np.maximum(out[:-step], values[step:], out=out[:-step])


SLICES_AT_ONCE = 12
"""So many slices of a chest stay in the processor's cache."""


def dilate(mask: Mask, radius_mm: float, spacing_zyx_mm: Spacing) -> Mask:
    """Add everything within ``radius_mm`` of the mask (uint8 (z, y, x); grey levels: maximum)."""
    depth, height, width = mask.shape
    # A ball may be larger than the scan.
    z, y, x = (
        min(int(radius_mm / s + 1e-6), n - 1)
        for s, n in zip(spacing_zyx_mm, mask.shape, strict=True)
    )
    half_widths = []
    for dz in range(z + 1):
        level2 = max(radius_mm**2 - (dz * spacing_zyx_mm[0]) ** 2, 0.0)
        disk = _disk(math.sqrt(level2), spacing_zyx_mm[1:])
        rows = disk[disk.shape[0] // 2 :][: y + 1]
        half_widths.append([min(int(n) // 2, x) for n in np.count_nonzero(rows, axis=1) if n])
    room = _with_gaps(mask, (y, x))
    out = np.zeros_like(room)
    # A ball is made of disks, a disk of rows: all share the maxima over rows of every length.
    for start in range(0, depth, SLICES_AT_ONCE):
        slices = room[start : start + SLICES_AT_ONCE]
        stop = start + len(slices)
        over_rows = [slices.reshape(-1)]
        for _ in range(x):
            over_rows.append(over_rows[-1].copy())
            _raise_to_shifted(over_rows[-1], over_rows[-2], 1)
        for dz, row_widths in enumerate(half_widths):
            over_disk = over_rows[row_widths[0]].copy()
            for dy, half_width in enumerate(row_widths[1:], start=1):
                _raise_to_shifted(over_disk, over_rows[half_width], dy * room.shape[2])
            grown = over_disk.reshape(slices.shape)
            for shift in {dz, -dz}:
                first, last = max(start + shift, 0), min(stop + shift, depth)
                if first < last:
                    target = out[first:last]
                    np.maximum(target, grown[first - shift - start : last - shift - start], target)
    return out[:, :height, :width]


def erode(mask: Mask, radius_mm: float, spacing_zyx_mm: Spacing) -> Mask:
    """Keep what lies further than ``radius_mm`` from the outside (uint8 (z, y, x))."""
    out = np.zeros(mask.shape, np.uint8)
    if mask.any():
        # The nearest empty voxel lies in the box around the mask, or one voxel beyond it.
        box = bounding_box(mask, (1, 1, 1))
        out[box] = dilate(mask[box] ^ 1, radius_mm, spacing_zyx_mm) ^ 1
    return out


def opening(mask: Mask, radius_mm: float, spacing_zyx_mm: Spacing) -> Mask:
    """Remove what a ball of ``radius_mm`` does not fit into."""
    out = erode(mask, radius_mm, spacing_zyx_mm)
    if out.any():
        box = bounding_box(mask)
        out[box] = dilate(out[box], radius_mm, spacing_zyx_mm) & mask[box]
    return out


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
    # One labelling of the background; scipy's binary_fill_holes dilates it step by step.
    parts, _ = ndimage.label(np.pad(mask == 0, 1, constant_values=True))
    return (parts != parts[0, 0, 0])[1:-1, 1:-1, 1:-1].astype(np.uint8)


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the face-connected components from 1; also return the voxels of each (0 for 0)."""
    labels, count = ndimage.label(mask)
    # Most voxels are empty, and counting is slower than leaving them out.
    return labels, np.bincount(labels[labels > 0], minlength=count + 1)


def largest_component(mask: Mask) -> Mask:
    """Keep the largest face-connected component; an empty mask stays empty."""
    labels, sizes = components(mask)
    if not sizes.any():
        return np.zeros_like(mask)
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
    _, height, width = seeds.shape
    labels = _with_gaps(seeds * air, (1, 1))
    flat = labels.reshape(-1)
    free = _with_gaps(air, (1, 1)).reshape(-1)
    free &= (flat == 0).view(np.uint8)
    near = np.empty_like(flat)
    while True:
        near[:] = 0
        for step in (1, width + 1, (height + 1) * (width + 1)):
            _raise_to_shifted(near, flat, step)
        near *= free
        if not near.any():
            return labels[:, :height, :width].copy()
        flat += near
        free &= (near == 0).view(np.uint8)


def bounding_box(
    mask: Mask, margin_zyx: tuple[int, int, int] = (0, 0, 0)
) -> tuple[slice, slice, slice]:
    """Return the smallest box around a non-empty mask, widened and clipped to the array."""
    box = []
    from_above = mask.max(axis=0)
    profiles = mask.max(axis=(1, 2)), from_above.max(axis=1), from_above.max(axis=0)
    for axis, (profile, margin) in enumerate(zip(profiles, margin_zyx, strict=True)):
        hit = np.flatnonzero(profile)
        first, stop = int(hit[0]) - margin, int(hit[-1]) + 1 + margin
        box.append(slice(max(first, 0), min(stop, mask.shape[axis])))
    return box[0], box[1], box[2]
