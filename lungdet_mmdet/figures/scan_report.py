"""One self-contained HTML page for one scan: slabs to scroll through, boxes, candidates.

Everything that comes from a scan (names, flags, numbers) reaches the page as JSON that the page's
script writes as text, never as markup.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.figures.scan_report_page import PAGE
from lungdet_mmdet.figures.scan_report_script import SCRIPT

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
    """

    title: str
    notice: str
    facts: Sequence[tuple[str, str]]
    flags: Sequence[str]
    threshold: float
    spacing_xy_mm: tuple[float, float]
    slabs: Sequence[ReportSlab]
    candidates: Sequence[ReportCandidate]


def report_html(scan: ReportScan) -> str:
    """Return the page as one HTML text; images are in it, nothing is loaded from elsewhere.

    Raises
    ------
    LungDetError
        If there is no slab, or a slab cannot be encoded.
    """
    if not scan.slabs:
        raise LungDetError(f"{scan.title}: no slab to show")
    data = json_for_script(_page_data(scan))
    parts = {
        "%TITLE%": html.escape(scan.title),
        "%NOTICE%": html.escape(scan.notice),
        "%SCRIPT%": SCRIPT,
        "%DATA%": data,
    }
    # In one pass: what is filled in is never searched for place holders.
    return re.sub("|".join(parts), lambda place: parts[place[0]], PAGE)


def json_for_script(value: Any) -> str:
    """Return JSON that can stand within a script element whatever texts are in it."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def jpeg_uri(image: np.ndarray, *, quality: int) -> str:
    """Return a picture as a data URI."""
    ok, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise LungDetError(f"a picture of shape {image.shape} cannot be encoded as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(content.tobytes()).decode("ascii")


def slab_uris(images: Sequence[np.ndarray], *, max_bytes: int = MAX_IMAGE_BYTES) -> list[str]:
    """Return pictures as data URIs, at the best quality that keeps the page small."""
    uris: list[str] = []
    for quality in JPEG_QUALITIES:
        uris = [jpeg_uri(image, quality=quality) for image in images]
        if sum(map(len, uris)) <= max_bytes:
            break
    return uris


def _page_data(scan: ReportScan) -> dict[str, Any]:
    pictures = [slab.image for slab in scan.slabs] + [slab.plain for slab in scan.slabs]
    uris = slab_uris(pictures)
    seen, plain = uris[: len(scan.slabs)], uris[len(scan.slabs) :]
    return {
        "title": scan.title,
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
                "crops": [[name, jpeg_uri(i, quality=85)] for name, i in c.crops.items()],
            }
            for c in scan.candidates
        ],
    }
