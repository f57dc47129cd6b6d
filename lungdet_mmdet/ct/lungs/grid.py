# SPDX-License-Identifier: Apache-2.0
"""The coarse grid on which lungs are found, and the way back to the scan's own grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from lungdet_mmdet.ct.lungs.morphology import Mask, Spacing, bounding_box

Shape = tuple[int, int, int]

TAIL = 1.6
"""Beyond the surface a field falls ever more slowly: a cut that is lower by a share s lies
s + TAIL s^2 blocks further out (fitted to the lungs of two scans, see docs/data.md)."""
FULL = 200
"""Value of a block that lies wholly inside; the surface is at half of it."""


@dataclass(frozen=True)
class CoarseGrid:
    """Blocks of whole voxels of a scan.

    Parameters
    ----------
    factors_zyx : scan voxels per block.
    spacing_zyx_mm : size of a block.
    shape_zyx : number of blocks; the last ones may hang over the end of the scan.
    scan_shape_zyx : voxels of the scan.
    """

    factors_zyx: Shape
    spacing_zyx_mm: Spacing
    shape_zyx: Shape
    scan_shape_zyx: Shape

    @classmethod
    def covering(
        cls, shape_zyx: tuple[int, ...], spacing_zyx_mm: Spacing, grid_mm: float
    ) -> CoarseGrid:
        """Choose the whole-number block nearest to ``grid_mm`` along each axis."""
        fz, fy, fx = (
            min(max(1, round(grid_mm / spacing)), size)
            for spacing, size in zip(spacing_zyx_mm, shape_zyx, strict=True)
        )
        sz, sy, sx = spacing_zyx_mm
        nz, ny, nx = shape_zyx
        return cls(
            factors_zyx=(fz, fy, fx),
            spacing_zyx_mm=(sz * fz, sy * fy, sx * fx),
            shape_zyx=(-(-nz // fz), -(-ny // fy), -(-nx // fx)),
            scan_shape_zyx=(nz, ny, nx),
        )

    @property
    def voxel_ml(self) -> float:
        """Volume of a block in millilitres."""
        return float(np.prod(self.spacing_zyx_mm)) / 1000.0

    def block_mean(self, volume: np.ndarray) -> np.ndarray:
        """Average the scan over the blocks.

        The mean keeps thin walls (pleura, bowel) that picking every n-th voxel would lose.

        Parameters
        ----------
        volume : int16 (z, y, x).

        Returns
        -------
        int16 (z, y, x), one value per block.
        """
        depth, height, width = self.shape_zyx
        fz, fy, fx = self.factors_zyx
        over_y, over_x = height * fy - volume.shape[1], width * fx - volume.shape[2]
        coarse = np.empty(self.shape_zyx, np.int16)
        total = np.empty((height, width), np.int32)
        for k in range(depth):
            images = volume[k * fz : (k + 1) * fz]
            total[:] = 0
            for image in images:
                if over_y or over_x:
                    image = cv2.copyMakeBorder(image, 0, over_y, 0, over_x, cv2.BORDER_REPLICATE)
                total += cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            coarse[k] = total // len(images)
        return coarse

    def to_scan(self, field: np.ndarray, *, margin_mm: float = 0.0) -> Mask:
        """Draw the surface at which a field of the blocks is half full on the scan's grid.

        The field is interpolated linearly and cut, so the surface lies between the blocks, where
        the shares of neighbouring blocks put it.

        Parameters
        ----------
        field : uint8, 0 (outside) to `FULL` (inside), one value per block.
        margin_mm : how far to move the surface outwards. Done by the level of the cut, so it is
            limited to 0.65 of a block.

        Returns
        -------
        uint8 0/1 (z, y, x) of the scan's shape.
        """
        out = np.zeros(self.scan_shape_zyx, np.uint8)
        blocks = max(margin_mm / float(np.mean(self.spacing_zyx_mm)), 0.0)
        share = min((math.sqrt(1 + 4 * TAIL * blocks) - 1) / (2 * TAIL), 0.4)
        cut = FULL * (0.5 - share) - 0.5
        for k, window, grey in self._planes(field):
            plane = cv2.threshold(grey, cut, 1, cv2.THRESH_BINARY)[1]
            target = out[(k, *window)]
            target[:] = plane[: target.shape[0], : target.shape[1]]
        return out

    def interpolated(self, field: np.ndarray) -> np.ndarray:
        """Interpolate a field of the blocks linearly on the scan's grid; uint8 in and out."""
        out = np.zeros(self.scan_shape_zyx, np.uint8)
        for k, window, grey in self._planes(field):
            target = out[(k, *window)]
            target[:] = grey[: target.shape[0], : target.shape[1]]
        return out

    def _planes(self, field: np.ndarray) -> Iterator[tuple[int, tuple[slice, slice], np.ndarray]]:
        """Yield the scan's slices near the field's foreground: index, rows and columns, values."""
        if not field.any():
            return
        box = bounding_box(field, (1, 1, 1))
        planes = field[box]
        fz, fy, fx = self.factors_zyx
        width, height = planes.shape[2] * fx, planes.shape[1] * fy
        window = (
            slice(box[1].start * fy, min(box[1].stop * fy, self.scan_shape_zyx[1])),
            slice(box[2].start * fx, min(box[2].stop * fx, self.scan_shape_zyx[2])),
        )
        last = planes.shape[0] - 1
        enlarged: dict[int, np.ndarray] = {}
        for k in range(box[0].start * fz, min(box[0].stop * fz, self.scan_shape_zyx[0])):
            # The centre of block c lies at scan index c * f + (f - 1) / 2.
            z = min(max((k - (fz - 1) / 2) / fz - box[0].start, 0.0), float(last))
            below = int(z)
            above = min(below + 1, last)
            for c in (below, above):
                if c not in enlarged:
                    enlarged = {i: p for i, p in enlarged.items() if i >= below}
                    enlarged[c] = cv2.resize(
                        planes[c], (width, height), interpolation=cv2.INTER_LINEAR
                    )
            grey = cv2.addWeighted(enlarged[below], 1 + below - z, enlarged[above], z - below, 0)
            yield k, window, grey

    def from_scan(self, mask: np.ndarray) -> Mask:
        """Bring a mask of the scan to the blocks: 1 where at least half of the block is inside."""
        share = self.block_mean((mask > 0).astype(np.int16) * np.int16(FULL))
        return (share >= FULL // 2).astype(np.uint8)
