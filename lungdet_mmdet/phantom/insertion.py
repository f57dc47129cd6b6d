"""Set a real nodule into another scan: turned, resampled to its grid, blended without a seam.

A voxel that is nodule to the share f and lung for the rest holds f * nodule + (1 - f) * lung. The
share is read from the nodule's own scan and applied to the new lung, so that the rim, the gaps
between spicules and the holes of a cavity show the lung that is there now. The higher of the old
and the new value stays: vessels of the lung run on, and no halo of another lung's air comes along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lungdet_mmdet.phantom.nodule_crops import CropMeasures, NoduleCrop, distance_outside_mm

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
    outside = distance_outside_mm(mask, spacing) / spacing[2]
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
