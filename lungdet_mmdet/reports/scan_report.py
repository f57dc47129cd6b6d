# SPDX-License-Identifier: Apache-2.0
"""The page of one scan: its slabs to scroll through, candidates marked."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.ct_planes import hu_of_grey
from lungdet_mmdet.reports.page import encoded_jpeg, image_uri, json_for_script, render

# Browsers open a page of this size from disk at once.
MAX_IMAGE_BYTES = 5_000_000
JPEG_QUALITIES = (90, 80, 70, 55, 40, 25)


@dataclass(frozen=True)
class ReportBox:
    """The best box of a candidate on a slab: in slab pixels, with its score and the candidate."""

    box_xyxy_px: tuple[float, float, float, float]
    score: float
    rank: int


@dataclass(frozen=True)
class ReportSlab:
    """One slab.

    Parameters
    ----------
    image : uint8 (y, x) or (y, x, 3), as the detector sees it.
    z_range_mm : its faces.
    boxes : what was found on it.
    outline_xy_px : closed lines (N, 2) around the lungs.
    """

    image: np.ndarray
    z_range_mm: tuple[float, float]
    boxes: Sequence[ReportBox] = ()
    outline_xy_px: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class ReportSlices:
    """All slices of a scan as they are shown, from the feet upwards.

    Parameters
    ----------
    jpegs : one grey JPEG a slice, grey values as in :func:`hu_of_grey`.
    quality : that of the JPEGs, 0 to 100.
    geometry : grid of the slices.
    file_slices : index of each in the input as it is stored; None where slices of the input run in
        another direction.
    """

    jpegs: Sequence[bytes]
    quality: int
    geometry: ScanGeometry
    file_slices: Sequence[int] | None = None


@dataclass(frozen=True)
class ReportCandidate:
    """One row of the candidate table.

    ``slab`` is the position of its best slab in the report, ``at_xyz`` its place on the grid of the
    slices, ``image`` the number of its DICOM image, ``crops`` small uint8 pictures around its
    centre with their names. ``is_positive`` where it reaches the threshold of the result.
    """

    rank: int
    score: float
    diameter_mm: float
    centre_xyz_mm: tuple[float, float, float]
    voxel_xyz: tuple[float, float, float]
    slab: int
    slab_indices: Sequence[int]
    crops: Mapping[str, np.ndarray] = field(default_factory=dict)
    is_positive: bool = False
    at_xyz: tuple[float, float, float] = (0.0, 0.0, 0.0)
    image: int | None = None


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
    candidates : best first, all that the tables have.
    warnings : what stands above all else: why the result is not to be trusted.
    slices : the CT itself; None leaves it out.
    name : the scan's name in the tables, for corrections.
    model_sha256 : of the model's file.
    """

    title: str
    notice: str
    facts: Sequence[tuple[str, str]]
    flags: Sequence[str]
    threshold: float
    spacing_xy_mm: tuple[float, float]
    slabs: Sequence[ReportSlab]
    candidates: Sequence[ReportCandidate]
    warnings: Sequence[str] = ()
    slices: ReportSlices | None = None
    name: str = ""
    model_sha256: str = ""


def report_html(scan: ReportScan) -> str:
    """Return the page as one HTML text; images are in it, nothing is loaded from elsewhere.

    Raises LungDetError if there is no slab, or a slab cannot be encoded.
    """
    if not scan.slabs:
        raise LungDetError(f"{scan.title}: no slab to show")
    return render(
        "scan_report.html",
        title=f"{scan.title} - lung nodule candidates",
        style="scan_report.css",
        script=("scan_viewer.js", "scan_report.js"),
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


def _judged(scan: ReportScan) -> str:
    """Return a digest of what readers judge: the slabs, and each candidate under its rank.

    The browser keeps verdicts under it, so those on another analysis or scan are not taken for
    verdicts on this one.
    """
    digest = hashlib.sha256()
    for slab in scan.slabs:
        digest.update(slab.image.tobytes())
    places = [[round(float(v), 2) for v in slab.z_range_mm] for slab in scan.slabs]
    candidates = [
        [c.rank, c.score, *(round(float(v), 4) for v in c.centre_xyz_mm)] for c in scan.candidates
    ]
    digest.update(json.dumps([places, candidates]).encode())
    return digest.hexdigest()


def _page_data(scan: ReportScan) -> dict[str, Any]:
    return {
        "title": scan.title,
        "name": scan.name or scan.title,
        "model": scan.model_sha256,
        "judged": _judged(scan),
        "warnings": list(scan.warnings),
        "facts": [list(fact) for fact in scan.facts],
        "flags": list(scan.flags),
        "threshold": scan.threshold,
        "spacing": list(scan.spacing_xy_mm),
        "slices": None if scan.slices is None else _slices_data(scan.slices),
        "slabs": [
            {
                "seen": uri,
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
            for slab, uri in zip(scan.slabs, slab_uris([s.image for s in scan.slabs]), strict=True)
        ],
        "candidates": [
            {
                "rank": c.rank,
                "score": c.score,
                "positive": c.is_positive,
                "diameter": round(c.diameter_mm, 3),
                "centre": [round(float(v), 4) for v in c.centre_xyz_mm],
                "voxel": [round(float(v), 1) for v in c.voxel_xyz],
                "at": [round(float(v), 2) for v in c.at_xyz],
                "image": c.image,
                "slab": c.slab,
                "slabs": list(c.slab_indices),
                "crops": [[name, _jpeg_uri(i, quality=85)] for name, i in c.crops.items()],
            }
            for c in scan.candidates
        ],
    }


def _slices_data(slices: ReportSlices) -> dict[str, Any]:
    grid = slices.geometry
    return {
        "jpegs": [base64.b64encode(jpeg).decode("ascii") for jpeg in slices.jpegs],
        "quality": slices.quality,
        "hu": hu_of_grey().round(1).tolist(),
        "size": list(grid.size_zyx[::-1]),
        "spacing": grid.spacing_xyz_mm.tolist(),
        "origin": list(grid.origin_xyz_mm),
        # Columns: the directions of x, y and z.
        "direction": list(grid.direction),
        "fileSlices": None if slices.file_slices is None else list(slices.file_slices),
    }
