# SPDX-License-Identifier: Apache-2.0
"""Merge the boxes found on the slabs of one scan into 3-D nodule candidates in world mm.

A nodule is taken for a sphere: on every slab that it touches, its boxes share one centre, and what
two neighbouring slabs show of it lies, middle to middle, no more than its radius apart. Along the
slab normal a box lies where the depth of the maximum says; where no depth is known, anywhere
between the faces of its slab.

Starting from the best box, the boxes with a say that could be cuts of the same sphere are stacked;
in the plane they are compared with that first box only, so a vessel that wanders across the slabs
cannot chain its way from one nodule to the next. Whatever else lies within the sphere of the stack
is joined to it. Boxes without a say count for nothing but their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections, equivalent_diameter

# Boxes under this share of the candidate's score have no say in where it lies and how large it is:
# detectors return a hundred faint, loose boxes a slab, and their weights add up.
SAY_SHARE = 0.5
# Two depths of one nodule differ by a slice, of 1.25 mm, for reasons of sampling alone: half each.
DEPTH_SLACK_MM = 0.625
GAP_TOLERANCE_MM = 1e-6
# A kilometre: beyond it is no patient, and squares of such numbers lose all meaning.
MAX_POSITION_MM = 1e6
# Boxes of several looks at one slab are one where they overlap by this IoU.
SAME_BOX_IOU = 0.5


@dataclass(frozen=True)
class Candidate:
    """A possible nodule of one scan.

    ``centre_xyz_mm`` is in world mm (LPS), ``diameter_mm`` the largest in-plane equivalent
    diameter, ``score`` the highest box score, ``slab_indices`` the slabs that saw it, ``n_boxes``
    the boxes joined. Along the slab normal, ``z_range_mm`` is its extent (that of its slabs, where
    no depth is known) and ``z_sd_mm`` the standard deviation of its centre, ``z_from_depth`` says
    where that comes from. ``sides_mm`` are width and height of its largest box.
    """

    seriesuid: str
    centre_xyz_mm: tuple[float, float, float]
    diameter_mm: float
    score: float
    z_range_mm: tuple[float, float]
    slab_indices: tuple[int, ...]
    n_boxes: int = 1
    z_sd_mm: float = 0.0
    z_from_depth: bool = False
    sides_mm: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class _Boxes:
    """Boxes of one scan: all arrays run over N boxes, lengths in mm.

    ``sides`` are width and height, ``along`` the position on the slab normal, ``interval`` the two
    ends between which it lies, ``faces`` the two faces of the slab, ``z_sd`` how sure ``along`` is,
    ``row`` its place among the boxes of its slab.
    """

    centre_xyz: NDArray[np.float64]
    in_plane: NDArray[np.float64]
    sides: NDArray[np.float64]
    diameters: NDArray[np.float64]
    along: NDArray[np.float64]
    interval: NDArray[np.float64]
    faces: NDArray[np.float64]
    z_sd: NDArray[np.float64]
    from_depth: NDArray[np.bool_]
    scores: NDArray[np.float64]
    slab_index: NDArray[np.intp]
    row: NDArray[np.intp]

    def __getitem__(self, rows: NDArray) -> _Boxes:
        return _Boxes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def merge_slab_detections(
    slabs: Sequence[Slab],
    detections: Sequence[SlabDetections],
    *,
    min_score: float = 0.0,
    min_iou: float = 0.2,
    max_gap_slabs: float = 1.0,
    max_candidates: int | None = None,
    joined: list[NDArray[np.intp]] | None = None,
) -> list[Candidate]:
    """Merge the boxes of the slabs of one scan into candidates, best score first.

    Parameters
    ----------
    slabs : the slabs of one scan, in any order.
    detections : what was found on them; slabs without a record hold nothing.
    min_score : boxes under it are left out.
    min_iou : boxes belong together in the plane when they overlap by this much, or when the centre
        of the smaller lies within the half diameter of the larger.
    max_gap_slabs : boxes belong together along the normal when no more than this many slab
        thicknesses lie empty between their slabs, and no more than the radius between the boxes
        (and no more than the diameter between a box and the best box).
    max_candidates : keep only the best; None keeps all.
    joined : a list that gets, for each candidate, the boxes in it: (n, 2), the index of a slab and
        the place of the box among that slab's.

    Returns
    -------
    list of Candidate
        The same whatever the order of slabs and boxes; moving the scan moves it along.

    Raises
    ------
    LungDetError
        If an option is out of its range, or a box or its slab lies nowhere.
    """
    if not (0 <= min_iou <= 1 and max_gap_slabs >= 0):
        raise LungDetError(
            f"min_iou is {min_iou}, max_gap_slabs {max_gap_slabs}: needed are 0 to 1, and 0 or more"
        )
    by_id = {slab.img_id: slab for slab in slabs}
    found = [item for item in detections if item.img_id in by_id]
    parts = [_boxes_of(by_id[item.img_id], item, min_score) for item in found]
    parts = [part for part in parts if len(part.scores)]
    if not parts:
        return []
    boxes = _Boxes(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in _Boxes.__dataclass_fields__
        )
    )
    # A full order, so that neither ties nor rounding depend on how the boxes came in. Among equal
    # scores the largest box comes first: it is cut nearest to the centre.
    keys = (
        *boxes.sides.T,
        boxes.slab_index,
        *boxes.in_plane.T,
        boxes.along,
        boxes.faces[:, 0],
        -boxes.diameters,
        -boxes.scores,
    )
    boxes = boxes[np.lexsort(keys)]
    max_gap_mm = (
        max_gap_slabs * max(slab.geometry.spacing_xyz_mm[2] for slab in slabs) + GAP_TOLERANCE_MM
    )
    seriesuid = slabs[0].seriesuid
    candidates: list[Candidate] = []
    free = np.ones(len(boxes.scores), dtype=bool)
    for seed in range(len(boxes.scores)):
        if not free[seed]:
            continue
        if max_candidates is not None and len(candidates) >= max_candidates:
            break
        members = _members(boxes, seed, free, min_iou, max_gap_mm)
        free[members] = False
        candidates.append(_candidate(seriesuid, boxes[members]))
        if joined is not None:
            joined.append(np.stack([boxes.slab_index[members], boxes.row[members]], axis=1))
    return candidates


def fuse_looks(looks: Sequence[SlabDetections]) -> SlabDetections:
    """Join what several looks at one slab found: mirrored pictures, other models.

    Boxes that overlap are one. Its score is the mean of the looks' best scores, 0 for a look that
    did not find it; its corners are their mean, weighted by score.

    Parameters
    ----------
    looks : boxes of each look, in pixels of the same slab. One look is returned as it is.
    """
    first = looks[0]
    if len(looks) == 1:
        return first
    corners = np.concatenate([look.boxes_xyxy_px for look in looks])
    scores = np.concatenate([look.scores for look in looks])
    source = np.repeat(np.arange(len(looks)), [len(look.scores) for look in looks])
    order = np.lexsort((*corners.T, -scores))
    corners, scores, source = corners[order], scores[order], source[order]
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    # pycocotools answers no boxes at all with a list.
    iou = np.reshape(coco_mask.iou(sides, sides, [0] * len(sides)), (len(sides), len(sides)))
    boxes, means = [], []
    free = np.ones(len(scores), dtype=bool)
    for row in range(len(scores)):
        if not free[row]:
            continue
        same = np.flatnonzero(free & (iou[row] >= SAME_BOX_IOU))
        free[same] = free[row] = False
        # The best box of each look: the rows come best first.
        same = same[np.unique(source[same], return_index=True)[1]] if len(same) else np.array([row])
        total = scores[same].sum()
        weights = scores[same] / total if total > 0 else np.full(len(same), 1 / len(same))
        boxes.append(weights @ corners[same])
        means.append(total / len(looks))
    return SlabDetections(
        img_id=first.img_id,
        boxes_xyxy_px=np.array(boxes).reshape(-1, 4),
        scores=np.array(means),
        seriesuid=first.seriesuid,
        slab_index=first.slab_index,
    )


def candidates_by_series(
    slabs: Mapping[int, Slab],
    detections: Iterable[SlabDetections],
    *,
    min_score: float = 0.0,
    min_iou: float = 0.2,
    max_gap_slabs: float = 1.0,
    max_candidates: int | None = None,
) -> dict[str, list[Candidate]]:
    """Merge the boxes of many scans; every scan of the slabs has an entry, also an empty one.

    ``slabs`` maps image ids to slabs; the options are those of ``merge_slab_detections``.
    """
    slabs_of: dict[str, list[Slab]] = {}
    for slab in slabs.values():
        slabs_of.setdefault(slab.seriesuid, []).append(slab)
    found_in: dict[str, list[SlabDetections]] = {uid: [] for uid in slabs_of}
    for item in detections:
        if item.img_id not in slabs:
            raise LungDetError(
                f"a detection names the slab {item.img_id!r}, which is none of the {len(slabs)} "
                "given; use the slabs that the model was run on"
            )
        found_in[slabs[item.img_id].seriesuid].append(item)
    return {
        uid: merge_slab_detections(
            slabs_of[uid],
            found_in[uid],
            min_score=min_score,
            min_iou=min_iou,
            max_gap_slabs=max_gap_slabs,
            max_candidates=max_candidates,
        )
        for uid in slabs_of
    }


def _boxes_of(slab: Slab, detections: SlabDetections, min_score: float) -> _Boxes:
    kept = detections.scores >= min_score
    corners = detections.boxes_xyxy_px[kept]
    geometry = slab.geometry
    with np.errstate(over="ignore", invalid="ignore"):  # refused below, with what is to blame
        centre_xyz = geometry.boxes_to_world(corners)
    axes, spacing_xy_mm = geometry.axes_xyz, np.asarray(geometry.spacing_xy_mm)
    sides_px = np.maximum(corners[:, 2:] - corners[:, :2], 0.0)
    n_boxes = len(corners)
    lengths = (centre_xyz, sides_px * spacing_xy_mm, np.array(geometry.z_range_mm))
    # Asked this way round, what is no number is caught as well.
    is_sound = all(np.all(np.abs(mm) < MAX_POSITION_MM) for mm in lengths)
    if n_boxes and not is_sound:
        raise LungDetError(
            f"slab {slab.img_id} of {slab.seriesuid}: a box lies beyond {MAX_POSITION_MM:g} mm; "
            f"the slab's pixels are {geometry.spacing_xy_mm} mm, its faces {geometry.z_range_mm} "
            f"mm, its origin {geometry.origin_xyz_mm} mm, and the boxes reach to "
            f"{np.abs(corners).max():g} pixels. Prepare the scan again, or look at the model's "
            "training loss"
        )
    faces = np.tile(np.sort(geometry.z_range_mm), (n_boxes, 1))
    along, interval = faces.mean(axis=1), faces
    z_sd = (faces[:, 1] - faces[:, 0]) / np.sqrt(12)  # anywhere in the slab, all alike
    if detections.z_mm is not None and detections.z_sd_mm is not None:
        along, z_sd = detections.z_mm[kept], detections.z_sd_mm[kept]
        centre_xyz = centre_xyz + (along - faces.mean(axis=1))[:, None] * axes[:, 2]
        interval = along[:, None] + (-DEPTH_SLACK_MM, DEPTH_SLACK_MM)
    return _Boxes(
        centre_xyz=centre_xyz,
        in_plane=centre_xyz @ axes[:, :2],
        sides=sides_px * spacing_xy_mm,
        diameters=equivalent_diameter(corners, geometry.spacing_xyz_mm),
        along=along,
        interval=interval,
        faces=faces,
        z_sd=z_sd,
        from_depth=np.full(n_boxes, detections.z_mm is not None),
        scores=detections.scores[kept],
        slab_index=np.full(n_boxes, geometry.index, dtype=np.intp),
        row=np.flatnonzero(kept),
    )


@dataclass(frozen=True)
class _Sphere:
    """What a stack of boxes stands for; lengths in mm, ``interval`` as that of a box."""

    in_plane: NDArray[np.float64]
    interval: NDArray[np.float64]
    diameter: float

    def distance(self, boxes: _Boxes) -> NDArray[np.float64]:
        """Return how far the boxes' centres lie from its centre, (N,)."""
        apart = np.maximum(_gaps(boxes.interval, self.interval[None]), 0.0)
        return np.hypot(np.linalg.norm(boxes.in_plane - self.in_plane, axis=1), apart)


def _weights(members: _Boxes) -> NDArray[np.float64]:
    """Large boxes lie where the sphere is cut near its centre, so they tell most about it."""
    weights = members.scores * members.diameters**2
    return weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))


def _sphere_of(stack: _Boxes) -> _Sphere:
    weights = _weights(stack)
    return _Sphere(weights @ stack.in_plane, weights @ stack.interval, float(stack.diameters.max()))


def _members(
    boxes: _Boxes, seed: int, free: NDArray[np.bool_], min_iou: float, max_gap_mm: float
) -> NDArray[np.intp]:
    """Return the rows of the free boxes that could be the same sphere as the seed, rising."""
    rows = np.flatnonzero(free)
    has_say = boxes.scores[rows] >= SAY_SHARE * boxes.scores[seed]
    stack = _stack(boxes, seed, rows[has_say], min_iou, max_gap_mm)
    sphere = _sphere_of(boxes[stack])
    # The best box may be a small cut near the end of a large sphere. A neighbour on the shoulder of
    # one lies outside of it, though perhaps within one of its boxes: so ask its whole stack.
    at_seed = _sphere_of(boxes[np.array([seed])])
    spoken = boxes[rows[has_say]]
    holds_seed = at_seed.distance(spoken) <= spoken.diameters / 2
    largest = rows[has_say][np.argmax(np.where(holds_seed, spoken.diameters, -1.0))]
    if boxes.diameters[largest] > sphere.diameter:
        larger = _stack(boxes, largest, rows[has_say], min_iou, max_gap_mm)
        whole = _sphere_of(boxes[larger])
        if whole.distance(boxes[np.array([seed])])[0] <= whole.diameter / 2:
            stack, sphere = np.union1d(stack, larger), whole
    reach = np.where(has_say, sphere.diameter, np.maximum(sphere.diameter, boxes.diameters[rows]))
    is_near = _gaps(boxes.faces[rows], boxes.faces[stack]) <= max_gap_mm
    within = sphere.distance(boxes[rows]) <= reach / 2 + GAP_TOLERANCE_MM
    return np.union1d(stack, rows[within & is_near])


def _stack(
    boxes: _Boxes, seed: int, rows: NDArray[np.intp], min_iou: float, max_gap_mm: float
) -> NDArray[np.intp]:
    """Return those of the rows that overlap the seed in the plane and follow on it along z."""
    near = boxes[rows]
    overlap = (near.sides + boxes.sides[seed]) / 2 - np.abs(near.in_plane - boxes.in_plane[seed])
    common = np.clip(overlap, 0.0, np.minimum(near.sides, boxes.sides[seed])).prod(axis=1)
    union = near.sides.prod(axis=1) + boxes.sides[seed].prod() - common
    rows = rows[(common >= min_iou * union) & (union > 0) | (rows == seed)]
    near = boxes[rows]
    from_seed = _gaps(near.interval, boxes.interval[[seed]])
    # Grow along the normal. The diameter known so far, not the best box alone, says how far the
    # sphere can reach. Slabs that touch leave nothing empty, wherever in them the maxima lie.
    joined = rows == seed
    while True:
        diameter = near.diameters[joined].max()
        larger = np.maximum(near.diameters, diameter)
        grown = _gaps(near.faces, near.faces[joined]) <= max_gap_mm
        grown &= _gaps(near.interval, near.interval[joined]) <= larger / 2 + GAP_TOLERANCE_MM
        grown &= from_seed <= larger + GAP_TOLERANCE_MM
        grown |= joined
        if (grown == joined).all():
            return rows[joined]
        joined = grown


def _gaps(intervals: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each interval (N, 2) lies from the extent of the others, negative within."""
    low, high = others[:, 0].min(), others[:, 1].max()
    return np.maximum(intervals[:, 0] - high, low - intervals[:, 1])


def _candidate(seriesuid: str, members: _Boxes) -> Candidate:
    """Sum up the boxes of one candidate; the first is the best."""
    spoken = members[members.scores >= SAY_SHARE * members.scores[0]]
    weights = _weights(spoken)
    x, y, z = (weights @ spoken.centre_xyz).tolist()
    largest = int(np.argmax(spoken.diameters))
    diameter = float(spoken.diameters[largest])
    from_depth = bool(spoken.from_depth.all())
    low, high = float(members.faces[:, 0].min()), float(members.faces[:, 1].max())
    if from_depth:
        along = float(weights @ spoken.along)
        low, high = along - diameter / 2, along + diameter / 2
    width, height = spoken.sides[largest].tolist()
    return Candidate(
        seriesuid=seriesuid,
        centre_xyz_mm=(x, y, z),
        diameter_mm=diameter,
        score=float(members.scores[0]),
        z_range_mm=(low, high),
        slab_indices=tuple(int(index) for index in np.unique(members.slab_index)),
        n_boxes=len(members.scores),
        z_sd_mm=float(weights @ spoken.z_sd),
        z_from_depth=from_depth,
        sides_mm=(width, height),
    )
