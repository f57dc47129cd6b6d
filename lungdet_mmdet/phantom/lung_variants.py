"""Variants of a real scan: mirrored, thicker slices, smoother or noisier; points move along."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import PADDING_BELOW_HU
from lungdet_mmdet.phantom.acquisition import add_noise

THIN_SLICES_MM = 1.5
"""Pairs of slices up to this thick may be averaged: LUNA16 reaches to 2.5 mm."""
SMOOTHING_PIXELS = (0.4, 0.8)
NOISE_HU = (5.0, 30.0)


@dataclass(frozen=True)
class LungVariant:
    """How a scan is changed before nodules are set in.

    Parameters
    ----------
    mirrored : left and right change places.
    slices_joined : how many neighbouring slices are averaged to one.
    smoothing_px : standard deviation of a Gaussian in plane, 0 for none: a softer kernel.
    noise_hu : standard deviation of added noise, 0 for none.
    """

    mirrored: bool = False
    slices_joined: int = 1
    smoothing_px: float = 0.0
    noise_hu: float = 0.0


AS_IT_IS = LungVariant()


def draw_variant(rng: np.random.Generator, slice_mm: float) -> LungVariant:
    """Draw a variant of a scan whose slices are ``slice_mm`` apart."""
    mirrored, joined, grain = rng.random() < 0.5, rng.random() < 0.5, rng.random()
    smoothing, noise = rng.uniform(*SMOOTHING_PIXELS), rng.uniform(*NOISE_HU)
    return LungVariant(
        mirrored=bool(mirrored),
        slices_joined=2 if joined and slice_mm <= THIN_SLICES_MM else 1,
        smoothing_px=round(float(smoothing), 3) if grain < 0.35 else 0.0,
        noise_hu=round(float(noise), 1) if grain > 0.65 else 0.0,
    )


def apply_variant(
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    variant: LungVariant,
    rng: np.random.Generator,
) -> tuple[np.ndarray, ScanGeometry]:
    """Return a changed copy of a scan (z, y, x) int16, and its grid.

    What lies outside the field of view (padding) keeps its value.
    """
    changed, n = volume_hu, variant.slices_joined
    if n > 1:
        depth = len(changed) // n
        pairs = changed[: depth * n].reshape(depth, n, *changed.shape[1:])
        changed = np.rint(pairs.mean(axis=1, dtype=np.float32)).astype(np.int16)
        dz, dy, dx = geometry.spacing_zyx_mm
        first = geometry.voxel_to_world(np.array([0.5 * (n - 1), 0.0, 0.0]))
        geometry = replace(
            geometry,
            size_zyx=(depth, *geometry.size_zyx[1:]),
            spacing_zyx_mm=(dz * n, dy, dx),
            origin_xyz_mm=tuple(first.tolist()),
        )
    changed = np.ascontiguousarray(changed[:, :, ::-1]) if variant.mirrored else changed.copy()
    padding = changed < PADDING_BELOW_HU
    before = changed[padding]
    if variant.smoothing_px > 0:
        for image in changed:
            soft = cv2.GaussianBlur(image.astype(np.float32), (0, 0), variant.smoothing_px)
            image[:] = np.rint(soft)
    if variant.noise_hu > 0:
        add_noise(changed, variant.noise_hu, rng)
    changed[padding] = before
    return changed, geometry


def moved_points(
    points_xyz_mm: np.ndarray, geometry: ScanGeometry, variant: LungVariant
) -> np.ndarray:
    """Return where world points (N, 3) of the scan as it was lie in the variant.

    Parameters
    ----------
    points_xyz_mm : world points of the scan, mm.
    geometry : the grid of the scan as it was.
    variant : what was done to it; only mirroring moves points.
    """
    if not variant.mirrored or len(points_xyz_mm) == 0:
        return points_xyz_mm
    voxels = geometry.world_to_voxel(points_xyz_mm)
    voxels[:, 2] = geometry.size_zyx[2] - 1 - voxels[:, 2]
    return geometry.voxel_to_world(voxels)
