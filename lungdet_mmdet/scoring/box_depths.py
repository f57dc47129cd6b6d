"""Where the boxes of a slab lie along its normal, from the depth of the maximum.

Without it every candidate lies on a mid-plane: of nodules up to 7 mm, a seventh is then missed by
a mark that is right in the plane (docs/evaluation.md has the measurements).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.ct.slabs import DEPTH_STEPS
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections

# The core of a box: the ellipse of this share of its width and height. Further out lie the
# surroundings, whose maxima come from any slice.
CORE_SHARE = 0.7
# At least so many pixels across, however small the box.
MIN_CORE_PX = 1.5
# Standard deviation of a candidate's z: this much where all depths of its core agree, and this
# share of their own spread. Fitted to nodules of phantoms and real ones set into a real scan.
SD_FLOOR_MM = 0.6
SD_OF_SPREAD = 0.5


def with_depths(
    found: SlabDetections, slab: Slab, depths: NDArray[np.uint8] | None
) -> SlabDetections:
    """Return the detections of a slab with their positions along its normal.

    A box lies at the mean depth of the pixels of its core, and is as sure as these agree.

    Parameters
    ----------
    found : the boxes.
    slab : where the slab lies.
    depths : (y, x) as of ``mip_slabs``; None leaves the boxes on the mid-plane.
    """
    if depths is None:
        return found
    low, high = np.sort(slab.geometry.z_range_mm)
    shares = np.array([_core_depth(box, depths) for box in found.boxes_xyxy_px]).reshape(-1, 2)
    return replace(
        found,
        z_mm=low + shares[:, 0] * (high - low),
        z_sd_mm=np.hypot(SD_FLOOR_MM, SD_OF_SPREAD * shares[:, 1] * (high - low)),
    )


def _core_depth(box_xyxy_px: NDArray[np.float64], depths: NDArray[np.uint8]) -> tuple[float, float]:
    """Return mean and spread of the depths in the core of a box, as shares of the thickness."""
    core = core_pixels(box_xyxy_px, depths)
    if not core.size:
        return 0.5, 1 / np.sqrt(12)  # outside the image: anywhere
    return core.mean() / DEPTH_STEPS, core.std() / DEPTH_STEPS


def core_pixels(
    box_xyxy_px: NDArray[np.float64], image: NDArray, *, share: float = CORE_SHARE
) -> NDArray:
    """Return the pixels (N,) of an image (y, x) in the ellipse of a share of a box's sides."""
    height, width = image.shape
    middle = (box_xyxy_px[:2] + box_xyxy_px[2:]) / 2
    half = np.maximum((box_xyxy_px[2:] - box_xyxy_px[:2]) * share, MIN_CORE_PX) / 2
    first = np.clip(np.floor(middle - half), 0, (width, height)).astype(int)
    stop = np.clip(np.ceil(middle + half), 0, (width, height)).astype(int)
    across, down = (
        (np.arange(first[axis], stop[axis]) + 0.5 - middle[axis]) / half[axis] for axis in (0, 1)
    )
    patch = image[first[1] : stop[1], first[0] : stop[0]]
    core = patch[across**2 + down[:, None] ** 2 <= 1]
    return core if core.size else patch.ravel()


def missing_depths_note(n_missing: int, n_slabs: int) -> str | None:
    """Say in one line how many slabs have no depth, and what that does; None where all have."""
    if not n_missing:
        return None
    return (
        f"{n_missing} of {n_slabs} slabs have no depth of the maximum (prepared by an older "
        "version, or with depth=False): their candidates lie on the mid-plane, up to half a slab "
        "off. Prepare, and make the splits, again to place them"
    )


def read_depths(path: str | Path) -> NDArray[np.uint8] | None:
    """Read the depths that preparation wrote beside a slab, or None where there is no such image.

    Raises
    ------
    LungDetError
        If the file is there and cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        return None
    depths = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if depths is None or depths.ndim != 2 or depths.dtype != np.uint8:
        raise LungDetError(
            f"{path}: is no 8-bit grey PNG; delete the scan's folder and prepare it again"
        )
    return depths.astype(np.uint8, copy=False)
