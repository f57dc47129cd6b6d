"""The page of one scan: its slabs to scroll through, candidates marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from lungdet_mmdet.ct.contrast import window_hu
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import AIR_HU
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.page import encoded_jpeg, image_uri, json_for_script, render

CROP_MM = 60.0
CROP_PIXELS = 120
# World directions (LPS) to the right and downwards in each picture, as radiologists hang them.
_PLANES = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
}


def sample_plane(
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    *,
    first_xyz_mm: np.ndarray,
    right_xyz_mm: np.ndarray,
    down_xyz_mm: np.ndarray,
    size_yx: tuple[int, int],
) -> np.ndarray:
    """Return a picture (y, x) uint8 of a plane through a scan, lung window.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x).
    geometry : its grid.
    first_xyz_mm : world point of the centre of the first pixel.
    right_xyz_mm, down_xyz_mm : world vectors from one pixel to the next along x and y.
    size_yx : pixels along y and x. What lies outside the scan is air.
    """
    rows, columns = np.mgrid[: size_yx[0], : size_yx[1]]
    points = first_xyz_mm + columns[..., None] * right_xyz_mm + rows[..., None] * down_xyz_mm
    voxels_zyx = np.moveaxis(geometry.world_to_voxel(points), -1, 0)
    # int16 in, int16 out: no copy of the volume as floating point.
    values = map_coordinates(volume_hu, voxels_zyx, order=1, cval=AIR_HU)
    return window_hu(values[None])[0]


def nodule_crops(
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    centre_xyz_mm: tuple[float, float, float],
    *,
    size_mm: float = CROP_MM,
    size_px: int = CROP_PIXELS,
) -> dict[str, np.ndarray]:
    """Return square axial, coronal and sagittal pictures around a world point, by name."""
    step = size_mm / size_px
    crops = {}
    for name, (right, down) in _PLANES.items():
        right_mm, down_mm = step * np.asarray(right), step * np.asarray(down)
        crops[name] = sample_plane(
            volume_hu,
            geometry,
            first_xyz_mm=np.asarray(centre_xyz_mm) - (right_mm + down_mm) * (size_px - 1) / 2.0,
            right_xyz_mm=right_mm,
            down_xyz_mm=down_mm,
            size_yx=(size_px, size_px),
        )
    return crops


def slab_middle(volume_hu: np.ndarray, geometry: ScanGeometry, slab: SlabGeometry) -> np.ndarray:
    """Return the plain CT on a slab's mid-plane, pixel for pixel under the slab's image."""
    axes = np.asarray(slab.direction, dtype=float).reshape(3, 3)
    return sample_plane(
        volume_hu,
        geometry,
        first_xyz_mm=np.asarray(slab.origin_xyz_mm),
        right_xyz_mm=slab.spacing_xy_mm[0] * axes[:, 0],
        down_xyz_mm=slab.spacing_xy_mm[1] * axes[:, 1],
        size_yx=(slab.height, slab.width),
    )


# Browsers open a page of this size from disk at once.
MAX_IMAGE_BYTES = 5_000_000
JPEG_QUALITIES = (90, 80, 70, 55, 40, 25)


@dataclass(frozen=True)
class ReportBox:
    """One box on a slab.

    ``box_xyxy_px`` in slab pixels, its score, and the rank of the candidate that it belongs to (0
    for none).
    """

    box_xyxy_px: tuple[float, float, float, float]
    score: float
    rank: int = 0


@dataclass(frozen=True)
class ReportSlab:
    """One slab.

    Parameters
    ----------
    image : uint8 (y, x) or (y, x, 3), as the detector sees it.
    plain : uint8 (y, x), the plain CT under it.
    z_range_mm : its faces.
    boxes : what was found on it.
    outline_xy_px : closed lines (N, 2) around the lungs.
    """

    image: np.ndarray
    plain: np.ndarray
    z_range_mm: tuple[float, float]
    boxes: Sequence[ReportBox] = ()
    outline_xy_px: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class ReportCandidate:
    """One row of the candidate table.

    ``slab`` is the position of its best slab in the report, ``crops`` small uint8 pictures around
    its centre with their names.
    """

    rank: int
    score: float
    diameter_mm: float
    centre_xyz_mm: tuple[float, float, float]
    voxel_xyz: tuple[float, float, float]
    slab: int
    slab_indices: Sequence[int]
    crops: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportScan:
    """Everything on the page.

    Parameters
    ----------
    title : name of the scan.
    notice : sentence on the permitted use.
    facts : name and value of what is known of scan, lungs and model, in order.
    flags : remarks about the scan.
    threshold : where the threshold slider begins.
    spacing_xy_mm : pixel size of the slabs.
    slabs : from the feet upwards.
    candidates : best first.
    warning : what stands above all else: why the result is not to be trusted; "" where it may be.
    """

    title: str
    notice: str
    facts: Sequence[tuple[str, str]]
    flags: Sequence[str]
    threshold: float
    spacing_xy_mm: tuple[float, float]
    slabs: Sequence[ReportSlab]
    candidates: Sequence[ReportCandidate]
    warning: str = ""


def report_html(scan: ReportScan) -> str:
    """Return the page as one HTML text; images are in it, nothing is loaded from elsewhere.

    Raises
    ------
    LungDetError
        If there is no slab, or a slab cannot be encoded.
    """
    if not scan.slabs:
        raise LungDetError(f"{scan.title}: no slab to show")
    return render(
        "scan_report.html",
        title=f"{scan.title} - lung nodule candidates",
        style="scan_report.css",
        script="scan_report.js",
        notice=scan.notice,
        data=json_for_script(_page_data(scan)),
    )


def _jpeg_uri(image: np.ndarray, *, quality: int) -> str:
    return image_uri(encoded_jpeg(image, quality=quality, thin_colours=False))


def slab_uris(images: Sequence[np.ndarray], *, max_bytes: int = MAX_IMAGE_BYTES) -> list[str]:
    """Return pictures as data URIs, at the best quality that keeps the page small."""
    uris: list[str] = []
    for quality in JPEG_QUALITIES:
        uris = [_jpeg_uri(image, quality=quality) for image in images]
        if sum(map(len, uris)) <= max_bytes:
            break
    return uris


def _page_data(scan: ReportScan) -> dict[str, Any]:
    pictures = [slab.image for slab in scan.slabs] + [slab.plain for slab in scan.slabs]
    uris = slab_uris(pictures)
    seen, plain = uris[: len(scan.slabs)], uris[len(scan.slabs) :]
    return {
        "title": scan.title,
        "warning": scan.warning,
        "facts": [list(fact) for fact in scan.facts],
        "flags": list(scan.flags),
        "threshold": scan.threshold,
        "spacing": list(scan.spacing_xy_mm),
        "slabs": [
            {
                "seen": seen_uri,
                "plain": plain_uri,
                "width": slab.image.shape[1],
                "height": slab.image.shape[0],
                "z": [round(float(v), 2) for v in slab.z_range_mm],
                "boxes": [
                    [*(round(float(v), 1) for v in b.box_xyxy_px), round(b.score, 4), b.rank]
                    for b in slab.boxes
                ],
                "outline": [
                    np.rint(line).astype(int).ravel().tolist() for line in slab.outline_xy_px
                ],
            }
            for slab, seen_uri, plain_uri in zip(scan.slabs, seen, plain, strict=True)
        ],
        "candidates": [
            {
                "rank": c.rank,
                "score": round(c.score, 4),
                "diameter": round(c.diameter_mm, 1),
                "centre": [round(float(v), 1) for v in c.centre_xyz_mm],
                "voxel": [round(float(v), 1) for v in c.voxel_xyz],
                "slab": c.slab,
                "slabs": list(c.slab_indices),
                "crops": [[name, _jpeg_uri(i, quality=85)] for name, i in c.crops.items()],
            }
            for c in scan.candidates
        ],
    }
