# SPDX-License-Identifier: Apache-2.0
"""Real nodules to be set into other lungs: reading them with their masks, and screening them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from lungdet_mmdet.annotations.tables import read_csv_rows
from lungdet_mmdet.ct.geometry import place_problem
from lungdet_mmdet.ct.reading import SCAN_SUFFIXES, read_scan, scan_suffix
from lungdet_mmdet.errors import LungDetError

CROPS_TABLE = "crops.csv"
IMAGE_FOLDER, MASK_FOLDER = "image", "mask"
SURROUNDINGS_MM = 20.0
"""What is kept around a nodule that is cut out of a whole scan."""
LUNG_BELOW_HU, TISSUE_ABOVE_HU = -500.0, -400.0
BODY_PERCENTILE = 90.0
"""The nodule's own density: the percentile of its voxels that counts as fully nodule."""
ATTACHED_SHARE = 0.10
"""From this share of tissue around it a nodule counts as grown to a wall or a large vessel."""
_SHELL_PIXELS = 2.0
_LEAST_SAMPLES = 50

MIN_VOXELS = 8
MAX_ELONGATION = 2.0
MIN_SOLIDITY = 0.45
MAX_NOISE_HU = 80.0
MIN_CONTRAST_HU = 200.0
MAX_BODY_HU = 1900.0
MAX_ATTACHED_SHARE = 0.5
MIN_LARGEST_PART = 0.9


@dataclass(frozen=True)
class CropFile:
    """Where one nodule is stored.

    Parameters
    ----------
    name : unique name.
    patient_id : whose nodule it is.
    image_path, mask_path : image in HU and mask on the same grid.
    label : value of this nodule in the mask.
    """

    name: str
    patient_id: str
    image_path: Path
    mask_path: Path
    label: int = 1


@dataclass(frozen=True)
class NoduleCrop:
    """A nodule and its surroundings.

    Parameters
    ----------
    name, patient_id : as in `CropFile`.
    hu : float32 (z, y, x), canonical orientation.
    mask : bool (z, y, x), True in the nodule.
    spacing_zyx_mm : voxel size.
    """

    name: str
    patient_id: str
    hu: np.ndarray
    mask: np.ndarray
    spacing_zyx_mm: tuple[float, float, float]


@dataclass(frozen=True)
class CropMeasures:
    """What decides whether, where and how a nodule can be set into another lung.

    Parameters
    ----------
    voxels : number of voxels of the mask.
    diameter_mm : of the sphere of equal volume.
    largest_part : share of the mask in its largest component.
    touches_border : whether the mask is cut by the image's border in plane.
    elongation : longest axis over ``diameter_mm`` (a sphere has 1).
    solidity : volume over that of the convex hull.
    background_hu : median of the lung around it; NaN where there is hardly any.
    noise_hu : standard deviation of the noise of that lung.
    body_hu : density of the nodule's body.
    attached_share : share of tissue in the shell of two pixels around the mask.
    attached_zyx : unit vector (z, y, x; mm) from the middle to that tissue, zeros without any.
    """

    voxels: int
    diameter_mm: float
    largest_part: float
    touches_border: bool
    elongation: float
    solidity: float
    background_hu: float
    noise_hu: float
    body_hu: float
    attached_share: float
    attached_zyx: tuple[float, float, float]


def list_crops(folder: Path | str) -> list[CropFile]:
    """List the nodules of a folder: ``crops.csv``, ``image/NAME.*`` and ``mask/NAME.*``.

    The table names ``crop`` and ``patient_id``; further columns are ignored. A column ``label``
    says which value of the mask is the nodule, where one mask holds several. Raises LungDetError if
    the table is missing, names a crop twice, or an image or mask is not there.
    """
    folder = Path(folder)
    table = folder / CROPS_TABLE
    if not table.is_file():
        raise LungDetError(
            f"{table}: no such table; nodules to insert are listed there with the columns "
            f"crop,patient_id, their files lie in {IMAGE_FOLDER}/ and {MASK_FOLDER}/"
        )
    rows = read_csv_rows(table)
    has_labels = bool(rows.lines) and "label" in [n.lower() for n in rows.lines[0][1]]
    crops: dict[str, CropFile] = {}
    for number, fields in rows.records(
        ("crop", "patient_id", *(("label",) if has_labels else ())),
        aliases={"patient_id": ("patient", "patientid")},
    ):
        stem, patient = fields[:2]
        label = int(rows.number(fields[2], number, "label")) if has_labels else 1
        name = f"{stem}#{label}" if has_labels else stem
        if name in crops or not patient:
            fault = "is there twice" if name in crops else "has no patient"
            raise LungDetError(f"{table}, line {number}: crop {name} {fault}; correct the line")
        paths = [_file_of(folder / part, stem) for part in (IMAGE_FOLDER, MASK_FOLDER)]
        crops[name] = CropFile(name, patient, paths[0], paths[1], label)
    if not crops:
        raise LungDetError(f"{table}: names no crop; add a line for each nodule")
    return list(crops.values())


def _file_of(folder: Path, stem: str) -> Path:
    for suffix in SCAN_SUFFIXES:
        if (path := folder / f"{stem}{suffix}").is_file():
            return path
    known = ", ".join(SCAN_SUFFIXES)
    raise LungDetError(f"{folder / stem}: no such file with one of the endings {known}")


def load_crop(file: CropFile) -> NoduleCrop:
    """Read a nodule and cut it, with its surroundings, out of its image.

    Raises LungDetError if a file is damaged, image and mask differ in grid, or the mask has no such
    label.
    """
    image, labels = read_scan(file.image_path), read_scan(file.mask_path)
    theirs, own = labels.geometry, image.geometry
    same_grid = theirs.size_zyx == own.size_zyx and np.allclose(
        theirs.spacing_zyx_mm, own.spacing_zyx_mm, rtol=1e-3
    )
    if not same_grid:
        raise LungDetError(
            f"{file.mask_path}: its grid {theirs.size_zyx} is not that of the image, "
            f"{own.size_zyx}; write the mask on the image's grid"
        )
    problem = place_problem(theirs, own, source=str(file.mask_path))
    if problem is None and not np.allclose(theirs.axes_xyz, own.axes_xyz, atol=1e-3):
        problem = f"{file.mask_path}: has not the image's direction; copy it from there"
    if problem:
        raise LungDetError(problem)
    mask = labels.volume_hu == file.label
    if not mask.any():
        raise LungDetError(
            f"{file.mask_path}: no voxel has the label {file.label} of crop {file.name}; "
            f"{scan_suffix(file.mask_path)} masks hold integers, 0 outside"
        )
    spacing = image.geometry.spacing_zyx_mm
    box = []
    for axis, found in enumerate(np.nonzero(mask)):
        rim = math.ceil(SURROUNDINGS_MM / spacing[axis])
        box.append(slice(max(0, int(found.min()) - rim), int(found.max()) + rim + 1))
    hu = image.volume_hu[tuple(box)].astype(np.float32)
    return NoduleCrop(file.name, file.patient_id, hu, mask[tuple(box)], spacing)


def measure_crop(crop: NoduleCrop) -> CropMeasures:
    """Measure a nodule and what surrounds it."""
    spacing = np.asarray(crop.spacing_zyx_mm)
    points_mm = np.argwhere(crop.mask) * spacing
    offsets = points_mm - points_mm.mean(axis=0)
    volume = len(points_mm) * float(spacing.prod())
    diameter = float(np.cbrt(6.0 * volume / np.pi))
    # A voxel is no point: its own spread is side^2 / 12. A ball's is r^2 / 5.
    spread = offsets.T @ offsets / len(offsets) + np.diag(spacing**2 / 12.0)
    longest = 2.0 * float(np.sqrt(5.0 * np.linalg.eigvalsh(spread)[-1]))
    parts, _ = ndimage.label(crop.mask, np.ones((3, 3, 3)))
    outside = ndimage.distance_transform_edt(~crop.mask, sampling=spacing)
    pixel = float(spacing[2])
    lung = (outside > _SHELL_PIXELS * pixel) & (crop.hu < LUNG_BELOW_HU)
    enough = int(lung.sum()) >= _LEAST_SAMPLES
    shell = (outside > 0) & (outside <= _SHELL_PIXELS * pixel)
    tissue = shell & (crop.hu > TISSUE_ABOVE_HU)
    return CropMeasures(
        voxels=len(points_mm),
        diameter_mm=diameter,
        largest_part=float(np.bincount(parts[crop.mask]).max() / len(points_mm)),
        touches_border=bool(crop.mask[:, [0, -1]].any() or crop.mask[:, :, [0, -1]].any()),
        elongation=longest / diameter,
        solidity=volume / _hull_volume(crop.mask, spacing),
        background_hu=float(np.median(crop.hu[lung])) if enough else math.nan,
        noise_hu=_noise(crop.hu, lung) if enough else math.nan,
        body_hu=float(np.percentile(crop.hu[crop.mask], BODY_PERCENTILE)),
        attached_share=float(tissue.sum() / max(int(shell.sum()), 1)),
        attached_zyx=_direction(np.argwhere(tissue) * spacing - points_mm.mean(axis=0)),
    )


def faults_of(measures: CropMeasures) -> tuple[str, ...]:
    """Name what makes a nodule unfit to be set into another lung; nothing for a sound one.

    Masks that leak along vessels are long or branched, streaks show as noise, and a nodule buried
    in tissue has no surface of its own.
    """
    m = measures
    contrast = m.body_hu - m.background_hu
    checks = (
        (m.voxels < MIN_VOXELS, f"fewer than {MIN_VOXELS} voxels"),
        (m.touches_border, "mask cut by the border"),
        (m.largest_part < MIN_LARGEST_PART, "mask in pieces"),
        (m.elongation > MAX_ELONGATION, f"elongation above {MAX_ELONGATION:g}"),
        (m.solidity < MIN_SOLIDITY, f"solidity below {MIN_SOLIDITY:g}"),
        (math.isnan(m.background_hu), "hardly any lung around"),
        (m.noise_hu > MAX_NOISE_HU, f"noise above {MAX_NOISE_HU:g} HU"),
        (contrast < MIN_CONTRAST_HU, f"contrast below {MIN_CONTRAST_HU:g} HU"),
        (m.body_hu > MAX_BODY_HU, f"denser than {MAX_BODY_HU:g} HU"),
        (m.attached_share > MAX_ATTACHED_SHARE, "buried in tissue"),
    )
    return tuple(text for found, text in checks if found)


def _hull_volume(mask: np.ndarray, spacing: np.ndarray) -> float:
    corners = np.array(np.meshgrid(*[(-0.5, 0.5)] * 3)).reshape(3, -1).T
    surface = mask & ~ndimage.binary_erosion(mask)
    points = (np.argwhere(surface)[:, None] + corners).reshape(-1, 3) * spacing
    try:
        return float(ConvexHull(np.unique(points, axis=0)).volume)
    except QhullError:
        return float(mask.sum() * spacing.prod())


def _noise(hu: np.ndarray, lung: np.ndarray) -> float:
    """Estimate noise from neighbouring pixels: most of lung's own texture is coarser."""
    steps = (hu[:, :, 1:] - hu[:, :, :-1])[lung[:, :, 1:] & lung[:, :, :-1]]
    return float(1.4826 * np.median(np.abs(steps)) / np.sqrt(2.0)) if steps.size else math.nan


def _direction(offsets_mm: np.ndarray) -> tuple[float, float, float]:
    if len(offsets_mm) == 0:
        return (0.0, 0.0, 0.0)
    mean = offsets_mm.mean(axis=0)
    length = float(np.linalg.norm(mean))
    z, y, x = (mean / length if length > 1e-6 else np.zeros(3)).tolist()
    return z, y, x
