# SPDX-License-Identifier: Apache-2.0
"""The lung mask of a scan: Otsu, connected components, erosion, closing (paper, section 3.1).

The mask is found on a grid of about 3 mm; its surface lies between the blocks, where their shares
of lung put it, and is drawn on the scan's grid by linear interpolation.
The erosion is what separates the lungs from gut, windpipe and each other; their components then
grow back to the surface they had, so that it costs no nodule. The closing brings back vessels and
the nodules on the surface.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from lungdet_mmdet.ct.lungs.body import (
    clamped_otsu,
    enclosing_rays,
    filled_body,
    find_body,
    follow_airway,
    outside_air,
    patient_middle,
)
from lungdet_mmdet.ct.lungs.closing import WholeLungs, air_share, complete_lungs
from lungdet_mmdet.ct.lungs.grid import FULL, CoarseGrid
from lungdet_mmdet.ct.lungs.morphology import Spacing, bounding_box
from lungdet_mmdet.ct.lungs.parts import (
    LEFT,
    LOOSE_RULES,
    RIGHT,
    EnclosedAir,
    PartRules,
    label_lungs,
)
from lungdet_mmdet.ct.lungs.segmentation import (
    LungSegmentation,
    dense_part,
    shape_flags,
    verdict_of,
)
from lungdet_mmdet.ct.scan import PADDING_BELOW_HU
from lungdet_mmdet.errors import LungDetError

SOLID_ABOVE_HU = 150.0
"""A block this far above the threshold is tissue, not the rim of a lung."""
BOX_RIM = (4, 4, 4)
"""Blocks kept around the enclosed air: room for the closing."""
ABDOMEN_SHARE = 0.02
"""Of the body's tissue; chests hold 8 % or more. Less air, and no windpipe, is bowel gas, or the
lungs' bases in a scan of the abdomen."""
LOOSE_CLAMP_HU = (-300.0, -200.0)
"""A higher threshold takes in fibrotic and half-filled lung."""


def segment_lungs(
    volume_hu: np.ndarray,
    *,
    spacing_zyx_mm: Spacing,
    closing_mm: float = 16.0,
    erosion_mm: float = 3.0,
    margin_mm: float = 1.0,
    grid_mm: float = 3.0,
    otsu_clamp_hu: tuple[float, float] = (-550.0, -350.0),
    fill_bays: bool = True,
    loose: bool = False,
) -> LungSegmentation:
    """Segment the lungs of a chest CT.

    Parameters
    ----------
    volume_hu : int16 (z, y, x), z growing towards the head and x towards the patient's left.
    spacing_zyx_mm : voxel size.
    closing_mm : radius of the ball that closes each lung; it brings back vessels and small nodules
        on the pleura.
    erosion_mm : erosion that parts the air into components; stronger ones are tried where the
        lungs stay joined. Undone afterwards within the air, see the module's text.
    margin_mm : how far the final mask reaches beyond the surface found. Not part of the reported
        volumes.
    grid_mm : size of the blocks on which the lungs are found.
    otsu_clamp_hu : range that Otsu's threshold is kept in.
    fill_bays : add large bays of the surface: pleural lesions that the ball leaves outside,
        consolidation. What is added is marked, and not part of the reported volumes.
    loose : take a higher threshold and nearly every enclosed air for lung.

    Returns
    -------
    The lungs; with verdict "implausible" and an empty mask where there are none.

    Raises
    ------
    LungDetError
        If the volume is not a three-dimensional numeric array or the spacing is not positive.
    """
    volume_hu = check_volume(volume_hu, spacing_zyx_mm)
    grid = CoarseGrid.covering(volume_hu.shape, spacing_zyx_mm, grid_mm)
    coarse_hu = grid.block_mean(volume_hu)
    padding = coarse_hu < PADDING_BELOW_HU
    threshold, clamped = clamped_otsu(coarse_hu, LOOSE_CLAMP_HU if loose else otsu_clamp_hu)
    flags = ["otsu_clamped"] if clamped and not loose else []
    if padding.any():
        flags.append("padding")
    enclosed = _enclosed_air(coarse_hu, padding, threshold, grid.spacing_zyx_mm)
    whole = _no_lungs(grid.shape_zyx)
    is_dense = False
    if enclosed is not None:
        air, box = enclosed
        flags += air.flags
        air_labels, more = label_lungs(
            air, erosion_mm=erosion_mm, rules=LOOSE_RULES if loose else PartRules()
        )
        flags += more
        tissue = (air.coarse_hu >= threshold + SOLID_ABOVE_HU).astype(np.uint8)
        found = complete_lungs(
            _air_shares(air_labels, air, threshold),
            air.outside | padding[box],
            closing_mm=closing_mm,
            spacing_zyx_mm=grid.spacing_zyx_mm,
            tissue=tissue,
            middle_x=air.middle_x if fill_bays and not loose else None,
        )
        whole.labels[box], whole.share[box], whole.filled[box] = (
            found.labels,
            found.share,
            found.filled,
        )
        flags += ["large_lesion_filled"] * found.has_large_lesion
        lungs_ml = np.count_nonzero(found.labels) * grid.voxel_ml
        if "no_windpipe" in flags and lungs_ml < ABDOMEN_SHARE * air.body_ml:
            flags.append("abdomen")
        aerated = found.labels * ~found.filled
        if (aerated == RIGHT).any() and (aerated == LEFT).any():
            is_dense = dense_part(aerated, tissue, air.middle_x, grid.spacing_zyx_mm)
    of_shape = shape_flags(whole.labels, padding, grid.voxel_ml)
    flags += of_shape
    # The height of lungs that the scan cuts is not known, nor what lies at their base.
    if is_dense and not {"opacified_part", "asymmetric", "cut_above"}.intersection(of_shape):
        flags.append("opacified_part")
    return LungSegmentation(
        coarse_labels=whole.labels,
        coarse_share=whole.share,
        coarse_filled=whole.filled,
        grid=grid,
        margin_mm=margin_mm,
        method="otsu-loose" if loose else "otsu",
        threshold_hu=threshold,
        flags=tuple(flags),
        verdict=verdict_of(whole.labels, grid, tuple(flags), loose=loose),
    )


def _no_lungs(shape_zyx: tuple[int, int, int]) -> WholeLungs:
    return WholeLungs(
        np.zeros(shape_zyx, np.uint8), np.zeros(shape_zyx, np.uint8), np.zeros(shape_zyx, bool)
    )


def _air_shares(labels: np.ndarray, air: EnclosedAir, threshold_hu: float) -> dict[int, np.ndarray]:
    """Tell for each lung how much of a block is its air."""
    shares = {}
    for label in (RIGHT, LEFT):
        lung = (labels == label).astype(np.uint8)
        if lung.any():
            no_lung = (air.coarse_hu < threshold_hu) & (lung == 0)
            shares[label] = air_share(lung, air.coarse_hu, no_lung, threshold_hu=threshold_hu)
    return shares


def check_volume(volume_hu: np.ndarray, spacing_zyx_mm: Spacing) -> np.ndarray:
    """Return the volume as int16, without a copy where it is that already.

    Raises
    ------
    LungDetError
        If it is not a three-dimensional numeric array or the spacing is not positive.
    """
    if volume_hu.ndim != 3 or 0 in volume_hu.shape or volume_hu.dtype.kind not in "if":
        raise LungDetError(
            f"a lung mask needs a non-empty (z, y, x) array of Hounsfield values, got shape "
            f"{volume_hu.shape} of {volume_hu.dtype}: convert the scan to int16 HU first"
        )
    if len(spacing_zyx_mm) != 3 or not all(0 < s < np.inf for s in spacing_zyx_mm):
        raise LungDetError(
            f"spacing (z, y, x) is {spacing_zyx_mm} mm: three finite values > 0 are needed"
        )
    if volume_hu.dtype == np.int16:
        return volume_hu
    return np.nan_to_num(volume_hu, nan=-3024).clip(-32768, 32767).astype(np.int16)


def _enclosed_air(
    coarse_hu: np.ndarray,
    padding: np.ndarray,
    threshold_hu: float,
    spacing_zyx_mm: Spacing,
) -> tuple[EnclosedAir, tuple[slice, slice, slice]] | None:
    """Find the air inside the patient, windpipe taken out, and cut everything down to its box."""
    # Padding is neither air nor body: lungs cut by the field of view end there.
    low = coarse_hu < threshold_hu
    body = find_body((~low).astype(np.uint8), spacing_zyx_mm)
    rays = enclosing_rays(body)
    air = (low & ~padding).astype(np.uint8)
    outside = outside_air(air, rays)
    candidate = air ^ outside
    if not candidate.any():
        return None
    box = bounding_box(candidate, BOX_RIM)
    middle_x = patient_middle(coarse_hu, body, spacing_zyx_mm) - box[2].start
    candidate, outside = candidate[box].copy(), outside[box].copy()
    airway = follow_airway(coarse_hu[box], candidate, outside, middle_x, spacing_zyx_mm)
    candidate &= airway.mask ^ 1
    found = EnclosedAir(
        coarse_hu=coarse_hu[box],
        candidate=candidate,
        outside=outside,
        rays=rays[box],
        middle_x=middle_x,
        body_ml=float(np.count_nonzero(body)) * float(np.prod(spacing_zyx_mm)) / 1000.0,
        spacing_zyx_mm=spacing_zyx_mm,
        flags=() if airway.carina_zyx else ("no_carina" if airway.mask.any() else "no_windpipe",),
    )
    return found, box


__all__ = ["segment_lungs", "segment_with_fallback"]

LUNA16_RIGHT, LUNA16_LEFT = 4, 3
"""Values of the lungs in LUNA16's own masks; 5 is the windpipe."""


def segment_with_fallback(
    volume_hu: np.ndarray,
    *,
    spacing_zyx_mm: Spacing,
    luna16_mask: np.ndarray | None = None,
    prefer: Literal["otsu", "luna16"] = "otsu",
    closing_mm: float = 16.0,
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
    shares = {v: (labels == v) * np.uint8(FULL) for v in (RIGHT, LEFT) if (labels == v).any()}
    whole = _no_lungs(grid.shape_zyx)
    if shares:
        whole = complete_lungs(
            shares, nowhere, closing_mm=closing_mm, spacing_zyx_mm=grid.spacing_zyx_mm
        )
    flags = shape_flags(whole.labels, nowhere > 0, grid.voxel_ml)
    return LungSegmentation(
        coarse_labels=whole.labels,
        coarse_share=whole.share,
        coarse_filled=whole.filled,
        grid=grid,
        margin_mm=margin_mm,
        method="luna16",
        threshold_hu=float("nan"),
        flags=flags,
        verdict=verdict_of(whole.labels, grid, flags),
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
        coarse_share=labels * np.uint8(FULL),
        coarse_filled=np.zeros(labels.shape, bool),
        grid=grid,
        margin_mm=0.0,
        method="body",
        threshold_hu=threshold_hu,
        flags=flags,
        verdict="implausible",
    )
