# SPDX-License-Identifier: Apache-2.0
"""The work on one semi-real scan of a cohort, and the pictures to judge it by eye."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.lungs.mask import segment_with_fallback
from lungdet_mmdet.ct.metaimage_pixels import write_metaimage
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.scan import window_hu
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.ct_planes import CROP_MM, nodule_crops
from lungdet_mmdet.reports.page import encoded_jpeg, image_uri, render
from lungdet_mmdet.runs.atomic_files import write_bytes, write_json
from lungdet_mmdet.semireal.insertion import map_lungs
from lungdet_mmdet.semireal.lungs import (
    AS_IT_IS,
    LungSource,
    apply_variant,
    draw_variant,
    moved_points,
)
from lungdet_mmdet.semireal.scan import Candidate, Canvas, draw_wanted, insert_nodule

TILE_PX = 160
OUTLINE = (255, 220, 60)
JPEG_QUALITY = 80
MAX_SCANS_ON_PAGE = 40
COLUMNS = ("before", "after", "outline", "7.5 mm before", "7.5 mm after", "coronal", "sagittal")


def nodule_strips(
    before_hu: np.ndarray,
    after_hu: np.ndarray,
    labels: np.ndarray,
    geometry: ScanGeometry,
    centres_xyz_mm: Sequence[tuple[float, float, float]],
) -> bytes | None:
    """Return a JPEG of one strip per nodule, ``COLUMNS`` side by side; None without nodules.

    Parameters
    ----------
    before_hu, after_hu : int16 (z, y, x), the scan without and with the nodules.
    labels : (z, y, x), 0 outside the nodules.
    geometry : the grid of all three.
    centres_xyz_mm : the nodules in world mm, as they are to be shown from top to bottom.
    """
    strips = []
    for centre in centres_xyz_mm:
        old, new = (
            nodule_crops(volume, geometry, centre, size_px=TILE_PX)
            for volume in (before_hu, after_hu)
        )
        marked = _outlined(new["axial"], labels, geometry, centre)
        slabs = [_projection(volume, geometry, centre) for volume in (before_hu, after_hu)]
        tiles = [old["axial"], new["axial"], marked, *slabs, new["coronal"], new["sagittal"]]
        strips.append(np.concatenate([_coloured(tile) for tile in tiles], axis=1))
    if not strips:
        return None
    return encoded_jpeg(np.concatenate(strips, axis=0), quality=JPEG_QUALITY, thin_colours=False)


def quantiles_text(diameters_mm: np.ndarray) -> str:
    """Return the 5, 25, 50, 75 and 95 % quantiles of diameters (N,) as text."""
    levels = np.quantile(diameters_mm, (0.05, 0.25, 0.5, 0.75, 0.95))
    return " / ".join(f"{level:.1f}" for level in levels)


def insertion_page(
    records: Sequence[Mapping], pictures: Mapping[str, Path], remarks: Sequence[str]
) -> str:
    """Return a self-contained page: what was made, then the nodules of up to forty scans.

    Parameters
    ----------
    records : of all scans, in order.
    pictures : the JPEG of `nodule_strips` of each series that has one.
    remarks : sentences for the top of the page.
    """
    nodules = [n for r in records for n in r["inserted"]]
    sizes = np.array([n["diameter_mm"] for n in nodules] or [np.nan])
    places = {p: sum(n["place"] == p for n in nodules) for p in ("isolated", "vessel", "pleural")}
    shown = [r for r in records if r["seriesuid"] in pictures][:MAX_SCANS_ON_PAGE]
    facts = [
        ("scans", str(len(records))),
        ("inserted nodules", f"{len(nodules)} of {sum(r['asked'] for r in records)} asked for"),
        ("places", ", ".join(f"{name} {count}" for name, count in places.items())),
        ("diameters, mm", f"{quantiles_text(sizes)} (5, 25, 50, 75, 95 % of the nodules)"),
        ("shown below", f"{len(shown)} scans; each row: {', '.join(COLUMNS)}; 60 mm wide"),
    ]
    return render(
        "insertions.html",
        title="Semi-real cohort",
        style="test_report.css",
        script=None,
        remarks=remarks,
        facts=facts,
        scans=[_scan(record, pictures[record["seriesuid"]]) for record in shown],
        image_uri=image_uri,
    )


def _scan(record: Mapping, picture: Path) -> dict[str, object]:
    nodules = [
        f"{number}. {n['crop']}, {n['place']}, {n['diameter_mm']:.1f} mm, scaled {n['scale']:.2f}"
        for number, n in enumerate(record["inserted"], start=1)
    ]
    changes = ", ".join(f"{name} {value:g}" for name, value in record["variant"].items())
    return {
        "seriesuid": record["seriesuid"],
        "source": f"{record['source_seriesuid']}, {changes}",
        "jpeg": picture.read_bytes(),
        "nodules": "; ".join(nodules),
    }


def _coloured(tile: np.ndarray) -> np.ndarray:
    picture = tile if tile.ndim == 3 else cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB)
    picture[:, -1] = 0
    picture[-1] = 0
    return picture


def _around(
    volume: np.ndarray, geometry: ScanGeometry, centre, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the slices around a point (depth, y, x), and their map to a tile."""
    z, y, x = geometry.world_to_voxel(np.asarray(centre))
    first = min(max(round(z - 0.5 * (depth - 1)), 0), max(0, len(volume) - depth))
    dy, dx = (s * TILE_PX / CROP_MM for s in geometry.spacing_zyx_mm[1:])
    middle = 0.5 * (TILE_PX - 1)
    to_tile = np.array([[dx, 0.0, middle - dx * x], [0.0, dy, middle - dy * y]])
    return volume[first : first + depth], to_tile


def _projection(volume: np.ndarray, geometry: ScanGeometry, centre) -> np.ndarray:
    depth = max(1, round(SLAB_THICKNESS_MM / geometry.spacing_zyx_mm[0]))
    slices, to_tile = _around(volume, geometry, centre, depth)
    grey = window_hu(slices.max(axis=0)[None])[0]
    return cv2.warpAffine(grey, to_tile, (TILE_PX, TILE_PX), flags=cv2.INTER_LINEAR)


def _outlined(tile: np.ndarray, labels: np.ndarray, geometry: ScanGeometry, centre) -> np.ndarray:
    slices, to_tile = _around(labels, geometry, centre, 1)
    inside = (slices[0] > 0).astype(np.uint8) * 255
    share = cv2.warpAffine(inside, to_tile, (TILE_PX, TILE_PX), flags=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours(
        (share > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    picture = cv2.cvtColor(tile, cv2.COLOR_GRAY2RGB)
    cv2.drawContours(picture, contours, -1, OUTLINE, 1)
    return picture


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
    volume, geometry = apply_variant(original.volume_hu, original.geometry, variant, rng)
    before = volume.copy()
    canvas = _canvas(volume, geometry, source=job.lung.path)
    own = [(n.centre_xyz_mm, n.diameter_mm) for n in job.lung.nodules]
    others = [(f.centre_xyz_mm, f.diameter_mm) for f in job.lung.findings]
    points = np.array([centre for centre, _ in own + others], float).reshape(-1, 3)
    places = moved_points(points, original.geometry, variant).tolist()
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
    rows = [
        [*(round(value, 6) for value in centre), diameter]
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
