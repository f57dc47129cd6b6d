"""The windpipe: found near the top of the scan and followed downward, slice by slice."""

from __future__ import annotations

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
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def follow_airway(
    coarse_hu: np.ndarray, candidate: Mask, body: Mask, spacing_zyx_mm: Spacing
) -> Mask:
    """Find the windpipe and main bronchi, as far as they stay apart from the lungs.

    Parameters
    ----------
    coarse_hu : int16 (z, y, x), z growing towards the head.
    candidate : air inside the patient.
    body : the patient's soft tissue; its middle is where the windpipe is looked for.
    spacing_zyx_mm : voxel size.

    Returns
    -------
    uint8 (z, y, x) mask; empty where no windpipe is in the scan.
    """
    lumen = ((coarse_hu < LUMEN_HU) & (candidate > 0)).astype(np.uint8)
    voxel_mm2 = spacing_zyx_mm[1] * spacing_zyx_mm[2]
    for top in range(coarse_hu.shape[0] - 1, -1, -1):
        columns = np.flatnonzero(body[top].any(axis=0))
        if columns.size == 0 or not lumen[top].any():
            continue
        middle_x = 0.5 * (columns[0] + columns[-1])
        _, regions, stats, centres = cv2.connectedComponentsWithStats(lumen[top], connectivity=4)
        for index in range(1, len(stats)):
            area = stats[index, cv2.CC_STAT_AREA] * voxel_mm2
            off_centre = abs(centres[index, 0] - middle_x) * spacing_zyx_mm[2]
            if not START_AREA_MM2[0] <= area <= START_AREA_MM2[1]:
                continue
            if off_centre > MAX_OFF_CENTRE_MM:
                continue
            path = _descend(lumen, (regions == index).astype(np.uint8), top, voxel_mm2)
            mean_hu = np.mean([coarse_hu[top - i][part > 0].mean() for i, part in enumerate(path)])
            if len(path) * spacing_zyx_mm[0] >= MIN_LENGTH_MM and mean_hu < CORE_MEAN_HU:
                return _with_rim(path, top, candidate)
    return np.zeros_like(candidate)


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
