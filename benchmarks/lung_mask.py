# SPDX-License-Identifier: Apache-2.0
"""How much of made-up lesions on the pleura the lung mask keeps, and what its margin costs.

Balls of soft tissue are set on the pleura of a scan, on blocks of about 3 mm, on which the mask is
found; nine places on each lung. What counts of a ball is the part within the mask of the scan
without balls.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from lungdet_mmdet.ct.lungs.grid import CoarseGrid
from lungdet_mmdet.ct.lungs.mask import segment_lungs
from lungdet_mmdet.ct.lungs.parts import LEFT, RIGHT
from lungdet_mmdet.ct.lungs.segmentation import LungSegmentation
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.resample import resample_volume
from lungdet_mmdet.ct.scan import LUNG_LEVEL_HU, LUNG_WIDTH_HU
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM

RESAMPLED_ZYX_MM = (1.25, 0.7, 0.7)
TISSUE_HU = 40
GRID_MM = 3.0
SAMPLES = 4
"""Along each axis of a block, for the share of it within a ball."""
_DIAGONAL = 0.7071
DIRECTIONS = {
    # (z, y, x), x away from the patient's middle; the level is a share of the lung's height
    "lateral": (0.5, (0, 0, 1)),
    "posterior": (0.5, (0, 1, 0)),
    "medial-posterior": (0.5, (0, _DIAGONAL, -_DIAGONAL)),
    "anterior": (0.5, (0, -1, 0)),
    "mediastinal": (0.5, (0, 0, -1)),
    "lateral, lower": (0.3, (0, 0, 1)),
    "posterior, upper": (0.75, (0, 1, 0)),
    "apex": (None, (1, 0, 0)),
    "base": (None, (-1, 0, 0)),
}
DEPTH = 0.5
"""A ball's centre lies within the pleura by this share of its radius."""
GROUPS = (
    ("lateral", "apex"),
    ("posterior", "base"),
    ("medial-posterior", "posterior, upper"),
    ("anterior", "lateral, lower"),
    ("mediastinal",),
)
"""Places far enough apart for one segmentation."""


def blocks_of(
    volume_hu: np.ndarray, spacing_zyx_mm: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Return the block means of a scan (z, y, x) and the size of a block."""
    grid = CoarseGrid.covering(volume_hu.shape, spacing_zyx_mm, GRID_MM)
    return grid.block_mean(volume_hu), grid.spacing_zyx_mm


def kept_shares(
    blocks_hu: np.ndarray, spacing_zyx_mm: tuple[float, float, float], diameter_mm: float
) -> dict[str, tuple[float, float]]:
    """Return per place of `DIRECTIONS` what the mask keeps of a ball on the right and left lung."""
    sound = _segment(blocks_hu, spacing_zyx_mm)
    lungs = {v: (sound.coarse_labels == v) & ~sound.coarse_filled for v in (RIGHT, LEFT)}
    within = (sound.mask > 0) & ~sound.coarse_filled
    kept: dict[str, tuple[float, float]] = {}
    for group in GROUPS:
        with_balls, balls = blocks_hu.copy(), {}
        for place in group:
            for side, lung in lungs.items():
                centre = ball_centre(lung, place, side, 0.5 * diameter_mm, spacing_zyx_mm)
                box, share = ball_share(blocks_hu.shape, centre, diameter_mm, spacing_zyx_mm)
                mixed = with_balls[box] * (1 - share) + TISSUE_HU * share
                with_balls[box] = np.rint(mixed)
                own = ndimage.binary_dilation(lung, np.ones((3, 3, 3)))[box] & within[box]
                balls[place, side] = box, share * own
        mask = _segment(with_balls, spacing_zyx_mm).mask > 0
        for place in group:
            right, left = (
                float((share * mask[box]).sum() / max(share.sum(), 1e-9))
                for box, share in (balls[place, RIGHT], balls[place, LEFT])
            )
            kept[place] = right, left
    return kept


def _segment(blocks_hu: np.ndarray, spacing_zyx_mm: tuple[float, float, float]) -> LungSegmentation:
    return segment_lungs(blocks_hu, spacing_zyx_mm=spacing_zyx_mm, grid_mm=min(spacing_zyx_mm))


def ball_centre(
    lung: np.ndarray,
    place: str,
    side: int,
    radius_mm: float,
    spacing_zyx_mm: tuple[float, float, float],
) -> np.ndarray:
    """Return where the ball's centre lies (z, y, x blocks), for a place of `DIRECTIONS`."""
    level, direction = DIRECTIONS[place]
    towards = np.array(direction, float) * (1, 1, 1 if side == LEFT else -1)
    levels = np.flatnonzero(lung.any(axis=(1, 2)))
    if level is None:
        middle = np.array([axis.mean() for axis in np.nonzero(lung)])
    else:
        z = round(levels[0] + level * (levels[-1] - levels[0]))
        middle = np.array([z, *(axis.mean() for axis in np.nonzero(lung[z]))])
    path = middle + np.arange(0, 400, 0.5)[:, None] * towards / spacing_zyx_mm
    index = np.rint(path).astype(int)
    index = index[((index >= 0) & (index < lung.shape)).all(axis=1)]
    last = np.flatnonzero(lung[tuple(index.T)])[-1]
    return path[last] - DEPTH * radius_mm * towards / spacing_zyx_mm


def ball_share(
    shape: tuple[int, ...],
    centre_zyx: np.ndarray,
    diameter_mm: float,
    spacing_zyx_mm: tuple[float, float, float],
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the box of blocks around a ball and the share of each that lies within it."""
    box, axes = [], []
    for centre, step, size in zip(centre_zyx, spacing_zyx_mm, shape, strict=True):
        reach = 0.5 * diameter_mm / step
        first = max(int(np.floor(centre - reach)) - 1, 0)
        stop = min(int(np.ceil(centre + reach)) + 2, size)
        box.append(slice(first, stop))
        points = (np.arange(first * SAMPLES, stop * SAMPLES) + 0.5) / SAMPLES - 0.5
        axes.append((points - centre) * step)
    z, y, x = axes
    inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= (0.5 * diameter_mm) ** 2
    blocks = [n for s in box for n in (s.stop - s.start, SAMPLES)]
    return tuple(box), inside.reshape(blocks).mean(axis=(1, 3, 5))


NODULE_MM = 6.0
NODULE_DEPTH = 0.8
NODULES = 60
APART_MM = 25.0
RIM_MM = 2.0
SLICE_STEP = 4
"""Distances are measured in every fourth slice."""


def margin_figures(
    volume_hu: np.ndarray, spacing_zyx_mm: tuple[float, float, float], margins_mm: Sequence[float]
) -> list[dict[str, float]]:
    """Measure for each margin what it keeps of small nodules on the pleura, and its rim.

    Parameters
    ----------
    volume_hu : int16 (z, y, x), resampled as the pipeline does.
    spacing_zyx_mm : voxel size.
    margins_mm : to compare.

    Returns
    -------
    Per margin ``margin_mm``; ``coverage`` and ``least_coverage`` (mean and smallest share of the
    sphere of 6 mm balls within the mask); ``beyond_mean_mm``, ``beyond_p95_mm`` (in-plane distance
    of the mask's edge from the lung's air); ``rim_grey`` (mean grey level, 0 to 255, of the outer
    2 mm of slabs).
    """
    sound = segment_lungs(volume_hu, spacing_zyx_mm=spacing_zyx_mm, margin_mm=0.0)
    balls = _pleural_balls(sound, volume_hu.shape, spacing_zyx_mm)
    with_balls = volume_hu.copy()
    for box, inside in balls:
        with_balls[box][inside] = TISSUE_HU
    with_nodules = segment_lungs(with_balls, spacing_zyx_mm=spacing_zyx_mm)
    filled = sound.filled_mask
    rows = []
    for margin_mm in margins_mm:
        mask = sound.grid.to_scan(with_nodules.coarse_share, margin_mm=margin_mm)
        coverage = [float(mask[box][inside].mean()) for box, inside in balls]
        mask = sound.grid.to_scan(sound.coarse_share, margin_mm=margin_mm)
        beyond = _beyond(volume_hu, mask, filled, sound.threshold_hu, spacing_zyx_mm[1])
        rows.append(
            {
                "margin_mm": margin_mm,
                "coverage": float(np.mean(coverage)),
                "least_coverage": min(coverage),
                "beyond_mean_mm": float(beyond.mean()),
                "beyond_p95_mm": float(np.percentile(beyond, 95)),
                "rim_grey": _rim_grey(volume_hu, mask, spacing_zyx_mm),
            }
        )
    return rows


def _pleural_balls(
    sound: LungSegmentation,
    shape: tuple[int, ...],
    spacing_zyx_mm: tuple[float, float, float],
) -> list[tuple[tuple[slice, ...], np.ndarray]]:
    """Choose places on the outer surface, 25 mm apart; return box and voxels of each ball."""
    lung = (sound.coarse_labels > 0) & ~sound.coarse_filled
    steps = np.array(sound.grid.spacing_zyx_mm)
    depth_mm = ndimage.distance_transform_edt(lung, sampling=steps)
    slope = np.stack(np.gradient(ndimage.gaussian_filter(depth_mm, 1.5), *steps), axis=-1)
    surface = np.argwhere(lung & (depth_mm <= steps.max()))
    middle = np.array(lung.shape)[2] / 2
    chosen: list[np.ndarray] = []
    balls = []
    for point in np.random.default_rng(0).permutation(surface):
        inwards = slope[tuple(point)]
        length = np.linalg.norm(inwards)
        # Towards the chest wall: the surface there faces away from the middle.
        if length < 0.3 or inwards[2] * (middle - point[2]) < 0.5 * length * abs(middle - point[2]):
            continue
        if any(np.linalg.norm((point - other) * steps) < APART_MM for other in chosen):
            continue
        chosen.append(point)
        pleura = point * steps - inwards / length * (depth_mm[tuple(point)] - 0.5 * steps.mean())
        centre_mm = pleura + inwards / length * NODULE_DEPTH * NODULE_MM / 2
        factors = np.array(sound.grid.factors_zyx)
        centre = (centre_mm / steps) * factors + 0.5 * (factors - 1)
        box, share = ball_share(shape, centre, NODULE_MM, spacing_zyx_mm)
        balls.append((box, share >= 0.5))
        if len(balls) == NODULES:
            break
    return balls


def _beyond(
    volume_hu: np.ndarray,
    mask: np.ndarray,
    filled: np.ndarray,
    threshold_hu: float,
    pixel_mm: float,
) -> np.ndarray:
    """Return the distance to the lung's air of every pixel of the mask's edge, filled parts out."""
    found = []
    for k in range(0, len(mask), SLICE_STEP):
        inside = mask[k]
        if not inside.any():
            continue
        edge = (inside > 0) & (cv2.erode(inside, np.ones((3, 3), np.uint8)) == 0)
        edge &= cv2.dilate(filled[k], np.ones((15, 15), np.uint8)) == 0
        tissue = ((volume_hu[k] >= threshold_hu) | (inside == 0)).astype(np.uint8)
        if tissue.all():
            continue
        far = cv2.distanceTransform(tissue, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        found.append(far[edge] * pixel_mm)
    return np.concatenate(found)


def _rim_grey(
    volume_hu: np.ndarray, mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float]
) -> float:
    depth = max(round(SLAB_THICKNESS_MM / spacing_zyx_mm[0]), 1)
    low = LUNG_LEVEL_HU - 0.5 * LUNG_WIDTH_HU
    size = 2 * max(round(RIM_MM / spacing_zyx_mm[1]), 1) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    total, count = 0.0, 0
    for k in range(0, len(mask) - depth + 1, depth):
        inside = mask[k : k + depth]
        if not inside.any():
            continue
        slab = np.where(inside > 0, volume_hu[k : k + depth], -3024).max(axis=0)
        shown = inside.max(axis=0)
        rim = (shown > 0) & (cv2.erode(shown, disk, borderValue=0) == 0)
        grey = ((slab[rim] - low) * (255.0 / LUNG_WIDTH_HU)).clip(0, 255)
        total, count = total + float(grey.sum()), count + int(rim.sum())
    return total / max(count, 1)


def mask_figures(
    scan_path: Path, *, diameters_mm: Sequence[float], margins_mm: Sequence[float]
) -> dict[str, Any]:
    """Measure a scan, resampled as the pipeline does: balls by size and place, and margins."""
    scan = read_scan(scan_path)
    volume_hu, geometry = resample_volume(scan.volume_hu, scan.geometry, RESAMPLED_ZYX_MM)
    blocks_hu, spacing_zyx_mm = blocks_of(volume_hu, geometry.spacing_zyx_mm)
    sound = _segment(blocks_hu, spacing_zyx_mm)
    return {
        "scan": scan.seriesuid,
        "volume_l": sound.volume_l,
        "filled_ml": sound.filled_ml,
        "flags": list(sound.flags),
        "kept": {f"{d:g}": kept_shares(blocks_hu, spacing_zyx_mm, d) for d in diameters_mm},
        "margins": margin_figures(volume_hu, geometry.spacing_zyx_mm, margins_mm),
    }


def figure_lines(found: dict[str, Any]) -> list[str]:
    """Return the figures as two tables in Markdown."""
    share = found["filled_ml"] / max(10 * found["volume_l"], 1e-9)
    lines = [
        f"{found['scan']}: {found['volume_l']:.2f} l, {found['filled_ml']:.0f} ml filled "
        f"({share:.1f} %), flags {', '.join(found['flags']) or 'none'}",
        "",
        f"| kept, right / left | {' | '.join(f'{d} mm' for d in found['kept'])} |",
        "|---" * (1 + len(found["kept"])) + "|",
    ]
    for place in DIRECTIONS:
        cells = [f"{kept[place][0]:.2f} / {kept[place][1]:.2f}" for kept in found["kept"].values()]
        lines.append(f"| {place} | {' | '.join(cells)} |")
    if found["margins"]:
        lines += [
            "",
            "| margin (mm) | 6 mm nodules kept: mean | least | beyond the surface (mm): mean | "
            "95th percentile | grey of the rim |",
            "|---" * 6 + "|",
        ]
    for row in found["margins"]:
        lines.append(
            f"| {row['margin_mm']:g} | {row['coverage']:.3f} | {row['least_coverage']:.2f} | "
            f"{row['beyond_mean_mm']:.2f} | {row['beyond_p95_mm']:.2f} | {row['rim_grey']:.0f} |"
        )
    return lines
