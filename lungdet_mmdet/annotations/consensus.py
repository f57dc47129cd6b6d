# SPDX-License-Identifier: Apache-2.0
"""From the readers' contours to one mask per nodule: filling, grouping, consensus.

Contours are taken by the position of their slice. Their pixels lie outside the nodule, so a mask is
what they enclose, without them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lungdet_mmdet.annotations.lidc import RATINGS, Contour, LidcSeries, Reading
from lungdet_mmdet.annotations.mask_nodules import sphere_diameter_mm
from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.reading import NIFTI_SUFFIXES, SCAN_SUFFIXES
from lungdet_mmdet.ct.scan_inputs import ScanInput
from lungdet_mmdet.errors import LungDetError

MIN_READERS = 3
"""LUNA16 counts the nodules that three readers of four or more marked."""
MIN_SHARE = 0.5
"""Share of those readers whose outlines must hold a voxel."""
MAX_READERS = 4
# Each try to part a group of more than four readings asks for so much less distance.
_SHRINK = 0.9
_MIN_TOLERANCE_MM = 0.1


@dataclass(frozen=True)
class PlacedMask:
    """A mask in a part of a scan's grid.

    Parameters
    ----------
    start_zyx : voxel of the scan at which the mask's first voxel lies; may be negative.
    mask : bool (z, y, x).
    """

    start_zyx: tuple[int, int, int]
    mask: np.ndarray

    @property
    def stop_zyx(self) -> tuple[int, int, int]:
        """One past the last voxel along each axis."""
        z, y, x = (a + n for a, n in zip(self.start_zyx, self.mask.shape, strict=True))
        return z, y, x


@dataclass(frozen=True)
class ConsensusNodule:
    """One nodule that enough readers marked.

    Parameters
    ----------
    placed : voxels that enough of them hold to be nodule.
    readings : one per reader, with their ratings.
    masks : what each of them drew, in the order of ``readings``.
    """

    placed: PlacedMask
    readings: tuple[Reading, ...]
    masks: tuple[PlacedMask, ...]

    def rating_values(self, name: str) -> tuple[int, ...]:
        """Return the readers' values of one rating."""
        if name not in RATINGS:
            raise LungDetError(f"rating {name!r}: choose one of {', '.join(RATINGS)}")
        return tuple(r.ratings[name] for r in self.readings if name in r.ratings)


def consensus_nodules(
    readings: Sequence[Reading],
    slice_positions_mm: Sequence[float],
    pixel_mm: float,
    *,
    min_readers: int = MIN_READERS,
    min_share: float = MIN_SHARE,
    problems: Counter[str] | None = None,
) -> list[ConsensusNodule]:
    """Return the nodules of a series that at least ``min_readers`` readers marked.

    Parameters
    ----------
    readings : of all readers.
    slice_positions_mm : of every slice, in the order of the grid that the masks shall lie on.
    pixel_mm : pixel size, to tell which readings are of one nodule.
    min_readers : readings that a nodule needs.
    min_share : in (0, 1], share of a nodule's readings that must hold a voxel.
    problems : counts what could not be used, in words.

    Returns
    -------
    Nodules from the lowest slice up, where any voxel has the share.
    """
    if min_readers < 1 or not 0 < min_share <= 1:
        raise LungDetError(
            f"min_readers is {min_readers}, min_share {min_share}: give an integer >= 1 and a "
            "share in (0, 1]"
        )
    problems = Counter() if problems is None else problems
    positions = np.asarray(slice_positions_mm, dtype=float)
    filled: list[tuple[Reading, PlacedMask]] = []
    for reading in readings:
        placed = reading_mask(reading, positions, problems=problems)
        if placed is None:
            problems["outlines that enclose no voxel"] += 1
        else:
            filled.append((reading, placed))
    nodules = []
    for group in group_readings([r for r, _ in filled], pixel_mm, _slice_mm(positions)):
        if len(group) < min_readers:
            continue
        masks = tuple(filled[i][1] for i in group)
        placed = majority(masks, min_share)
        if placed is None:
            problems["nodules without a voxel that enough readers share"] += 1
            continue
        nodules.append(ConsensusNodule(placed, tuple(filled[i][0] for i in group), masks))
    return sorted(nodules, key=lambda nodule: nodule.placed.start_zyx)


def _slice_mm(positions: np.ndarray) -> float:
    return float(np.median(np.abs(np.diff(positions)))) if len(positions) > 1 else 1.0


def reading_mask(
    reading: Reading, slice_positions_mm: np.ndarray, *, problems: Counter[str] | None = None
) -> PlacedMask | None:
    """Return the voxels that a reader's contours enclose; None where they enclose none.

    A contour goes to the slice at its position; one that is further than half a slice from every
    slice is left out and counted.
    """
    by_slice: dict[int, list[Contour]] = defaultdict(list)
    reach = 0.5 * _slice_mm(slice_positions_mm) + 1e-3
    for contour in reading.contours:
        place = int(np.argmin(np.abs(slice_positions_mm - contour.z_mm)))
        if abs(slice_positions_mm[place] - contour.z_mm) > reach:
            if problems is not None:
                problems["contours on no slice of the scan"] += 1
        elif len(contour.points_xy_px):
            by_slice[place].append(contour)
    if not by_slice:
        return None
    points = np.concatenate([c.points_xy_px for cs in by_slice.values() for c in cs])
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    z0, z1 = min(by_slice), max(by_slice)
    mask = np.zeros((z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1), dtype=bool)
    for place, contours in by_slice.items():
        mask[place - z0] = _enclosed(contours, (x0, y0), mask.shape[1:])
    return _trimmed(PlacedMask((z0, y0, x0), mask))


def _enclosed(
    contours: Sequence[Contour], first_xy: tuple[int, int], shape_yx: tuple[int, ...]
) -> np.ndarray:
    inside = np.zeros(shape_yx, dtype=bool)
    # Holes last, whatever the order of the contours.
    for contour in sorted(contours, key=lambda c: not c.included):
        line = (contour.points_xy_px - np.array(first_xy)).reshape(-1, 1, 2).astype(np.int32)
        within = np.zeros(shape_yx, dtype=np.uint8)
        cv2.fillPoly(within, [line], 1)
        cv2.polylines(within, [line], isClosed=True, color=0)
        if contour.included:
            inside |= within > 0
        else:
            inside &= within == 0
    return inside


def _trimmed(placed: PlacedMask) -> PlacedMask | None:
    hits = [
        np.flatnonzero(placed.mask.any(axis=tuple(a for a in range(3) if a != axis)))
        for axis in range(3)
    ]
    if not len(hits[0]):
        return None
    z, y, x = (slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    first = tuple(a + s.start for a, s in zip(placed.start_zyx, (z, y, x), strict=True))
    return PlacedMask((first[0], first[1], first[2]), placed.mask[z, y, x])


def majority(masks: Sequence[PlacedMask], min_share: float) -> PlacedMask | None:
    """Return the voxels that at least a share of the masks hold; None where there are none."""
    start = np.min([m.start_zyx for m in masks], axis=0)
    stop = np.max([m.stop_zyx for m in masks], axis=0)
    votes = np.zeros(tuple(stop - start), dtype=np.uint8)
    for placed in masks:
        z, y, x = np.array(placed.start_zyx) - start
        depth, height, width = placed.mask.shape
        votes[z : z + depth, y : y + height, x : x + width] += placed.mask
    z, y, x = start.tolist()
    # Half of three readers is two of them; a hair off for shares such as 2/3.
    return _trimmed(PlacedMask((z, y, x), votes >= min_share * len(masks) - 1e-9))


def group_readings(
    readings: Sequence[Reading], pixel_mm: float, slice_mm: float
) -> list[list[int]]:
    """Tell which readings are of one nodule: those whose contours come within a slice's thickness.

    Groups of more readings than there are readers, or with two of one reader where that is known,
    are parted by asking for less distance, as far as that helps.

    Returns
    -------
    Indices into ``readings``, each in one group.
    """
    if not readings:
        return []
    distances = _distances_mm(readings, pixel_mm)
    groups: list[list[int]] = []
    waiting = [(list(range(len(readings))), max(slice_mm, pixel_mm))]
    while waiting:
        members, tolerance = waiting.pop()
        near = distances[np.ix_(members, members)] <= tolerance
        n, numbers = connected_components(coo_matrix(near), directed=False)
        for number in range(n):
            group = [members[i] for i in np.flatnonzero(numbers == number)]
            if _is_one_nodule([readings[i] for i in group]) or tolerance < _MIN_TOLERANCE_MM:
                groups.append(group)
            else:
                waiting.append((group, tolerance * _SHRINK))
    return sorted(groups)


def _is_one_nodule(readings: Sequence[Reading]) -> bool:
    known = [r.reader for r in readings if r.reader is not None]
    return len(readings) <= MAX_READERS and len(set(known)) == len(known)


def _distances_mm(readings: Sequence[Reading], pixel_mm: float) -> np.ndarray:
    """Return (N, N) least distances between the contours of every two readings."""
    clouds = []
    for reading in readings:
        rows = [
            np.column_stack([c.points_xy_px * pixel_mm, np.full(len(c.points_xy_px), c.z_mm)])
            for c in reading.contours
        ]
        clouds.append(np.concatenate(rows) if rows else np.full((1, 3), np.inf))
    trees = [cKDTree(cloud) for cloud in clouds]
    distances = np.zeros((len(readings), len(readings)))
    for i in range(len(readings)):
        for j in range(i):
            least = trees[i].query(clouds[j])[0].min()
            distances[i, j] = distances[j, i] = least
    return distances


# A slice along the body's axis: contours give nothing but z to tell where a slice lies.
_AXIAL = 0.999
# Databases give pixel sizes to a hundredth and better.
_PIXEL_TOLERANCE = 0.01


def nodules_on_grid(
    series: LidcSeries,
    geometry: ScanGeometry,
    path: Path,
    *,
    min_readers: int = MIN_READERS,
    min_share: float = MIN_SHARE,
    flags: Counter[str] | None = None,
) -> list[ConsensusNodule]:
    """Return the consensus nodules of a series in voxels of its file's grid.

    Raises LungDetError if the grid is not axial, is mirrored, or its pixels have another size than
    the readers'.
    """
    along_z = geometry.normal_xyz[2]
    dz, dy, dx = geometry.spacing_zyx_mm
    if abs(along_z) < _AXIAL:
        raise LungDetError(
            f"{path}: slices run along {tuple(geometry.normal_xyz)}; contours can only be put on "
            "axial slices: use the scan as LUNA16 has it"
        )
    across, down = geometry.axes_xyz[0, 0], geometry.axes_xyz[1, 1]
    # NIfTI converters turn rows, columns or both; other files keep the order of the images, which
    # of a patient on his belly runs both ways backwards.
    name = path.name.lower()
    is_nifti = name.endswith(NIFTI_SUFFIXES)
    is_turned = min(across, down) <= 0 if is_nifti else across * down <= 0
    if is_turned and name.endswith(SCAN_SUFFIXES):
        raise LungDetError(
            f"{path}: its rows or columns run the other way than in the images that the contours "
            "were drawn on, as NIfTI converters store them; use the DICOM, or the scan as LUNA16 "
            "has it"
        )
    pixel = series.pixel_mm
    if pixel is not None and max(abs(dx - pixel), abs(dy - pixel)) > _PIXEL_TOLERANCE * pixel:
        raise LungDetError(
            f"{path}: pixels of {dx:g} x {dy:g} mm, but the contours were drawn on {pixel:g} mm; "
            "contours need the scan's own grid: use the scan as LUNA16 has it"
        )
    positions = geometry.origin_xyz_mm[2] + np.arange(geometry.size_zyx[0]) * dz * along_z
    return consensus_nodules(
        series.readings,
        positions.tolist(),
        dx,
        min_readers=min_readers,
        min_share=min_share,
        problems=flags,
    )


def centre_of(placed: PlacedMask, geometry: ScanGeometry) -> tuple[float, float, float]:
    """Return the world point (x, y, z) of the middle of a mask on a grid."""
    middle = np.argwhere(placed.mask).mean(axis=0) + np.array(placed.start_zyx)
    x, y, z = geometry.voxel_to_world(middle).tolist()
    return x, y, z


def consensus_spheres(series: LidcSeries, scan: ScanInput) -> list[Nodule]:
    """Return the nodules of three readers or more as spheres of their volume.

    Raises LungDetError if the scan's grid does not fit the contours.
    """
    geometry = scan.grid().upright(source=str(scan.path))
    voxel_mm3 = float(np.prod(geometry.spacing_zyx_mm))
    return [
        Nodule(
            f"{series.seriesuid}/{number}",
            series.seriesuid,
            centre_of(nodule.placed, geometry),
            sphere_diameter_mm(int(np.count_nonzero(nodule.placed.mask)) * voxel_mm3),
        )
        for number, nodule in enumerate(nodules_on_grid(series, geometry, scan.path))
    ]
