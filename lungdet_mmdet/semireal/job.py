"""The work on one semi-real scan of a cohort, from the real lung to its files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.files.metaimage_pixels import write_metaimage
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.lungs.mask import segment_with_fallback
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_bytes, write_json
from lungdet_mmdet.semireal.insertion import map_lungs
from lungdet_mmdet.semireal.lungs import (
    AS_IT_IS,
    LungSource,
    LungVariant,
    apply_variant,
    draw_variant,
    moved_points,
)
from lungdet_mmdet.semireal.pictures import nodule_strips
from lungdet_mmdet.semireal.scan import Candidate, Canvas, draw_wanted, insert_nodule

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

    Raises
    ------
    LungDetError
        If the lung cannot be read, or no lungs are found in it.
    """
    rng = np.random.default_rng(job.seed)
    original = read_scan(job.lung.path)
    slice_mm = original.geometry.spacing_zyx_mm[0]
    variant = draw_variant(rng, slice_mm) if job.vary else AS_IT_IS
    volume, geometry = apply_variant(original.volume_hu, original.geometry, variant, rng)
    before = volume.copy()
    canvas = _canvas(volume, geometry, source=job.lung.path)
    own = [(n.centre_xyz_mm, n.diameter_mm) for n in job.lung.nodules]
    others = [(f.centre_xyz_mm, f.diameter_mm) for f in job.lung.findings]
    places = _moved(own + others, original.geometry, variant)
    extents = [d for _, d in own] + [f.extent_mm for f in job.lung.findings]
    for centre, extent in zip(places, extents, strict=True):
        voxel = geometry.world_to_voxel(np.asarray(centre))
        canvas.taken.append((voxel, 0.5 * extent + OWN_MARGIN_MM))
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
    rows = [_row(c, d) for (_, d), c in zip(own + others, places, strict=True)]
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
    write_metaimage(job.scan_folder, job.seriesuid, volume, geometry, compress=True)
    labels = canvas.labels.astype(np.uint8) if len(inserted) < 256 else canvas.labels
    write_metaimage(job.mask_folder, job.seriesuid, labels, geometry, compress=True)
    centres = [nodule.centre_xyz_mm for nodule in inserted]
    pictures = nodule_strips(before, volume, canvas.labels, geometry, centres)
    if pictures is not None:
        write_bytes(job.record_path.with_suffix(".jpg"), pictures)
    write_json(job.record_path, record)
    return job.seriesuid


def read_record(path: Path) -> dict:
    """Return what `make_semireal_scan` recorded.

    Raises
    ------
    LungDetError
        If the record cannot be read.
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


def _moved(
    findings: Sequence[tuple], geometry: ScanGeometry, variant: LungVariant
) -> list[list[float]]:
    points = np.array([centre for centre, _ in findings], float).reshape(-1, 3)
    return moved_points(points, geometry, variant).tolist()


def _row(centre_xyz_mm: Sequence[float], diameter_mm: float) -> list[float]:
    return [*(round(float(v), 6) for v in centre_xyz_mm), diameter_mm]
