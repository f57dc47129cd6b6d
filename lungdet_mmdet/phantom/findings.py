# SPDX-License-Identifier: Apache-2.0
"""Nodules and other findings of a phantom: drawn at random, put at plausible places."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lungdet_mmdet.phantom.anatomy import LUNG_BASE_MM, LUNG_TOP_MM, Anatomy
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
    labels: np.ndarray | None = None,
    label: int = 0,
) -> None:
    """Draw a nodule at its patient position: slightly lobed, never a perfect sphere, in place.

    Where ``labels`` are given, its voxels take the label; spicules are not counted in.
    """
    radius = 0.5 * (drawn_mm or nodule.diameter_mm)
    centre = np.array(nodule.centre_xyz_mm)
    reach = 1.3 * radius + 1.0
    shape = _LobedEllipsoid(rng, radius)
    solid_hu = float(rng.uniform(*SOLID_HU))
    if nodule.texture == "solid":
        if radius > 2.0 and rng.random() < 0.06:
            solid_hu = float(rng.uniform(180.0, 420.0))  # calcified
        draw_blob(
            volume_hu, grid, centre, reach, shape, tissue_hu=solid_hu, labels=labels, label=label
        )
        if radius > 4.0 and rng.random() < 0.4:
            _draw_spicules(volume_hu, grid, centre, radius, rng)
        return
    veil_hu = float(rng.uniform(*GROUND_GLASS_HU))
    draw_blob(volume_hu, grid, centre, reach, shape, tissue_hu=veil_hu, labels=labels, label=label)
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


GAP_MM = 4.0
"""Least distance between the surfaces of two findings of a scan."""

_POOL_SIZE = 24_000
"""Points drawn to begin with; about a third of them lie in the lungs."""


class Placer:
    """Finds free spots for findings in one patient's lungs.

    Parameters
    ----------
    vessels : the vessels already grown, in patient mm.
    z_range_mm : patient heights between which findings may lie (the scan's range).
    view : centre x, centre y and radius of the round field of view, in patient mm.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        vessels: Tubes,
        z_range_mm: tuple[float, float],
        view: tuple[float, float, float],
        rng: np.random.Generator,
    ) -> None:
        self._anatomy = anatomy
        self._scale = np.array(anatomy.scale_xyz)
        self._vessels = vessels
        self._z_range_mm = z_range_mm
        self._pool, self._pool_depth = _lung_points(anatomy, z_range_mm, rng)
        self._view = view
        self._rng = rng
        self._taken: list[tuple[np.ndarray, float]] = []
        self._sphere = _sphere_points()
        if anatomy.consolidation is not None:
            centre, radius = anatomy.consolidation
            self._taken.append((np.array(centre) * self._scale, radius * float(self._scale.max())))

    def place(
        self, nodule: PhantomNodule, *, drawn_mm: float | None = None
    ) -> PhantomNodule | None:
        """Return the nodule with a position in patient mm; None if no free spot was found.

        ``drawn_mm`` is the drawn diameter where the nodule's own does not tell it.
        """
        radius = 0.5 * (drawn_mm or nodule.diameter_mm)
        place = nodule.place
        for attempt in range(400):
            if attempt == 200:
                place = "isolated"  # a lung may be too small for a nodule of this kind
            candidate = self._propose(place, radius)
            if candidate is None or not self._free(candidate, radius):
                continue
            if self._fits(candidate, radius, place, strict=attempt < 300):
                self._taken.append((candidate, radius))
                x, y, z = (float(v) for v in candidate)
                return replace(nodule, centre_xyz_mm=(x, y, z), place=place)
        return None

    def _propose(self, place: str, radius: float) -> np.ndarray | None:
        """Draw one position of the wanted kind."""
        rng, scale = self._rng, self._scale
        if place == "vessel" and len(self._vessels):
            radii = self._vessels.end_radius
            choice = np.flatnonzero((radii > 0.55) & (radii < 2.2))
            if len(choice):
                start = self._vessels.start_xyz[i := int(rng.choice(choice))]
                along = self._vessels.end_xyz[i] - start
                across = np.cross(along, rng.normal(size=3))
                across /= max(float(np.linalg.norm(across)), 1e-9)
                return start + rng.random() * along + across * 0.7 * radius
        if place in ("pleural", "mediastinal"):
            return self._at_wall(radius)
        return self._pick(radius / float(scale.min()) + 1.0, np.inf)

    def _pick(self, least_depth: float, most_depth: float) -> np.ndarray | None:
        """Draw a point whose atlas depth below the pleura lies within bounds, in patient mm."""
        choice = np.flatnonzero((self._pool_depth > least_depth) & (self._pool_depth < most_depth))
        return self._pool[self._rng.choice(choice)] * self._scale if len(choice) else None

    def _at_wall(self, radius: float) -> np.ndarray | None:
        """Return a point nearly one radius inside the pleura."""
        depth = radius / float(self._scale.mean())
        start = self._pick(0.6 * depth, depth + 3.0)
        if start is None:
            return None
        position = start / self._scale
        outward = _gradient(self._anatomy, position)
        target = depth * self._rng.uniform(0.86, 0.97)
        for _ in range(3):
            here = -float(self._anatomy.lung(*position))
            position = position + outward * (here - target)
        return position * self._scale

    def _free(self, centre: np.ndarray, radius: float) -> bool:
        """Say whether the spot lies in the scan and clear of the other findings."""
        low, high = self._z_range_mm
        if not low + radius < centre[2] < high - radius:
            return False
        view_x, view_y, view_radius = self._view
        if np.hypot(centre[0] - view_x, centre[1] - view_y) + radius > view_radius:
            return False
        return all(
            np.linalg.norm(centre - other) > radius + size + GAP_MM for other, size in self._taken
        )

    def _fits(self, centre: np.ndarray, radius: float, place: str, *, strict: bool) -> bool:
        """Say whether the sphere lies in the lung as its kind of place asks."""
        atlas = centre / self._scale
        points = (centre + radius * self._sphere) / self._scale
        depth = -self._anatomy.lung(points[:, 0], points[:, 1], points[:, 2])
        inside = float(np.mean(depth > 0))
        if place in ("pleural", "mediastinal"):
            if not 0.97 <= inside < 1.0:
                return False
            cavity = -float(self._anatomy.cavity(*atlas))
            medial = -float(self._anatomy.lung(*atlas)) < cavity - 4.0
            on_dome = (
                0.7 * float(atlas[2] - self._anatomy.diaphragm_height(atlas[0], atlas[1]))
                < 1.2 * radius
            )
            return (medial and not on_dome) == (place == "mediastinal")
        if inside < 1.0 or depth.min() < 0.5:
            return False
        if place == "isolated" and strict and radius < 6.0:
            clear = self._vessels.distance_to(centre[None])[0]
            return bool(clear > radius + 0.5)
        return True


def _lung_points(
    anatomy: Anatomy, z_range_mm: tuple[float, float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return atlas points (N, 3) all over the scanned part of the lungs, and their depths (N,)."""
    low, high = (z / anatomy.scale_xyz[2] for z in z_range_mm)
    bottom, top = max(low, LUNG_BASE_MM), min(high, LUNG_TOP_MM)
    if bottom >= top:
        return np.zeros((0, 3)), np.zeros(0)
    points = rng.uniform((-140.0, -100.0, bottom), (140.0, 105.0, top), size=(_POOL_SIZE, 3))
    depth = -anatomy.lung(points[:, 0], points[:, 1], points[:, 2])
    return points[depth > 0], depth[depth > 0]


def _gradient(anatomy: Anatomy, point: np.ndarray) -> np.ndarray:
    """Unit vector along which the distance to the lung grows fastest: out of the lung."""
    steps = 0.5 * np.eye(3)
    up, down = point + steps, point - steps
    slope = anatomy.lung(up[:, 0], up[:, 1], up[:, 2]) - anatomy.lung(
        down[:, 0], down[:, 1], down[:, 2]
    )
    return slope / max(float(np.linalg.norm(slope)), 1e-9)


def _sphere_points() -> np.ndarray:
    """Evenly spread points (N, 3) of the unit ball."""
    axis = np.linspace(-1.0, 1.0, 11)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[np.linalg.norm(grid, axis=1) <= 1.0]
