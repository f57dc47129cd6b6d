"""Lung segmentation: Otsu, connected components, erosion, closing (paper, section 3.1).

The mask is found on a grid of about 3 mm and brought to the scan's grid by linear interpolation.
The erosion is what separates the lungs from gut, windpipe and each other; their components then
grow back to the surface they had, so that it costs no nodule. The closing brings back vessels and
the nodules on the surface.
"""

from __future__ import annotations

import numpy as np

from lungdet_mmdet.ct.lungs.airway import follow_airway
from lungdet_mmdet.ct.lungs.body import enclosing_rays, find_body, outside_air
from lungdet_mmdet.ct.lungs.closing import close_lungs, fill_chest_wall_bays
from lungdet_mmdet.ct.lungs.grid import CoarseGrid
from lungdet_mmdet.ct.lungs.morphology import Spacing, bounding_box
from lungdet_mmdet.ct.lungs.parts import LOOSE_RULES, EnclosedAir, PartRules, label_lungs
from lungdet_mmdet.ct.lungs.segmentation import LungSegmentation, shape_flags, verdict_of
from lungdet_mmdet.ct.lungs.threshold import clamped_otsu
from lungdet_mmdet.ct.scan import PADDING_BELOW_HU
from lungdet_mmdet.errors import LungDetError

BOX_RIM = (4, 4, 4)
"""Blocks kept around the enclosed air: room for the closing."""
LOOSE_CLAMP_HU = (-300.0, -200.0)
"""A higher threshold takes in fibrotic and half-filled lung."""


def segment_lungs(
    volume_hu: np.ndarray,
    *,
    spacing_zyx_mm: Spacing,
    closing_mm: float = 12.0,
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
    closing_mm : radius of the ball that closes each lung; it brings back vessels and nodules on
        the pleura. 8 mm leaves pleural nodules of 20 mm half outside, 12 mm covers them for 0.4 %
        more volume.
    erosion_mm : erosion that parts the air into components; stronger ones are tried where the
        lungs stay joined. Undone afterwards within the air, see the module's text.
    margin_mm : how far the final mask reaches beyond the surface found, for the rim of pleural
        nodules that the blocks' size would cost. Not part of the reported volumes.
    grid_mm : size of the blocks on which the lungs are found.
    otsu_clamp_hu : range that Otsu's threshold is kept in.
    fill_bays : add large dense bays that open towards the chest wall (consolidation).
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
    labels = np.zeros(grid.shape_zyx, np.uint8)
    enclosed = _enclosed_air(coarse_hu, padding, threshold, grid.spacing_zyx_mm)
    if enclosed is not None:
        air, box = enclosed
        part, more = label_lungs(
            air, erosion_mm=erosion_mm, rules=LOOSE_RULES if loose else PartRules()
        )
        flags += more
        part = close_lungs(
            part, air.outside, closing_mm=closing_mm, spacing_zyx_mm=grid.spacing_zyx_mm
        )
        if fill_bays and not loose:
            part, bay_ml = fill_chest_wall_bays(
                part, air.coarse_hu, air.outside, grid.spacing_zyx_mm
            )
            flags += ["chest_wall_bay_filled"] if bay_ml else []
        labels[box] = part
    labels[padding] = 0
    flags += shape_flags(labels, padding, grid.voxel_ml)
    return LungSegmentation(
        coarse_labels=labels,
        grid=grid,
        margin_mm=margin_mm,
        method="otsu-loose" if loose else "otsu",
        threshold_hu=threshold,
        flags=tuple(flags),
        verdict=verdict_of(labels, grid, tuple(flags), loose=loose),
    )


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
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    candidate, outside, body = candidate[box].copy(), outside[box].copy(), body[box]
    candidate &= follow_airway(coarse_hu[box], candidate, body, spacing_zyx_mm) ^ 1
    found = EnclosedAir(
        coarse_hu=coarse_hu[box],
        candidate=candidate,
        outside=outside,
        rays=rays[box],
        middle_x=0.5 * float(columns[0] + columns[-1]) - box[2].start,
        spacing_zyx_mm=spacing_zyx_mm,
    )
    return found, box
