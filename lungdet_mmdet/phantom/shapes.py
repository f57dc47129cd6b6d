"""Signed pseudo-distances of simple solids: negative inside, about millimetres near the surface.

All functions broadcast: x and y may be a slice's pixel grid with z one number, or x, y and z may
be the coordinates of single points.
"""

from __future__ import annotations

import numpy as np

Extent = np.ndarray | float

_TINY = 1e-3
_LEAST_SLOPE = 1e-5


def ellipse(x: np.ndarray, y: np.ndarray, rx: Extent, ry: Extent) -> np.ndarray:
    """Distance to an axis-parallel ellipse (cylinder along z) around the origin."""
    u, v = x / rx, y / ry
    k0 = np.maximum(np.sqrt(u * u + v * v), _TINY)
    return k0 * (k0 - 1.0) / _slope(u, v, rx, ry)


def rounded_box(x: np.ndarray, y: np.ndarray, rx: Extent, ry: Extent) -> np.ndarray:
    """Distance to an ellipse with fuller corners, the cross-section of a chest."""
    u, v = x / rx, y / ry
    u2, v2 = u * u, v * v
    k0 = np.maximum(np.sqrt(0.65 * (u2 + v2) + 0.35 * np.sqrt(u2 * u2 + v2 * v2)), _TINY)
    return k0 * (k0 - 1.0) / _slope(u, v, rx, ry)


def _slope(u: np.ndarray, v: np.ndarray, rx: Extent, ry: Extent) -> np.ndarray:
    """Length of the gradient of the scaled distance, which turns it into millimetres."""
    u, v = u / rx, v / ry
    return np.maximum(np.sqrt(u * u + v * v), _LEAST_SLOPE)


def ellipsoid(
    offset_xyz: tuple[np.ndarray, np.ndarray, Extent],
    radii: tuple[float, float, float],
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Distance to an ellipsoid around the origin; the rows of ``axes`` (3, 3) are its axes."""
    x, y, z = offset_xyz
    if axes is not None:
        x, y, z = (float(a[0]) * x + float(a[1]) * y + float(a[2]) * z for a in axes)
    rx, ry, rz = radii
    x, y, z = x / rx, y / ry, z / rz
    k0 = np.maximum(np.sqrt(x * x + y * y + z * z), _TINY)
    k1 = np.sqrt((x / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2)
    return k0 * (k0 - 1.0) / np.maximum(k1, _LEAST_SLOPE)


def capsule(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray | float,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radius: float,
) -> np.ndarray:
    """Distance to a round-ended rod from ``start`` to ``end``."""
    dx, dy, dz = (b - a for a, b in zip(start, end, strict=True))
    px, py, pz = x - start[0], y - start[1], z - start[2]
    t = np.clip((px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz), 0.0, 1.0)
    return np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2 + (pz - t * dz) ** 2) - radius


def smooth_union(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Union of two solids whose meeting edge is rounded over ``blend_mm``."""
    h = np.maximum(blend_mm - np.abs(a - b), 0.0)
    return np.minimum(a, b) - h * h / (4.0 * blend_mm)


def smooth_intersection(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Intersection of two solids whose common edge is rounded over ``blend_mm``."""
    return -smooth_union(-a, -b, blend_mm)
