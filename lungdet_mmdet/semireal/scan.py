# SPDX-License-Identifier: Apache-2.0
"""Make one semi-real scan: a real lung with real nodules of other patients set in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.phantom.findings import sample_diameters
from lungdet_mmdet.semireal.crops import ATTACHED_SHARE, CropFile, CropMeasures, load_crop
from lungdet_mmdet.semireal.insertion import (
    WALL_HU,
    LungMap,
    NoduleSource,
    Pose,
    Stamp,
    blend,
    blocks_for,
    outline_of,
    stamp_nodule,
    take_apart,
)

PLACE_SHARES = {"isolated": 0.45, "vessel": 0.25, "pleural": 0.30}
"""As `findings.PLACE_SHARES`, with the mediastinal surface counted as pleura."""
GAP_MM = 4.0
"""Least distance of an inserted nodule's surface from any other finding's."""
ALIKE = 1.25
"""A nodule stands in for another size up to this factor."""
SCALES = (0.7, 1.4)
FEWEST_ALIKE = 8
THICKER_SLICES = 1.25
"""A nodule's own slices may be thicker than the scan's by this factor: its blur would show."""
LEAST_DIAMETER_MM = 3.0
"""LUNA16 annotates nodules from here on."""
VISIBLE_HU = 200.0
"""A nodule must raise its surroundings by this much, or nobody could mark it."""
LUNG_MEDIAN_HU = -600.0
AIRWAY_HU, AIRWAY_PERCENT = -950.0, 35.0
"""No nodule floats in a bronchus: where a third of its place is darker than lung, it is refused."""
GAP_BELOW_HU = -450.0
"""Less between a nodule and the wall is a gap that no nodule on the pleura has."""
DENSE_HU = -500.0
_MOST_DENSE = {"isolated": 0.06, "vessel": 0.35, "pleural": 0.35}
_INSIDE_LUNG = {"isolated": (0.995, 1.0), "vessel": (0.995, 1.0), "pleural": (0.75, 0.97)}
_ALIGNED = 0.75
_SHIFTS_MM = (0.0, 0.7, 1.4, -0.7, 2.1)
_RAY_STEP_MM = 0.5
_MASK_RIM_VOXELS = 2


@dataclass(frozen=True)
class Candidate:
    """A nodule that may be inserted: its files and measures."""

    file: CropFile
    measures: CropMeasures
    slice_mm: float


@dataclass(frozen=True)
class Wanted:
    """A nodule to insert: which, how large, and what kind of place it is to have."""

    candidate: Candidate
    diameter_mm: float
    place: str

    @property
    def scale(self) -> float:
        """Factor from the nodule's own size to the wanted one."""
        return self.diameter_mm / self.candidate.measures.diameter_mm


@dataclass(frozen=True)
class Inserted:
    """A nodule as it came to lie.

    Parameters
    ----------
    crop, patient_id : which nodule of whom.
    place : "isolated", "vessel" or "pleural".
    centre_xyz_mm : centroid of its visible part in the world, mm.
    diameter_mm : of the sphere of that part's volume.
    drawn_diameter_mm : the size that was drawn.
    scale, turn_deg, mirrored_zyx : how it was changed.
    """

    crop: str
    patient_id: str
    place: str
    centre_xyz_mm: tuple[float, float, float]
    diameter_mm: float
    drawn_diameter_mm: float
    scale: float
    turn_deg: float
    mirrored_zyx: tuple[bool, bool, bool]


@dataclass
class Canvas:
    """A scan while nodules are set in; the arrays change in place.

    Parameters
    ----------
    volume_hu : int16 (z, y, x).
    labels : uint16 (z, y, x), number of the nodule, 0 elsewhere.
    geometry : the grid of both.
    lung_mask : uint8 (z, y, x).
    lung_map : places in the lungs.
    taken : centre in voxels and radius in mm of what no nodule may come near.
    """

    volume_hu: np.ndarray
    labels: np.ndarray
    geometry: ScanGeometry
    lung_mask: np.ndarray
    lung_map: LungMap
    taken: list[tuple[np.ndarray, float]] = field(default_factory=list)

    def is_clear(self, centre_zyx: np.ndarray, radius_mm: float) -> bool:
        """Say whether a sphere keeps its distance from all that is taken."""
        spacing = np.asarray(self.geometry.spacing_zyx_mm)
        return all(
            np.linalg.norm((centre_zyx - other) * spacing) > radius_mm + size + GAP_MM
            for other, size in self.taken
        )


def draw_wanted(
    rng: np.random.Generator, pool: Sequence[Candidate], count: int, *, slice_mm: float
) -> list[Wanted]:
    """Draw nodules for a scan: sizes as LUNA16's, each crop at most once; the largest first.

    Parameters
    ----------
    rng : source of all draws.
    pool : nodules to choose from.
    count : how many; fewer come where the pool holds fewer.
    slice_mm : slice distance of the scan; nodules from much thicker slices are passed over.
    """
    fitting = [c for c in pool if c.slice_mm <= THICKER_SLICES * slice_mm]
    if not fitting:  # then thick ones have to do
        thinnest = min((c.slice_mm for c in pool), default=0.0)
        fitting = [c for c in pool if c.slice_mm <= thinnest]
    own = np.array([c.measures.diameter_mm for c in fitting])
    attached = np.array([c.measures.attached_share >= ATTACHED_SHARE for c in fitting])
    left = np.ones(len(fitting), bool)
    places = rng.choice(list(PLACE_SHARES), size=count, p=list(PLACE_SHARES.values()))
    wanted = []
    for diameter, place in zip(sample_diameters(rng, count), places.tolist(), strict=True):
        # A nodule that grew on a wall is flat there: it belongs on one again, and no other does.
        kind = left & (attached == (place == "pleural"))
        if not kind.any():
            kind = left
        if not kind.any():
            break
        far = np.where(kind, np.abs(np.log(diameter / own)), np.inf)
        near = np.flatnonzero(far <= np.log(ALIKE))
        if len(near) < FEWEST_ALIKE:
            near = np.argsort(far, kind="stable")[: min(FEWEST_ALIKE, int(kind.sum()))]
        chosen = int(rng.choice(near))
        left[chosen] = False
        size = float(np.clip(diameter, SCALES[0] * own[chosen], SCALES[1] * own[chosen]))
        wanted.append(Wanted(fitting[chosen], size, place))
    return sorted(wanted, key=lambda w: -w.diameter_mm)


def insert_nodule(canvas: Canvas, wanted: Wanted, rng: np.random.Generator) -> Inserted | None:
    """Set a nodule into a scan at a place of its kind, else an isolated one; None without any.

    The scan's values, its labels and what is taken change with success.
    """
    source = take_apart(load_crop(wanted.candidate.file), wanted.candidate.measures)
    attempts = [(wanted.place, True, 60), (wanted.place, False, 30)]
    if wanted.candidate.measures.attached_share < ATTACHED_SHARE:
        attempts.append(("isolated", False, 30))
    for place, strict, tries in attempts:
        blocks = blocks_for(
            canvas.lung_map,
            place,
            radius_mm=0.5 * wanted.diameter_mm,
            reach_mm=_reach_to_wall(source, wanted),
            strict=strict,
        )
        for _ in range(tries if len(blocks) else 0):
            block = blocks[rng.integers(len(blocks))]
            spot = _spot(canvas, source, wanted, place, block, rng)
            if spot is not None:
                return _paint(canvas, wanted, place, *spot)
    return None


def _reach_to_wall(source: NoduleSource, wanted: Wanted) -> float:
    """Distance from a nodule's middle to its attached side; its radius where it has none."""
    direction = np.asarray(wanted.candidate.measures.attached_zyx)
    if wanted.candidate.measures.attached_share < ATTACHED_SHARE or not direction.any():
        return 0.5 * wanted.diameter_mm
    offsets = (np.argwhere(source.fields[0] > 0.5) - source.centre_zyx) * source.spacing_zyx_mm
    return float(np.quantile(offsets @ direction, 0.97)) * wanted.scale


def _spot(
    canvas: Canvas,
    source: NoduleSource,
    wanted: Wanted,
    place: str,
    block: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Pose, Stamp, np.ndarray] | None:
    """Try one place: the pose, the nodule on the scan's grid and where it may be painted."""
    outward = canvas.lung_map.outward(block)
    pose = _draw_pose(wanted, outward if place == "pleural" else np.zeros(3), rng)
    jitter = rng.uniform(-0.5, 0.5, size=3)
    if pose is None:
        return None
    start = canvas.lung_map.to_scan(block + jitter)
    if not canvas.is_clear(start, 0.5 * wanted.diameter_mm):
        return None
    spacing = canvas.geometry.spacing_zyx_mm
    for shift_mm in _SHIFTS_MM if place == "pleural" else (0.0,):
        centre = start + shift_mm * outward / np.asarray(spacing)
        stamp = stamp_nodule(source, pose, centre_zyx=centre, spacing_zyx_mm=spacing)
        paintable = _paintable(canvas, stamp)
        if paintable is None or not _fits(canvas, stamp, paintable, place):
            continue
        if place == "pleural" and not _touches_wall(canvas, stamp, paintable, centre, outward):
            continue
        return pose, stamp, paintable
    return None


def _draw_pose(wanted: Wanted, outward: np.ndarray, rng: np.random.Generator) -> Pose | None:
    """Draw a pose; with an outward direction, one whose attached side faces the wall."""
    turn = float(rng.uniform(0.0, 2.0 * np.pi))
    z, y, x = (bool(v) for v in rng.integers(0, 2, size=3))
    pose = Pose(wanted.scale, turn, (z, y, x))
    attached = wanted.candidate.measures.attached_zyx
    is_attached = wanted.candidate.measures.attached_share >= ATTACHED_SHARE
    if not outward.any() or not is_attached:
        return pose
    z = bool(attached[0] * outward[0] < 0)
    side = Pose(wanted.scale, 0.0, (z, y, x)).turned(attached)
    turn = float(np.arctan2(outward[1], outward[2]) - np.arctan2(side[1], side[2]))
    pose = Pose(wanted.scale, turn, (z, y, x))
    return pose if float(pose.turned(attached) @ outward) >= _ALIGNED else None


def _paintable(canvas: Canvas, stamp: Stamp) -> np.ndarray | None:
    """Return where the scan may change: in the lungs, not in the wall; None beyond the scan.

    Where the mask ends a voxel short of the wall a dark line would part the two: it may be painted.
    """
    size = canvas.volume_hu.shape
    if any(s.start < 0 or s.stop > n for s, n in zip(stamp.box, size, strict=True)):
        return None
    old = canvas.volume_hu[stamp.box]
    wall = canvas.lung_map.wall_under(stamp.box) & (old > WALL_HU)
    inside = ndimage.binary_dilation(canvas.lung_mask[stamp.box] > 0, iterations=_MASK_RIM_VOXELS)
    return inside & ~wall & ((canvas.lung_mask[stamp.box] > 0) | (old < WALL_HU))


def _fits(canvas: Canvas, stamp: Stamp, paintable: np.ndarray, place: str) -> bool:
    """Say whether a nodule here lies in the lung as its place asks, in air, and can be seen."""
    total = float(stamp.share.sum())
    inside = np.where(paintable, stamp.share, 0.0)
    low, high = _INSIDE_LUNG[place]
    if total <= 0 or not low <= float(inside.sum()) / total <= high:
        return False
    old = canvas.volume_hu[stamp.box]
    outline = outline_of(stamp, paintable)
    if np.median(old[outline]) > LUNG_MEDIAN_HU:
        return False
    if np.percentile(old[outline], AIRWAY_PERCENT) < AIRWAY_HU:
        return False
    if float(inside[old > DENSE_HU].sum() / inside.sum()) > _MOST_DENSE[place]:
        return False
    gain = (blend(old, stamp, paintable) - old)[outline]
    return bool(np.percentile(gain, 80) >= VISIBLE_HU) and (
        _diameter(canvas, inside) >= LEAST_DIAMETER_MM
    )


def _touches_wall(
    canvas: Canvas, stamp: Stamp, paintable: np.ndarray, centre_zyx: np.ndarray, outward: np.ndarray
) -> bool:
    """Say whether no lung would show between a nodule and the wall it is to lie on."""
    new = blend(canvas.volume_hu[stamp.box], stamp, paintable)
    spacing = np.asarray(canvas.geometry.spacing_zyx_mm)
    steps_mm = np.arange(0.0, float(np.max(np.multiply(new.shape, spacing))), _RAY_STEP_MM)
    local = (centre_zyx - np.asarray(stamp.start_zyx))[:, None]
    ray = local + steps_mm * (outward / spacing)[:, None]
    ray = ray[:, np.all((ray >= 0) & (ray <= np.array(new.shape)[:, None] - 1), axis=0)]
    at_wall = np.flatnonzero(~paintable[tuple(np.rint(ray).astype(int))])
    share = ndimage.map_coordinates(stamp.share, ray, order=1)
    if not len(at_wall):
        return False
    # From the nodule's outer half on: its middle may be a cavity.
    first = int(np.count_nonzero(share >= 0.5)) // 2
    between = ndimage.map_coordinates(new, ray[:, first : int(at_wall[0]) + 1], order=1)
    faint = min(GAP_BELOW_HU, stamp.body_hu - VISIBLE_HU)
    return bool(np.all(between >= faint))


def _diameter(canvas: Canvas, inside: np.ndarray) -> float:
    volume = float(inside.sum()) * float(np.prod(canvas.geometry.spacing_zyx_mm))
    return float(np.cbrt(6.0 * volume / np.pi))


def _paint(
    canvas: Canvas, wanted: Wanted, place: str, pose: Pose, stamp: Stamp, paintable: np.ndarray
) -> Inserted:
    box = stamp.box
    canvas.volume_hu[box] = blend(canvas.volume_hu[box], stamp, paintable)
    number = int(canvas.labels.max()) + 1
    canvas.labels[box][outline_of(stamp, paintable)] = number
    inside = np.where(paintable, stamp.share, 0.0)
    weights = inside.ravel() / inside.sum()
    local = np.stack(np.meshgrid(*[np.arange(n) for n in inside.shape], indexing="ij"))
    centre = np.asarray(stamp.start_zyx) + local.reshape(3, -1) @ weights
    diameter = _diameter(canvas, inside)
    canvas.taken.append((centre, 0.5 * max(diameter, wanted.diameter_mm)))
    x, y, z = canvas.geometry.voxel_to_world(centre).tolist()
    return Inserted(
        crop=wanted.candidate.file.name,
        patient_id=wanted.candidate.file.patient_id,
        place=place,
        centre_xyz_mm=(x, y, z),
        diameter_mm=round(diameter, 3),
        drawn_diameter_mm=round(wanted.diameter_mm, 3),
        scale=round(pose.scale, 4),
        turn_deg=round(float(np.degrees(pose.turn_rad)) % 360.0, 2),
        mirrored_zyx=pose.mirrored_zyx,
    )
