# SPDX-License-Identifier: Apache-2.0
"""The windpipe: the longest, most central path of air, followed downward to where it divides."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lungdet_mmdet.ct.lungs.morphology import Mask, Spacing

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
