# SPDX-License-Identifier: Apache-2.0
"""Nodules of a label volume: what each shows on slabs, whose of the table it is, where it sits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError

MAX_NODULES = 100
"""More labels than this are no nodules: LUNA16's richest scan has 12."""
# Centres of one nodule by two methods; LUNA16's centre is the mean of the readers' own.
_NEAR_MM = 3.0


@dataclass(frozen=True)
class LabelledNodule:
    """One nodule of a label volume.

    Parameters
    ----------
    label : its value in the file, or the number of its component in a binary mask.
    start_zyx : voxel at which ``mask`` begins.
    mask : bool (z, y, x), on the grid of the label volume.
    centre_xyz_mm : mean of its voxels in world space.
    diameter_mm : of the sphere of the same volume.
    components : parts that do not touch each other.
    """

    label: int
    start_zyx: tuple[int, int, int]
    mask: np.ndarray
    centre_xyz_mm: tuple[float, float, float]
    diameter_mm: float
    components: int


@dataclass(frozen=True)
class SlabMask:
    """The projection of one nodule's mask on one slab.

    Parameters
    ----------
    index : of the slab.
    overlap_mm : depth of the slab's slices that hold some of the nodule.
    box_xyxy_px : tight box in continuous slab pixels, clipped to the image.
    visible_share : share of the projected area that lies in the image.
    rle : COCO's compressed run lengths over the whole image.
    cuts_middle : whether a slice at the slab's middle plane holds some of the nodule.
    """

    index: int
    overlap_mm: float
    box_xyxy_px: tuple[float, float, float, float]
    visible_share: float
    rle: str
    cuts_middle: bool = False


def sphere_diameter_mm(volume_mm3: float) -> float:
    """Return the diameter of the sphere of a volume."""
    return 2 * (3 * volume_mm3 / (4 * math.pi)) ** (1 / 3)


def nodules_of_labels(
    labels: np.ndarray, geometry: ScanGeometry, *, source: str, one_per_value: bool = False
) -> list[LabelledNodule]:
    """Return the nodules of a label volume, by ascending label.

    A volume with one value besides 0 is a binary mask: each of its components (voxels that touch,
    corners included) is a nodule, unless ``one_per_value`` says that the value is one. With several
    values, each value is one.

    Parameters
    ----------
    labels : integer array (z, y, x), 0 = none.
    geometry : its grid.
    source : the file, for messages.

    Raises
    ------
    LungDetError
        If there are more than ``MAX_NODULES`` of them, or a value is negative.
    """
    if labels.size and labels.min() < 0:
        raise LungDetError(
            f"{source}: the lowest label is {labels.min()}; 0 is no nodule and nodules are 1, 2, "
            "...: is this a scan? Give the label volume"
        )
    values = np.unique(labels[labels > 0])
    if len(values) == 1 and not one_per_value:
        numbered, n = ndimage.label(labels > 0, structure=np.ones((3, 3, 3)))
        values = np.arange(1, n + 1)
    else:
        numbered = labels
    if len(values) > MAX_NODULES:
        raise LungDetError(
            f"{source}: {len(values)} labels; at most {MAX_NODULES} nodules are taken for true. "
            "Is it a segmentation of organs or vessels? Give one label per nodule"
        )
    return [_labelled(numbered, int(value), geometry) for value in values]


def _labelled(numbered: np.ndarray, value: int, geometry: ScanGeometry) -> LabelledNodule:
    # find_objects wants small labels: a mask may use 10000 for its only nodule.
    where = ndimage.find_objects((numbered == value).astype(np.uint8))[0]
    mask = numbered[where] == value
    start = tuple(part.start for part in where)
    middle = np.argwhere(mask).mean(axis=0) + start
    x, y, z = geometry.voxel_to_world(middle).tolist()
    voxel_mm3 = float(np.prod(geometry.spacing_zyx_mm))
    _, components = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return LabelledNodule(
        value,
        (start[0], start[1], start[2]),
        mask,
        (x, y, z),
        sphere_diameter_mm(np.count_nonzero(mask) * voxel_mm3),
        int(components),
    )


def slab_masks(
    nodule: LabelledNodule,
    geometry: ScanGeometry,
    target: ScanGeometry,
    slabs: Sequence[SlabGeometry],
) -> tuple[SlabMask, ...]:
    """Project a nodule on the slabs that were made on another grid.

    A voxel of the grid belongs to the nodule where its centre lies in a voxel of the mask, so that
    no edge moves by more than half a voxel. Where the grid is so coarse that nothing is left, the
    voxel at the nodule's centre stands for it.

    Parameters
    ----------
    nodule : on `geometry`.
    target : the grid of the prepared volume.
    slabs : of the prepared volume.
    """
    start, mask = on_grid(nodule, geometry, target)
    projections = []
    for slab in slabs:
        first, stop = _slices_of(slab, target)
        low, high = max(first - start[0], 0), min(stop - start[0], mask.shape[0])
        if low >= high:
            continue
        held = mask[low:high]
        depth = int(held.any(axis=(1, 2)).sum())
        if depth:
            flat = np.asarray(held.any(axis=0))
            overlap = depth * target.spacing_zyx_mm[0]
            # With an even number of slices the middle plane is the face between two.
            middle = {(first + stop - 1) // 2, (first + stop) // 2}
            slices = {start[0] + low + int(k) for k in np.flatnonzero(held.any(axis=(1, 2)))}
            found = _projected(slab, flat, (start[1], start[2]), overlap, bool(middle & slices))
            projections.append(found)
    return tuple(found for found in projections if found is not None)


def on_grid(
    nodule: LabelledNodule, geometry: ScanGeometry, target: ScanGeometry
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return a nodule's mask on another grid: its first voxel (may be negative) and bool (z, y, x).

    The grids may have any directions.
    """
    shape = np.array(nodule.mask.shape)
    corners = np.stack(np.meshgrid(*[(-1, n) for n in shape], indexing="ij"), axis=-1)
    world = geometry.voxel_to_world(corners.reshape(-1, 3) + np.array(nodule.start_zyx))
    reached = target.world_to_voxel(world)
    start = np.floor(reached.min(axis=0)).astype(int)
    size = np.ceil(reached.max(axis=0)).astype(int) - start + 1
    # Source voxel of target voxel t: matrix @ t + offset.
    origin = geometry.world_to_voxel(target.voxel_to_world(start)) - np.array(nodule.start_zyx)
    steps = target.voxel_to_world(start + np.eye(3))
    matrix = (geometry.world_to_voxel(steps) - np.array(nodule.start_zyx) - origin).T
    mask = ndimage.affine_transform(
        nodule.mask,
        matrix,
        offset=origin,
        output_shape=tuple(size),
        order=0,
        mode="grid-constant",
    )
    if not mask.any():
        middle = target.world_to_voxel(np.array(nodule.centre_xyz_mm))
        place = np.clip(np.rint(middle).astype(int) - start, 0, size - 1)
        mask[tuple(place)] = True
    z, y, x = start.tolist()
    return (z, y, x), mask


def _slices_of(slab: SlabGeometry, grid: ScanGeometry) -> tuple[int, int]:
    """Return the first slice of the grid in a slab, and one past the last."""
    first_mm = float(np.dot(grid.origin_xyz_mm, grid.normal_xyz))
    dz = grid.spacing_zyx_mm[0]
    low, high = ((face - first_mm) / dz + 0.5 for face in slab.z_range_mm)
    return round(low), round(high)


def _projected(
    slab: SlabGeometry,
    flat: np.ndarray,
    start_yx: tuple[int, int],
    overlap_mm: float,
    cuts_middle: bool,
) -> SlabMask | None:
    """Place a projection (rows, columns) into the slab's image; None where it lies outside."""
    image = np.zeros((slab.height, slab.width), dtype=np.uint8)
    y0, x0 = start_yx
    top, left = max(y0, 0), max(x0, 0)
    bottom, right = min(y0 + flat.shape[0], slab.height), min(x0 + flat.shape[1], slab.width)
    if top >= bottom or left >= right:
        return None
    inside = flat[top - y0 : bottom - y0, left - x0 : right - x0]
    if not inside.any():
        return None
    image[top:bottom, left:right] = inside
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return SlabMask(
        index=slab.index,
        overlap_mm=overlap_mm,
        box_xyxy_px=(
            float(left + columns[0]),
            float(top + rows[0]),
            float(left + columns[-1] + 1),
            float(top + rows[-1] + 1),
        ),
        visible_share=float(inside.sum() / flat.sum()),
        rle=coco_mask.encode(np.asfortranarray(image))["counts"].decode("ascii"),
        cuts_middle=cuts_middle,
    )


def match_to_table(
    table: Sequence[Nodule], labelled: Sequence[LabelledNodule]
) -> tuple[dict[str, LabelledNodule], float]:
    """Tell which of the table's nodules has which mask, nearest centres first.

    A pair lies closer than the radius of the larger of the two, or than 3 mm.

    Returns
    -------
    masks : by nodule id.
    nearest_mm : least distance of any two centres; infinite without any.
    """
    pairs = sorted(
        (math.dist(nodule.centre_xyz_mm, found.centre_xyz_mm), i, j)
        for i, nodule in enumerate(table)
        for j, found in enumerate(labelled)
    )
    masks: dict[str, LabelledNodule] = {}
    taken = set()
    for distance, i, j in pairs:
        reach = max(0.5 * table[i].diameter_mm, 0.5 * labelled[j].diameter_mm, _NEAR_MM)
        if distance <= reach and table[i].nodule_id not in masks and j not in taken:
            masks[table[i].nodule_id] = labelled[j]
            taken.add(j)
    return masks, pairs[0][0] if pairs else math.inf


def common_shift_mm(
    table: Sequence[Nodule], labelled: Sequence[LabelledNodule]
) -> tuple[float, float, float] | None:
    """Return by how much a mask is off as a whole (x, y, z), or None where it does not seem so.

    That takes two of the table's nodules, and half of them all, that find a mask at the same
    distance and direction, and none that finds one where it lies itself.
    """
    if len(table) < 2 or not labelled:
        return None
    true = np.array([nodule.centre_xyz_mm for nodule in table])
    offsets = np.array([found.centre_xyz_mm for found in labelled]) - true[:, None]

    def agreeing(shift: np.ndarray) -> np.ndarray:
        return np.linalg.norm(offsets - shift, axis=2).min(axis=1) <= _NEAR_MM

    if agreeing(np.zeros(3)).any():
        return None
    tried = offsets.reshape(-1, 3)
    counts = np.array([np.count_nonzero(agreeing(shift)) for shift in tried])
    best = tried[counts == counts.max()]
    if counts.max() < max(2, 0.5 * len(table)):
        return None
    x, y, z = best[np.linalg.norm(best, axis=1).argmin()].tolist()
    return x, y, z


Location = Literal["isolated", "pleural", "vascular"]
LOCATIONS: tuple[Location, ...] = ("isolated", "pleural", "vascular")

PLEURA_MM = 2.0
"""A nodule whose rim lies nearer to the lung's surface is pleural (mediastinal pleura included)."""
TISSUE_HU = -400.0
"""Half-way between aerated lung and soft tissue."""
# Tissue that leaves the nodule is looked for in a layer that lies beyond the blur of its rim.
_LAYER_MM = (2.0, 3.5)
VESSEL_MM2 = 2.0
"""A vessel has at least this section where it leaves the nodule: 1.6 mm across."""
_MARGIN_MM = 6.0


def nodule_location(
    start_zyx: tuple[int, int, int],
    nodule: np.ndarray,
    lung_mask: np.ndarray,
    volume_hu: np.ndarray,
    spacing_zyx_mm: tuple[float, float, float],
) -> Location:
    """Return the kind of place that a nodule has in the lung.

    It is pleural where its rim comes nearer than ``PLEURA_MM`` to what is not lung, else vascular
    where connected tissue leaves it with the section of a vessel, else isolated. Fissures are not
    seen, and thick spicules count as vessels.

    Parameters
    ----------
    start_zyx : voxel at which ``nodule`` begins; may be negative.
    nodule : bool (z, y, x).
    lung_mask : (z, y, x), non-zero in the lungs, nodules and vessels included.
    volume_hu : (z, y, x) on the same grid.
    spacing_zyx_mm : voxel size.
    """
    margin = [int(np.ceil(_MARGIN_MM / step)) for step in spacing_zyx_mm]
    wide = np.pad(nodule, [(m, m) for m in margin])
    first = [start - m for start, m in zip(start_zyx, margin, strict=True)]
    lung = _cut(lung_mask, first, wide.shape) > 0
    # What reaches beyond the lung mask is not lung, but it is no way out of the nodule either.
    beyond_mm = ndimage.distance_transform_edt(~wide, sampling=spacing_zyx_mm)
    if not lung.all():
        outside_mm = ndimage.distance_transform_edt(lung, sampling=spacing_zyx_mm)
        if outside_mm[wide].min(initial=np.inf) <= PLEURA_MM:
            return "pleural"
    tissue = (_cut(volume_hu, first, wide.shape) > TISSUE_HU) & lung & (beyond_mm <= _LAYER_MM[1])
    parts, _ = ndimage.label(tissue | wide, structure=np.ones((3, 3, 3)))
    joined = np.isin(parts, np.unique(parts[wide]))
    leaving = np.count_nonzero(joined & (beyond_mm > _LAYER_MM[0]) & (beyond_mm <= _LAYER_MM[1]))
    section_mm2 = leaving * float(np.prod(spacing_zyx_mm)) / (_LAYER_MM[1] - _LAYER_MM[0])
    return "vascular" if section_mm2 >= VESSEL_MM2 else "isolated"


def _cut(volume: np.ndarray, first: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Return a box of a volume; beyond its faces the outermost voxels are repeated."""
    axes = [
        np.clip(np.arange(start, start + size), 0, length - 1)
        for start, size, length in zip(first, shape, volume.shape, strict=True)
    ]
    return volume[np.ix_(*axes)]
