# SPDX-License-Identifier: Apache-2.0
"""One semi-real scan of a cohort: the real lungs that it is made from, their variant, the work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lungdet_mmdet.annotations.tables import (
    Finding,
    Nodule,
    Table,
    by_series,
    read_findings,
    read_nodules,
    read_patients,
)
from lungdet_mmdet.ct.dicom.series import choose_series, find_dicom_series
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.lungs.mask import segment_with_fallback
from lungdet_mmdet.ct.reading import read_scan, scan_suffix
from lungdet_mmdet.ct.scan import PADDING_BELOW_HU, write_metaimage
from lungdet_mmdet.ct.scan_inputs import scan_files
from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.phantom.scan import add_noise
from lungdet_mmdet.reports.ct_planes import nodule_strips
from lungdet_mmdet.runs.atomic_files import write_bytes, write_json
from lungdet_mmdet.runs.files import (
    ANNOTATION_TABLE,
    EXCLUDED_TABLE,
    LESION_TABLE,
    PATIENT_TABLE,
    search_files,
)
from lungdet_mmdet.semireal.insertion import map_lungs
from lungdet_mmdet.semireal.scan import Candidate, Canvas, draw_wanted, insert_nodule


@dataclass(frozen=True)
class LungSource:
    """One real scan.

    Parameters
    ----------
    seriesuid : the file's stem, or the UID of the DICOM series.
    path : the scan, a file or a DICOM folder.
    patient_id : whose lungs; the series itself where no table tells.
    nodules : its own annotated nodules.
    findings : its own irrelevant findings and lesions: regions to be ignored.
    """

    seriesuid: str
    path: Path
    patient_id: str
    nodules: tuple[Nodule, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class LungSources:
    """The scans in order of series UID, and remarks on their tables, one sentence each."""

    lungs: tuple[LungSource, ...]
    remarks: tuple[str, ...]


def find_lungs(paths: Sequence[Path], *, patients: Path | None = None) -> LungSources:
    """Find scans and what is known of them.

    Tables are looked for beside each scan, one folder up, and in the given folder:
    ``annotations.csv``, ``annotations_excluded.csv``, ``lesions.csv`` (columns of the former) and
    ``patients.csv`` (``seriesuid,patient_id``).

    Parameters
    ----------
    paths : scan files, or folders searched for them (those of masks are passed over); a folder
        without any is read as a DICOM series.
    patients : a further table of patients, which takes precedence.

    Raises
    ------
    LungDetError
        If a path is missing, a folder holds no scan, a series is there twice, or a table is broken.
    """
    files: dict[str, tuple[Path, Path]] = {}
    for root in paths:
        for path in _scans_below(Path(root)):
            name = printable(path.name)
            uid = name[: len(name) - len(scan_suffix(path))]
            if path.is_dir():
                uid = choose_series(find_dicom_series(path), source=str(path)).uid
            if uid in files and files[uid][0].resolve() != path.resolve():
                raise LungDetError(f"series {uid} is there twice: {files[uid][0]} and {path}")
            files[uid] = (path, Path(root))
    tables = _Tables()
    named = read_patients(patients) if patients is not None else {}
    lungs = [tables.describe(uid, *files[uid], named) for uid in sorted(files)]
    remarks = list(tables.remarks)
    if tables.nobodys:
        remarks.append(
            f"{len(tables.nobodys)} scans have no patient in a table (e.g. {tables.nobodys[0]}): "
            "each counts as a patient of its own; give --patients where two are of one patient, or "
            "one is also among the nodules' patients"
        )
    return LungSources(tuple(lungs), tuple(remarks))


def _scans_below(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise LungDetError(f"{root}: no such file or folder; check the path")
    return scan_files(search_files(root), root) or [root]


class _Tables:
    """Reads each table once."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self.nobodys: list[str] = []
        self._read: dict[Path, Mapping[str, Any]] = {}

    def describe(self, uid: str, path: Path, root: Path, named: Mapping[str, str]) -> LungSource:
        """Return a scan with what its tables say of it."""
        folders = dict.fromkeys([path.parent, path.parent.parent])
        if root.is_dir():
            folders[root] = None
        lung = LungSource(uid, path, uid)
        patient = named.get(uid)
        has_table = False
        for folder in folders:
            if (table := folder / ANNOTATION_TABLE).is_file():
                has_table = True
                found = self._rows(table, read_nodules).get(uid, [])
                lung = replace(lung, nodules=_joined(lung.nodules, found))
            for name in (EXCLUDED_TABLE, LESION_TABLE):
                if (table := folder / name).is_file():
                    found = self._rows(table, read_findings).get(uid, [])
                    lung = replace(lung, findings=_joined(lung.findings, found))
            if patient is None and (table := folder / PATIENT_TABLE).is_file():
                if table not in self._read:
                    self._read[table] = read_patients(table)
                patient = self._read[table].get(uid)
        if patient is None:
            self.nobodys.append(uid)
        else:
            lung = replace(lung, patient_id=patient)
        if not has_table:
            self.remarks.append(
                f"{uid}: no {ANNOTATION_TABLE} near the scan: own nodules, if any, are not known"
            )
        return lung

    def _rows(self, table: Path, read: Callable[[Path], Table]) -> Mapping[str, Any]:
        if table not in self._read:
            content = read(table)
            self.remarks.extend(content.warnings)
            self._read[table] = by_series(content.rows)
        return self._read[table]


def _joined(first: tuple, second: Sequence) -> tuple:
    return (*first, *(row for row in second if row not in first))


THIN_SLICES_MM = 1.5
"""Pairs of slices up to this thick may be averaged: LUNA16 reaches to 2.5 mm."""
SMOOTHING_PIXELS = (0.4, 0.8)
NOISE_HU = (5.0, 30.0)
MOST_LEAN_DEG = 10.0
SCALES = (0.9, 1.1)


@dataclass(frozen=True)
class LungVariant:
    """How a scan is changed: its tissue before nodules are set in, its grain afterwards.

    Parameters
    ----------
    mirrored : left and right change places.
    slices_joined : how many neighbouring slices are averaged to one.
    smoothing_px : standard deviation of a Gaussian in plane, 0 for none: a softer kernel.
    noise_hu : standard deviation of added noise, 0 for none.
    lean_yx_deg : angles by which the slices slide over each other along y and x, as a patient who
        leans: other vessels cross each slab. Nothing is resampled in plane.
    scale : factor of the whole chest's size.
    """

    mirrored: bool = False
    slices_joined: int = 1
    smoothing_px: float = 0.0
    noise_hu: float = 0.0
    lean_yx_deg: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0

    @property
    def stretch(self) -> float:
        """Return how much longer a length becomes at most, as a factor."""
        slope = float(np.hypot(*self._slopes))
        return self.scale * 0.5 * (slope + float(np.hypot(slope, 2.0)))

    @property
    def _slopes(self) -> np.ndarray:
        return np.tan(np.radians(self.lean_yx_deg))

    def slices_lower(
        self, geometry: ScanGeometry, y: np.ndarray | float, x: np.ndarray | float
    ) -> np.ndarray:
        """Return by how many slices of ``geometry`` a column at voxels (y, x) moves down."""
        dz, dy, dx = geometry.spacing_zyx_mm
        _, height, width = geometry.size_zyx
        along_y, along_x = self._slopes
        lower = along_y * dy * (y - 0.5 * (height - 1)) + along_x * dx * (x - 0.5 * (width - 1))
        return np.asarray(lower / dz)


AS_IT_IS = LungVariant()


def draw_variant(rng: np.random.Generator, slice_mm: float) -> LungVariant:
    """Draw a variant of a scan whose slices are ``slice_mm`` apart."""
    mirrored, joined, grain = rng.random() < 0.5, rng.random() < 0.5, rng.random()
    smoothing, noise = rng.uniform(*SMOOTHING_PIXELS), rng.uniform(*NOISE_HU)
    lean_y, lean_x = rng.uniform(-MOST_LEAN_DEG, MOST_LEAN_DEG, size=2)
    return LungVariant(
        mirrored=bool(mirrored),
        slices_joined=2 if joined and slice_mm <= THIN_SLICES_MM else 1,
        smoothing_px=round(float(smoothing), 3) if grain < 0.35 else 0.0,
        noise_hu=round(float(noise), 1) if grain > 0.65 else 0.0,
        lean_yx_deg=(round(float(lean_y), 2), round(float(lean_x), 2)),
        scale=round(float(rng.uniform(*SCALES)), 3),
    )


def apply_geometry(
    volume_hu: np.ndarray, geometry: ScanGeometry, variant: LungVariant
) -> tuple[np.ndarray, ScanGeometry]:
    """Return a copy of a scan (z, y, x) int16 with its tissue moved, and its grid."""
    changed, n = volume_hu, variant.slices_joined
    geometry = _scaled(geometry, variant.scale)
    if n > 1:
        depth = len(changed) // n
        pairs = changed[: depth * n].reshape(depth, n, *changed.shape[1:])
        changed = np.rint(pairs.mean(axis=1, dtype=np.float32)).astype(np.int16)
        dz, dy, dx = geometry.spacing_zyx_mm
        first = geometry.voxel_to_world(np.array([0.5 * (n - 1), 0.0, 0.0]))
        geometry = replace(
            geometry,
            size_zyx=(depth, *geometry.size_zyx[1:]),
            spacing_zyx_mm=(dz * n, dy, dx),
            origin_xyz_mm=tuple(first.tolist()),
        )
    changed = _leaning(changed, geometry, variant) if any(variant.lean_yx_deg) else changed.copy()
    if variant.mirrored:
        changed = np.ascontiguousarray(changed[:, :, ::-1])
    return changed, geometry


def apply_grain(volume_hu: np.ndarray, variant: LungVariant, rng: np.random.Generator) -> None:
    """Smooth a scan (z, y, x) int16 and make it noisier, in place.

    To be done when nodules are in it: they would not share the scan's kernel and noise otherwise.
    What lies outside the field of view (padding) keeps its value.
    """
    padding = volume_hu < PADDING_BELOW_HU
    before = volume_hu[padding]
    if variant.smoothing_px > 0:
        for image in volume_hu:
            soft = cv2.GaussianBlur(image.astype(np.float32), (0, 0), variant.smoothing_px)
            image[:] = np.rint(soft)
    if variant.noise_hu > 0:
        add_noise(volume_hu, variant.noise_hu, rng)
    volume_hu[padding] = before


def _scaled(geometry: ScanGeometry, scale: float) -> ScanGeometry:
    dz, dy, dx = geometry.spacing_zyx_mm
    return replace(geometry, spacing_zyx_mm=(dz * scale, dy * scale, dx * scale))


def _leaning(volume_hu: np.ndarray, geometry: ScanGeometry, variant: LungVariant) -> np.ndarray:
    """Return a scan whose columns moved down; between slices linear, the outermost go on."""
    depth, height, width = volume_hu.shape
    y, x = np.ogrid[:height, :width]
    lower = variant.slices_lower(geometry, y, x)
    moved = np.empty_like(volume_hu)
    for z in range(depth):
        source = np.clip(z + lower, 0, depth - 1)
        first = np.minimum(source.astype(np.intp), max(depth - 2, 0))
        share = (source - first).astype(np.float32)
        below, above = (
            np.take_along_axis(volume_hu, index[None], axis=0)[0].astype(np.float32)
            for index in (first, np.minimum(first + 1, depth - 1))
        )
        moved[z] = np.rint(below + share * (above - below))
    return moved


def moved_points(
    points_xyz_mm: np.ndarray, geometry: ScanGeometry, variant: LungVariant
) -> np.ndarray:
    """Return where world points (N, 3) of the scan as it was lie in the variant.

    Parameters
    ----------
    points_xyz_mm : world points of the scan, mm.
    geometry : the grid of the scan as it was.
    variant : what was done to it.
    """
    if len(points_xyz_mm) == 0:
        return points_xyz_mm
    voxels = geometry.world_to_voxel(points_xyz_mm)
    voxels[:, 0] -= variant.slices_lower(geometry, voxels[:, 1], voxels[:, 2])
    if variant.mirrored:
        voxels[:, 2] = geometry.size_zyx[2] - 1 - voxels[:, 2]
    return _scaled(geometry, variant.scale).voxel_to_world(voxels)


RECORD_FOLDER = "records"
OWN_MARGIN_MM = 2.0


@dataclass(frozen=True)
class SemirealJob:
    """One scan to be made.

    Parameters
    ----------
    seriesuid : its series UID.
    lung : the real scan.
    seed : seeds of all its random draws.
    pool : nodules to draw from.
    mean_nodules : nodules to insert, on average (Poisson).
    vary : whether the lung is changed by `draw_variant`.
    own_count : whether the lung's own nodules are annotated; else they are regions to ignore.
    out_dir, scan_folder, mask_folder : where files go; the folders are below or beside out_dir.
    """

    seriesuid: str
    lung: LungSource
    seed: tuple[int, ...]
    pool: tuple[Candidate, ...]
    mean_nodules: float
    vary: bool
    own_count: bool
    out_dir: Path
    scan_folder: Path
    mask_folder: Path

    @property
    def record_path(self) -> Path:
        """What was done, as JSON; written last, so that a scan with a record is whole."""
        return self.out_dir / RECORD_FOLDER / f"{self.seriesuid}.json"


def make_semireal_scan(job: SemirealJob) -> str:
    """Make a scan, its nodule labels, its pictures and its record; return the series UID.

    Raises LungDetError if the lung cannot be read, or no lungs are found in it.
    """
    rng = np.random.default_rng(job.seed)
    original = read_scan(job.lung.path)
    slice_mm = original.geometry.spacing_zyx_mm[0]
    variant = draw_variant(rng, slice_mm) if job.vary else AS_IT_IS
    volume, geometry = apply_geometry(original.volume_hu, original.geometry, variant)
    before = volume.copy()
    canvas = _canvas(volume, geometry, source=job.lung.path)
    own = [(n.centre_xyz_mm, n.diameter_mm) for n in job.lung.nodules]
    others = [(f.centre_xyz_mm, f.diameter_mm) for f in job.lung.findings]
    points = np.array([centre for centre, _ in own + others], float).reshape(-1, 3)
    places = moved_points(points, original.geometry, variant).tolist()
    extents = [d for _, d in own] + [f.extent_mm for f in job.lung.findings]
    for centre, extent in zip(places, extents, strict=True):
        voxel = geometry.world_to_voxel(np.asarray(centre))
        canvas.taken.append((voxel, 0.5 * extent * variant.stretch + OWN_MARGIN_MM))
    count = int(rng.poisson(job.mean_nodules))
    wanted = draw_wanted(rng, job.pool, count, slice_mm=geometry.spacing_zyx_mm[0])
    inserted, unplaced = [], []
    for nodule in wanted:
        done = insert_nodule(canvas, nodule, rng)
        if done is None:
            unplaced.append(
                {
                    "crop": nodule.candidate.file.name,
                    "place": nodule.place,
                    "drawn_diameter_mm": round(nodule.diameter_mm, 3),
                }
            )
        else:
            inserted.append(done)
    rows = [
        [
            *(round(value, 6) for value in centre),
            round(diameter * variant.stretch, 6) if diameter > 0 else diameter,
        ]
        for (_, diameter), centre in zip(own + others, places, strict=True)
    ]
    own_rows, other_rows = rows[: len(own)], rows[len(own) :]
    record = {
        "seriesuid": job.seriesuid,
        "source_seriesuid": job.lung.seriesuid,
        "patient_id": job.lung.patient_id,
        "variant": asdict(variant),
        "asked": count,
        "inserted": [asdict(nodule) for nodule in inserted],
        "unplaced": unplaced,
        "own_nodules": own_rows if job.own_count else [],
        "ignored": other_rows if job.own_count else [*own_rows, *other_rows],
    }
    centres = [nodule.centre_xyz_mm for nodule in inserted]
    pictures = nodule_strips(before, volume, canvas.labels, geometry, centres)
    apply_grain(volume, variant, rng)
    write_metaimage(job.scan_folder, job.seriesuid, volume, geometry, compress=True)
    labels = canvas.labels.astype(np.uint8) if len(inserted) < 256 else canvas.labels
    write_metaimage(job.mask_folder, job.seriesuid, labels, geometry, compress=True)
    if pictures is not None:
        write_bytes(job.record_path.with_suffix(".jpg"), pictures)
    write_json(job.record_path, record)
    return job.seriesuid


def read_record(path: Path) -> dict:
    """Return what `make_semireal_scan` recorded.

    Raises LungDetError if the record cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LungDetError(
            f"{path}: cannot be read ({error}); delete it, and its scan is made again"
        ) from None


def _canvas(volume: np.ndarray, geometry: ScanGeometry, *, source: Path) -> Canvas:
    lungs = segment_with_fallback(volume, spacing_zyx_mm=geometry.spacing_zyx_mm)
    if lungs.method == "body":
        raise LungDetError(f"{source}: no lungs were found in it; leave the scan out")
    mask = lungs.mask
    lung_map = map_lungs(volume, mask, geometry.spacing_zyx_mm)
    return Canvas(volume, np.zeros(volume.shape, np.uint16), geometry, mask, lung_map)
