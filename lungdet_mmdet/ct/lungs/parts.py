# SPDX-License-Identifier: Apache-2.0
"""Which air inside the patient is lung, and which lung: components, sides, splitting.

All arrays are (z, y, x) on the coarse grid; x grows towards the patient's left. Masks are uint8
arrays of 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lungdet_mmdet.ct.lungs.morphology import (
    Mask,
    Spacing,
    bounding_box,
    components,
    dilate,
    erode,
    grow_labels,
    opening,
)

RIGHT, LEFT, NO_LUNG = 1, 2, 3
"""Labels; a single lung is RIGHT or LEFT by its side of the body."""
GAS_HU = -960
"""Block means of gas are below, those of lung above; emphysema is told apart by its neighbours."""
BUBBLE_OPENING_MM = 4.0
MIN_BUBBLE_ML = 4.0
RIM_MM = 6.0
"""Width of the surroundings of a bubble or component that are searched."""
MIN_TISSUE_SHARE = 0.6
"""A bubble in the stomach is wrapped in tissue, a bulla lies in lung."""


def find_gas(coarse_hu: np.ndarray, air: Mask, spacing_zyx_mm: Spacing) -> Mask:
    """Find bubbles of gas in the lower half of the enclosed air.

    Parameters
    ----------
    coarse_hu : int16 (z, y, x), z growing towards the head.
    air : uint8 enclosed air, lungs and bubbles together.
    spacing_zyx_mm : voxel size.

    Returns
    -------
    uint8 (z, y, x), the bubbles' inner part.
    """
    bubbles = np.zeros_like(air)
    dark = ((coarse_hu < GAS_HU) & (air > 0)).astype(np.uint8)
    levels = np.flatnonzero(air.any(axis=(1, 2)))
    if not dark.any():
        return bubbles
    middle_z = 0.5 * (levels[0] + levels[-1])
    parts, _ = ndimage.label(opening(dark, BUBBLE_OPENING_MM, spacing_zyx_mm))
    voxel_ml = float(np.prod(spacing_zyx_mm)) / 1000.0
    reach = [int(RIM_MM / s) + 1 for s in spacing_zyx_mm]
    for index, found in enumerate(ndimage.find_objects(parts), start=1):
        box = tuple(
            slice(max(s.start - r, 0), s.stop + r) for s, r in zip(found, reach, strict=True)
        )
        part = parts[box] == index
        low = 0.5 * (found[0].start + found[0].stop) < middle_z
        if not low or part.sum() * voxel_ml < MIN_BUBBLE_ML:
            continue
        rim = dilate(part.astype(np.uint8), RIM_MM, spacing_zyx_mm) > part
        # Half-filled blocks at its edge say nothing about what wraps the bubble.
        rim &= (dark[box] == 0) & ((air[box] == 0) | (coarse_hu[box] > GAS_HU + 40))
        if rim.any() and float((air[box][rim] == 0).mean()) >= MIN_TISSUE_SHARE:
            bubbles[box][part] = 1
    return bubbles


COMPONENTS_LOOKED_AT = 24
SECOND_LUNG_SHARE = 0.015
"""A collapsed lung of 50 ml beside one of 3 litres is still a lung."""
PIECE_SHARE = 0.004
"""Smaller components, relative to the largest lung, only join by growing."""
SPLIT_EROSIONS_MM = (6.0, 9.0, 12.0, 15.0)
"""Tried in turn until lungs that touch fall apart."""
SPLIT_SHARE = 0.2


@dataclass(frozen=True)
class PartRules:
    """What makes a component of enclosed air a lung.

    Parameters
    ----------
    min_mean_rays : mean number of its rays, of eight, that end in the body. Lungs have 7.5 to 8,
        those cut by the field of view about 6.7, arm pits 5.
    max_open_share : largest part of its surroundings that may be air outside the patient.
    gas_median_hu : small components below are gas of stomach or bowel.
    pure_gas_median_hu : components of any size below are gas; emphysema does not get there.
    small_ml : limit of "small".
    """

    min_mean_rays: float = 4.5
    max_open_share: float = 0.12
    gas_median_hu: float = -930.0
    pure_gas_median_hu: float = -975.0
    small_ml: float = 150.0


LOOSE_RULES = PartRules(
    min_mean_rays=4.0,
    max_open_share=0.4,
    gas_median_hu=-950.0,
    pure_gas_median_hu=-985.0,
    small_ml=150.0,
)


@dataclass(frozen=True)
class EnclosedAir:
    """Air inside the patient with what is needed to judge it.

    Parameters
    ----------
    coarse_hu : int16 block means.
    candidate : enclosed air, windpipe taken out.
    outside : air outside the patient.
    rays : result of `body.enclosing_rays`.
    middle_x : column that parts the patient's right from left.
    spacing_zyx_mm : voxel size.
    body_ml : volume of the body's tissue.
    flags : "no_windpipe" or "no_carina" where these were not found.
    """

    coarse_hu: np.ndarray
    candidate: Mask
    outside: Mask
    rays: np.ndarray
    middle_x: float
    spacing_zyx_mm: Spacing
    body_ml: float = 0.0
    flags: tuple[str, ...] = ()

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(np.prod(self.spacing_zyx_mm)) / 1000.0


@dataclass(frozen=True)
class _Part:
    """One lung component: where it is, how large, and how much of it lies on the left."""

    box: tuple[slice, ...]
    voxels: np.ndarray
    ml: float
    left_share: float


def label_lungs(
    air: EnclosedAir, *, erosion_mm: float, rules: PartRules
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Label the air of the right and the left lung.

    The air is eroded, its components are judged, and all of them, lungs or not, grow back and
    meet where they touched. Lungs that stay joined are eroded more strongly.

    Returns
    -------
    uint8 (z, y, x) of 0, RIGHT and LEFT, and flags ("joined_lungs_split", "lungs_joined").
    """
    gas = find_gas(air.coarse_hu, air.candidate, air.spacing_zyx_mm)
    seeds, joined = _seeds(air, gas, erosion_mm, rules)
    if not joined:
        return _grown(seeds, air), ()
    for stronger_mm in SPLIT_EROSIONS_MM:
        if stronger_mm <= erosion_mm:
            continue
        stronger, still_joined = _seeds(air, gas, stronger_mm, rules)
        # An erosion that leaves lung on one side only has lost a lung, not split two.
        if not still_joined and (stronger == RIGHT).any() and (stronger == LEFT).any():
            return _grown(stronger, air), ("joined_lungs_split",)
    return _grown(seeds, air), ("lungs_joined",)


def _grown(seeds: np.ndarray, air: EnclosedAir) -> np.ndarray:
    """Give the eroded air back to the components, and keep the lungs."""
    labels = grow_labels(seeds, air.candidate)
    labels[labels == NO_LUNG] = 0
    return labels


def _seeds(
    air: EnclosedAir, gas: Mask, erosion_mm: float, rules: PartRules
) -> tuple[np.ndarray, bool]:
    """Label the eroded components; also tell whether one of them is two joined lungs."""
    core = erode(air.candidate ^ gas, erosion_mm, air.spacing_zyx_mm)
    seeds = gas * np.uint8(NO_LUNG)
    labels, sizes = components(core)
    if not sizes.any():
        return seeds, False
    parts: list[_Part] = []
    for index in np.argsort(sizes[1:])[::-1][:COMPONENTS_LOOKED_AT] + 1:
        ml = float(sizes[index]) * air.voxel_ml
        if parts and ml < PIECE_SHARE * parts[0].ml:
            break
        voxels = labels == index
        box = bounding_box(voxels, (2, 2, 2))
        voxels = voxels[box]
        if not _is_lung(air, box, voxels, ml, parts[0].ml if parts else ml, rules):
            seeds[box][voxels] = NO_LUNG
            continue
        profile = voxels.sum(axis=(0, 1))
        columns = np.arange(box[2].start, box[2].stop)
        left_share = float(profile[columns > air.middle_x].sum() / profile.sum())
        parts.append(_Part(box, voxels, ml, left_share))
    return seeds, _assign_sides(seeds, parts)


def _is_lung(
    air: EnclosedAir,
    box: tuple[slice, ...],
    voxels: np.ndarray,
    ml: float,
    largest_ml: float,
    rules: PartRules,
) -> bool:
    """Tell lung from gas of stomach and bowel, and from air outside the patient."""
    median_hu = float(np.median(air.coarse_hu[box][voxels]))
    small = ml < rules.small_ml and ml <= largest_ml
    if median_hu < rules.pure_gas_median_hu or (small and median_hu < rules.gas_median_hu):
        return False
    if air.rays[box][voxels].mean() < rules.min_mean_rays:
        return False
    rim = (dilate(voxels.astype(np.uint8), RIM_MM, air.spacing_zyx_mm) > 0) & ~voxels
    return not rim.any() or float(air.outside[box][rim].mean()) <= rules.max_open_share


def _assign_sides(seeds: np.ndarray, parts: list[_Part]) -> bool:
    """Write RIGHT and LEFT into ``seeds``; tell whether the largest part is both lungs joined."""
    if not parts:
        return False
    main = parts[0]
    main_is_left = main.left_share > 0.5
    for part in parts:
        other_side = (part.left_share > 0.5) != main_is_left
        second = other_side and part.ml >= SECOND_LUNG_SHARE * main.ml
        left = main_is_left != second
        seeds[part.box][part.voxels] = LEFT if left else RIGHT
    largest_other = max((p.ml for p in parts if (p.left_share > 0.5) != main_is_left), default=0.0)
    straddles = SPLIT_SHARE < main.left_share < 1 - SPLIT_SHARE
    return straddles and largest_other < SPLIT_SHARE * main.ml
