"""Nodules and other findings: which sizes they have and how they look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.phantom.drawing import Grid, Tubes, draw_blob, draw_tubes

DIAMETER_QUANTILES = (0.0, 0.05, 0.10, 0.25, 0.40, 0.57, 0.70, 0.80, 0.89, 0.95, 1.0)
DIAMETERS_MM = (3.0, 4.1, 4.4, 5.1, 5.9, 7.0, 8.7, 11.0, 15.0, 19.0, 30.0)
"""Quantiles of the diameters in LUNA16's annotations: 57 % up to 7 mm, 32 % 7-15, 11 % above."""

PLACES = ("isolated", "vessel", "pleural", "mediastinal")
PLACE_SHARES = (0.45, 0.25, 0.2, 0.1)
TEXTURES = ("solid", "part-solid", "ground-glass")
TEXTURE_SHARES = (0.7, 0.15, 0.15)
SOLID_HU = (15.0, 70.0)
GROUND_GLASS_HU = (-640.0, -480.0)


@dataclass(frozen=True)
class PhantomNodule:
    """A nodule, or another finding, as drawn.

    Parameters
    ----------
    centre_xyz_mm : where its middle lies; in world mm once the scan is finished.
    diameter_mm : diameter of the sphere of equal volume; -1 where the tables do not tell it.
    texture : "solid", "part-solid" or "ground-glass".
    place : "isolated", "vessel", "pleural" or "mediastinal".
    """

    centre_xyz_mm: tuple[float, float, float]
    diameter_mm: float
    texture: str = "solid"
    place: str = "isolated"


def sample_diameters(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw nodule diameters (count,) in mm with the distribution of LUNA16's annotations."""
    return np.interp(rng.random(count), DIAMETER_QUANTILES, DIAMETERS_MM)


def draw_nodule_plan(rng: np.random.Generator, count: int) -> list[PhantomNodule]:
    """Draw size, texture and kind of place of ``count`` nodules; their positions stay open."""
    diameters = sample_diameters(rng, count)
    textures = rng.choice(len(TEXTURES), size=count, p=TEXTURE_SHARES)
    places = rng.choice(len(PLACES), size=count, p=PLACE_SHARES)
    return [
        PhantomNodule((0.0, 0.0, 0.0), round(float(d), 3), TEXTURES[t], PLACES[p])
        for d, t, p in zip(diameters, textures, places, strict=True)
    ]


def draw_nodule(
    volume_hu: np.ndarray,
    grid: Grid,
    nodule: PhantomNodule,
    rng: np.random.Generator,
    *,
    drawn_mm: float | None = None,
) -> None:
    """Draw a nodule at its patient position: slightly lobed, never a perfect sphere, in place."""
    radius = 0.5 * (drawn_mm or nodule.diameter_mm)
    centre = np.array(nodule.centre_xyz_mm)
    shape = _LobedEllipsoid(rng, radius)
    solid_hu = float(rng.uniform(*SOLID_HU))
    if nodule.texture == "solid":
        if radius > 2.0 and rng.random() < 0.06:
            solid_hu = float(rng.uniform(180.0, 420.0))  # calcified
        draw_blob(volume_hu, grid, centre, 1.3 * radius + 1.0, shape, tissue_hu=solid_hu)
        if radius > 4.0 and rng.random() < 0.4:
            _draw_spicules(volume_hu, grid, centre, radius, rng)
        return
    veil_hu = float(rng.uniform(*GROUND_GLASS_HU))
    draw_blob(volume_hu, grid, centre, 1.3 * radius + 1.0, shape, tissue_hu=veil_hu)
    if nodule.texture == "part-solid":
        core = _LobedEllipsoid(rng, radius * float(rng.uniform(0.45, 0.65)))
        draw_blob(volume_hu, grid, centre, radius + 1.0, core, tissue_hu=solid_hu)


class _LobedEllipsoid:
    """Says which offsets lie in a turned ellipsoid with low lobes and a given volume."""

    def __init__(self, rng: np.random.Generator, radius_mm: float) -> None:
        stretch = rng.uniform(0.84, 1.19, size=3)
        stretch /= np.cbrt(stretch.prod())
        axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        self._matrix = (axes / (stretch[:, None] * radius_mm)).astype(np.float32)
        self._lobes = rng.uniform(-0.08, 0.08, size=3).astype(np.float32)

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return True inside; x, y, z broadcast offsets in mm."""
        x, y, z = (a.astype(np.float32) for a in (x, y, z))
        u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in self._matrix)
        distance2 = u * u + v * v + w * w
        # Lobes: odd products of the axes leave the volume unchanged to first order.
        lobes = self._lobes[0] * u * v + self._lobes[1] * v * w + self._lobes[2] * w * u
        return distance2 + 4.0 * lobes < 1.0


def _draw_spicules(
    volume_hu: np.ndarray, grid: Grid, centre: np.ndarray, radius: float, rng: np.random.Generator
) -> None:
    """Draw thin strands that radiate from a nodule's surface."""
    count = int(rng.integers(5, 10))
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = rng.uniform(1.25, 1.55, size=(count, 1))
    strands = Tubes(
        centre + 0.8 * radius * directions,
        centre + radius * lengths * directions,
        np.full(count, 0.7),
        np.full(count, 0.25),
    )
    draw_tubes(volume_hu, grid, strands, tissue_hu=-100.0)
