# SPDX-License-Identifier: Apache-2.0
"""A nodule set into a lung: where it may lie, and how its voxels are mixed in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lungdet_mmdet.ct.lungs.grid import CoarseGrid
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.semireal.crops import CropMeasures, NoduleCrop

RIM_PIXELS = 2.0
"""Beyond the mask the nodule fades over this many of its own pixels."""
MAX_SAMPLES_PER_VOXEL = 6


@dataclass(frozen=True)
class Pose:
    """How a nodule is turned before it is set in.

    Parameters
    ----------
    scale : factor of its size.
    turn_rad : rotation in the axial plane, x towards y.
    mirrored_zyx : whether each axis is reversed, before the rotation.
    """

    scale: float = 1.0
    turn_rad: float = 0.0
    mirrored_zyx: tuple[bool, bool, bool] = (False, False, False)

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) matrix that takes offsets (z, y, x) in mm in the crop to those in the scan."""
        sine, cosine = math.sin(self.turn_rad), math.cos(self.turn_rad)
        turn = np.array([[1.0, 0.0, 0.0], [0.0, cosine, sine], [0.0, -sine, cosine]])
        signs = np.where(self.mirrored_zyx, -1.0, 1.0)
        return self.scale * turn * signs

    def turned(self, direction_zyx: tuple[float, float, float]) -> np.ndarray:
        """Return where a direction (z, y, x) of the crop points in the scan; length is kept."""
        return self.matrix @ np.asarray(direction_zyx) / self.scale


@dataclass(frozen=True)
class Stamp:
    """A nodule on a scan's grid, before it is blended in.

    Parameters
    ----------
    start_zyx : voxel of the scan at which the arrays begin; may lie outside the scan.
    share : float32 (z, y, x), share of each voxel inside the nodule's mask.
    opacity : float32 (z, y, x), how far each voxel is nodule by its density.
    excess_hu : float32 (z, y, x), what is denser than the nodule's body (calcium).
    body_hu : density of the nodule's body.
    """

    start_zyx: tuple[int, int, int]
    share: np.ndarray
    opacity: np.ndarray
    excess_hu: np.ndarray
    body_hu: float

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Voxels of the scan under the arrays."""
        z, y, x = (
            slice(first, first + n)
            for first, n in zip(self.start_zyx, self.share.shape, strict=True)
        )
        return z, y, x


@dataclass(frozen=True)
class NoduleSource:
    """A nodule taken apart: what is independent of the place it will have.

    Parameters
    ----------
    fields : float32 (3, z, y, x): mask, opacity, excess in HU; one empty layer around.
    centre_zyx : centroid of the mask in voxels of the fields.
    spacing_zyx_mm : voxel size.
    reach_mm : distance from the centroid to the farthest point of the faded rim.
    body_hu : density of the nodule's body.
    """

    fields: np.ndarray
    centre_zyx: np.ndarray
    spacing_zyx_mm: np.ndarray
    reach_mm: float
    body_hu: float


def take_apart(crop: NoduleCrop, measures: CropMeasures) -> NoduleSource:
    """Separate a nodule from the lung it grew in."""
    spacing = np.asarray(crop.spacing_zyx_mm)
    hu = np.pad(crop.hu, 1, constant_values=measures.background_hu)
    mask = np.pad(crop.mask, 1)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing) / spacing[2]
    alpha = np.clip(1.0 - (outside - 0.5) / RIM_PIXELS, 0.0, 1.0)
    alpha[mask] = 1.0
    # Above and below its own slices nothing is known of a nodule, and the padding holds nothing.
    density = (hu - measures.background_hu) / (measures.body_hu - measures.background_hu)
    opacity = np.clip(density, 0.0, 1.0) * alpha
    excess = np.maximum(hu - measures.body_hu, 0.0) * alpha
    points = np.argwhere(mask)
    centre = points.mean(axis=0)
    reach = float(np.linalg.norm((np.argwhere(alpha > 0) - centre) * spacing, axis=1).max())
    fields = np.stack([mask, opacity, excess]).astype(np.float32)
    return NoduleSource(fields, centre, spacing, reach, measures.body_hu)


def stamp_nodule(
    source: NoduleSource,
    pose: Pose,
    *,
    centre_zyx: np.ndarray,
    spacing_zyx_mm: tuple[float, float, float],
) -> Stamp:
    """Resample a nodule to a scan's grid; each voxel is the mean over its volume.

    Thick slices and large pixels average the nodule as the scanner would have done.

    Parameters
    ----------
    source, pose : the nodule and how it is turned.
    centre_zyx : where its centroid comes to lie, in voxels of the scan.
    spacing_zyx_mm : voxel size of the scan.
    """
    spacing = np.asarray(spacing_zyx_mm)
    # A voxel more, since a thick slice may reach into the nodule from outside.
    reach = source.reach_mm * pose.scale / spacing + 1.0
    first = np.floor(centre_zyx - reach).astype(int)
    size = np.ceil(centre_zyx + reach).astype(int) - first + 1
    parts = np.ceil(spacing / (source.spacing_zyx_mm * pose.scale) - 1e-6)
    parts = np.clip(parts, 1, MAX_SAMPLES_PER_VOXEL).astype(int)
    offsets = []
    for axis in range(3):
        within = (np.arange(parts[axis]) + 0.5) / parts[axis] - 0.5
        samples = (first[axis] + np.arange(size[axis])[:, None] + within).ravel()
        offsets.append((samples - centre_zyx[axis]) * spacing[axis])
    grid = np.stack(np.meshgrid(*offsets, indexing="ij")).reshape(3, -1)
    inverse = np.linalg.inv(pose.matrix) / source.spacing_zyx_mm[:, None]
    positions = inverse @ grid + source.centre_zyx[:, None]
    means = []
    for values in source.fields:
        fine = ndimage.map_coordinates(values, positions, order=1, cval=0.0)
        blocks = fine.reshape(size[0], parts[0], size[1], parts[1], size[2], parts[2])
        means.append(blocks.mean(axis=(1, 3, 5), dtype=np.float32))
    z, y, x = first.tolist()
    share, opacity, excess_hu = means
    return Stamp((z, y, x), share, opacity, excess_hu, source.body_hu)


def blend(volume_hu: np.ndarray, stamp: Stamp, paintable: np.ndarray) -> np.ndarray:
    """Return the scan under a stamp with the nodule set in.

    Parameters
    ----------
    volume_hu : int16 (z, y, x), the scan's values under the stamp.
    stamp : the nodule, same shape.
    paintable : bool (z, y, x), False where nothing may change (the chest wall).

    Returns
    -------
    int16 (z, y, x), nowhere below ``volume_hu``.
    """
    old = volume_hu.astype(np.float32)
    mixed = old + stamp.opacity * (stamp.body_hu - old) + stamp.excess_hu
    new = np.where(paintable, np.maximum(old, mixed), old)
    return np.rint(new).astype(np.int16)


def outline_of(stamp: Stamp, paintable: np.ndarray) -> np.ndarray:
    """Return which voxels (z, y, x) bool belong to the nodule: half of the fullest one's share.

    In slices thicker than the nodule no voxel is full; its outline in plane stays what it was.
    """
    share = np.where(paintable, stamp.share, 0.0)
    return share >= 0.5 * max(float(share.max()), 1e-6)


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
