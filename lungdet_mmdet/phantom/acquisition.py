"""How a phantom is scanned and stored: spacing, field of view, noise, padding, orientation."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.phantom.anatomy import Anatomy
from lungdet_mmdet.phantom.drawing import Grid

LOWEST_HU = -1024

_THICKNESS_MM = {
    "small": ((2.5, 2.75, 3.0), (0.3, 0.4, 0.3)),
    "fine": ((2.5, 2.75, 3.0), (0.3, 0.4, 0.3)),
    "full": (
        (0.6, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0),
        (0.04, 0.06, 0.2, 0.25, 0.1, 0.1, 0.2, 0.05),
    ),
}

_PIXELS = {"small": (1.2, 1.4, 176, 240), "fine": (0.66, 0.77, 320, 440)}
"""Least and most millimetres of a pixel, fewest and most pixels of a row."""


@dataclass(frozen=True)
class Protocol:
    """One scan's acquisition.

    Parameters
    ----------
    spacing_zyx_mm : distance of voxel centres.
    n_pixels : rows and columns of a slice.
    z_range_mm : heights of the scan's two faces in atlas mm.
    centre_xy_mm : patient position of the middle of the picture.
    noise_sd_hu : standard deviation of the noise.
    padding_hu : value outside the round field of view; None for a square one.
    flip_xyz : axes that are stored backwards (their direction cosines are negative).
    rotation : (9,) row-major rotation from the patient's frame to the world.
    shift_xyz_mm : world position of the patient frame's origin.
    """

    spacing_zyx_mm: tuple[float, float, float]
    n_pixels: int
    z_range_mm: tuple[float, float]
    centre_xy_mm: tuple[float, float] = (0.0, 0.0)
    noise_sd_hu: float = 15.0
    padding_hu: int | None = None
    flip_xyz: tuple[bool, bool, bool] = (False, False, False)
    rotation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    shift_xyz_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def grid(self, anatomy: Anatomy) -> Grid:
        """Return the voxel grid in patient mm, in canonical order."""
        spacing_z, spacing_y, spacing_x = self.spacing_zyx_mm
        low, high = (z * anatomy.scale_xyz[2] for z in self.z_range_mm)
        n_slices = max(1, int(round((high - low) / spacing_z)))
        half = 0.5 * (self.n_pixels - 1)
        return Grid(
            (n_slices, self.n_pixels, self.n_pixels),
            self.spacing_zyx_mm,
            (
                low + 0.5 * spacing_z,
                self.centre_xy_mm[1] - half * spacing_y,
                self.centre_xy_mm[0] - half * spacing_x,
            ),
        )

    def to_world(self, points_xyz_mm: np.ndarray) -> np.ndarray:
        """Map patient points (N, 3) to world points."""
        rotation = np.reshape(self.rotation, (3, 3))
        return np.asarray(points_xyz_mm) @ rotation.T + np.asarray(self.shift_xyz_mm)

    def stored(self, volume: np.ndarray) -> np.ndarray:
        """Return a canonical (z, y, x) volume in the order in which it is stored."""
        axes = tuple(2 - i for i, flip in enumerate(self.flip_xyz) if flip)
        return np.ascontiguousarray(np.flip(volume, axes)) if axes else volume

    def geometry(self, grid: Grid) -> ScanGeometry:
        """Return the world geometry of the stored volume."""
        sign = np.where(self.flip_xyz, -1.0, 1.0)
        axes = np.reshape(self.rotation, (3, 3)) * sign
        first = np.array(grid.first_zyx_mm[::-1])
        last = first + (np.array(grid.size_zyx[::-1]) - 1) * np.array(grid.spacing_zyx_mm[::-1])
        origin = self.to_world(np.where(self.flip_xyz, last, first)[None])[0]
        return ScanGeometry(
            size_zyx=grid.size_zyx,
            spacing_zyx_mm=grid.spacing_zyx_mm,
            origin_xyz_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
            direction=tuple(float(v) + 0.0 for v in axes.ravel()),
        )


def draw_protocol(rng: np.random.Generator, anatomy: Anatomy, *, size: str) -> Protocol:
    """Draw the acquisition of one scan of the given size ("small", "fine" or "full")."""
    values, shares = _THICKNESS_MM[size]
    thickness = float(rng.choice(values, p=shares))
    body_mm = 2.0 * 172.0 * anatomy.fatness * anatomy.scale_xyz[0]
    view_mm = body_mm * float(rng.uniform(1.0, 1.12))
    if size == "full":
        n_pixels = 512
        spacing = float(np.clip(view_mm / n_pixels, 0.55, 0.9))
    else:
        finest, coarsest, fewest, most = _PIXELS[size]
        spacing = float(rng.uniform(finest, coarsest))
        n_pixels = int(np.clip(8 * round(view_mm / spacing / 8), fewest, most))
    spacing = round(spacing, 6)
    padding = rng.choice([0, -2000, -3024], p=[0.5, 0.25, 0.25])
    flips = [(False, False, False), (True, True, False), (True, False, False), (False, False, True)]
    flip = flips[int(rng.choice(len(flips), p=[0.75, 0.13, 0.06, 0.06]))]
    low, high = rng.uniform(-228.0, -206.0), rng.uniform(94.0, 112.0)
    return Protocol(
        spacing_zyx_mm=(thickness, spacing, spacing),
        n_pixels=n_pixels,
        z_range_mm=(float(low), float(high)),
        centre_xy_mm=(float(rng.uniform(-6.0, 6.0)), float(rng.uniform(-4.0, 10.0))),
        noise_sd_hu=float(rng.uniform(9.0, 28.0)),
        padding_hu=int(padding) or None,
        flip_xyz=flip,
        shift_xyz_mm=tuple(np.round(rng.uniform([-20, -190, -180], [20, 20, 60]), 2).tolist()),
    )


def add_noise(volume_hu: np.ndarray, sd_hu: float, rng: np.random.Generator) -> None:
    """Add noise in place, correlated between neighbouring pixels and a little between slices."""
    previous: np.ndarray | None = None
    for k in range(len(volume_hu)):
        white = rng.standard_normal(volume_hu.shape[1:], dtype=np.float32)
        noise = cv2.GaussianBlur(white, (0, 0), 0.75)
        # A Gaussian of sigma s keeps 1 / (4 pi s^2) of the variance of white noise.
        noise *= np.float32(sd_hu * np.sqrt(4.0 * np.pi) * 0.75)
        if previous is not None:
            noise = np.float32(0.92) * noise + np.float32(0.39) * previous
        previous = noise
        noisy = volume_hu[k] + noise
        volume_hu[k] = np.clip(np.rint(noisy), LOWEST_HU, 3071).astype(np.int16)


def pad_outside_circle(volume: np.ndarray, padding: int) -> None:
    """Set everything outside the round field of view to the padding value, in place."""
    n_rows, n_columns = volume.shape[1:]
    y = np.arange(n_rows)[:, None] - 0.5 * (n_rows - 1)
    x = np.arange(n_columns)[None, :] - 0.5 * (n_columns - 1)
    volume[:, np.hypot(x, y) > 0.5 * min(n_rows, n_columns)] = padding


def smooth_texture(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (y, x) of about unit variance: the mottle of organs."""
    coarse = rng.standard_normal(((shape[0] + 2) // 3, (shape[1] + 2) // 3), dtype=np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), 0.8) * np.float32(2.8)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
