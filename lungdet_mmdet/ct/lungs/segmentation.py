# SPDX-License-Identifier: Apache-2.0
"""A lung mask with what is needed to trust it: volumes, flags and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from lungdet_mmdet.ct.lungs.grid import FULL, CoarseGrid
from lungdet_mmdet.ct.lungs.morphology import Mask, Spacing, bounding_box
from lungdet_mmdet.ct.lungs.parts import LEFT, RIGHT

Method = Literal["otsu", "otsu-loose", "luna16", "body"]
Verdict = Literal["ok", "suspect", "implausible"]

MAX_VOLUME_L = 12.0
"""The largest lungs at full inspiration hold about 10 litres."""
MIN_VOLUME_ML = 3.0
"""Less is no lung, even in a scan of the very apex."""
MIN_LOOSE_VOLUME_ML = 60.0
"""Under loose rules a windpipe or a gut would pass for a small lung."""
CUT_AREA_SHARE = 0.05
"""An end slice with this much of the largest lung area means that the scan ends inside the lung."""
ASYMMETRY = 0.25
BASE_SHARE = 0.4
"""Below, heart and diaphragms make the sides differ."""
MUCH_LESS, MISSING_SHARE = 0.4, 0.015
"""A part is missing where a lung has less than this share of the other's area, by this share of
the lungs' volume in all."""
LEVEL_OF_CARINA = 0.6
"""Share of the lungs' height; below it the heart fills the front of the chest."""
LARGE_DENSE_MM, DENSE_MM, LESS_AIR = 50.0, 34.0, 0.8
"""Tissue where the other lung has air: a ball of the first diameter is lost lung, and one of the
second where this lung has less air than this share of the other's. Beside sound lungs the great
vessels of a mediastinum that lies off the spine hold balls of up to 41 mm."""
DENSE_STEP_MM = 6.0
TINY_ML = 30.0
SUSPECT_FLAGS = frozenset(
    {
        "one_lung",
        "lungs_joined",
        "asymmetric",
        "tiny",
        "otsu_clamped",
        "large_lesion_filled",
        "opacified_part",
        "cut_by_fov",
        "abdomen",
    }
)
"""What makes a mask worth a look. "padding", "joined_lungs_split", "cut_above" and "cut_below" are
common in sound scans."""


@dataclass(frozen=True)
class LungSegmentation:
    """Lungs of one scan.

    Parameters
    ----------
    coarse_labels : uint8 (z, y, x), one value per block of ``grid``: 0 outside, 1 right lung,
        2 left lung (1 for all where the sides are not known).
    coarse_share : uint8 (z, y, x), 0 to `FULL`: how much of a block lies within the surface.
    coarse_filled : bool (z, y, x): labelled blocks of tissue that lay in a large bay of the
        surface; not part of the reported volumes.
    grid : the blocks.
    margin_mm : how far the mask on the scan's grid reaches beyond the coarse surface.
    method : which rule made the mask.
    threshold_hu : threshold between air and tissue.
    flags : what was unusual.
    verdict : "ok", "suspect" (usable, worth a look) or "implausible" (not the lungs).
    """

    coarse_labels: np.ndarray
    coarse_share: np.ndarray
    coarse_filled: np.ndarray
    grid: CoarseGrid
    margin_mm: float
    method: Method
    threshold_hu: float
    flags: tuple[str, ...]
    verdict: Verdict

    @property
    def mask(self) -> Mask:
        """uint8 0/1 (z, y, x) of the scan's shape, made anew at each call."""
        return self.grid.to_scan(self.coarse_share, margin_mm=self.margin_mm)

    @property
    def filled_mask(self) -> Mask:
        """uint8 0/1 (z, y, x) of the scan's shape: the tissue that was filled in."""
        return self.grid.to_scan(self.coarse_filled * np.uint8(FULL))

    @property
    def lung_volumes_l(self) -> tuple[float, ...]:
        """Volume of each lung found in litres, right before left.

        Air, vessels and nodules inside the closed surface, without windpipe and main bronchi and
        without ``margin_mm``. Empty where the mask is the body's.
        """
        if self.method == "body":
            return ()
        counts = np.bincount(self.coarse_labels[~self.coarse_filled], minlength=3)
        return tuple(float(n) * self.grid.voxel_ml / 1000.0 for n in counts[1:3] if n)

    @property
    def filled_ml(self) -> float:
        """Volume of the tissue that the filling of large bays has added, in millilitres."""
        return float(np.count_nonzero(self.coarse_filled)) * self.grid.voxel_ml

    @property
    def volume_l(self) -> float:
        """Volume of all lungs in litres, 0.0 where none were found."""
        return float(sum(self.lung_volumes_l))

    @property
    def n_lungs(self) -> int:
        """Number of lungs told apart: 0, 1 or 2."""
        return len(self.lung_volumes_l)

    @property
    def slice_share(self) -> float:
        """Share of the scan's slices that hold lung."""
        return float(self.coarse_labels.any(axis=(1, 2)).mean())

    def bounding_box(self, *, rim_mm: float = 0.0) -> tuple[slice, slice, slice]:
        """Return the box around the lungs in voxels of the scan, z, y, x.

        It holds every non-zero voxel of `mask`. An empty mask gives the whole scan.

        Parameters
        ----------
        rim_mm : width added on every side, clipped to the scan.
        """
        scan = self.grid.scan_shape_zyx
        if not self.coarse_labels.any():
            return slice(0, scan[0]), slice(0, scan[1]), slice(0, scan[2])
        box = bounding_box((self.coarse_labels > 0).astype(np.uint8), (1, 1, 1))
        grown = []
        for axis, part in enumerate(box):
            factor = self.grid.factors_zyx[axis]
            rim = math.ceil(rim_mm * factor / self.grid.spacing_zyx_mm[axis])
            first, stop = part.start * factor - rim, part.stop * factor + rim
            grown.append(slice(max(first, 0), min(stop, scan[axis])))
        return grown[0], grown[1], grown[2]

    def summary(self) -> dict[str, object]:
        """Return what a manifest records, in plain types."""
        return {
            "method": self.method,
            "verdict": self.verdict,
            "threshold_hu": round(self.threshold_hu, 1),
            "volume_l": round(self.volume_l, 3),
            "lung_volumes_l": [round(v, 3) for v in self.lung_volumes_l],
            "filled_ml": round(self.filled_ml, 1),
            "n_lungs": self.n_lungs,
            "slice_share": round(self.slice_share, 4),
            "flags": list(self.flags),
        }


def shape_flags(labels: np.ndarray, padding: np.ndarray, voxel_ml: float) -> tuple[str, ...]:
    """Name what is unusual about labelled lungs.

    Parameters
    ----------
    labels : uint8 (z, y, x), z growing towards the head.
    padding : blocks without measured values.
    voxel_ml : volume of a block.

    Returns
    -------
    Some of "no_lungs", "one_lung", "asymmetric", "tiny", "cut_below", "cut_above",
    "opacified_part", "cut_by_fov". What `dense_part` sees is "opacified_part" too.
    """
    flags = []
    sizes = np.array([np.count_nonzero(labels == side) for side in (RIGHT, LEFT)])
    if not sizes.any():
        return ("no_lungs",)
    if not sizes.all():
        flags.append("one_lung")
    elif sizes.min() < ASYMMETRY * sizes.max():
        flags.append("asymmetric")
    if sizes.sum() * voxel_ml < TINY_ML:
        flags.append("tiny")
    area = np.count_nonzero(labels.reshape(labels.shape[0], -1), axis=1)
    if area[0] >= CUT_AREA_SHARE * area.max():
        flags.append("cut_below")
    if area[-1] >= CUT_AREA_SHARE * area.max():
        flags.append("cut_above")
    if sizes.all() and "asymmetric" not in flags and _lacks_a_part(labels):
        flags.append("opacified_part")
    if _touches_edge_of_view(labels > 0, padding):
        flags.append("cut_by_fov")
    return tuple(flags)


def _lacks_a_part(labels: np.ndarray) -> bool:
    """Tell whether one lung has hardly any air where the other has much, above the diaphragms."""
    areas = [np.count_nonzero(labels == side, axis=(1, 2)) for side in (RIGHT, LEFT)]
    levels = np.flatnonzero(areas[0] + areas[1])
    lowest = levels[0] + round(BASE_SHARE * levels.size)
    right, left = (area[lowest:].astype(float) for area in areas)
    missing = max(np.maximum(MUCH_LESS * a - b, 0).sum() for a, b in ((right, left), (left, right)))
    return bool(missing > MISSING_SHARE * (areas[0].sum() + areas[1].sum()))


def dense_part(
    air: np.ndarray, tissue: np.ndarray, middle_x: float, spacing_zyx_mm: Spacing
) -> bool:
    """Tell whether a large part of one lung is tissue where the other lung has air.

    Each lung's air is mirrored at the patient's middle. Of what lies there without air on the
    other side, heart and diaphragms are left out: the front half below the carina, and the base.

    Parameters
    ----------
    air : labels (uint8 (z, y, x)) of the lungs' air and vessels, without filled bays.
    tissue : bool or uint8 (z, y, x), denser than air.
    middle_x : column of the patient's middle.
    spacing_zyx_mm : size of a block.
    """
    steps = [max(round(DENSE_STEP_MM / s), 1) for s in spacing_zyx_mm]
    columns = np.arange(0, air.shape[2], steps[2])
    mirrored_x = np.rint(2 * middle_x - columns).astype(int)
    within = (mirrored_x >= 0) & (mirrored_x < air.shape[2])
    rows = np.s_[:: steps[0], :: steps[1]]
    lungs = air[rows] > 0
    mirrored = lungs[:, :, np.where(within, mirrored_x, 0)] & within
    dense = mirrored & ~lungs[:, :, columns] & (tissue[rows][:, :, columns] > 0)
    levels = np.flatnonzero(lungs.any(axis=(1, 2)))
    base, carina = (
        levels[0] + round(share * levels.size) for share in (BASE_SHARE, LEVEL_OF_CARINA)
    )
    depth = np.flatnonzero(lungs.any(axis=(0, 2)))
    dense[:base] = False
    dense[:carina, : (depth[0] + depth[-1]) // 2] = False
    sampling = [n * s for n, s in zip(steps, spacing_zyx_mm, strict=True)]
    above = np.arange(air.shape[0]) // steps[0] >= base
    volumes = {side: np.count_nonzero(air[above] == side) for side in (RIGHT, LEFT)}
    for side, other in ((RIGHT, LEFT), (LEFT, RIGHT)):
        own = dense & ((columns < middle_x) == (side == RIGHT))
        if not own.any():
            continue
        # The nearest empty block lies in the box around them, or one block beyond it.
        inside = own[bounding_box(own, (1, 1, 1))]
        ball_mm = 2 * ndimage.distance_transform_edt(inside, sampling=sampling).max()
        has_less = volumes[side] < LESS_AIR * volumes[other]
        if ball_mm > (DENSE_MM if has_less else LARGE_DENSE_MM):
            return True
    return False


def _touches_edge_of_view(lungs: np.ndarray, padding: np.ndarray) -> bool:
    """Tell whether lung reaches the image's border or the padding, in-plane."""
    touching = 0
    for axis in (1, 2):
        here, blank = lungs.swapaxes(0, axis), padding.swapaxes(0, axis)
        touching += int(here[0].sum() + here[-1].sum())
        touching += int((here[:-1] & blank[1:]).sum() + (here[1:] & blank[:-1]).sum())
    # A handful of blocks is a scratch at the edge of the field of view.
    return touching > 0.002 * lungs.sum()


def verdict_of(
    labels: np.ndarray, grid: CoarseGrid, flags: tuple[str, ...], *, loose: bool = False
) -> Verdict:
    """Judge labelled lungs by their volume and flags."""
    least_ml = MIN_LOOSE_VOLUME_ML if loose else MIN_VOLUME_ML
    volume_ml = int(np.count_nonzero((labels == RIGHT) | (labels == LEFT))) * grid.voxel_ml
    if not least_ml <= volume_ml <= 1000 * MAX_VOLUME_L:
        return "implausible"
    return "suspect" if SUSPECT_FLAGS.intersection(flags) else "ok"
