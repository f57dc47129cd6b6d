# SPDX-License-Identifier: Apache-2.0
"""Pictures of a scan: planes through it, crops, strips, an overview, its slices for a page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import cv2
import numpy as np
from scipy.ndimage import map_coordinates

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import AIR_HU, window_hu
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
from lungdet_mmdet.reports.page import encoded_jpeg

CROP_MM = 60.0
CROP_PIXELS = 120
MARK_RGB = (255, 176, 46)
NOTICE_RGB = (107, 29, 29)
# World directions (LPS) to the right and downwards in each picture, as radiologists hang them.
_PLANES = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
}


def sample_plane(
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    *,
    first_xyz_mm: np.ndarray,
    right_xyz_mm: np.ndarray,
    down_xyz_mm: np.ndarray,
    size_yx: tuple[int, int],
) -> np.ndarray:
    """Return a picture (y, x) uint8 of a plane through a scan, lung window.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x).
    geometry : its grid.
    first_xyz_mm : world point of the centre of the first pixel.
    right_xyz_mm, down_xyz_mm : world vectors from one pixel to the next along x and y.
    size_yx : pixels along y and x. What lies outside the scan is air.
    """
    rows, columns = np.mgrid[: size_yx[0], : size_yx[1]]
    points = first_xyz_mm + columns[..., None] * right_xyz_mm + rows[..., None] * down_xyz_mm
    voxels_zyx = np.moveaxis(geometry.world_to_voxel(points), -1, 0)
    # int16 in, int16 out: no copy of the volume as floating point.
    values = map_coordinates(volume_hu, voxels_zyx, order=1, cval=AIR_HU)
    return window_hu(values[None])[0]


def nodule_crops(
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    centre_xyz_mm: tuple[float, float, float],
    *,
    size_mm: float = CROP_MM,
    size_px: int = CROP_PIXELS,
) -> dict[str, np.ndarray]:
    """Return square axial, coronal and sagittal pictures around a world point, by name."""
    step = size_mm / size_px
    crops = {}
    for name, (right, down) in _PLANES.items():
        right_mm, down_mm = step * np.asarray(right), step * np.asarray(down)
        crops[name] = sample_plane(
            volume_hu,
            geometry,
            first_xyz_mm=np.asarray(centre_xyz_mm) - (right_mm + down_mm) * (size_px - 1) / 2.0,
            right_xyz_mm=right_mm,
            down_xyz_mm=down_mm,
            size_yx=(size_px, size_px),
        )
    return crops


def overview(
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    centre_xyz_mm: tuple[float, float, float],
    *,
    size_px: int = 150,
    mark_mm: float | None = None,
) -> np.ndarray:
    """Return a whole chest small: RGB (size_px, 2 size_px, 3), axial and coronal through a point.

    ``mark_mm`` draws a circle of this diameter around the point.
    """
    low, high = geometry.voxel_to_world(np.array([(0, 0, 0), geometry.size_zyx]))
    step = float(np.abs(geometry.axes_xyz.T @ (high - low)).max()) / size_px
    tiles = []
    for name in ("axial", "coronal"):
        right, down = (step * np.asarray(direction) for direction in _PLANES[name])
        middle = (low + high) / 2
        # The plane goes through the point, the middle of the picture is that of the scan.
        normal = np.cross(right, down) / step**2
        middle = middle + normal * (normal @ (np.asarray(centre_xyz_mm) - middle))
        first = middle - (right + down) * (size_px - 1) / 2.0
        tile = sample_plane(
            volume_hu,
            geometry,
            first_xyz_mm=first,
            right_xyz_mm=right,
            down_xyz_mm=down,
            size_yx=(size_px, size_px),
        )
        picture = np.repeat(tile[:, :, None], 3, axis=2)
        if mark_mm is not None:
            offset = np.asarray(centre_xyz_mm) - first
            at = [int(round(float(offset @ axis) / step**2)) for axis in (right, down)]
            radius = max(int(round(mark_mm / 2 / step)), 2) + 4
            cv2.circle(picture, at, radius, MARK_RGB, 1, cv2.LINE_AA)
        tiles.append(picture)
    return np.concatenate(tiles, axis=1)


STRIP_TILE_PX = 160
OUTLINE_RGB = (255, 220, 60)
STRIP_COLUMNS = (
    "before", "after", "outline", "7.5 mm before", "7.5 mm after", "coronal", "sagittal",
)  # fmt: skip


def nodule_strips(
    before_hu: np.ndarray,
    after_hu: np.ndarray,
    labels: np.ndarray,
    geometry: ScanGeometry,
    centres_xyz_mm: Sequence[tuple[float, float, float]],
) -> bytes | None:
    """Return a JPEG of one strip per nodule, ``STRIP_COLUMNS`` side by side; None without nodules.

    Parameters
    ----------
    before_hu, after_hu : int16 (z, y, x), the scan without and with the nodules.
    labels : (z, y, x), 0 outside the nodules.
    geometry : the grid of all three.
    centres_xyz_mm : the nodules in world mm, as they are to be shown from top to bottom.
    """
    strips = []
    for centre in centres_xyz_mm:
        old, new = (
            nodule_crops(volume, geometry, centre, size_px=STRIP_TILE_PX)
            for volume in (before_hu, after_hu)
        )
        marked = _outlined(new["axial"], labels, geometry, centre)
        slabs = [_projection(volume, geometry, centre) for volume in (before_hu, after_hu)]
        tiles = [old["axial"], new["axial"], marked, *slabs, new["coronal"], new["sagittal"]]
        strips.append(np.concatenate([_coloured(tile) for tile in tiles], axis=1))
    if not strips:
        return None
    return encoded_jpeg(np.concatenate(strips, axis=0), quality=80, thin_colours=False)


def _coloured(tile: np.ndarray) -> np.ndarray:
    picture = tile if tile.ndim == 3 else cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB)
    picture[:, -1] = 0
    picture[-1] = 0
    return picture


def _around(
    volume: np.ndarray, geometry: ScanGeometry, centre, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the slices around a point (depth, y, x), and their map to a tile."""
    z, y, x = geometry.world_to_voxel(np.asarray(centre))
    first = min(max(round(z - 0.5 * (depth - 1)), 0), max(0, len(volume) - depth))
    dy, dx = (s * STRIP_TILE_PX / CROP_MM for s in geometry.spacing_zyx_mm[1:])
    middle = 0.5 * (STRIP_TILE_PX - 1)
    to_tile = np.array([[dx, 0.0, middle - dx * x], [0.0, dy, middle - dy * y]])
    return volume[first : first + depth], to_tile


def _projection(volume: np.ndarray, geometry: ScanGeometry, centre) -> np.ndarray:
    depth = max(1, round(SLAB_THICKNESS_MM / geometry.spacing_zyx_mm[0]))
    slices, to_tile = _around(volume, geometry, centre, depth)
    grey = window_hu(slices.max(axis=0)[None])[0]
    return cv2.warpAffine(grey, to_tile, (STRIP_TILE_PX, STRIP_TILE_PX), flags=cv2.INTER_LINEAR)


def _outlined(tile: np.ndarray, labels: np.ndarray, geometry: ScanGeometry, centre) -> np.ndarray:
    slices, to_tile = _around(labels, geometry, centre, 1)
    inside = (slices[0] > 0).astype(np.uint8) * 255
    share = cv2.warpAffine(inside, to_tile, (STRIP_TILE_PX, STRIP_TILE_PX), flags=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours(
        (share > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    picture = cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB)
    cv2.drawContours(picture, contours, -1, OUTLINE_RGB, 1)
    return picture


CAPTURE_PX = 1024
CAPTURE_COLUMNS, CAPTURE_ROWS = 3, 2
_LINE_PX = 24


def capture_picture(
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    candidates: Sequence[tuple[str, tuple[float, float, float], float]],
    *,
    heading: str,
    lines: Sequence[str],
) -> np.ndarray:
    """Return the best candidates on one picture with its texts in it: RGB, ``CAPTURE_PX`` wide.

    Parameters
    ----------
    volume_hu, geometry : the scan.
    candidates : caption, centre in world mm and diameter in mm of each, best first. As many are
        shown as have a place; where there is none, the middle of the scan is.
    heading : the notice, on a red bar.
    lines : texts under it.
    """
    size = CAPTURE_PX // CAPTURE_COLUMNS
    shown = list(candidates[: CAPTURE_COLUMNS * CAPTURE_ROWS])
    rest = len(candidates) - len(shown)
    texts = [part for line in lines for part in textwrap.wrap(line, 100)]
    texts += [f"and {rest} more, not shown here"] if rest else []
    top = _LINE_PX * (len(texts) + 2)
    picture = np.zeros((top + CAPTURE_ROWS * (size + _LINE_PX), CAPTURE_PX, 3), dtype=np.uint8)
    picture[: _LINE_PX + 8] = NOTICE_RGB

    def write(text: str, x: int, y: int, scale: float = 0.5) -> None:
        white = (255, 255, 255)
        # OpenCV's letters are ASCII.
        plain = text.encode("ascii", "replace").decode()
        cv2.putText(picture, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, white, 1, cv2.LINE_AA)

    write(heading, 10, _LINE_PX - 2, 0.7)
    for row, text in enumerate(texts):
        write(text, 10, _LINE_PX * (row + 2) + 2)
    if not shown:
        middle = overview(
            volume_hu,
            geometry,
            tuple(geometry.voxel_to_world((np.asarray(geometry.size_zyx) - 1) / 2).tolist()),
            size_px=CAPTURE_PX // 2,
        )
        picture[top : top + len(middle), : middle.shape[1]] = middle
    for place, (caption, centre, diameter_mm) in enumerate(shown):
        row, column = divmod(place, CAPTURE_COLUMNS)
        y, x = top + row * (size + _LINE_PX), column * size
        crop = nodule_crops(volume_hu, geometry, centre, size_px=size)["axial"]
        tile = np.repeat(crop[:, :, None], 3, axis=2)
        radius = round((diameter_mm / 2 + 1) * size / CROP_MM)
        cv2.circle(tile, (size // 2, size // 2), radius, MARK_RGB, 1, cv2.LINE_AA)
        picture[y : y + size, x : x + size] = tile
        write(caption, x + 6, y + size + 17, 0.45)
    return picture


# Grey values of stored slices: Hounsfield units at these grey values, straight lines in between.
# An eighth of the lung window a step, 5 HU in soft tissue, where windows are narrow.
GREY_AT = (0, 104, 196, 255)
HU_AT = (-1024, -200, 240, 1600)
MAX_SLICE_BYTES = 24_000_000
SLICE_QUALITIES = (90, 80, 65, 50, 30)
_TRIED = 9


def hu_of_grey() -> np.ndarray:
    """Return the Hounsfield units of the 256 grey values of stored slices, (256,)."""
    return np.interp(np.arange(256), GREY_AT, HU_AT)


def stored_slices(
    volume_hu: np.ndarray, *, max_bytes: int = MAX_SLICE_BYTES
) -> tuple[list[bytes], int]:
    """Return each slice of a volume as a JPEG, at the best quality that keeps all of them small.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x).
    max_bytes : size of all; a few slices tell which quality comes below it. The least is taken
        where none does.

    Returns
    -------
    jpegs, quality : the slices, and the quality taken.
    """
    grey = np.interp(np.arange(-(2**15), 2**15), HU_AT, GREY_AT).round().astype(np.uint8)

    def encoded(index: int, quality: int) -> bytes:
        return encoded_jpeg(grey[volume_hu[index].astype(np.int32) + 2**15], quality=quality)

    tried = np.unique(np.linspace(0, len(volume_hu) - 1, _TRIED).round().astype(int))
    for quality in SLICE_QUALITIES:
        sizes = [len(encoded(index, quality)) for index in tried]
        if float(np.mean(sizes)) * len(volume_hu) <= max_bytes:
            break
    # OpenCV encodes without holding up other threads.
    with ThreadPoolExecutor(max(1, cv2.getNumThreads())) as pool:
        return list(pool.map(partial(encoded, quality=quality), range(len(volume_hu)))), quality
