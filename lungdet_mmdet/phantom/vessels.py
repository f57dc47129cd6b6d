"""Grow branching trees of vessels and airways through the lungs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.phantom.anatomy import (
    CARINA,
    HILUM_LEFT,
    HILUM_RIGHT,
    LUNG_BASE_MM,
    LUNG_TOP_MM,
    TRACHEA_TOP,
    Anatomy,
)
from lungdet_mmdet.phantom.drawing import Tubes, concatenate

MURRAY_EXPONENT = 3.0
"""Radius of a parent: r^3 is the sum of its children's r^3 (Murray's law)."""

AIRWAY_MIN_LEAVES = 24
"""Airways are drawn beside arteries that feed at least so many leaves: the first generations."""

_AIRWAY_OFFSET_MM = np.array([0.0, 3.5, 3.0])
_VEIN_ROOT_SHIFT = np.array([0.0, 6.0, -26.0])


@dataclass(frozen=True)
class PulmonaryTrees:
    """Vessels and airways in patient millimetres.

    Parameters
    ----------
    vessels : arteries and veins of both lungs.
    lumens : air-filled tubes: trachea and main bronchi first (``n_central`` of them).
    n_central : how many of the lumens belong to trachea and main bronchi.
    wall_mm : thickness of the airways' walls, one per lumen.
    """

    vessels: Tubes
    lumens: Tubes
    n_central: int
    wall_mm: np.ndarray


def grow_pulmonary_trees(
    anatomy: Anatomy, rng: np.random.Generator, *, leaves_per_lung: int, leaf_radius_mm: float
) -> PulmonaryTrees:
    """Grow arteries, veins and airways of the lungs that the anatomy has.

    Parameters
    ----------
    leaves_per_lung : ends of the arteries of one lung.
    leaf_radius_mm : radius of these last vessels, some millimetres short of the pleura.
    """
    scale = np.array(anatomy.scale_xyz)
    vessels, airways = [], [_central_airways(anatomy)]
    n_central = len(airways[0])
    for hilum, present in ((HILUM_RIGHT, anatomy.right_lung), (HILUM_LEFT, anatomy.left_lung)):
        if not present:
            continue
        root = np.array(hilum)
        side = 1 if hilum[0] > 0 else -1
        for shift, share in ((np.zeros(3), 1.0), (_VEIN_ROOT_SHIFT, 0.8)):
            count = int(leaves_per_lung * share)
            targets = sample_in_lung(anatomy, rng, count, side=side, depth_mm=(2.0, 99.0))
            tree, leaves = _grow_tree((root + shift) * scale, targets * scale, leaf_radius_mm, rng)
            vessels.append(tree)
            if share == 1.0:
                airways.append(_beside(tree, leaves >= AIRWAY_MIN_LEAVES, side))
    lumens = concatenate(airways)
    wall = np.where(np.arange(len(lumens)) < n_central, 1.5, 0.45 + 0.2 * lumens.end_radius)
    return PulmonaryTrees(concatenate(vessels) if vessels else _none(), lumens, n_central, wall)


def sample_in_lung(
    anatomy: Anatomy,
    rng: np.random.Generator,
    count: int,
    *,
    side: int,
    depth_mm: tuple[float, float],
) -> np.ndarray:
    """Draw atlas points (count, 3) in the left (side 1) or right (-1) lung, or either (0).

    ``depth_mm`` bounds their distance from the pleura. Fewer points come back if the wanted
    region is almost empty.
    """
    found: list[np.ndarray] = []
    total = 0
    low = np.array([0.0 if side > 0 else -140.0, -100.0, LUNG_BASE_MM])
    high = np.array([0.0 if side < 0 else 140.0, 105.0, LUNG_TOP_MM])
    for _ in range(60):
        points = rng.uniform(low, high, size=(4 * count + 50, 3))
        depth = -anatomy.lung(points[:, 0], points[:, 1], points[:, 2])
        kept = points[(depth > depth_mm[0]) & (depth < depth_mm[1])]
        found.append(kept)
        total += len(kept)
        if total >= count:
            break
    return np.concatenate(found)[:count]


def _grow_tree(
    root: np.ndarray, targets: np.ndarray, leaf_radius_mm: float, rng: np.random.Generator
) -> tuple[Tubes, np.ndarray]:
    """Grow one tree from ``root`` that ends at every target.

    The targets are halved again and again across their longest extent; each half gets a branch
    that runs part of the way to its middle. Returns the tubes and, per tube, its leaf count.
    """
    rows: list[tuple[np.ndarray, np.ndarray, float, float, int]] = []
    radii = leaf_radius_mm * np.arange(len(targets) + 1) ** (1.0 / MURRAY_EXPONENT)
    pending = [(root, targets, float(radii[-1]))]
    while pending:
        start, group, start_radius = pending.pop()
        if len(group) == 0:
            continue
        end = group[0] if len(group) == 1 else _fork(start, group, rng)
        end_radius = float(radii[len(group)]) * (0.75 if len(group) == 1 else 1.0)
        rows.extend(_bent(start, end, start_radius, end_radius, len(group), rng))
        if len(group) > 1:
            for half in _halves(group, rng):
                pending.append((end, half, min(end_radius, 1.15 * float(radii[len(half)]))))
    starts, ends, radius0, radius1, leaves = (list(column) for column in zip(*rows, strict=True))
    tubes = Tubes(np.array(starts), np.array(ends), np.array(radius0), np.array(radius1))
    return tubes, np.array(leaves)


def _fork(start: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the point where the branch to a group of targets forks."""
    share = 0.55 if len(group) < 8 else 0.32
    return start + (share + rng.uniform(-0.08, 0.08)) * (group.mean(axis=0) - start)


def _halves(group: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split targets across their longest extent, not quite in the middle."""
    centred = group - group.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    order = np.argsort(centred @ axes[0], kind="stable")
    cut = int(np.clip(round(len(group) * rng.uniform(0.35, 0.65)), 1, len(group) - 1))
    return group[order[:cut]], group[order[cut:]]


def _bent(
    start: np.ndarray,
    end: np.ndarray,
    start_radius: float,
    end_radius: float,
    leaves: int,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, np.ndarray, float, float, int]]:
    """Return a branch as two tubes with a slight bend between them."""
    length = float(np.linalg.norm(end - start))
    middle = 0.5 * (start + end) + rng.normal(0.0, 0.035, size=3) * length
    radius = 0.5 * (start_radius + end_radius)
    return [
        (start, middle, start_radius, radius, leaves),
        (middle, end, radius, end_radius, leaves),
    ]


def _beside(tree: Tubes, keep: np.ndarray, side: int) -> Tubes:
    """Airways run beside the arteries, a constant step away, and are a little narrower."""
    shift = _AIRWAY_OFFSET_MM * np.array([side, 1.0, 1.0])
    return Tubes(
        tree.start_xyz[keep] + shift,
        tree.end_xyz[keep] + shift,
        0.85 * tree.start_radius[keep],
        0.85 * tree.end_radius[keep],
    )


def _central_airways(anatomy: Anatomy) -> Tubes:
    """Trachea and main bronchi; a tracheostomy leads out through the front of the neck."""
    shift = _AIRWAY_OFFSET_MM
    path: list[tuple[tuple[float, ...], tuple[float, ...], float, float]] = [
        (TRACHEA_TOP, CARINA, 8.5, 8.5)
    ]
    for hilum, present, side in (
        (HILUM_RIGHT, anatomy.right_lung, -1),
        (HILUM_LEFT, anatomy.left_lung, 1),
    ):
        end = np.array(hilum) * (1.0 if present else 0.6) + shift * np.array([side, 1.0, 1.0])
        path.append((CARINA, tuple(end), 6.8, 5.2 if present else 3.0))
    if anatomy.open_trachea:
        path.append(((0.0, -11.0, 108.0), (0.0, -130.0, 112.0), 7.0, 7.0))
    scale = np.array(anatomy.scale_xyz)
    return Tubes(
        np.array([row[0] for row in path]) * scale,
        np.array([row[1] for row in path]) * scale,
        np.array([row[2] for row in path]) * scale[0],
        np.array([row[3] for row in path]) * scale[0],
    )


def _none() -> Tubes:
    """No tubes at all."""
    return Tubes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0))
