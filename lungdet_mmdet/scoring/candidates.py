"""Merge the boxes found on the slabs of one scan into 3-D nodule candidates in world mm.

A nodule is taken for a sphere: on every slab that it touches, its boxes share one centre, and two
slabs that touch it lie less than its diameter apart. Starting from the best box, all boxes that
could belong to the same sphere are joined to it; they are compared with that first box only, so a
vessel that wanders across the slabs cannot chain its way from one nodule to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.size_bands import equivalent_diameter
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections

# Boxes under this share of the candidate's score have no say in its diameter: one loose, faint box
# would otherwise decide it.
DIAMETER_SCORE_SHARE = 0.5
GAP_TOLERANCE_MM = 1e-6
# A kilometre: beyond it is no patient, and squares of such numbers lose all meaning.
MAX_POSITION_MM = 1e6


@dataclass(frozen=True)
class Candidate:
    """A possible nodule of one scan.

    ``centre_xyz_mm`` is in world mm (LPS), ``diameter_mm`` the largest in-plane equivalent
    diameter, ``score`` the highest box score, ``z_range_mm`` the extent along the slab normal of
    the slabs that saw it, ``slab_indices`` those slabs, ``n_boxes`` the boxes joined.
    """

    seriesuid: str
    centre_xyz_mm: tuple[float, float, float]
    diameter_mm: float
    score: float
    z_range_mm: tuple[float, float]
    slab_indices: tuple[int, ...]
    n_boxes: int = 1


@dataclass(frozen=True)
class _Boxes:
    """Boxes of one scan: all arrays run over N boxes, lengths in mm.

    ``sides`` are width and height, ``faces`` the two faces of the slab along its normal.
    """

    centre_xyz: NDArray[np.float64]
    in_plane: NDArray[np.float64]
    sides: NDArray[np.float64]
    diameters: NDArray[np.float64]
    faces: NDArray[np.float64]
    scores: NDArray[np.float64]
    slab_index: NDArray[np.intp]

    def __getitem__(self, rows: NDArray) -> _Boxes:
        return _Boxes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def box_centres_world(boxes_xyxy_px: NDArray[np.float64], slab: Slab) -> NDArray[np.float64]:
    """Return the world centres (N, 3) in mm, on the slab's mid-plane, of boxes (N, 4) in pixels."""
    axes = np.asarray(slab.direction, dtype=np.float64).reshape(3, 3)
    # Pixel i spans [i, i + 1] in box coordinates; the slab's origin is the centre of pixel 0.
    x_mm = ((boxes_xyxy_px[:, 0] + boxes_xyxy_px[:, 2]) / 2 - 0.5) * slab.spacing_mm[0]
    y_mm = ((boxes_xyxy_px[:, 1] + boxes_xyxy_px[:, 3]) / 2 - 0.5) * slab.spacing_mm[1]
    return np.asarray(slab.origin_xyz_mm) + x_mm[:, None] * axes[:, 0] + y_mm[:, None] * axes[:, 1]


def merge_slab_detections(
    slabs: Sequence[Slab],
    detections: Sequence[SlabDetections],
    *,
    min_score: float = 0.0,
    min_iou: float = 0.2,
    max_gap_slabs: float = 1.0,
    max_candidates: int | None = None,
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
        thicknesses lie empty between their slabs (and no more than the diameter lies between a
        box's slab and that of the best box).
    max_candidates : keep only the best; None keeps all.

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
        boxes.faces[:, 0],
        -boxes.diameters,
        -boxes.scores,
    )
    boxes = boxes[np.lexsort(keys)]
    max_gap_mm = max_gap_slabs * max(slab.spacing_mm[2] for slab in slabs) + GAP_TOLERANCE_MM
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
    return candidates


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
    centre_xyz = box_centres_world(corners, slab)
    axes = np.asarray(slab.direction, dtype=np.float64).reshape(3, 3)
    sides_px = np.maximum(corners[:, 2:] - corners[:, :2], 0.0)
    n_boxes = len(corners)
    lengths = (centre_xyz, sides_px * np.asarray(slab.spacing_mm[:2]), np.array(slab.z_range_mm))
    # Asked this way round, what is no number is caught as well.
    is_sound = min(slab.spacing_mm) > 0 and all(
        np.all(np.abs(mm) < MAX_POSITION_MM) for mm in lengths
    )
    if n_boxes and not is_sound:
        raise LungDetError(
            f"slab {slab.img_id} of {slab.seriesuid}: a box lies beyond {MAX_POSITION_MM:g} mm; "
            f"the slab's pixels are {slab.spacing_mm} mm, its faces {slab.z_range_mm} mm, its "
            f"origin {slab.origin_xyz_mm} mm, and the boxes reach to {np.abs(corners).max():g} "
            "pixels. Prepare the scan again, or look at the model's training loss"
        )
    return _Boxes(
        centre_xyz=centre_xyz,
        in_plane=centre_xyz @ axes[:, :2],
        sides=sides_px * np.asarray(slab.spacing_mm[:2]),
        diameters=equivalent_diameter(corners, slab.spacing_mm),
        faces=np.tile(np.sort(slab.z_range_mm), (n_boxes, 1)),
        scores=detections.scores[kept],
        slab_index=np.full(n_boxes, slab.slab_index, dtype=np.intp),
    )


def _members(
    boxes: _Boxes, seed: int, free: NDArray[np.bool_], min_iou: float, max_gap_mm: float
) -> NDArray[np.intp]:
    """Return the rows of the free boxes that could be the same sphere as the seed."""
    rows = np.flatnonzero(free)
    reach = np.maximum(boxes.diameters[rows], boxes.diameters[seed])
    offset = boxes.in_plane[rows] - boxes.in_plane[seed]
    is_concentric = np.hypot(offset[:, 0], offset[:, 1]) <= reach / 2
    overlap = (boxes.sides[rows] + boxes.sides[seed]) / 2 - np.abs(offset)
    common = np.clip(overlap, 0.0, np.minimum(boxes.sides[rows], boxes.sides[seed])).prod(axis=1)
    union = boxes.sides[rows].prod(axis=1) + boxes.sides[seed].prod() - common
    in_plane = is_concentric | (common >= min_iou * union) & (union > 0)
    seed_low, seed_high = boxes.faces[seed]
    near = boxes[rows[in_plane]]
    gap = np.maximum(near.faces[:, 0] - seed_high, seed_low - near.faces[:, 1])
    has_say = near.scores >= DIAMETER_SCORE_SHARE * boxes.scores[seed]

    # Grow along the normal. The diameter known so far, not the best box alone, says how far the
    # sphere can reach: the best box may be a small cut near one end.
    low, high, diameter = seed_low, seed_high, boxes.diameters[seed]
    joined = np.zeros(len(gap), dtype=bool)
    while True:
        in_reach = gap <= np.maximum(near.diameters, diameter) + GAP_TOLERANCE_MM
        touching = (near.faces[:, 0] - high <= max_gap_mm) & (low - near.faces[:, 1] <= max_gap_mm)
        if (in_reach & touching == joined).all():
            return rows[in_plane][joined]
        joined = in_reach & touching
        low = min(low, near.faces[joined, 0].min())
        high = max(high, near.faces[joined, 1].max())
        diameter = max(diameter, near.diameters[joined & has_say].max())


def _candidate(seriesuid: str, members: _Boxes) -> Candidate:
    """Sum up the boxes of one candidate; the first is the best."""
    # Large boxes lie where the sphere is cut near its centre, so they tell most about it.
    weights = members.scores * members.diameters**2
    if not weights.sum() > 0:
        weights = np.ones(len(members.scores))
    x, y, z = (weights @ members.centre_xyz / weights.sum()).tolist()
    has_say = members.scores >= DIAMETER_SCORE_SHARE * members.scores[0]
    return Candidate(
        seriesuid=seriesuid,
        centre_xyz_mm=(x, y, z),
        diameter_mm=float(members.diameters[has_say].max()),
        score=float(members.scores[0]),
        z_range_mm=(float(members.faces[:, 0].min()), float(members.faces[:, 1].max())),
        slab_indices=tuple(int(index) for index in np.unique(members.slab_index)),
        n_boxes=len(members.scores),
    )
