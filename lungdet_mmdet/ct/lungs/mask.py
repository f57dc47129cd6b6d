"""The lung mask of a scan, whatever the scan: the preferred method first, then its fallbacks."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from lungdet_mmdet.ct.lungs.body import filled_body, find_body
from lungdet_mmdet.ct.lungs.closing import close_lungs
from lungdet_mmdet.ct.lungs.grid import CoarseGrid
from lungdet_mmdet.ct.lungs.morphology import Spacing
from lungdet_mmdet.ct.lungs.otsu import check_volume, segment_lungs
from lungdet_mmdet.ct.lungs.parts import LEFT, RIGHT
from lungdet_mmdet.ct.lungs.segmentation import LungSegmentation, shape_flags, verdict_of
from lungdet_mmdet.ct.scan import PADDING_BELOW_HU
from lungdet_mmdet.errors import LungDetError

__all__ = ["segment_lungs", "segment_with_fallback"]

LUNA16_RIGHT, LUNA16_LEFT = 4, 3
"""Values of the lungs in LUNA16's own masks; 5 is the windpipe."""


def segment_with_fallback(
    volume_hu: np.ndarray,
    *,
    spacing_zyx_mm: Spacing,
    luna16_mask: np.ndarray | None = None,
    prefer: Literal["otsu", "luna16"] = "otsu",
    closing_mm: float = 12.0,
    erosion_mm: float = 3.0,
    margin_mm: float = 1.0,
    grid_mm: float = 3.0,
    otsu_clamp_hu: tuple[float, float] = (-550.0, -350.0),
) -> LungSegmentation:
    """Segment the lungs by the first method that gives something plausible.

    The order is: LUNA16's mask if preferred, Otsu, LUNA16's mask if present, a looser Otsu, the
    whole body. A mask is never empty; a fallback is named in the flags ("fallback_otsu",
    "fallback_luna16", "fallback_otsu-loose", "fallback_body").

    Parameters
    ----------
    volume_hu, spacing_zyx_mm, closing_mm, erosion_mm, margin_mm, grid_mm, otsu_clamp_hu :
        as in `segment_lungs`.
    luna16_mask : LUNA16's own mask on the same grid (3 left lung, 4 right lung), or None.
    prefer : which method comes first.

    Raises
    ------
    LungDetError
        If ``prefer`` is unknown, or the mask's shape differs from the volume's.
    """
    if prefer not in ("otsu", "luna16"):
        raise LungDetError(f"mask method {prefer!r} is unknown: use 'otsu' or 'luna16'")
    volume_hu = check_volume(volume_hu, spacing_zyx_mm)
    if luna16_mask is not None and luna16_mask.shape != volume_hu.shape:
        raise LungDetError(
            f"the LUNA16 mask has shape {luna16_mask.shape}, the scan {volume_hu.shape}: bring "
            "both to the same grid first"
        )

    def by_otsu(loose: bool) -> LungSegmentation:
        return segment_lungs(
            volume_hu,
            spacing_zyx_mm=spacing_zyx_mm,
            closing_mm=closing_mm,
            erosion_mm=erosion_mm,
            margin_mm=margin_mm,
            grid_mm=grid_mm,
            otsu_clamp_hu=otsu_clamp_hu,
            loose=loose,
        )

    grid = CoarseGrid.covering(volume_hu.shape, spacing_zyx_mm, grid_mm)
    for method in _order(prefer):
        if method != "luna16":
            found = by_otsu(loose=method == "otsu-loose")
        elif luna16_mask is not None:
            found = _from_luna16(luna16_mask, grid, closing_mm=closing_mm, margin_mm=margin_mm)
        else:
            continue
        if found.verdict != "implausible":
            return _naming_fallback(found, prefer)
    return _naming_fallback(_from_body(volume_hu, grid, found.threshold_hu), prefer)


def _order(prefer: str) -> tuple[str, ...]:
    first_two = ("luna16", "otsu") if prefer == "luna16" else ("otsu", "luna16")
    return (*first_two, "otsu-loose")


def _naming_fallback(found: LungSegmentation, prefer: str) -> LungSegmentation:
    if found.method == prefer:
        return found
    verdict = "suspect" if found.verdict == "ok" else found.verdict
    return dataclasses.replace(
        found, flags=(*found.flags, f"fallback_{found.method}"), verdict=verdict
    )


def _from_luna16(
    mask: np.ndarray, grid: CoarseGrid, *, closing_mm: float, margin_mm: float
) -> LungSegmentation:
    """Take LUNA16's own lungs; they too need a closing to hold the pleural nodules."""
    labels = np.zeros(grid.shape_zyx, np.uint8)
    labels[grid.from_scan(mask == LUNA16_RIGHT) > 0] = RIGHT
    labels[grid.from_scan(mask == LUNA16_LEFT) > 0] = LEFT
    nowhere = np.zeros_like(labels)
    labels = close_lungs(labels, nowhere, closing_mm=closing_mm, spacing_zyx_mm=grid.spacing_zyx_mm)
    flags = shape_flags(labels, nowhere > 0, grid.voxel_ml)
    return LungSegmentation(
        coarse_labels=labels,
        grid=grid,
        margin_mm=margin_mm,
        method="luna16",
        threshold_hu=float("nan"),
        flags=flags,
        verdict=verdict_of(labels, grid, flags),
    )


def _from_body(volume_hu: np.ndarray, grid: CoarseGrid, threshold_hu: float) -> LungSegmentation:
    """Take the whole patient, or the whole scan where not even a patient is found."""
    coarse_hu = grid.block_mean(volume_hu)
    body = find_body((coarse_hu >= threshold_hu).astype(np.uint8), grid.spacing_zyx_mm)
    flags: tuple[str, ...] = ("no_lungs",)
    if body.any():
        labels = filled_body(body)
    else:
        flags += ("no_body",)
        labels = (coarse_hu >= PADDING_BELOW_HU).astype(np.uint8)
        if not labels.any():
            labels[:] = 1
    return LungSegmentation(
        coarse_labels=labels,
        grid=grid,
        margin_mm=0.0,
        method="body",
        threshold_hu=threshold_hu,
        flags=flags,
        verdict="implausible",
    )
