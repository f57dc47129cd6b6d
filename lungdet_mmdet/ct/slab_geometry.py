"""Where one slab image lies in the patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lungdet_mmdet.ct.geometry import IDENTITY_DIRECTION
from lungdet_mmdet.errors import LungDetError


@dataclass(frozen=True)
class SlabGeometry:
    """Where one slab image lies in the patient.

    Parameters
    ----------
    index : number of the slab in its scan, from 0 at the lowest slice.
    width, height : image size in pixels.
    z_range_mm : the slab's two faces (low, high), measured along the slab normal (the third column
        of ``direction``); for an identity direction these are world z.
    spacing_xy_mm : pixel size along x, y.
    origin_xyz_mm : world position of the centre of pixel (0, 0) on the slab's mid-plane.
    direction : nine numbers, row-major 3x3; columns are the unit vectors of image x, y and normal.

    Raises
    ------
    LungDetError
        If the image is empty, the faces are not in order, the pixel size is not positive, a number
        is not finite, or there are not nine numbers of direction.
    """

    index: int
    width: int
    height: int
    z_range_mm: tuple[float, float]
    spacing_xy_mm: tuple[float, float]
    origin_xyz_mm: tuple[float, float, float]
    direction: tuple[float, ...] = IDENTITY_DIRECTION

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise LungDetError(
                f"slab {self.index}: size is {self.width} x {self.height} pixels; at least 1 x 1 "
                "is needed. Prepare the scan again"
            )
        if not self.z_range_mm[0] < self.z_range_mm[1]:
            raise LungDetError(
                f"slab {self.index}: z_range_mm is {self.z_range_mm}; low must be below high. "
                "Prepare the scan again"
            )
        if not min(self.spacing_xy_mm) > 0 or len(self.direction) != 9:
            raise LungDetError(
                f"slab {self.index}: spacing {self.spacing_xy_mm} mm, direction {self.direction}; "
                "needed are positive spacings and nine numbers. Prepare the scan again"
            )
        numbers = (*self.z_range_mm, *self.spacing_xy_mm, *self.origin_xyz_mm, *self.direction)
        if not np.all(np.isfinite(numbers)):
            raise LungDetError(
                f"slab {self.index}: z_range_mm {self.z_range_mm}, spacing {self.spacing_xy_mm}, "
                f"origin {self.origin_xyz_mm}, direction {self.direction}; all must be finite. "
                "Prepare the scan again"
            )

    def as_record(self) -> dict[str, Any]:
        """Return the fields under the names of the prepared dataset, as plain JSON values."""
        low, high = self.z_range_mm
        return {
            "index": self.index,
            "width": self.width,
            "height": self.height,
            "z_range_mm": [low, high],
            "spacing": [*self.spacing_xy_mm, high - low],
            "origin": list(self.origin_xyz_mm),
            "direction": list(self.direction),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SlabGeometry:
        """Read a slab of ``scan.json`` or an image of a COCO file of the prepared dataset.

        Further fields are left alone.

        Raises
        ------
        LungDetError
            If a field is missing or is not what it should be.
        """
        try:
            low, high = (float(value) for value in record["z_range_mm"])
            x, y, z = (float(value) for value in record["origin"])
            return cls(
                index=int(record["index"] if "index" in record else record["slab_index"]),
                width=int(record["width"]),
                height=int(record["height"]),
                z_range_mm=(low, high),
                spacing_xy_mm=(float(record["spacing"][0]), float(record["spacing"][1])),
                origin_xyz_mm=(x, y, z),
                direction=tuple(float(value) for value in record["direction"]),
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise LungDetError(
                f"slab record {dict(record)} is not complete ({type(error).__name__}: {error}); "
                "prepare the scan again"
            ) from error
