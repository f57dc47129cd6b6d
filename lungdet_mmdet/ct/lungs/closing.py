# SPDX-License-Identifier: Apache-2.0
"""Completing the lungs' air to whole lungs: vessels, nodules and lost parts of the surface.

Works on shares: how much of a block is lung, 0 to `FULL`. A closing of shares keeps the surface
where it lies between the blocks, so that the mask has no steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from lungdet_mmdet.ct.lungs.grid import FULL, CoarseGrid
from lungdet_mmdet.ct.lungs.morphology import (
    Mask,
    Spacing,
    bounding_box,
    closing,
    components,
    dilate,
    fill_holes,
    opening,
)

HALF = FULL // 2
HALF_WIDTH_HU = 400.0
"""A block this far below the threshold is all lung, this far above it is none."""
TOUCHING = 1.8
"""Radius in blocks, between the diagonal of a cube (1.73) and the next block but one (2)."""
BAY_GRID_MM = 6.0
"""Large bays are found on blocks of this size."""
WALL_BALL_MM = 40.0
WALL_HEIGHT_MM = 60.0
"""A bay that a ball of this radius does not enter is lost lung, where lung lies above and below
it within this height. Heart, aorta, spine and liver have no lung below or above them."""
ANY_BALL_MM = 25.0
"""So is a bay that this ball does not enter, wherever it is: apex and diaphragm."""
COSTAL_HEIGHT_MM = 130.0
COSTAL_REACH_MM = 12.0
"""The mouth of a bay in the chest wall lies this near to the hull of both lungs together."""
MIN_COSTAL_SHARE = 0.6
MAX_BAY_SHARE = 0.6
"""A bay of more than this share of the slice's lung area is the liver within its crescent."""
BAY_OPENING_MM = 6.0
MIN_FILLED, MIN_FILLED_AT_WALL = 0.4, 0.3
"""Rise of a block's share from which it counts as filled; the chest wall has hardly any other
bays than lesions, heart and hilum are full of them."""
MIN_BAY_ML = 0.4
BULK_MM = 16.0
SMALL_BAY_MM = 41.0
FLAT_SHARE = 0.37
"""Away from the chest wall a filled bay holds a ball of the first diameter, or is nowhere longer
than the second, or its shortest axis is at least this share of its longest. What is long and flat
and thin lies on the rounded sides of the heart and the aortic arch."""
BULK_RIM_MM = 9.0
NEAR_FILLED_MM = 9.0
"""Around filled blocks the surface is drawn as the filling draws it."""
LESION_RADII_MM = 3.5, 5.5
"""Tissue within the surface that holds a ball of this radius is a lesion, or a large vessel; over
large ones the surface is moved twice."""
LESION_RIM_MM = 7.0
LESION_BULGE = 0.9
"""Blocks by which a lung bulges beyond the chords that close it over a lesion."""
OUTER_MM = 25.0
LARGE_LESION_MM, LARGE_AT_HILUM_MM = 16.0, 25.0
"""Tissue that holds a ball of this diameter counts as filled, however it came into the mask; the
vessels of the hilum, further than `OUTER_MM` from the chest wall, hold one of about 20 mm."""


@dataclass(frozen=True)
class WholeLungs:
    """Lungs with vessels, nodules and lost parts of the surface, on the blocks.

    Parameters
    ----------
    labels : uint8 (z, y, x): 0, RIGHT, LEFT; blocks that are at least half lung.
    share : uint8 (z, y, x), 0 to `FULL`: how much of a block lies within the surface.
    filled : bool (z, y, x): blocks of tissue that only the filling of large bays has added, and
        large lesions.
    has_large_lesion : whether a lesion was filled that is worth a look.
    """

    labels: np.ndarray
    share: np.ndarray
    filled: np.ndarray
    has_large_lesion: bool = False


def air_share(
    lung: Mask, coarse_hu: np.ndarray, no_lung: np.ndarray, *, threshold_hu: float
) -> np.ndarray:
    """Tell how much of a block is lung, by its mean: half of it at the threshold.

    Parameters
    ----------
    lung : uint8 0/1 (z, y, x), the air of one lung.
    coarse_hu : int16 block means.
    no_lung : other air, which has no share.
    threshold_hu : between air and tissue.

    Returns
    -------
    uint8 (z, y, x), 0 to `FULL`; above 0 only in the lung and the blocks that touch it.
    """
    share = np.zeros(lung.shape, np.uint8)
    box = bounding_box(lung, (1, 1, 1))
    # In units of blocks a ball of this radius holds all blocks that touch, and no others.
    near = dilate(lung[box], TOUCHING, (1.0, 1.0, 1.0)) > 0
    near &= (no_lung[box] == 0) | (lung[box] > 0)
    scale = 0.5 * FULL / HALF_WIDTH_HU
    level = np.clip((threshold_hu + HALF_WIDTH_HU - coarse_hu[box]) * scale, 0, FULL)
    share[box] = np.where(near, level, 0)
    return share


def complete_lungs(
    shares: dict[int, np.ndarray],
    outside: Mask,
    *,
    closing_mm: float,
    spacing_zyx_mm: Spacing,
    tissue: Mask | None = None,
    middle_x: float | None = None,
) -> WholeLungs:
    """Close each lung with a ball, fill what it encloses and the large bays of its surface.

    Parameters
    ----------
    shares : by label (RIGHT, LEFT) how much of a block is that lung's air (uint8 (z, y, x)).
    outside : air outside the patient and padding, never added.
    closing_mm : radius of the ball.
    spacing_zyx_mm : size of a block.
    tissue : blocks denser than the threshold; None fills no large bays.
    middle_x : column of the patient's middle; None fills no large bays.
    """
    closed: dict[int, np.ndarray] = {}
    for label, share in shares.items():
        box = bounding_box(share, (1, 1, 1))  # a closing stays within the convex hull
        part = closing(share[box], closing_mm, spacing_zyx_mm)
        holes = fill_holes((part >= HALF).astype(np.uint8)) > 0
        part[holes & (part < HALF)] = FULL
        closed[label] = np.zeros_like(share)
        closed[label][box] = part
        closed[label][outside > 0] = 0
    net = _labelled(closed, outside.shape)
    if middle_x is None or tissue is None or not closed:
        return WholeLungs(net, _together(closed, outside.shape), np.zeros(outside.shape, bool))
    whole, outer = _with_bays(closed, outside, spacing_zyx_mm, middle_x)
    held = _labelled(whole, outside.shape) > 0
    solid = (held & (tissue > 0)).astype(np.uint8)
    large = (opening(solid, LARGE_LESION_MM / 2, spacing_zyx_mm) > 0) & outer
    large |= opening(solid, LARGE_AT_HILUM_MM / 2, spacing_zyx_mm) > 0
    added = (held & (net == 0)).astype(np.uint8)
    large |= opening(added, LARGE_LESION_MM / 2, spacing_zyx_mm) > 0
    whole = {k: _bulged(share, tissue, spacing_zyx_mm) for k, share in whole.items()}
    labels = _labelled(whole, outside.shape)
    labels[net > 0] = net[net > 0]
    filled = large | ((labels > 0) & (net == 0))
    return WholeLungs(labels, _together(whole, outside.shape), filled, bool(large.any()))


def _bulged(share: np.ndarray, tissue: Mask, spacing_zyx_mm: Spacing) -> np.ndarray:
    """Move the surface outwards over lesions: a closing draws chords, a lung is round.

    Most of all where a lesion sits in an edge of the lung, before the spine or at the apex.
    """
    box = bounding_box(share, (3, 3, 3))
    part, solid = share[box], tissue[box] > 0
    for radius_mm in LESION_RADII_MM:
        lesions = opening(((part >= HALF) & solid).astype(np.uint8), radius_mm, spacing_zyx_mm)
        near = (dilate(lesions, LESION_RIM_MM, spacing_zyx_mm) > 0) & solid
        grown = dilate(part, max(spacing_zyx_mm[1:]), spacing_zyx_mm) * LESION_BULGE
        part = np.where(near, np.maximum(part, grown.astype(np.uint8)), part)
    out = share.copy()
    out[box] = part
    return out


def _together(shares: dict[int, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, np.uint8)
    for share in shares.values():
        np.maximum(out, share, out=out)
    return out


def _labelled(shares: dict[int, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Give every block that is at least half full to the lung that has most of it."""
    labels = np.zeros(shape, np.uint8)
    best = np.full(shape, HALF - 1, np.uint8)
    for label, share in shares.items():
        labels[share > best] = label
        np.maximum(best, share, out=best)
    return labels


def _with_bays(
    closed: dict[int, np.ndarray], outside: Mask, spacing_zyx_mm: Spacing, middle_x: float
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Add the large bays to each lung's shares; also tell which blocks are near the chest wall."""
    grid = CoarseGrid.covering(outside.shape, spacing_zyx_mm, BAY_GRID_MM)
    coarse = {k: grid.block_mean(v.astype(np.int16)).astype(np.uint8) for k, v in closed.items()}
    hulls = _hulls_of_both(
        coarse, (middle_x - 0.5 * (grid.factors_zyx[2] - 1)) / grid.factors_zyx[2]
    )
    blocked = grid.block_mean((outside > 0).astype(np.int16) * np.int16(FULL)) > FULL // 2
    whole = {}
    for label, share in coarse.items():
        box = bounding_box(share, (1, 1, 1))
        part, spacing = share[box], grid.spacing_zyx_mm
        wall = _near_edge(hulls[box], COSTAL_REACH_MM, spacing)
        upright = _closed_upright(part, WALL_HEIGHT_MM, spacing[0])
        bays = np.minimum(closing(part, WALL_BALL_MM, spacing), upright)
        np.maximum(bays, closing(part, ANY_BALL_MM, spacing), out=bays)
        np.maximum(bays, _costal_bays(np.maximum(part, bays), wall, spacing), out=bays)
        holes = fill_holes((bays >= HALF).astype(np.uint8)) > 0
        bays[holes & (bays < HALF)] = FULL
        bays[blocked[box]] = 0
        least = np.where(wall, MIN_FILLED_AT_WALL, MIN_FILLED) * FULL
        raised = (bays > part + least).astype(np.uint8)
        raised = _large_parts(raised & ~_thin_caps(raised, wall, spacing), grid.voxel_ml)
        # At the chest wall the slices above and below show best where the surface was.
        bays = np.where(wall, np.maximum(bays, upright), bays)
        bays[blocked[box]] = 0
        # Where nothing was filled the finer surface stays as it is.
        near = dilate(raised, NEAR_FILLED_MM, spacing)
        full = np.zeros_like(share)
        full[box] = np.where(near > 0, np.maximum(bays, part), 0)
        fine = grid.interpolated(full)
        fine[outside > 0] = 0
        whole[label] = np.maximum(closed[label], fine)
    outer = _near_edge(hulls, OUTER_MM, grid.spacing_zyx_mm) * np.uint8(FULL)
    return whole, grid.interpolated(outer) >= HALF


def _thin_caps(raised: Mask, wall: np.ndarray, spacing_zyx_mm: Spacing) -> np.ndarray:
    """Find filled bays off the chest wall that are long, flat and hold no ball: the heart's side.

    None has its middle in a lung's rear half: a lesion beside the aorta looks like a part of it.
    """
    bulk = dilate(opening(raised, 0.5 * BULK_MM, spacing_zyx_mm), BULK_RIM_MM, spacing_zyx_mm)
    thin = (raised > 0) & ~wall & (bulk == 0)
    parts, _ = ndimage.label(thin)
    for index, box in enumerate(ndimage.find_objects(parts), start=1):
        part = parts[box] == index
        longest_mm = max(n * mm for n, mm in zip(part.shape, spacing_zyx_mm, strict=True))
        points = np.argwhere(part)
        in_front = box[1].start + points[:, 1].mean() < 0.5 * (thin.shape[1] - 1)
        if longest_mm <= SMALL_BAY_MM or not (in_front and _is_flat(points * spacing_zyx_mm)):
            thin[box][part] = False
    return thin


def _is_flat(points_mm: np.ndarray) -> bool:
    shortest, _, longest = np.sqrt(np.linalg.eigvalsh(np.cov(points_mm.T)).clip(0))
    return bool(shortest < FLAT_SHARE * longest)


def _large_parts(raised: np.ndarray, voxel_ml: float) -> Mask:
    """Drop what is too small to be a lesion that the closing of every lung has not held."""
    labels, sizes = components(raised)
    return (sizes * voxel_ml >= MIN_BAY_ML)[labels].astype(np.uint8)


def _closed_upright(share: np.ndarray, height_mm: float, spacing_z_mm: float) -> np.ndarray:
    """Close along z only: what has lung above and below within ``height_mm``."""
    reach = max(round(height_mm / spacing_z_mm), 1)
    flat = np.pad(share.reshape(share.shape[0], -1), ((reach, reach), (0, 0)), mode="edge")
    line = np.ones((reach + 1, 1), np.uint8)
    closed = cv2.morphologyEx(flat, cv2.MORPH_CLOSE, line)
    return closed[reach : reach + share.shape[0]].reshape(share.shape)


def _hulls_of_both(shares: dict[int, np.ndarray], middle_x: float) -> np.ndarray:
    """Draw in every slice the hull of both lungs, each also mirrored to the other side.

    Its edge is the chest wall; what faces heart or spine lies within, even where one lung is
    missing or cut by the field of view.
    """
    lungs = np.maximum.reduce([share >= HALF for share in shares.values()])
    hulls = np.zeros(lungs.shape, np.uint8)
    for plane, hull in zip(lungs, hulls, strict=True):
        y, x = np.nonzero(plane)
        if x.size:
            points = np.stack([np.concatenate([x, 2 * middle_x - x]), np.concatenate([y, y])], 1)
            cv2.fillConvexPoly(hull, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
    return hulls


def _costal_bays(share: np.ndarray, wall: np.ndarray, spacing_zyx_mm: Spacing) -> np.ndarray:
    """Find tissue within a lung's hull that opens towards the chest wall, of whatever size.

    In each slice a lung is convex towards the chest wall. Where its convex hull holds tissue
    there, lung has been lost: consolidation, a large tumour. Towards heart and liver it is meant
    to be hollow.
    """
    lung = (share >= HALF).astype(np.uint8)
    hull = np.stack([_hull(plane) for plane in lung])
    bay = ((hull > 0) & (lung == 0)).astype(np.uint8)
    bay &= _closed_upright(share, COSTAL_HEIGHT_MM, spacing_zyx_mm[0]) >= HALF
    bay = opening(bay, BAY_OPENING_MM, spacing_zyx_mm)
    kept = np.zeros(bay.shape, np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for k in np.flatnonzero(bay.any(axis=(1, 2))):
        count, bays = cv2.connectedComponents(bay[k], connectivity=4)
        mouth = cv2.dilate(hull[k] ^ 1, cross, borderValue=1) > 0
        largest = MAX_BAY_SHARE * lung[k].sum()
        for index in range(1, count):
            part = bays == index
            open_part = part & mouth
            if part.sum() <= largest and open_part.any():
                kept[k][part] = wall[k][open_part].mean() >= MIN_COSTAL_SHARE
    return kept * np.uint8(FULL)


def _near_edge(hulls: Mask, reach_mm: float, spacing_zyx_mm: Spacing) -> np.ndarray:
    """Tell what lies outside the hulls or within ``reach_mm`` of that, in-plane."""
    y, x = (max(round(reach_mm / s), 1) for s in spacing_zyx_mm[1:])
    ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * x + 1, 2 * y + 1))
    return np.stack([cv2.erode(plane, ball, borderValue=0) == 0 for plane in hulls])


def _hull(plane: Mask) -> Mask:
    """Fill the convex hull of a slice's foreground."""
    hull = np.zeros(plane.shape, np.uint8)
    points = cv2.findNonZero(plane)
    if points is not None:
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull
