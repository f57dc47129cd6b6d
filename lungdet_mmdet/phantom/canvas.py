"""One axial slice under construction, and the densities that are laid onto it."""

from __future__ import annotations

import numpy as np

from lungdet_mmdet.ct.scan import AIR_HU

FAT_HU = -105.0
MUSCLE_HU = 52.0
SKIN_HU = 15.0
CORTEX_HU = 620.0
MARROW_HU = 190.0
CARTILAGE_HU = 95.0
LIVER_HU = 58.0
SPLEEN_HU = 48.0
FLUID_HU = 12.0
STOMACH_GAS_HU = -985.0
FOAM_HU = -930.0
TABLE_SHELL_HU = 120.0
BLANKET_HU = -650.0

RIB_PITCH_MM = 27.0
"""Height from one rib, and one vertebra, to the next."""


class SliceCanvas:
    """One slice under construction: pixel grid in atlas mm and densities in HU."""

    def __init__(self, x: np.ndarray, y: np.ndarray, z: float, *, pixel_mm: float) -> None:
        self.x = x
        self.y = y
        self.z = z
        self.pixel_mm = pixel_mm
        self.hu = np.full(np.broadcast_shapes(x.shape, y.shape), AIR_HU, dtype=np.float32)

    def window(self, centre_xy: tuple[float, float], reach_mm: float) -> SliceCanvas:
        """Return the canvas of a square part of the slice; painting it paints this one."""
        columns = np.abs(self.x[0] - centre_xy[0]) <= reach_mm
        rows = np.abs(self.y[:, 0] - centre_xy[1]) <= reach_mm
        part = (_span(rows), _span(columns))
        window = SliceCanvas.__new__(SliceCanvas)
        window.x, window.y, window.hu = self.x[part], self.y[part], self.hu[part]
        window.z, window.pixel_mm = self.z, self.pixel_mm
        return window

    def lay(self, distance: np.ndarray, tissue_hu: np.ndarray | float) -> None:
        """Lay a tissue over the region where ``distance`` is negative."""
        share = np.clip(0.5 - distance / self.pixel_mm, 0.0, 1.0)
        self.hu += share * (tissue_hu - self.hu)


def _span(chosen: np.ndarray) -> slice:
    """Return the run of True values as a slice."""
    found = np.flatnonzero(chosen)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)
