# SPDX-License-Identifier: Apache-2.0
"""The patient and what lies inside: air and tissue parted, rays that end in the body, the windpipe.

The windpipe is the longest, most central path of air, followed downward to where it divides.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lungdet_mmdet.ct.lungs.morphology import Mask, Spacing, components, largest_component, opening
from lungdet_mmdet.ct.scan import PADDING_BELOW_HU

HISTOGRAM_HU = (-1100, 400)
"""Bone and metal above do not help to tell air from tissue."""


def otsu_threshold(volume_hu: np.ndarray) -> float | None:
    """Compute Otsu's threshold between air and tissue, with padding left out.

    Parameters
    ----------
    volume_hu : int16 array of any shape.

    Returns
    -------
    Threshold in HU, values below it being air; None where fewer than two values occur.

    Notes
    -----
    Otsu, "A threshold selection method from gray-level histograms", IEEE SMC 1979.
    """
    values = volume_hu[volume_hu >= PADDING_BELOW_HU].clip(*HISTOGRAM_HU)
    counts = np.bincount(values - HISTOGRAM_HU[0]).astype(float)
    if np.count_nonzero(counts) < 2:
        return None
    levels = np.arange(counts.size) + HISTOGRAM_HU[0]
    low = np.cumsum(counts)[:-1]
    high = counts.sum() - low
    sum_low = np.cumsum(counts * levels)[:-1]
    sum_high = (counts * levels).sum() - sum_low
    # The first value present is not zero, so only cuts below it divide by zero.
    low_safe, high_safe = np.maximum(low, 1), np.maximum(high, 1)
    between = low * high * (sum_low / low_safe - sum_high / high_safe) ** 2
    # A gap in the histogram gives a plateau; its middle is the fair cut.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(levels[best].mean()) + 0.5


def clamped_otsu(volume_hu: np.ndarray, clamp_hu: tuple[float, float]) -> tuple[float, bool]:
    """Compute Otsu's threshold and keep it inside a sensible range.

    Parameters
    ----------
    volume_hu : int16 array of any shape.
    clamp_hu : lowest and highest threshold allowed.

    Returns
    -------
    The threshold in HU, and whether it had to be moved (the middle where there was none).
    """
    found = otsu_threshold(volume_hu)
    if found is None:
        return 0.5 * (clamp_hu[0] + clamp_hu[1]), True
    kept = min(max(found, clamp_hu[0]), clamp_hu[1])
    return kept, kept != found


BODY_OPENING_MM = 4.0
"""Removes table shells, blankets and cables, keeps thin chest walls."""
MIN_ENCLOSING_RAYS = 5
"""Air with fewer of its eight in-plane rays ending in the body may lie outside the patient."""
BLIND_RAYS = 2
MAX_BLIND_SHARE = 0.1
"""Air outside has wide parts that hardly see the body; a lung cut open has not."""


def find_body(solid: Mask, spacing_zyx_mm: Spacing) -> Mask:
    """Find the patient: the largest soft-tissue component that survives an opening.

    Parameters
    ----------
    solid : 1 where the value is above the air threshold.
    spacing_zyx_mm : voxel size.

    Returns
    -------
    uint8 (z, y, x), lungs left open; empty where nothing survives.
    """
    return largest_component(opening(solid, BODY_OPENING_MM, spacing_zyx_mm))


BONE_HU = (100.0, 400.0)
"""Block means of vertebrae lie between; denser ones count no more."""
SPINE_MM = 30.0
"""Width of a vertebral body."""
MIN_SPINE_HU = 40.0
"""Mean height above the lower limit, all along the scan, from which bone is taken for the spine."""
MAX_SPINE_OFF_MM = 110.0
"""As far from the middle of the body's outline: half a chest, where one lung is in the picture."""


def patient_middle(coarse_hu: np.ndarray, body: Mask, spacing_zyx_mm: Spacing) -> float:
    """Find the column of the patient's middle: the spine, else the middle of the body's outline.

    The spine is the thickest bone that runs along the whole scan in the back half of the body.

    Parameters
    ----------
    coarse_hu : int16 (z, y, x), y growing towards the back.
    body : result of `find_body`, not empty.
    spacing_zyx_mm : voxel size.
    """
    rows, columns = (np.flatnonzero(body.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    outline = 0.5 * float(columns[0] + columns[-1])
    bone = np.zeros(body.shape[1:], np.float32)
    for plane, inside in zip(coarse_hu, body, strict=True):
        bone += (np.clip(plane, *BONE_HU) - BONE_HU[0]) * inside
    size = [max(round(SPINE_MM / s), 1) for s in spacing_zyx_mm[:0:-1]]
    bone = cv2.blur(bone / body.shape[0], size, borderType=cv2.BORDER_CONSTANT)
    bone[: (rows[0] + rows[-1]) // 2] = 0
    off_mm = np.abs(np.arange(bone.shape[1]) - outline) * spacing_zyx_mm[2]
    bone[:, off_mm > MAX_SPINE_OFF_MM] = 0
    row, column = np.unravel_index(bone.argmax(), bone.shape)
    if bone[row, column] < MIN_SPINE_HU:
        return outline
    reach = size[0] // 2
    near = bone[row, max(column - reach, 0) : column + reach + 1]
    return float(np.average(np.arange(near.size) + max(column - reach, 0), weights=near))


def enclosing_rays(body: Mask) -> np.ndarray:
    """Count for every voxel how many of eight in-plane rays from it end in the body.

    Air under the back or in the foam of the table sees the body on one side only. Lungs see it
    on almost all sides, even where the field of view has cut them open.

    Returns
    -------
    uint8 (z, y, x), 0 to 8.
    """
    count = np.zeros(body.shape, np.uint8)
    for axis in (1, 2):
        count += np.maximum.accumulate(body, axis=axis)
        count += np.flip(np.maximum.accumulate(np.flip(body, axis), axis=axis), axis)
    rows = np.ascontiguousarray(body.transpose(1, 0, 2))
    seen_rows = np.zeros(rows.shape, np.uint8)
    for downward in (slice(None), slice(None, None, -1)):
        for shift in (1, -1):
            _add_diagonal_rays(rows[downward], seen_rows[downward], shift)
    return count + seen_rows.transpose(1, 0, 2)


def _add_diagonal_rays(rows: Mask, count: np.ndarray, shift: int) -> None:
    """Add 1 to ``count`` (y, z, x) where the body lies on the diagonal towards smaller y."""
    seen = rows[0].copy()
    count[0] += seen
    moved = np.zeros_like(seen)
    for y in range(1, rows.shape[0]):
        if shift == 1:
            moved[:, 1:] = seen[:, :-1]
            moved[:, 0] = 0
        else:
            moved[:, :-1] = seen[:, 1:]
            moved[:, -1] = 0
        np.bitwise_or(moved, rows[y], out=seen)
        count[y] += seen


def outside_air(air: Mask, rays: np.ndarray) -> Mask:
    """Find the air outside the patient: what few rays connect with the body.

    Parts of it that see the body on half of the directions throughout are the rim of a lung that
    the field of view has cut open, and do not count as outside.

    Parameters
    ----------
    air : uint8 (z, y, x).
    rays : result of `enclosing_rays`.
    """
    exposed = air & (rays < MIN_ENCLOSING_RAYS)
    parts, sizes = components(exposed)
    blind = np.bincount(parts[(rays <= BLIND_RAYS) & (exposed > 0)], minlength=sizes.size)
    is_outside = blind > MAX_BLIND_SHARE * sizes
    is_outside[0] = False
    return is_outside[parts].astype(np.uint8)


def filled_body(body: Mask) -> Mask:
    """Fill every slice of the body up to its outer contours: a mask for scans without lungs."""
    filled = np.zeros(body.shape, np.uint8)
    for plane, out in zip(body, filled, strict=True):
        contours, _ = cv2.findContours(plane, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, 1, cv2.FILLED)
    return filled


LUMEN_HU = -880
"""Block means inside the windpipe are below this, healthy lung is above."""
CORE_MEAN_HU = -920.0
START_AREA_MM2 = (50.0, 700.0)
MAX_AREA_MM2 = 1100.0
MIN_LENGTH_MM = 15.0
MAX_OFF_CENTRE_MM = 40.0
BESIDE_BLOCKS, MAX_BESIDE_SHARE = 3, 0.3
"""A trough of the skin lies within so many blocks of the air outside."""
CARINA_BONUS_MM = 40.0
"""A path that divides is preferred to one that is longer by less than this."""
MIN_BRONCHUS_MM2 = 20.0
BRONCHI_APART_MM = 12.0
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True)
class Airway:
    """The windpipe of a scan.

    Parameters
    ----------
    mask : uint8 (z, y, x), windpipe and main bronchi; empty where no windpipe is in the scan.
    carina_zyx : voxel at which it divides, or None.
    """

    mask: Mask
    carina_zyx: tuple[int, int, int] | None


def follow_airway(
    coarse_hu: np.ndarray,
    candidate: Mask,
    outside: Mask,
    middle_x: float,
    spacing_zyx_mm: Spacing,
) -> Airway:
    """Find the windpipe and main bronchi, as far as they stay apart from the lungs.

    Parameters
    ----------
    coarse_hu : int16 (z, y, x), z growing towards the head.
    candidate : air inside the patient, troughs of the skin among it.
    outside : air outside; a path does not begin beside it.
    middle_x : column of the patient's middle, near which the windpipe is looked for.
    spacing_zyx_mm : voxel size.
    """
    lumen = ((coarse_hu < LUMEN_HU) & (candidate > 0)).astype(np.uint8)
    tried = np.zeros_like(lumen)
    voxel_mm2 = spacing_zyx_mm[1] * spacing_zyx_mm[2]
    best_mm, best = -np.inf, Airway(np.zeros_like(candidate), None)
    for top in range(coarse_hu.shape[0] - 1, -1, -1):
        if (top + 1) * spacing_zyx_mm[0] < best_mm - CARINA_BONUS_MM or not lumen[top].any():
            continue  # what is left below is shorter
        _, regions, stats, centres = cv2.connectedComponentsWithStats(lumen[top], connectivity=4)
        beside = cv2.dilate(outside[top], _CROSS, iterations=BESIDE_BLOCKS)
        for index in range(1, len(stats)):
            area = stats[index, cv2.CC_STAT_AREA] * voxel_mm2
            off_centre = abs(centres[index, 0] - middle_x) * spacing_zyx_mm[2]
            if not START_AREA_MM2[0] <= area <= START_AREA_MM2[1]:
                continue
            if off_centre > MAX_OFF_CENTRE_MM:
                continue
            region = (regions == index).astype(np.uint8)
            if (region & tried[top]).any():
                continue
            if (region & beside).sum() > MAX_BESIDE_SHARE * region.sum():
                continue
            path = _descend(lumen, region, top, voxel_mm2)
            for i, part in enumerate(path):
                tried[top - i] |= part
            length_mm = len(path) * spacing_zyx_mm[0]
            mean_hu = np.mean([coarse_hu[top - i][part > 0].mean() for i, part in enumerate(path)])
            if length_mm < MIN_LENGTH_MM or mean_hu >= CORE_MEAN_HU:
                continue
            carina = _carina(path, top, spacing_zyx_mm)
            score = length_mm - off_centre + CARINA_BONUS_MM * (carina is not None)
            if score > best_mm:
                best_mm, best = score, Airway(_with_rim(path, top, candidate), carina)
    return best


def _carina(path: list[Mask], top: int, spacing_zyx_mm: Spacing) -> tuple[int, int, int] | None:
    """Find the slice below which a lumen is two, side by side, for two slices."""
    least = MIN_BRONCHUS_MM2 / (spacing_zyx_mm[1] * spacing_zyx_mm[2])
    above: tuple[int, int, int] | None = None
    for i, part in enumerate(path):
        _, _, stats, centres = cv2.connectedComponentsWithStats(part, connectivity=4)
        centres_xy = np.asarray(centres)[1:]
        large = centres_xy[np.asarray(stats)[1:, cv2.CC_STAT_AREA] >= least]
        if len(large) < 2 or np.ptp(large[:, 0]) * spacing_zyx_mm[2] < BRONCHI_APART_MM:
            above = None
        elif above is not None:
            return above
        else:
            x, y = large.mean(axis=0).tolist()
            above = top - i, round(y), round(x)
    return None


def _descend(lumen: Mask, region: Mask, top: int, voxel_mm2: float) -> list[Mask]:
    """Follow a lumen downward from slice ``top`` until it ends or opens into the lungs."""
    path = [region]
    usual_area = region.sum() * voxel_mm2
    for k in range(top - 1, -1, -1):
        region = lumen[k] & cv2.dilate(region, _CROSS)
        area = region.sum() * voxel_mm2
        if area < 0.5 * START_AREA_MM2[0] or area > min(1.8 * usual_area + 60.0, MAX_AREA_MM2):
            break
        path.append(region)
        usual_area += 0.2 * (area - usual_area)
    return path


def _with_rim(path: list[Mask], top: int, candidate: Mask) -> Mask:
    """Stack the slices and add the half-filled voxels at the lumen's edge."""
    airway = np.zeros_like(candidate)
    for i, part in enumerate(path):
        airway[top - i] = cv2.dilate(part, _CROSS) & candidate[top - i]
    return airway
