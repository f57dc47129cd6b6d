# SPDX-License-Identifier: Apache-2.0
"""How good sphere labels are: LUNA16's spheres against the outlines of LIDC's readers, on slabs.

No images are needed. The database does not know where a scan lies in the plane, so spheres are
centred on the readers' box before they are compared: what is measured is size and shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.annotations.consensus import ConsensusNodule, PlacedMask, consensus_nodules
from lungdet_mmdet.annotations.lidc import LidcSeries
from lungdet_mmdet.annotations.mask_nodules import sphere_diameter_mm
from lungdet_mmdet.annotations.slab_boxes import MIN_OVERLAP_MM, cut_sphere
from lungdet_mmdet.annotations.tables import PAPER_BANDS_MM, Nodule, by_series
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM

# A nodule of table and readers has one height, to a slice or so, and about one size.
_NEAR_Z_MM = 3.0
_NEAR_XY_MM = 2.5
_SIZE_RATIO = 1.6


@dataclass(frozen=True)
class SlabCut:
    """One nodule on one slab.

    Parameters
    ----------
    nodule_id, diameter_mm : of the table.
    width_mm, height_mm : of the median of the readers' boxes.
    sphere_mm : side of the sphere's square.
    iou_sphere : overlap of the two.
    iou_reader : overlap of one reader's box with the median of the others, one for each reader.
    """

    nodule_id: str
    diameter_mm: float
    width_mm: float
    height_mm: float
    sphere_mm: float
    iou_sphere: float
    iou_reader: tuple[float, ...]


@dataclass(frozen=True)
class LabelStudy:
    """All cuts, and how many nodules they come from."""

    cuts: tuple[SlabCut, ...]
    nodules_in_table: int
    nodules_of_readers: int
    matched: int


def study_labels(
    series: Iterable[LidcSeries],
    table: Sequence[Nodule],
    *,
    thickness_mm: float = SLAB_THICKNESS_MM,
    n_shifts: int = 3,
    seed: int = 0,
) -> LabelStudy:
    """Cut every nodule that table and readers share by slabs at random heights.

    Parameters
    ----------
    series : with readings, slice positions and pixel sizes.
    table : LUNA16's nodules.
    thickness_mm : of the slabs.
    n_shifts : random slab grids per nodule.
    seed : of the heights.
    """
    rng = np.random.default_rng(seed)
    rows = by_series(table)
    cuts: list[SlabCut] = []
    of_readers = matched = 0
    for found in series:
        assert found.pixel_mm is not None
        z_mm = np.array(found.slice_positions_mm)
        nodules = consensus_nodules(found.readings, z_mm.tolist(), found.pixel_mm)
        of_readers += len(nodules)
        spacing = float(np.median(np.diff(z_mm))) if len(z_mm) > 1 else 1.0
        pairs = match_without_origin(
            rows.get(found.seriesuid, ()), nodules, z_mm, found.pixel_mm, spacing
        )
        matched += len(pairs)
        for row, member in pairs:
            for _ in range(n_shifts):
                first = float(rng.uniform(0, thickness_mm))
                cuts += _cuts(row, member, z_mm, found.pixel_mm, first, thickness_mm)
    return LabelStudy(tuple(cuts), len(table), of_readers, matched)


def match_without_origin(
    table: Sequence[Nodule],
    nodules: Sequence[ConsensusNodule],
    z_mm: np.ndarray,
    pixel_mm: float,
    spacing_mm: float,
) -> list[tuple[Nodule, ConsensusNodule]]:
    """Pair the table's nodules with the readers' by height, size, and one common shift in plane."""
    places = [_place_mm(nodule.placed, z_mm, pixel_mm) for nodule in nodules]
    sizes = [
        sphere_diameter_mm(np.count_nonzero(n.placed.mask) * pixel_mm**2 * spacing_mm)
        for n in nodules
    ]
    possible = [
        (i, j, np.subtract(row.centre_xyz_mm[:2], places[j][:2]))
        for i, row in enumerate(table)
        for j in range(len(nodules))
        if abs(row.centre_xyz_mm[2] - places[j][2]) <= max(_NEAR_Z_MM, spacing_mm)
        and 1 / _SIZE_RATIO <= sizes[j] / row.diameter_mm <= _SIZE_RATIO
    ]
    best: list[tuple[int, int]] = []
    for _, _, shift in possible:
        # One pair sets the shift of the whole scan; the shift with most pairs is its origin.
        agreed: dict[int, int] = {}
        near = [
            (float(np.linalg.norm(other - shift)), i, j)
            for i, j, other in possible
            if np.linalg.norm(other - shift) <= _NEAR_XY_MM
        ]
        for _, i, j in sorted(near):
            if i not in agreed and j not in agreed.values():
                agreed[i] = j
        if len(agreed) > len(best):
            best = list(agreed.items())
    return [(table[i], nodules[j]) for i, j in best]


def _place_mm(placed: PlacedMask, z_mm: np.ndarray, pixel_mm: float) -> tuple[float, float, float]:
    z, y, x = np.nonzero(placed.mask)
    first_z, first_y, first_x = placed.start_zyx
    return (
        float((x.mean() + first_x) * pixel_mm),
        float((y.mean() + first_y) * pixel_mm),
        float(z_mm[z + first_z].mean()),
    )


def _cuts(
    row: Nodule,
    nodule: ConsensusNodule,
    z_mm: np.ndarray,
    pixel_mm: float,
    first_mm: float,
    thickness_mm: float,
) -> list[SlabCut]:
    radius, centre = 0.5 * row.diameter_mm, row.centre_xyz_mm[2]
    number = np.floor((centre - radius - first_mm) / thickness_mm)
    cuts = []
    while (low := first_mm + number * thickness_mm) < centre + radius:
        number += 1
        high = low + thickness_mm
        overlap, section = cut_sphere(*np.array([centre, radius, low, high]))
        if overlap < MIN_OVERLAP_MM:
            continue
        found = (_box_mm(mask, z_mm, pixel_mm, low, high) for mask in nodule.masks)
        boxes = [box for box in found if box is not None]
        # A slab that only few readers see is no label by consensus.
        if 2 * len(boxes) < len(nodule.masks) or len(boxes) < 2:
            continue
        cuts.append(_compared(row, np.array(boxes), 2 * float(section)))
    return cuts


def _box_mm(
    placed: PlacedMask, z_mm: np.ndarray, pixel_mm: float, low: float, high: float
) -> np.ndarray | None:
    """Return one reader's tight box (x0, y0, x1, y1) over the slices whose middle is in a slab."""
    heights = z_mm[placed.start_zyx[0] : placed.stop_zyx[0]]
    held = np.any(placed.mask[(heights >= low) & (heights < high)], axis=0)
    if not held.any():
        return None
    rows, columns = np.flatnonzero(held.any(axis=1)), np.flatnonzero(held.any(axis=0))
    _, y, x = placed.start_zyx
    edges = np.array([x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1])
    return edges * pixel_mm


def _compared(row: Nodule, boxes: np.ndarray, side: float) -> SlabCut:
    median = np.median(boxes, axis=0)
    middle = 0.5 * (median[:2] + median[2:])
    square = np.concatenate([middle - side / 2, middle + side / 2])
    readers = [
        box_iou(boxes[i], np.median(np.delete(boxes, i, axis=0), axis=0)) for i in range(len(boxes))
    ]
    return SlabCut(
        row.nodule_id,
        row.diameter_mm,
        float(median[2] - median[0]),
        float(median[3] - median[1]),
        side,
        box_iou(square, median),
        tuple(readers),
    )


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the intersection over union of two boxes xyxy."""
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0.0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    return float(shared / union)


_SMALL, _LARGE = PAPER_BANDS_MM
BANDS = (
    ("all", 0.0, np.inf),
    (f"<= {_SMALL:g} mm", 0.0, _SMALL),
    (f"{_SMALL:g}-{_LARGE:g} mm", _SMALL, _LARGE),
    (f"> {_LARGE:g} mm", _LARGE, np.inf),
)


def study_lines(study: LabelStudy) -> list[str]:
    """Return the study as a table in Markdown."""
    lines = [
        f"{study.nodules_in_table} nodules in the table, {study.nodules_of_readers} of three "
        f"readers or more, {study.matched} matched; {len(study.cuts):,} slab cuts",
        "",
        "| nodules | cuts | sphere: mean IoU | below 0.5 | one reader: mean IoU | below 0.5 | "
        "true width / sphere's | longer side / shorter |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, low, high in BANDS:
        cuts = [cut for cut in study.cuts if low < cut.diameter_mm <= high]
        if not cuts:
            lines.append(f"| {name} | 0 | - | - | - | - | - | - |")
            continue
        sphere = np.array([cut.iou_sphere for cut in cuts])
        reader = np.array([iou for cut in cuts for iou in cut.iou_reader])
        sides = np.array([(cut.width_mm, cut.height_mm) for cut in cuts])
        wider = float(np.mean(np.sqrt(sides.prod(axis=1)) / [cut.sphere_mm for cut in cuts]))
        longer = float(np.mean(sides.max(axis=1) / sides.min(axis=1)))
        below_sphere, below_reader = (100 * float(np.mean(v < 0.5)) for v in (sphere, reader))
        lines.append(
            f"| {name} | {len(cuts):,} | {sphere.mean():.2f} | {below_sphere:.1f} % | "
            f"{reader.mean():.2f} | {below_reader:.1f} % | {wider:.2f} | {longer:.2f} |"
        )
    return lines
