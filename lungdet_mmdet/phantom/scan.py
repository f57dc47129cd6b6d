# SPDX-License-Identifier: Apache-2.0
"""A phantom's scan: how it is acquired and stored, its tissues painted, its findings drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import AIR_HU
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.phantom.anatomy import (
    Anatomy,
    PulmonaryTrees,
    draw_anatomy,
    grow_pulmonary_trees,
)
from lungdet_mmdet.phantom.drawing import Grid, SliceCanvas, Tubes, draw_tubes
from lungdet_mmdet.phantom.findings import PhantomNodule, Placer, draw_nodule, draw_nodule_plan
from lungdet_mmdet.phantom.organs import Surroundings, paint_slice

LOWEST_HU = -1024

_THICKNESS_MM = {
    **dict.fromkeys(("small", "fine"), ((2.5, 2.75, 3.0), (0.3, 0.4, 0.3))),
    "full": (
        (0.6, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0),
        (0.04, 0.06, 0.2, 0.25, 0.1, 0.1, 0.2, 0.05),
    ),
}

_PIXELS = {"small": (1.2, 1.4, 176, 240), "fine": (0.66, 0.77, 320, 440)}
"""Least and most millimetres of a pixel, fewest and most pixels of a row."""


@dataclass(frozen=True)
class Protocol:
    """One scan's acquisition.

    Parameters
    ----------
    spacing_zyx_mm : distance of voxel centres.
    n_pixels : rows and columns of a slice.
    z_range_mm : heights of the scan's two faces in atlas mm.
    centre_xy_mm : patient position of the middle of the picture.
    noise_sd_hu : standard deviation of the noise.
    padding_hu : value outside the round field of view; None for a square one.
    flip_xyz : axes that are stored backwards (their direction cosines are negative).
    rotation : (9,) row-major rotation from the patient's frame to the world.
    shift_xyz_mm : world position of the patient frame's origin.
    """

    spacing_zyx_mm: tuple[float, float, float]
    n_pixels: int
    z_range_mm: tuple[float, float]
    centre_xy_mm: tuple[float, float] = (0.0, 0.0)
    noise_sd_hu: float = 15.0
    padding_hu: int | None = None
    flip_xyz: tuple[bool, bool, bool] = (False, False, False)
    rotation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    shift_xyz_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def grid(self, anatomy: Anatomy) -> Grid:
        """Return the voxel grid in patient mm, in canonical order."""
        spacing_z, spacing_y, spacing_x = self.spacing_zyx_mm
        low, high = (z * anatomy.scale_xyz[2] for z in self.z_range_mm)
        n_slices = max(1, int(round((high - low) / spacing_z)))
        half = 0.5 * (self.n_pixels - 1)
        return Grid(
            (n_slices, self.n_pixels, self.n_pixels),
            self.spacing_zyx_mm,
            (
                low + 0.5 * spacing_z,
                self.centre_xy_mm[1] - half * spacing_y,
                self.centre_xy_mm[0] - half * spacing_x,
            ),
        )

    def to_world(self, points_xyz_mm: np.ndarray) -> np.ndarray:
        """Map patient points (N, 3) to world points."""
        rotation = np.reshape(self.rotation, (3, 3))
        return np.asarray(points_xyz_mm) @ rotation.T + np.asarray(self.shift_xyz_mm)

    def stored(self, volume: np.ndarray) -> np.ndarray:
        """Return a canonical (z, y, x) volume in the order in which it is stored."""
        axes = tuple(2 - i for i, flip in enumerate(self.flip_xyz) if flip)
        return np.ascontiguousarray(np.flip(volume, axes)) if axes else volume

    def geometry(self, grid: Grid) -> ScanGeometry:
        """Return the world geometry of the stored volume."""
        sign = np.where(self.flip_xyz, -1.0, 1.0)
        axes = np.reshape(self.rotation, (3, 3)) * sign
        first = np.array(grid.first_zyx_mm[::-1])
        last = first + (np.array(grid.size_zyx[::-1]) - 1) * np.array(grid.spacing_zyx_mm[::-1])
        origin = self.to_world(np.where(self.flip_xyz, last, first)[None])[0]
        return ScanGeometry(
            size_zyx=grid.size_zyx,
            spacing_zyx_mm=grid.spacing_zyx_mm,
            origin_xyz_mm=tuple(origin.tolist()),
            direction=tuple(float(v) + 0.0 for v in axes.ravel()),
        )


def draw_protocol(rng: np.random.Generator, anatomy: Anatomy, *, size: str) -> Protocol:
    """Draw the acquisition of one scan of the given size ("small", "fine" or "full")."""
    values, shares = _THICKNESS_MM[size]
    thickness = float(rng.choice(values, p=shares))
    body_mm = 2.0 * 172.0 * anatomy.fatness * anatomy.scale_xyz[0]
    view_mm = body_mm * float(rng.uniform(1.0, 1.12))
    if size == "full":
        n_pixels = 512
        spacing = float(np.clip(view_mm / n_pixels, 0.55, 0.9))
    else:
        finest, coarsest, fewest, most = _PIXELS[size]
        spacing = float(rng.uniform(finest, coarsest))
        n_pixels = int(np.clip(8 * round(view_mm / spacing / 8), fewest, most))
    spacing = round(spacing, 6)
    padding = rng.choice([0, -2000, -3024], p=[0.5, 0.25, 0.25])
    flips = [(False, False, False), (True, True, False), (True, False, False), (False, False, True)]
    flip = flips[int(rng.choice(len(flips), p=[0.75, 0.13, 0.06, 0.06]))]
    low, high = rng.uniform(-228.0, -206.0), rng.uniform(94.0, 112.0)
    return Protocol(
        spacing_zyx_mm=(thickness, spacing, spacing),
        n_pixels=n_pixels,
        z_range_mm=(float(low), float(high)),
        centre_xy_mm=(float(rng.uniform(-6.0, 6.0)), float(rng.uniform(-4.0, 10.0))),
        noise_sd_hu=float(rng.uniform(9.0, 28.0)),
        padding_hu=int(padding) or None,
        flip_xyz=flip,
        shift_xyz_mm=tuple(np.round(rng.uniform([-20, -190, -180], [20, 20, 60]), 2).tolist()),
    )


def add_noise(volume_hu: np.ndarray, sd_hu: float, rng: np.random.Generator) -> None:
    """Add noise in place, correlated between neighbouring pixels and a little between slices."""
    previous: np.ndarray | None = None
    for k in range(len(volume_hu)):
        white = rng.standard_normal(volume_hu.shape[1:], dtype=np.float32)
        noise = cv2.GaussianBlur(white, (0, 0), 0.75)
        # A Gaussian of sigma s keeps 1 / (4 pi s^2) of the variance of white noise.
        noise *= np.float32(sd_hu * np.sqrt(4.0 * np.pi) * 0.75)
        if previous is not None:
            noise = np.float32(0.92) * noise + np.float32(0.39) * previous
        previous = noise
        noisy = volume_hu[k] + noise
        volume_hu[k] = np.clip(np.rint(noisy), LOWEST_HU, 3071).astype(np.int16)


def pad_outside_circle(volume: np.ndarray, padding: int) -> None:
    """Set everything outside the round field of view to the padding value, in place."""
    n_rows, n_columns = volume.shape[1:]
    y = np.arange(n_rows)[:, None] - 0.5 * (n_rows - 1)
    x = np.arange(n_columns)[None, :] - 0.5 * (n_columns - 1)
    volume[:, np.hypot(x, y) > 0.5 * min(n_rows, n_columns)] = padding


def smooth_texture(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (y, x) of about unit variance: the mottle of organs."""
    coarse = rng.standard_normal(((shape[0] + 2) // 3, (shape[1] + 2) // 3), dtype=np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), 0.8) * np.float32(2.8)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


LABEL_LEFT_LUNG = 3
LABEL_RIGHT_LUNG = 4
LABEL_TRACHEA = 5
"""Labels as in LUNA16's own lung masks: the lungs are 3 and 4, trachea and main bronchi 5."""

_AIRWAY_WALL_HU = 20.0


def paint_tissues(
    anatomy: Anatomy,
    surroundings: Surroundings,
    grid: Grid,
    rng: np.random.Generator,
    *,
    step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint all slices; every ``step``-th pixel is computed, the rest interpolated.

    Returns
    -------
    volume, labels : (z, y, x) int16 HU, and uint8 labels of the lungs, on the grid.
    """
    n_slices, n_rows, n_columns = grid.size_zyx
    scale_x, scale_y, scale_z = anatomy.scale_xyz
    # Centres of blocks of step x step pixels, which is what cv2.resize assumes.
    half = 0.5 * (step - 1)
    y = (grid.axis_mm(1)[::step] + half * grid.spacing_zyx_mm[1]) / scale_y
    x = (grid.axis_mm(2)[::step] + half * grid.spacing_zyx_mm[2]) / scale_x
    x, y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    pixel_mm = step * grid.spacing_zyx_mm[2] / scale_x
    volume = np.empty(grid.size_zyx, dtype=np.int16)
    labels = np.zeros(grid.size_zyx, dtype=np.uint8)
    side = np.where(grid.axis_mm(2) > 0, LABEL_LEFT_LUNG, LABEL_RIGHT_LUNG).astype(np.uint8)
    for k, z in enumerate(grid.axis_mm(0) / scale_z):
        canvas = SliceCanvas(x, y, float(z), pixel_mm=pixel_mm)
        texture = smooth_texture((len(x), len(x[0])), rng)
        lung = paint_slice(anatomy, surroundings, canvas, texture)
        volume[k] = np.rint(_enlarged(canvas.hu, (n_rows, n_columns)))
        labels[k] = (_enlarged(lung, (n_rows, n_columns)) < 0) * side
    return volume, labels


def _enlarged(image: np.ndarray, size_yx: tuple[int, int]) -> np.ndarray:
    """Return a slice on the full pixel grid, as float32."""
    image = image.astype(np.float32, copy=False)
    is_full = image.shape == size_yx
    return image if is_full else cv2.resize(image, size_yx[::-1], interpolation=cv2.INTER_LINEAR)


def draw_trees(
    volume: np.ndarray, labels: np.ndarray, grid: Grid, trees: PulmonaryTrees, *, blood_hu: float
) -> None:
    """Draw vessels, airway walls and airway lumens, in place."""
    draw_tubes(volume, grid, trees.vessels, tissue_hu=blood_hu)
    draw_tubes(volume, grid, trees.lumens.grown(trees.wall_mm), tissue_hu=_AIRWAY_WALL_HU)
    within_lungs = trees.lumens.part(slice(trees.n_central, None))
    draw_tubes(volume, grid, within_lungs, tissue_hu=AIR_HU, hollow=True)
    central = trees.lumens.part(slice(0, trees.n_central))
    draw_tubes(
        volume, grid, central, tissue_hu=AIR_HU, hollow=True, labels=labels, label=LABEL_TRACHEA
    )


_PATIENT_SCALE = {"small": 0.72, "fine": 0.72, "full": 1.0}
_LEAVES_PER_LUNG = {"small": 300, "fine": 300, "full": 1300}
_LEAF_RADIUS_MM = {"small": 0.72, "fine": 0.72, "full": 0.45}
_PAINT_STEP = {"small": 1, "fine": 2, "full": 2}
DEFAULT_MEAN_NODULES = 2.0
"""Nodules of a scan that has any, on average: LUNA16's 601 such scans hold 1,186."""
_MAX_OVER_MEAN = 3.0
_MEAN_MICRO_NODULES = 3.0


@dataclass(frozen=True)
class PhantomScan:
    """A finished scan.

    Parameters
    ----------
    volume_hu : (z, y, x) int16 in the order in which it is stored.
    geometry : where the stored voxels lie in the world.
    nodules : the annotated nodules, in world mm.
    excluded : findings that are no nodules to be found (below 3 mm, or of unknown size, -1).
    lung_labels : (z, y, x) uint8: 3 left lung, 4 right lung, 5 trachea and main bronchi. Vessels
        and findings within the pleura count as lung.
    nodule_labels : (z, y, x) uint8: 1, 2, ... where the nodules lie, in the order of ``nodules``;
        0 elsewhere.
    n_unplaced : planned nodules and findings for which the lungs had no room; they are in neither
        the volume nor the lists.
    """

    volume_hu: np.ndarray
    geometry: ScanGeometry
    nodules: tuple[PhantomNodule, ...]
    excluded: tuple[PhantomNodule, ...]
    lung_labels: np.ndarray
    nodule_labels: np.ndarray
    n_unplaced: int = 0


@dataclass(frozen=True)
class Recipe:
    """What of a scan is given; everything that is None is drawn at random.

    Parameters
    ----------
    anatomy, protocol, surroundings : the patient, the acquisition and what lies around.
    nodules : nodules to draw; their positions are found (the given ones are ignored).
    mean_nodules : mean of the number of nodules where that is drawn, at least 1.
    excluded_count : number of small findings below 3 mm.
    leaves_per_lung : ends of the arteries of one lung.
    """

    anatomy: Anatomy | None = None
    protocol: Protocol | None = None
    surroundings: Surroundings | None = None
    nodules: Sequence[PhantomNodule] | None = None
    mean_nodules: float = DEFAULT_MEAN_NODULES
    excluded_count: int | None = None
    leaves_per_lung: int | None = None


def build_scan(
    rng_seed: int | Sequence[int], *, size: str = "small", recipe: Recipe | None = None
) -> PhantomScan:
    """Build a phantom scan.

    Parameters
    ----------
    rng_seed : seed, or sequence of seeds; the same seed gives the same scan.
    size : "small" (a small patient on a coarse grid, quick), "fine" (the same patient on a CT's
        pixels) or "full" (512 x 512, as LUNA16).
    recipe : what is not left to chance.

    Raises
    ------
    LungDetError
        If the size is unknown.
    """
    if size not in _PATIENT_SCALE:
        raise LungDetError(f"phantom size is {size!r}: use one of {sorted(_PATIENT_SCALE)}")
    recipe = recipe or Recipe()
    # One stream for each purpose: a given anatomy, say, leaves the findings as they were.
    seeds = np.random.SeedSequence(rng_seed).spawn(5)
    patient, scanner, growth, chance, grain = (np.random.default_rng(s) for s in seeds)
    anatomy = recipe.anatomy or draw_anatomy(patient, patient_scale=_PATIENT_SCALE[size])
    protocol = recipe.protocol or draw_protocol(scanner, anatomy, size=size)
    surroundings = recipe.surroundings or Surroundings(
        table=bool(scanner.random() < 0.85), blanket=bool(scanner.random() < 0.3)
    )
    trees = grow_pulmonary_trees(
        anatomy,
        growth,
        leaves_per_lung=recipe.leaves_per_lung or _LEAVES_PER_LUNG[size],
        leaf_radius_mm=_LEAF_RADIUS_MM[size],
    )
    grid = protocol.grid(anatomy)
    volume, labels = paint_tissues(anatomy, surroundings, grid, grain, step=_PAINT_STEP[size])
    draw_trees(volume, labels, grid, trees, blood_hu=anatomy.blood_hu)
    nodule_labels = np.zeros_like(labels)
    nodules, excluded, n_unplaced = _draw_findings(
        volume, nodule_labels, grid, anatomy, protocol, trees.vessels, recipe, chance
    )
    if anatomy.consolidation is not None:
        excluded.append(_consolidation(anatomy))
    add_noise(volume, protocol.noise_sd_hu, grain)
    if protocol.padding_hu is not None:
        pad_outside_circle(volume, protocol.padding_hu)
        pad_outside_circle(labels, 0)
    return PhantomScan(
        volume_hu=protocol.stored(volume),
        geometry=protocol.geometry(grid),
        nodules=_in_world(nodules, protocol),
        excluded=_in_world(excluded, protocol),
        lung_labels=protocol.stored(labels),
        nodule_labels=protocol.stored(nodule_labels),
        n_unplaced=n_unplaced,
    )


def _draw_findings(
    volume: np.ndarray,
    nodule_labels: np.ndarray,
    grid: Grid,
    anatomy: Anatomy,
    protocol: Protocol,
    vessels: Tubes,
    recipe: Recipe,
    rng: np.random.Generator,
) -> tuple[list[PhantomNodule], list[PhantomNodule], int]:
    """Place and draw nodules and small findings, in patient mm; count those without a place."""
    plan = recipe.nodules
    if plan is None:
        most = round(_MAX_OVER_MEAN * recipe.mean_nodules)
        count = min(int(rng.geometric(1.0 / recipe.mean_nodules)), most)
        plan = draw_nodule_plan(rng, count)
    heights = grid.axis_mm(0)
    view = (*protocol.centre_xy_mm, 0.5 * protocol.n_pixels * protocol.spacing_zyx_mm[2] - 4.0)
    placer = Placer(anatomy, vessels, (float(heights[0]), float(heights[-1])), view, rng)
    nodules = []
    for nodule in sorted(plan, key=lambda n: -n.diameter_mm):  # the large ones need the room
        placed = placer.place(nodule)
        if placed is not None:
            nodules.append(placed)
            draw_nodule(volume, grid, placed, rng, labels=nodule_labels, label=len(nodules))
    n_micro = recipe.excluded_count
    if n_micro is None:
        n_micro = int(rng.poisson(_MEAN_MICRO_NODULES))
    excluded = []
    for _ in range(n_micro):
        drawn_mm = float(rng.uniform(1.6, 2.9))
        known = rng.random() < 0.5
        finding = PhantomNodule((0.0, 0.0, 0.0), round(drawn_mm, 3) if known else -1.0)
        placed = placer.place(finding, drawn_mm=drawn_mm)
        if placed is not None:
            draw_nodule(volume, grid, placed, rng, drawn_mm=drawn_mm)
            excluded.append(placed)
    return nodules, excluded, len(plan) + n_micro - len(nodules) - len(excluded)


def _consolidation(anatomy: Anatomy) -> PhantomNodule:
    """Return the consolidation as a finding, in patient mm."""
    assert anatomy.consolidation is not None
    centre, radius = anatomy.consolidation
    x, y, z = (float(v) for v in np.multiply(centre, anatomy.scale_xyz))
    diameter = 2.0 * radius * float(np.cbrt(np.prod(anatomy.scale_xyz)))
    return PhantomNodule((x, y, z), round(diameter, 3), place="pleural")


def _in_world(findings: list[PhantomNodule], protocol: Protocol) -> tuple[PhantomNodule, ...]:
    """Return the findings with their positions in world mm."""
    moved = []
    for finding in findings:
        x, y, z = protocol.to_world(np.array([finding.centre_xyz_mm]))[0].tolist()
        moved.append(replace(finding, centre_xyz_mm=(x, y, z)))
    return tuple(moved)
