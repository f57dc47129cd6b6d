"""A CT picture and the part of a plane it covers, in millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes


@dataclass(frozen=True)
class Field:
    """A rectangle of a scan plane in mm along the image's x and y axes (y grows downwards)."""

    left: float
    right: float
    top: float
    bottom: float

    @classmethod
    def around(cls, centre_xy_mm: tuple[float, float], width: float, height: float) -> Field:
        """Return the rectangle of a size in mm about a point."""
        x, y = centre_xy_mm
        return cls(x - width / 2, x + width / 2, y - height / 2, y + height / 2)

    @property
    def width(self) -> float:
        """Extent along x in mm."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Extent along y in mm."""
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        """Middle (x, y) in mm."""
        return (self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0

    def widened(self, margin_mm: float) -> Field:
        """Return the rectangle with a margin on every side."""
        return Field(
            self.left - margin_mm,
            self.right + margin_mm,
            self.top - margin_mm,
            self.bottom + margin_mm,
        )

    def holds(self, other: Field) -> bool:
        """Return whether another rectangle lies inside this one."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )

    def overlaps(self, other: Field) -> bool:
        """Return whether the two share more than an edge."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def frame(self, axes: Axes) -> None:
        """Make axes show this rectangle."""
        axes.set(xlim=(self.left, self.right), ylim=(self.bottom, self.top))


@dataclass(frozen=True)
class Picture:
    """An image (y, x) or (y, x, 3), uint8, and the outer edges of its pixels in mm."""

    pixels: np.ndarray
    field: Field

    def drawn(self, axes: Axes) -> None:
        """Show it to scale."""
        axes.imshow(
            self.pixels,
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(self.field.left, self.field.right, self.field.bottom, self.field.top),
            interpolation="antialiased",
        )
