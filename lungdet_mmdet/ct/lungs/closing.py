"""Completing the lungs' air to whole lungs: vessels, nodules and lost parts of the surface."""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy import ndimage

from lungdet_mmdet.ct.lungs.morphology import (
    Mask,
    Spacing,
    bounding_box,
    closing,
    fill_holes,
    opening,
)
from lungdet_mmdet.ct.lungs.parts import LEFT, RIGHT

BAY_OPENING_MM = 4.0
"""Bays thinner than this are the unevenness of the chest wall, not lost lung."""
MIN_BAY_ML = 1.0
MIN_BAY_HEIGHT_MM = 7.5
MIN_BAY_DEPTH_MM = 5.0
MAX_BAY_SHARE = 0.6
"""A bay of more than this share of the slice's lung area is the liver within its crescent."""
OUTWARD_COSINE = 0.35
"""A bay belongs to the chest wall when its mouth faces outwards by at least this much."""
DENSE_HU = (-200.0, 200.0)


def close_lungs(
    labels: np.ndarray, outside: Mask, *, closing_mm: float, spacing_zyx_mm: Spacing
) -> np.ndarray:
    """Close each lung on its own with a ball and fill what it encloses.

    Parameters
    ----------
    labels : uint8 (z, y, x): 0, RIGHT, LEFT.
    outside : air outside the patient, never added.
    closing_mm : radius of the ball.
    spacing_zyx_mm : voxel size.

    Returns
    -------
    uint8 (z, y, x) labels, larger than or equal to the given ones.
    """
    closed = labels.copy()
    for label in (RIGHT, LEFT):
        lung = (labels == label).astype(np.uint8)
        if not lung.any():
            continue
        box = bounding_box(lung, (1, 1, 1))  # a closing stays within the convex hull
        full = fill_holes(closing(lung[box], closing_mm, spacing_zyx_mm))
        closed[box][(full > 0) & (closed[box] == 0) & (outside[box] == 0)] = label
    return closed


def fill_chest_wall_bays(
    labels: np.ndarray,
    coarse_hu: np.ndarray,
    outside: Mask,
    spacing_zyx_mm: Spacing,
) -> tuple[np.ndarray, float]:
    """Add dense bays that open towards the chest wall: consolidation and large pleural tumours.

    In each slice a lung is convex towards the chest wall. Where its convex hull holds soft tissue
    that faces outwards, lung has been lost; towards heart and liver it is meant to
    be hollow, and nothing is added.

    Returns
    -------
    uint8 (z, y, x) labels, and the added volume in millilitres.
    """
    filled = labels.copy()
    added_voxels = 0
    voxel_ml = float(np.prod(spacing_zyx_mm)) / 1000.0
    for label, outward_x in ((RIGHT, -1.0), (LEFT, 1.0)):
        lung = (labels == label).astype(np.uint8)
        if not lung.any():
            continue
        box = bounding_box(lung)
        hull = np.stack([_hull(plane) for plane in lung[box]])
        hu = coarse_hu[box]
        bay = (hull > 0) & (labels[box] == 0) & (outside[box] == 0)
        bay &= (hu >= DENSE_HU[0]) & (hu <= DENSE_HU[1])
        bay = opening(bay.astype(np.uint8), BAY_OPENING_MM, spacing_zyx_mm)
        kept = _bays_facing_out(bay, hull, lung[box], outward_x, spacing_zyx_mm)
        added = _large_enough(kept, spacing_zyx_mm)
        filled[box][added] = label
        added_voxels += int(added.sum())
    return filled, added_voxels * voxel_ml


def _large_enough(bays: np.ndarray, spacing_zyx_mm: Spacing) -> np.ndarray:
    """Drop bays of little volume, and those that only a slice or two show."""
    components, _ = ndimage.label(bays)
    least = 1000.0 * MIN_BAY_ML / float(np.prod(spacing_zyx_mm))
    kept = np.zeros(bays.shape, bool)
    for index, box in enumerate(ndimage.find_objects(components), start=1):
        part = components[box] == index
        height_mm = part.shape[0] * spacing_zyx_mm[0]
        if part.sum() >= least and height_mm >= MIN_BAY_HEIGHT_MM:
            kept[box] |= part
    return kept


def _hull(plane: Mask) -> Mask:
    """Fill the convex hull of a slice's foreground."""
    hull = np.zeros(plane.shape, np.uint8)
    points = cv2.findNonZero(plane)
    if points is not None:
        cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return hull


def _bays_facing_out(
    bay: Mask, hull: Mask, lung: Mask, outward_x: float, spacing_zyx_mm: Spacing
) -> np.ndarray:
    """Keep the in-plane bays whose mouth lies on the outer side of the lung."""
    kept = np.zeros(bay.shape, bool)
    cross = np.ones((3, 3), np.uint8)
    for k in range(bay.shape[0]):
        if not bay[k].any():
            continue
        count, components = cv2.connectedComponents(bay[k], connectivity=4)
        mouth = cv2.dilate(hull[k] ^ 1, cross, borderValue=1)
        shore = cv2.dilate(lung[k], cross, iterations=2)
        largest = MAX_BAY_SHARE * lung[k].sum()
        for index in range(1, count):
            part = components == index
            if part.sum() > largest:
                continue
            open_y, open_x = np.nonzero(part & (mouth > 0))
            shore_y, shore_x = np.nonzero(part & (shore > 0))
            if open_y.size == 0 or shore_y.size == 0:
                continue
            dy = (open_y.mean() - shore_y.mean()) * spacing_zyx_mm[1]
            dx = (open_x.mean() - shore_x.mean()) * spacing_zyx_mm[2] * outward_x
            length = math.hypot(dy, dx)
            if length >= MIN_BAY_DEPTH_MM and dx > OUTWARD_COSINE * length:
                kept[k] |= part
    return kept
