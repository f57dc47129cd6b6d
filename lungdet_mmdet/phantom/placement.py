"""Find spots for nodules: within the lung, on a vessel, on the pleura."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lungdet_mmdet.phantom.anatomy import LUNG_BASE_MM, LUNG_TOP_MM, Anatomy
from lungdet_mmdet.phantom.drawing import Tubes
from lungdet_mmdet.phantom.findings import PhantomNodule

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
