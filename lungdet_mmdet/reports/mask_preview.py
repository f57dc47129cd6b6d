"""A small picture of a scan and its lung mask: three slabs, the outline, the nodules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lungdet_mmdet.annotations.slab_boxes import WELL_COVERED
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM

TILES = 3
TILE_PX = 176
GAP_PX = 2
# Grey levels of the picture: the usual lung window.
LOW_HU, HIGH_HU = -1350.0, 150.0
# Denser than this is patient or table; the rest of the image is air, and cut off.
TISSUE_HU = -500
# RGB
OUTLINE_COLOUR = (70, 200, 255)
FILLED_COLOUR = (255, 190, 60)
COVERED_COLOUR = (90, 230, 110)
UNCOVERED_COLOUR = (255, 90, 80)
_WHERE_WITHOUT_NODULES = (0.5, 0.25, 0.75)
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class PreviewNodule:
    """A nodule to mark: centre in voxels (z, y, x), diameter, share inside the mask."""

    centre_zyx: tuple[float, float, float]
    diameter_mm: float
    coverage: float


class MaskPreview:
    """Slabs of a scan and its mask, kept until it is known how well nodules are covered.

    The scan is shown as it is, not masked, so that what the mask leaves out can be seen.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x); only projections of a few slabs are kept.
    mask : uint8 array (z, y, x), non-zero in the lungs.
    spacing_zyx_mm : voxel size.
    nodule_slices : z of the nodules that may be drawn, in voxels.
    filled : uint8 array (z, y, x), tissue that was filled in; outlined in a colour of its own.
    """

    def __init__(
        self,
        volume_hu: np.ndarray,
        mask: np.ndarray,
        spacing_zyx_mm: tuple[float, float, float],
        nodule_slices: Sequence[float] = (),
        *,
        filled: np.ndarray | None = None,
    ) -> None:
        self._spacing_zyx_mm = spacing_zyx_mm
        self._n_slices = volume_hu.shape[0]
        self._depth = max(1, round(SLAB_THICKNESS_MM / spacing_zyx_mm[0]))
        self._filled = [] if filled is None else _most_filled(filled, self._depth)
        slices = [z for z, image in enumerate(mask) if image.any()]
        low, high = (slices[0], slices[-1]) if slices else (0, self._n_slices - 1)
        self._others = [round(low + share * (high - low)) for share in _WHERE_WITHOUT_NODULES]
        self._slabs = {}
        for z in {self._inside(z) for z in (*nodule_slices, *self._filled, *self._others)}:
            first = min(max(z - self._depth // 2, 0), max(self._n_slices - self._depth, 0))
            slab = slice(first, first + self._depth)
            areas = [(mask[slab].max(axis=0), OUTLINE_COLOUR)]
            if filled is not None:
                areas.append((filled[slab].max(axis=0), FILLED_COLOUR))
            self._slabs[z] = (slab, volume_hu[slab].max(axis=0), areas)

    def draw(self, nodules: Sequence[PreviewNodule] = (), *, tile_px: int = TILE_PX) -> np.ndarray:
        """Draw three maximum projections of 7.5 mm side by side, foot to head.

        Slabs with badly covered nodules come first, then those where most tissue was filled in,
        then the largest nodules; the middle and the quarters of the lungs fill up.

        Parameters
        ----------
        nodules : marked by a circle: green where the mask covers them, else red.
        tile_px : side of one square tile.

        Returns
        -------
        uint8 array (tile_px, 3 * tile_px, 3), RGB.
        """
        chosen = [self._slabs[z] for z in self._chosen(nodules)]
        box = _patient_box(np.maximum.reduce([projection for _, projection, _ in chosen]))
        tiles = []
        for slab, projection, areas in chosen:
            inside = [n for n in nodules if slab.start - 0.5 <= n.centre_zyx[0] < slab.stop - 0.5]
            tile = _tile(projection, areas, self._spacing_zyx_mm, inside, box, tile_px)
            tile[:, -GAP_PX:] = 0
            tiles.append(tile)
        return np.concatenate(tiles, axis=1)

    def _chosen(self, nodules: Sequence[PreviewNodule]) -> list[int]:
        """Choose three slices, ascending; they repeat only where the scan is too short."""
        worst_first = sorted(nodules, key=lambda n: (min(n.coverage, WELL_COVERED), -n.diameter_mm))
        bad = sum(n.coverage < WELL_COVERED for n in worst_first)
        wanted: list[float] = [n.centre_zyx[0] for n in worst_first]
        wanted[bad:bad] = self._filled
        slices = [z for z in map(self._inside, [*wanted, *self._others]) if z in self._slabs]
        chosen: list[int] = []
        for z in slices:
            if len(chosen) < TILES and all(abs(z - other) >= self._depth for other in chosen):
                chosen.append(z)
        chosen += slices[-1:] * (TILES - len(chosen))
        return sorted(chosen)

    def _inside(self, z: float) -> int:
        return min(max(round(z), 0), self._n_slices - 1)


def _most_filled(filled: np.ndarray, depth: int) -> list[int]:
    """Choose up to three slices in the middle of slabs with most filled tissue, best first."""
    area = np.array([np.count_nonzero(plane) for plane in filled])
    volume = np.convolve(area, np.ones(depth, int), mode="same")
    chosen: list[int] = []
    for z in np.argsort(-volume, kind="stable"):
        if volume[z] and len(chosen) < TILES and all(abs(z - other) >= depth for other in chosen):
            chosen.append(int(z))
    return chosen


def _tile(
    projection_hu: np.ndarray,
    areas: Sequence[tuple[np.ndarray, tuple[int, int, int]]],
    spacing_zyx_mm: tuple[float, float, float],
    nodules: Sequence[PreviewNodule],
    box: tuple[slice, slice],
    tile_px: int,
) -> np.ndarray:
    _, dy, dx = spacing_zyx_mm
    rows, columns = box
    height_mm, width_mm = (rows.stop - rows.start) * dy, (columns.stop - columns.start) * dx
    scale = tile_px / max(height_mm, width_mm)
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    level = (projection_hu[rows, columns].astype(np.float32) - LOW_HU) * (255 / (HIGH_HU - LOW_HU))
    grey = cv2.resize(np.clip(level, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    for area, colour in areas:
        share = cv2.resize((area[rows, columns] > 0).astype(np.uint8) * 255, size)
        contours, _ = cv2.findContours(
            (share > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, contours, -1, colour, 1, cv2.LINE_AA)
    for nodule in nodules:
        y = ((nodule.centre_zyx[1] + 0.5 - rows.start) * dy) * scale - 0.5
        x = ((nodule.centre_zyx[2] + 0.5 - columns.start) * dx) * scale - 0.5
        # A rim of three pixels keeps the circle off the nodule.
        radius = 0.5 * nodule.diameter_mm * scale + 3
        colour = COVERED_COLOUR if nodule.coverage >= WELL_COVERED else UNCOVERED_COLOUR
        _circle(picture, x, y, radius, colour)
    tile = np.zeros((tile_px, tile_px, 3), dtype=np.uint8)
    top, left = (tile_px - size[1]) // 2, (tile_px - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = picture
    return tile


def _circle(
    picture: np.ndarray, x: float, y: float, radius: float, colour: tuple[int, int, int]
) -> None:
    fine = 1 << _SUBPIXEL_BITS
    centre = (round(x * fine), round(y * fine))
    cv2.circle(picture, centre, round(radius * fine), colour, 1, cv2.LINE_AA, shift=_SUBPIXEL_BITS)


def _patient_box(projection_hu: np.ndarray) -> tuple[slice, slice]:
    """Return the box around everything denser than air, or the whole slice."""
    tissue = projection_hu > TISSUE_HU
    box = []
    for axis in (1, 0):
        hit = np.flatnonzero(tissue.any(axis=axis))
        size = projection_hu.shape[1 - axis]
        box.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, size))
    return box[0], box[1]
