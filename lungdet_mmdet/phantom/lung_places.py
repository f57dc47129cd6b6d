"""Where in a real scan a nodule may lie: within the lung, beside vessels, on the pleura."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lungdet_mmdet.ct.lungs.grid import CoarseGrid
from lungdet_mmdet.errors import LungDetError

GRID_MM = 2.0
WALL_HU = -300.0
"""Chest wall, mediastinum, diaphragm and consolidation are denser than this."""
WALL_RADIUS_MM = 4.0
"""Tissue that holds a ball of this radius is wall; thinner tissue in the lung is vessel."""
VESSEL_HU = -650.0
"""Mean of a block of ``GRID_MM`` that holds a vessel worth the name; lung is near -850."""
CLEAR_OF_VESSELS_MM = 1.0
CLEAR_OF_WALL_MM = 1.5
SUNK_SHARE = (0.72, 0.95)
"""Distance of a pleural nodule's middle from the wall, as a share of its reach towards it."""


@dataclass(frozen=True)
class LungMap:
    """Distances inside the lungs of a scan, on a coarse grid that covers their bounding box.

    Parameters
    ----------
    start_zyx : first voxel of the scan under the map.
    factors_zyx : voxels of the scan per block.
    spacing_zyx_mm : size of a block.
    wall : bool (z, y, x), thick tissue.
    depth_mm : float32, distance to the nearest block that is wall or outside the lungs; 0 there.
    vessel_mm : float32, distance to the nearest vessel of the lung.
    """

    start_zyx: tuple[int, int, int]
    factors_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    wall: np.ndarray
    depth_mm: np.ndarray
    vessel_mm: np.ndarray

    def to_scan(self, blocks_zyx: np.ndarray) -> np.ndarray:
        """Map block coordinates (N, 3) or (3,) to voxels of the scan; centres have integers."""
        factors = np.asarray(self.factors_zyx)
        return np.asarray(self.start_zyx) + blocks_zyx * factors + 0.5 * (factors - 1)

    def outward(self, block_zyx: np.ndarray) -> np.ndarray:
        """Return the unit vector (z, y, x; mm) to the nearest wall; zeros if unknown."""
        slope = np.zeros(3)
        size = np.asarray(self.depth_mm.shape)
        for axis in range(3):
            step = np.zeros(3, int)
            step[axis] = 2
            up = tuple(np.clip(block_zyx + step, 0, size - 1))
            down = tuple(np.clip(block_zyx - step, 0, size - 1))
            slope[axis] = (self.depth_mm[down] - self.depth_mm[up]) / self.spacing_zyx_mm[axis]
        length = float(np.linalg.norm(slope))
        return slope / length if length > 1e-6 else np.zeros(3)

    def wall_under(self, box: tuple[slice, slice, slice]) -> np.ndarray:
        """Return the wall (z, y, x) bool in a box of the scan, a block wider than it is."""
        indices = []
        for axis, part in enumerate(box):
            blocks = (np.arange(part.start, part.stop) - self.start_zyx[axis]) // (
                self.factors_zyx[axis]
            )
            indices.append(np.clip(blocks, 0, self.wall.shape[axis] - 1))
        low = [int(i.min()) for i in indices]
        high = [int(i.max()) for i in indices]
        around = tuple(slice(max(0, a - 1), b + 2) for a, b in zip(low, high, strict=True))
        grown = ndimage.binary_dilation(self.wall[around], np.ones((3, 3, 3)))
        inside = [i - s.start for i, s in zip(indices, around, strict=True)]
        return grown[np.ix_(*inside)]


def map_lungs(
    volume_hu: np.ndarray, lung_mask: np.ndarray, spacing_zyx_mm: tuple[float, float, float]
) -> LungMap:
    """Measure a scan's lungs for places of nodules.

    Parameters
    ----------
    volume_hu : int16 (z, y, x).
    lung_mask : uint8 or bool (z, y, x), closed: vessels are inside.
    spacing_zyx_mm : voxel size.

    Raises
    ------
    LungDetError
        If the mask is empty or holds no air.
    """
    found = [np.flatnonzero(lung_mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not all(len(f) for f in found):
        raise LungDetError("the lung mask is empty: no nodule can be placed in this scan")
    grid = CoarseGrid.covering(volume_hu.shape, spacing_zyx_mm, GRID_MM)
    # A rim of wall around the lungs tells thick tissue from thin.
    rim = [int(np.ceil(2 * WALL_RADIUS_MM / s)) for s in spacing_zyx_mm]
    box = []
    for axis in range(3):
        first = max(0, int(found[axis][0]) - rim[axis])
        first -= first % grid.factors_zyx[axis]
        box.append(slice(first, min(volume_hu.shape[axis], int(found[axis][-1]) + rim[axis] + 1)))
    cut = volume_hu[tuple(box)]
    blocks = CoarseGrid.covering(cut.shape, spacing_zyx_mm, GRID_MM)
    hu = blocks.block_mean(np.ascontiguousarray(cut))
    lungs = blocks.from_scan(lung_mask[tuple(box)]) > 0
    sampling = blocks.spacing_zyx_mm
    tissue = hu > WALL_HU
    core = ndimage.distance_transform_edt(tissue, sampling=sampling) > WALL_RADIUS_MM
    wall = np.zeros_like(tissue)
    if core.any():
        wall = tissue & (
            ndimage.distance_transform_edt(~core, sampling=sampling) <= WALL_RADIUS_MM + GRID_MM
        )
    free = lungs & ~wall
    if not free.any():
        raise LungDetError("the lung mask holds no air: no nodule can be placed in this scan")
    vessel = free & (hu > VESSEL_HU)
    return LungMap(
        start_zyx=(box[0].start, box[1].start, box[2].start),
        factors_zyx=blocks.factors_zyx,
        spacing_zyx_mm=sampling,
        wall=wall,
        depth_mm=_distance(free, sampling),
        vessel_mm=_distance(~vessel, sampling),
    )


def _distance(inside: np.ndarray, sampling: tuple[float, float, float]) -> np.ndarray:
    if inside.all():
        return np.full(inside.shape, np.inf, np.float32)
    # What the map does not show counts as outside for depth: the scan may end within the lung.
    return ndimage.distance_transform_edt(inside, sampling=sampling).astype(np.float32)


def blocks_for(
    lung_map: LungMap, place: str, *, radius_mm: float, reach_mm: float, strict: bool = True
) -> np.ndarray:
    """Return the blocks (N, 3) in which the middle of a nodule may lie.

    Parameters
    ----------
    lung_map : the scan.
    place : "isolated", "vessel" or "pleural".
    radius_mm : radius of the nodule.
    reach_mm : for "pleural", distance from its middle to its surface on the side of the wall.
    strict : False allows isolated nodules near vessels: few places are clear of all for large ones.
    """
    depth, vessel = lung_map.depth_mm, lung_map.vessel_mm
    if place == "pleural":
        # Depth is counted from the middle of the first block outside: half a block is wall.
        half = 0.5 * float(np.mean(lung_map.spacing_zyx_mm))
        low, high = (share * reach_mm + half for share in SUNK_SHARE)
        wanted = (depth > max(low, 0.5 * half)) & (depth < max(high, low + half))
    else:
        wanted = depth > radius_mm + CLEAR_OF_WALL_MM
        if place == "vessel":
            wanted &= (vessel > 0.4 * radius_mm) & (vessel < radius_mm + CLEAR_OF_VESSELS_MM)
        elif strict:
            wanted &= vessel > radius_mm + CLEAR_OF_VESSELS_MM
        else:
            wanted &= vessel > 0.5 * radius_mm
    return np.argwhere(wanted)
