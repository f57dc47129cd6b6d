# SPDX-License-Identifier: Apache-2.0
"""The geometry of a stylised chest: where lungs, chest wall, heart and vessels lie.

Everything here lives in the atlas frame: millimetres of an average adult, origin at the carina on
the mid-line, x to the patient's left, y to the back, z to the head. A scan scales this frame to
its own patient. Solids are signed distances (negative inside), see `drawing`. Trees of vessels and
airways grow through the lungs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.phantom import drawing
from lungdet_mmdet.phantom.drawing import Tubes, concatenate

Point = tuple[float, float, float]
Height = np.ndarray | float

LUNG_TOP_MM = 90.0
LUNG_BASE_MM = -228.0
CARINA: Point = (0.0, 10.0, 0.0)
HILUM_RIGHT: Point = (-38.0, 6.0, -16.0)
HILUM_LEFT: Point = (40.0, 8.0, -22.0)
TRACHEA_TOP: Point = (0.0, -14.0, 125.0)

# Half width, half depth and centre of the thoracic cavity and of the body, against height.
_Z = np.array([-230.0, -190, -120, -60, 0, 40, 70, 90, 110, 140])
_CAVITY_HALF_WIDTH = np.array([124.0, 131, 138, 135, 126, 112, 93, 78, 66, 58])
_CAVITY_HALF_DEPTH = np.array([90.0, 96, 100, 97, 87, 74, 61, 52, 46, 42])
_CAVITY_CENTRE_Y = np.array([0.0, 0, 0, 2, 7, 13, 20, 25, 30, 32])
_BODY_HALF_WIDTH = np.array([160.0, 164, 168, 171, 178, 186, 186, 178, 160, 130])
_BODY_HALF_DEPTH = np.array([114.0, 118, 121, 120, 114, 104, 95, 88, 80, 70])
_BODY_CENTRE_Y = np.array([0.0, 0, 0, 2, 6, 11, 16, 20, 24, 28])
_COLUMN_Z = np.array([-210.0, -120, -60, 0, 40, 70, 95])
_COLUMN_HALF_WIDTH = np.array([15.0, 18, 21, 24, 25, 27, 33])

AORTA: tuple[tuple[Point, Point, float], ...] = (
    ((2.0, -34.0, -45.0), (-12.0, -32.0, 14.0), 15.0),
    ((-12.0, -32.0, 14.0), (4.0, -16.0, 38.0), 14.5),
    ((4.0, -16.0, 38.0), (22.0, 16.0, 34.0), 13.5),
    ((22.0, 16.0, 34.0), (26.0, 40.0, 4.0), 12.5),
    ((26.0, 40.0, 4.0), (20.0, 46.0, -110.0), 12.0),
    ((20.0, 46.0, -110.0), (6.0, 50.0, -260.0), 11.0),
)
GREAT_VESSELS: tuple[tuple[Point, Point, float], ...] = (
    ((-24.0, -22.0, 70.0), (-24.0, -20.0, -40.0), 9.5),  # superior vena cava
    ((14.0, -38.0, -45.0), (14.0, -20.0, -8.0), 14.0),  # pulmonary trunk
    ((14.0, -20.0, -8.0), (-36.0, 0.0, -14.0), 10.5),  # right pulmonary artery
    ((14.0, -20.0, -8.0), (38.0, 10.0, -10.0), 10.5),  # left pulmonary artery
    ((10.0, 4.0, -40.0), (-38.0, 8.0, -42.0), 7.5),  # right inferior pulmonary vein
    ((10.0, 4.0, -40.0), (42.0, 14.0, -46.0), 7.5),  # left inferior pulmonary vein
    ((-6.0, -24.0, 36.0), (-16.0, -20.0, 110.0), 6.0),  # brachiocephalic artery
    ((8.0, -12.0, 38.0), (18.0, -8.0, 110.0), 5.0),  # left common carotid artery
    ((16.0, 4.0, 40.0), (34.0, 8.0, 110.0), 5.0),  # left subclavian artery
)
HEART_CENTRE: Point = (20.0, -36.0, -80.0)
HEART_RADII: Point = (68.0, 50.0, 47.0)
_HEART_LONG_AXIS = np.array([0.72, -0.52, -0.46])


@dataclass(frozen=True)
class Anatomy:
    """One patient's chest in the atlas frame.

    Parameters
    ----------
    scale_xyz : patient millimetres per atlas millimetre along x, y, z.
    fatness : scale of the body outline around an unchanged chest.
    heart_scale : size of the heart.
    junction_mm : half width of the tissue between the lungs in front of the great vessels.
    dome_right_mm, dome_left_mm : heights of the diaphragm's domes.
    lung_hu : mean density of the lung in the middle of the chest.
    blood_hu : density of blood (about 45 without contrast medium).
    rib_phase_mm : height offset of the ribs and vertebrae.
    left_lung, right_lung : whether that lung is there; fluid takes the place of a missing one.
    bowel_gas : whether loops of gas-filled colon lie under the diaphragm.
    effusion_mm : depth of fluid behind the right lung; 0 for none.
    consolidation : (centre, radius_mm) of an airless region of the lung, or None.
    open_trachea : whether a tracheostomy joins the trachea to the air in front of the neck.
    """

    scale_xyz: Point = (1.0, 1.0, 1.0)
    fatness: float = 1.0
    heart_scale: float = 1.0
    junction_mm: float = 6.0
    dome_right_mm: float = -100.0
    dome_left_mm: float = -113.0
    lung_hu: float = -850.0
    blood_hu: float = 45.0
    rib_phase_mm: float = 0.0
    left_lung: bool = True
    right_lung: bool = True
    bowel_gas: bool = False
    effusion_mm: float = 0.0
    consolidation: tuple[Point, float] | None = None
    open_trachea: bool = False

    def cavity(self, x: np.ndarray, y: np.ndarray, z: Height) -> np.ndarray:
        """Distance to the inner face of the rib cage."""
        width, depth = _at(z, _CAVITY_HALF_WIDTH), _at(z, _CAVITY_HALF_DEPTH)
        return drawing.rounded_box(x, y - _at(z, _CAVITY_CENTRE_Y), width, depth)

    def cavity_frame(self, z: float) -> tuple[float, float, float]:
        """Half width, half depth and centre y of the rib cage at one height."""
        tables = (_CAVITY_HALF_WIDTH, _CAVITY_HALF_DEPTH, _CAVITY_CENTRE_Y)
        width, depth, centre = (float(np.interp(z, _Z, table)) for table in tables)
        return width, depth, centre

    def body(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """Distance to the skin."""
        width, depth, centre = self.body_frame(z)
        return drawing.rounded_box(x, y - centre, width, depth)

    def body_frame(self, z: float) -> tuple[float, float, float]:
        """Half width, half depth and centre y of the body at one height."""
        width = float(np.interp(z, _Z, _BODY_HALF_WIDTH)) * self.fatness
        depth = float(np.interp(z, _Z, _BODY_HALF_DEPTH)) * self.fatness
        return width, depth, float(np.interp(z, _Z, _BODY_CENTRE_Y))

    def spine_y(self, z: Height) -> Height:
        """Centre y of the vertebral bodies: it follows the back wall of the cavity."""
        return _at(z, _CAVITY_CENTRE_Y + _CAVITY_HALF_DEPTH) - 38.0

    def heart(self, x: np.ndarray, y: np.ndarray, z: Height) -> np.ndarray:
        """Distance to the heart, an ellipsoid that points to the left, forward and down."""
        offset = (x - HEART_CENTRE[0], y - HEART_CENTRE[1], z - HEART_CENTRE[2])
        rx, ry, rz = HEART_RADII
        scale = self.heart_scale
        return drawing.ellipsoid(offset, (rx * scale, ry * scale, rz * scale), _heart_axes())

    def mediastinum(self, x: np.ndarray, y: np.ndarray, z: Height) -> np.ndarray:
        """Distance to everything that lies between the lungs, the spine included."""
        middle = _at(z, _COLUMN_HALF_WIDTH, _COLUMN_Z)
        front = self.junction_mm + _plain(np.clip((-25.0 - z) * 0.25, 0.0, 10.0))
        # The tissue behind the breastbone widens towards it.
        front = front + 0.5 * np.maximum(-y - 70.0, 0.0)
        half_width = front + (middle - front) / (1.0 + np.exp(-(y + 40.0) / 6.0))
        solid = drawing.smooth_union(np.abs(x - 1.0) - half_width, self.heart(x, y, z) - 3.0, 8.0)
        for start, end, radius in AORTA:
            if _reaches(z, start[2], end[2], radius):
                solid = np.minimum(solid, drawing.capsule(x, y, z, start, end, radius + 1.5))
        for hilum in (HILUM_RIGHT, HILUM_LEFT):
            offset = (x - hilum[0] * 0.85, y - hilum[1], z - hilum[2])
            solid = drawing.smooth_union(solid, drawing.ellipsoid(offset, (15.0, 15.0, 22.0)), 8.0)
        spine = self.spine_y(z)
        column = drawing.ellipse(x, y - spine, 26.0, 21.0)
        behind = np.maximum(np.abs(x) - 25.0, spine - y)
        return np.minimum(solid, drawing.smooth_union(column, behind, 14.0))

    def diaphragm_height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height of the diaphragm over each point of the chest's cross-section."""
        top = np.where(x < 0, np.float32(self.dome_right_mm), np.float32(self.dome_left_mm))
        across = np.square((np.abs(x) - 60.0) / 72.0)
        along = np.square((y + 10.0) / 90.0)
        # The recess behind the liver and spleen reaches lower than the one in front.
        behind = np.square(np.maximum(y, 0.0) / 90.0)
        return top - 68.0 * across - 62.0 * along - 25.0 * behind

    def lung(self, x: np.ndarray, y: np.ndarray, z: Height) -> np.ndarray:
        """Distance to the lungs (both; x > 0 is the left one), the pleura being the surface."""
        cupola = LUNG_TOP_MM - 55.0 * (
            np.square((np.abs(x) - 48.0) / 75.0) + np.square((y - 22.0) / 85.0)
        )
        solid = np.maximum(self.cavity(x, y, z), 0.7 * (z - cupola))
        solid = np.maximum(solid, 0.7 * (self.diaphragm_height(x, y) - z))
        solid = drawing.smooth_intersection(solid, -self.mediastinum(x, y, z), 9.0)
        if self.effusion_mm > 0:
            fluid_front = 78.0 - self.effusion_mm + 0.35 * np.maximum(z + 110.0, -60.0)
            solid = np.where(x < 0, np.maximum(solid, y - fluid_front), solid)
        if not self.left_lung:
            solid = np.where(x > 0, 99.0, solid)
        if not self.right_lung:
            solid = np.where(x <= 0, 99.0, solid)
        return solid


def _heart_axes() -> np.ndarray:
    """Rows: the heart's long axis and two axes across it."""
    long_axis = _HEART_LONG_AXIS / np.linalg.norm(_HEART_LONG_AXIS)
    across = np.cross(long_axis, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across)
    return np.stack([long_axis, across, np.cross(long_axis, across)])


def _at(z: Height, values: np.ndarray, heights: np.ndarray = _Z) -> Height:
    """Look a profile up at one height, or at many."""
    return _plain(np.interp(z, heights, values))


def _plain(value: Height) -> Height:
    """Return one height's value as a plain float, which keeps float32 slices float32."""
    return float(value) if np.ndim(value) == 0 else value


def _reaches(z: Height, a: float, b: float, radius: float) -> bool:
    """Say whether any of the heights lies near the rod, to skip rods far from a slice."""
    margin = radius + 12.0
    return bool(np.any((z > min(a, b) - margin) & (z < max(a, b) + margin)))


def draw_anatomy(rng: np.random.Generator, *, patient_scale: float) -> Anatomy:
    """Draw one patient: proportions vary by some percent around ``patient_scale``."""
    scale = patient_scale * rng.uniform(0.95, 1.05, size=3)
    return Anatomy(
        scale_xyz=(float(scale[0]), float(scale[1]), float(scale[2])),
        fatness=float(rng.uniform(0.95, 1.08)),
        heart_scale=float(rng.uniform(0.9, 1.08)),
        junction_mm=float(rng.uniform(3.0, 9.0)),
        dome_right_mm=float(rng.uniform(-110.0, -92.0)),
        dome_left_mm=float(rng.uniform(-122.0, -104.0)),
        lung_hu=float(rng.uniform(-880.0, -825.0)),
        blood_hu=float(rng.choice([40.0, 45.0, 160.0, 240.0])),
        rib_phase_mm=float(rng.uniform(0.0, 27.0)),
    )


MURRAY_EXPONENT = 3.0
"""Radius of a parent: r^3 is the sum of its children's r^3 (Murray's law)."""

AIRWAY_MIN_LEAVES = 24
"""Airways are drawn beside arteries that feed at least so many leaves: the first generations."""

_AIRWAY_OFFSET_MM = np.array([0.0, 3.5, 3.0])
_VEIN_ROOT_SHIFT = np.array([0.0, 6.0, -26.0])


@dataclass(frozen=True)
class PulmonaryTrees:
    """Vessels and airways in patient millimetres.

    Parameters
    ----------
    vessels : arteries and veins of both lungs.
    lumens : air-filled tubes: trachea and main bronchi first (``n_central`` of them).
    n_central : how many of the lumens belong to trachea and main bronchi.
    wall_mm : thickness of the airways' walls, one per lumen.
    """

    vessels: Tubes
    lumens: Tubes
    n_central: int
    wall_mm: np.ndarray


def grow_pulmonary_trees(
    anatomy: Anatomy, rng: np.random.Generator, *, leaves_per_lung: int, leaf_radius_mm: float
) -> PulmonaryTrees:
    """Grow arteries, veins and airways of the lungs that the anatomy has.

    Parameters
    ----------
    leaves_per_lung : ends of the arteries of one lung.
    leaf_radius_mm : radius of these last vessels, some millimetres short of the pleura.
    """
    scale = np.array(anatomy.scale_xyz)
    vessels, airways = [], [_central_airways(anatomy)]
    n_central = len(airways[0])
    for hilum, present in ((HILUM_RIGHT, anatomy.right_lung), (HILUM_LEFT, anatomy.left_lung)):
        if not present:
            continue
        root = np.array(hilum)
        side = 1 if hilum[0] > 0 else -1
        for shift, share in ((np.zeros(3), 1.0), (_VEIN_ROOT_SHIFT, 0.8)):
            count = int(leaves_per_lung * share)
            targets = sample_in_lung(anatomy, rng, count, side=side, depth_mm=(2.0, 99.0))
            tree, leaves = _grow_tree((root + shift) * scale, targets * scale, leaf_radius_mm, rng)
            vessels.append(tree)
            if share == 1.0:
                airways.append(_beside(tree, leaves >= AIRWAY_MIN_LEAVES, side))
    lumens = concatenate(airways)
    wall = np.where(np.arange(len(lumens)) < n_central, 1.5, 0.45 + 0.2 * lumens.end_radius)
    drawn = concatenate(vessels) if vessels else lumens.part(slice(0, 0))
    return PulmonaryTrees(drawn, lumens, n_central, wall)


def sample_in_lung(
    anatomy: Anatomy,
    rng: np.random.Generator,
    count: int,
    *,
    side: int,
    depth_mm: tuple[float, float],
) -> np.ndarray:
    """Draw atlas points (count, 3) in the left (side 1) or right (-1) lung, or either (0).

    ``depth_mm`` bounds their distance from the pleura. Fewer points come back if the wanted
    region is almost empty.
    """
    found: list[np.ndarray] = []
    total = 0
    low = np.array([0.0 if side > 0 else -140.0, -100.0, LUNG_BASE_MM])
    high = np.array([0.0 if side < 0 else 140.0, 105.0, LUNG_TOP_MM])
    for _ in range(60):
        points = rng.uniform(low, high, size=(4 * count + 50, 3))
        depth = -anatomy.lung(points[:, 0], points[:, 1], points[:, 2])
        kept = points[(depth > depth_mm[0]) & (depth < depth_mm[1])]
        found.append(kept)
        total += len(kept)
        if total >= count:
            break
    return np.concatenate(found)[:count]


def _grow_tree(
    root: np.ndarray, targets: np.ndarray, leaf_radius_mm: float, rng: np.random.Generator
) -> tuple[Tubes, np.ndarray]:
    """Grow one tree from ``root`` that ends at every target.

    The targets are halved again and again across their longest extent; each half gets a branch
    that runs part of the way to its middle. Returns the tubes and, per tube, its leaf count.
    """
    rows: list[tuple[np.ndarray, np.ndarray, float, float, int]] = []
    radii = leaf_radius_mm * np.arange(len(targets) + 1) ** (1.0 / MURRAY_EXPONENT)
    pending = [(root, targets, float(radii[-1]))]
    while pending:
        start, group, start_radius = pending.pop()
        if len(group) == 0:
            continue
        end = group[0] if len(group) == 1 else _fork(start, group, rng)
        end_radius = float(radii[len(group)]) * (0.75 if len(group) == 1 else 1.0)
        rows.extend(_bent(start, end, start_radius, end_radius, len(group), rng))
        if len(group) > 1:
            for half in _halves(group, rng):
                pending.append((end, half, min(end_radius, 1.15 * float(radii[len(half)]))))
    starts, ends, radius0, radius1, leaves = (list(column) for column in zip(*rows, strict=True))
    tubes = Tubes(np.array(starts), np.array(ends), np.array(radius0), np.array(radius1))
    return tubes, np.array(leaves)


def _fork(start: np.ndarray, group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the point where the branch to a group of targets forks."""
    share = 0.55 if len(group) < 8 else 0.32
    return start + (share + rng.uniform(-0.08, 0.08)) * (group.mean(axis=0) - start)


def _halves(group: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split targets across their longest extent, not quite in the middle."""
    centred = group - group.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    order = np.argsort(centred @ axes[0], kind="stable")
    cut = int(np.clip(round(len(group) * rng.uniform(0.35, 0.65)), 1, len(group) - 1))
    return group[order[:cut]], group[order[cut:]]


def _bent(
    start: np.ndarray,
    end: np.ndarray,
    start_radius: float,
    end_radius: float,
    leaves: int,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, np.ndarray, float, float, int]]:
    """Return a branch as two tubes with a slight bend between them."""
    length = float(np.linalg.norm(end - start))
    middle = 0.5 * (start + end) + rng.normal(0.0, 0.035, size=3) * length
    radius = 0.5 * (start_radius + end_radius)
    return [
        (start, middle, start_radius, radius, leaves),
        (middle, end, radius, end_radius, leaves),
    ]


def _beside(tree: Tubes, keep: np.ndarray, side: int) -> Tubes:
    """Airways run beside the arteries, a constant step away, and are a little narrower."""
    shift = _AIRWAY_OFFSET_MM * np.array([side, 1.0, 1.0])
    return Tubes(
        tree.start_xyz[keep] + shift,
        tree.end_xyz[keep] + shift,
        0.85 * tree.start_radius[keep],
        0.85 * tree.end_radius[keep],
    )


def _central_airways(anatomy: Anatomy) -> Tubes:
    """Trachea and main bronchi; a tracheostomy leads out through the front of the neck."""
    shift = _AIRWAY_OFFSET_MM
    path: list[tuple[tuple[float, ...], tuple[float, ...], float, float]] = [
        (TRACHEA_TOP, CARINA, 8.5, 8.5)
    ]
    for hilum, present, side in (
        (HILUM_RIGHT, anatomy.right_lung, -1),
        (HILUM_LEFT, anatomy.left_lung, 1),
    ):
        end = np.array(hilum) * (1.0 if present else 0.6) + shift * np.array([side, 1.0, 1.0])
        path.append((CARINA, tuple(end), 6.8, 5.2 if present else 3.0))
    if anatomy.open_trachea:
        path.append(((0.0, -11.0, 108.0), (0.0, -130.0, 112.0), 7.0, 7.0))
    scale = np.array(anatomy.scale_xyz)
    return Tubes(
        np.array([row[0] for row in path]) * scale,
        np.array([row[1] for row in path]) * scale,
        np.array([row[2] for row in path]) * scale[0],
        np.array([row[3] for row in path]) * scale[0],
    )
