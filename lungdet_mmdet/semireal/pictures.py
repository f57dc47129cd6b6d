"""Pictures of nodules set into real lungs, before and after, and a page to judge them by eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from lungdet_mmdet.ct.contrast import window_hu
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
from lungdet_mmdet.reports.page import encoded_jpeg, image_uri, render
from lungdet_mmdet.reports.scan_report import CROP_MM, nodule_crops

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
        (
            "diameters, mm",
            " / ".join(f"{v:.1f}" for v in np.quantile(sizes, (0.05, 0.25, 0.5, 0.75, 0.95)))
            + " (5, 25, 50, 75, 95 % of the nodules)",
        ),
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
