# SPDX-License-Identifier: Apache-2.0
"""The page of a preparation: its figures, and a picture of the lung mask of each scan."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from lungdet_mmdet.annotations.slab_boxes import WELL_COVERED
from lungdet_mmdet.ct.resample import in_plane_bounds
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
from lungdet_mmdet.reports.page import image_uri, render

TILES = 3
TILE_PX = 176
GAP_PX = 2
# Grey levels of the picture: the usual lung window.
LOW_HU, HIGH_HU = -1350.0, 150.0
# Denser than this is patient or table; the rest of the image is air, and cut off.
TISSUE_HU = -500
# RGB
OUTLINE_COLOUR = (70, 200, 255)
FILLED_COLOUR = (255, 190, 60)
COVERED_COLOUR = (90, 230, 110)
UNCOVERED_COLOUR = (255, 90, 80)
_WHERE_NOTHING_IS_TOLD = (0.5, 0.25, 0.75)
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class PreviewNodule:
    """A nodule to mark: centre in voxels (z, y, x), diameter, share inside the mask."""

    centre_zyx: tuple[float, float, float]
    diameter_mm: float
    coverage: float


class MaskPreview:
    """Slabs of a scan and its mask, kept until it is known how well nodules are covered.

    The scan is shown as it is, not masked, so that what the mask leaves out can be seen.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x); only projections of a few slabs are kept.
    mask : uint8 array (z, y, x), non-zero in the lungs.
    spacing_zyx_mm : voxel size.
    nodule_slices : z of the nodules that may be drawn, in voxels.
    filled : uint8 array (z, y, x), tissue that was filled in; outlined in a colour of its own.
    """

    def __init__(
        self,
        volume_hu: np.ndarray,
        mask: np.ndarray,
        spacing_zyx_mm: tuple[float, float, float],
        nodule_slices: Sequence[float] = (),
        *,
        filled: np.ndarray | None = None,
    ) -> None:
        self._spacing_zyx_mm = spacing_zyx_mm
        self._n_slices = volume_hu.shape[0]
        self._depth = max(1, round(SLAB_THICKNESS_MM / spacing_zyx_mm[0]))
        slices = [z for z, image in enumerate(mask) if image.any()]
        low, high = (slices[0], slices[-1]) if slices else (0, self._n_slices - 1)
        self._others = [round(low + share * (high - low)) for share in _WHERE_NOTHING_IS_TOLD]
        self._changed = self._most_changed(volume_hu, mask, filled)
        self._slabs = {}
        for z in {self._inside(z) for z in (*nodule_slices, *self._changed, *self._others)}:
            slab = self._slab(z)
            areas = [(mask[slab].max(axis=0), OUTLINE_COLOUR)]
            if filled is not None:
                areas.append((filled[slab].max(axis=0), FILLED_COLOUR))
            self._slabs[z] = (slab, volume_hu[slab].max(axis=0), areas)

    def draw(self, nodules: Sequence[PreviewNodule] = (), *, tile_px: int = TILE_PX) -> np.ndarray:
        """Draw maximum projections of 7.5 mm, three side by side, foot to head.

        The first row shows the slabs on which the mask changed most tissue: where most was filled
        in, then where most lies within the mask. A second row, for scans with nodules, shows
        those that are covered worst, then the largest. The middle and the quarters of the lungs
        fill up.

        Parameters
        ----------
        nodules : marked by a circle: green where the mask covers them, else red.
        tile_px : side of one square tile.

        Returns
        -------
        uint8 array (tile_px or 2 * tile_px, 3 * tile_px, 3), RGB.
        """
        worst_first = sorted(nodules, key=lambda n: (min(n.coverage, WELL_COVERED), -n.diameter_mm))
        rows = [self._three(self._changed)]
        if nodules:
            rows.append(self._three([n.centre_zyx[0] for n in worst_first]))
        shown = [self._slabs[z][1] for row in rows for z in row]
        box = _patient_box(np.maximum.reduce(shown))
        return np.concatenate([self._row(row, nodules, box, tile_px) for row in rows])

    def _row(
        self,
        slices: Sequence[int],
        nodules: Sequence[PreviewNodule],
        box: tuple[slice, slice],
        tile_px: int,
    ) -> np.ndarray:
        tiles = []
        for slab, projection, areas in (self._slabs[z] for z in slices):
            inside = [n for n in nodules if slab.start - 0.5 <= n.centre_zyx[0] < slab.stop - 0.5]
            tile = _tile(projection, areas, self._spacing_zyx_mm, inside, box, tile_px)
            tile[:, -GAP_PX:] = 0
            tiles.append(tile)
        return np.concatenate(tiles, axis=1)

    def _three(self, wanted: Sequence[float]) -> list[int]:
        """Choose three slices, ascending; they repeat only where the scan is too short."""
        slices = [z for z in map(self._inside, [*wanted, *self._others]) if z in self._slabs]
        chosen: list[int] = []
        for z in slices:
            if len(chosen) < TILES and all(abs(z - other) >= self._depth for other in chosen):
                chosen.append(z)
        chosen += slices[-1:] * (TILES - len(chosen))
        return sorted(chosen)

    def _most_changed(
        self, volume_hu: np.ndarray, mask: np.ndarray, filled: np.ndarray | None
    ) -> list[int]:
        """Choose the slices around which most tissue was filled in, then those with most of it."""
        chosen: list[int] = []
        if filled is not None:
            chosen = self._peaks([np.count_nonzero(plane) for plane in filled], chosen)
        if len(chosen) < TILES:
            planes = zip(volume_hu, mask, strict=True)
            tissue = [np.count_nonzero((hu > TISSUE_HU) & (inside > 0)) for hu, inside in planes]
            chosen = self._peaks(tissue, chosen)
        return chosen

    def _peaks(self, area: Sequence[int], chosen: list[int]) -> list[int]:
        """Add the middles of the slabs that hold most, a slab apart, until there are three."""
        sums = np.concatenate([[0], np.cumsum(area)])
        slabs = [self._slab(z) for z in range(self._n_slices)]
        volume = np.array([sums[slab.stop] - sums[slab.start] for slab in slabs])
        chosen = list(chosen)
        for z in np.argsort(-volume, kind="stable").tolist():
            apart = all(abs(z - other) >= self._depth for other in chosen)
            if volume[z] and len(chosen) < TILES and apart:
                chosen.append(z)
        return chosen

    def _slab(self, z: int) -> slice:
        first = min(max(z - self._depth // 2, 0), max(self._n_slices - self._depth, 0))
        return slice(first, min(first + self._depth, self._n_slices))

    def _inside(self, z: float) -> int:
        return min(max(round(z), 0), self._n_slices - 1)


def _tile(
    projection_hu: np.ndarray,
    areas: Sequence[tuple[np.ndarray, tuple[int, int, int]]],
    spacing_zyx_mm: tuple[float, float, float],
    nodules: Sequence[PreviewNodule],
    box: tuple[slice, slice],
    tile_px: int,
) -> np.ndarray:
    _, dy, dx = spacing_zyx_mm
    rows, columns = box
    height_mm, width_mm = (rows.stop - rows.start) * dy, (columns.stop - columns.start) * dx
    scale = tile_px / max(height_mm, width_mm)
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    level = (projection_hu[rows, columns].astype(np.float32) - LOW_HU) * (255 / (HIGH_HU - LOW_HU))
    grey = cv2.resize(np.clip(level, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_AREA)
    picture = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    for area, colour in areas:
        share = cv2.resize((area[rows, columns] > 0).astype(np.uint8) * 255, size)
        contours, _ = cv2.findContours(
            (share > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, contours, -1, colour, 1, cv2.LINE_AA)
    fine = 1 << _SUBPIXEL_BITS
    for nodule in nodules:
        y = ((nodule.centre_zyx[1] + 0.5 - rows.start) * dy) * scale - 0.5
        x = ((nodule.centre_zyx[2] + 0.5 - columns.start) * dx) * scale - 0.5
        # A rim of three pixels keeps the circle off the nodule.
        radius = 0.5 * nodule.diameter_mm * scale + 3
        colour = COVERED_COLOUR if nodule.coverage >= WELL_COVERED else UNCOVERED_COLOUR
        centre = (round(x * fine), round(y * fine))
        cv2.circle(
            picture, centre, round(radius * fine), colour, 1, cv2.LINE_AA, shift=_SUBPIXEL_BITS
        )
    tile = np.zeros((tile_px, tile_px, 3), dtype=np.uint8)
    top, left = (tile_px - size[1]) // 2, (tile_px - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = picture
    return tile


def _patient_box(projection_hu: np.ndarray) -> tuple[slice, slice]:
    """Return the box around everything denser than air, or the whole slice."""
    tissue = projection_hu > TISSUE_HU
    if not tissue.any():
        tissue[:] = True
    rows, columns = in_plane_bounds(tissue[None], margin_yx=(0, 0))
    return slice(*rows), slice(*columns)


COLUMNS = (
    # heading, key of the row's data attribute, how it is sorted ("" = not at all)
    ("rank", "rank", "number"),
    ("scan", "uid", "text"),
    ("where the mask changed most, and nodules", "", ""),
    ("verdict", "verdict", "text"),
    ("lungs (l)", "volume", "number"),
    ("nodules (covered)", "coverage", "number"),
    ("kept", "kept", "number"),
    ("slabs", "slabs", "number"),
)
_MAX_NODULES = 6


def group_of(scan: dict[str, Any]) -> str:
    """Return "failed", "look" or "fine" for a scan of the manifest."""
    if scan["status"] != "ok":
        return "failed"
    verdict = scan["lung_mask"]["verdict"]
    return "fine" if verdict == "ok" and least_coverage(scan) >= WELL_COVERED else "look"


def worst_first(scans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order scans: failed, implausible masks, lost and poorly covered nodules, suspect, the rest.

    Within each, the least covered nodule and the number of flags decide.
    """

    def badness(scan: dict[str, Any]) -> tuple:
        uid = scan["seriesuid"]
        if scan["status"] != "ok":
            return (0, 0.0, 0, uid)
        coverage = least_coverage(scan)
        verdict = scan["lung_mask"]["verdict"]
        well = 4 if verdict == "ok" else 3
        level = 1 if verdict == "implausible" else 2 if coverage < WELL_COVERED else well
        return (level, coverage, -len(scan["flags"]), uid)

    return sorted(scans, key=badness)


def least_coverage(scan: dict[str, Any]) -> float:
    """Return the share of the least covered nodule, 1.0 for a scan without any."""
    return min((nodule["coverage"] for nodule in scan["nodules"]), default=1.0)


def _row(rank: int, scan: dict[str, Any], preview: bytes | None) -> dict[str, Any]:
    """Return what the page shows of a scan of the manifest, and what it sorts and filters by."""
    is_prepared = scan["status"] == "ok"
    nodules = sorted(
        scan["nodules"], key=lambda n: (n["coverage"] is not None, n["coverage"] or 0.0)
    )
    stage = f"{scan['stage']}: " if scan.get("stage") else ""
    volumes = scan["lung_mask"]["lung_volumes_l"] if is_prepared else ()
    return {
        "scan": scan,
        "is_prepared": is_prepared,
        "sorted_by": {
            "rank": rank,
            "uid": scan["seriesuid"],
            "group": group_of(scan),
            "text": " ".join([scan["seriesuid"], scan["status"], *scan["flags"]]).lower(),
            "verdict": _verdict(scan),
            "volume": _or_empty(scan["lung_volume_l"]),
            "coverage": least_coverage(scan) if is_prepared and scan["nodules"] else "",
            "kept": _or_empty(scan["nonzero_share"]),
            "slabs": scan["slabs"],
        },
        "reason": None if is_prepared else f"{stage}{scan.get('reason')}",
        "preview": preview,
        "chips": _chips(scan),
        "volumes": " + ".join(f"{part:.2f}" for part in volumes),
        "nodules": [_nodule(nodule) for nodule in nodules[:_MAX_NODULES]],
        "more_nodules": len(nodules) - _MAX_NODULES,
    }


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def _verdict(scan: dict[str, Any]) -> str:
    return scan["lung_mask"]["verdict"] if scan["status"] == "ok" else scan["status"]


def _chips(scan: dict[str, Any]) -> list[tuple[str, str]]:
    verdict = _verdict(scan)
    chips = [({"ok": "ok", "suspect": "warn", "not prepared": "warn"}.get(verdict, "bad"), verdict)]
    if scan["status"] == "ok":
        chips.append(("", scan["lung_mask"]["method"]))
    return chips + [("warn" if f.startswith("fallback") else "", f) for f in scan["flags"]]


def _nodule(nodule: dict[str, Any]) -> tuple[str, bool]:
    """Return a nodule in words, and whether the mask keeps too little of it."""
    text, coverage = f"{nodule['diameter_mm']:.1f} mm", nodule["coverage"]
    if coverage is None:
        return text, False
    # Rounded down: 0.896 is not the 90 % that counts as well covered.
    return f"{text}\u00a0{math.floor(100 * coverage + 1e-9)}%", coverage < WELL_COVERED


# Groups of rows, worst first, and how the page calls them.
GROUPS = {"failed": "failed", "look": "worth a look", "fine": "fine"}
# At up to 60 kB a scan, 60 MB: what a browser still opens. The worst come first; the others are on
# disk.
MAX_PICTURES = 1000


def prep_report_html(manifest: dict[str, Any], read_preview: Callable[[str], bytes | None]) -> str:
    """Return the report as one self-contained page.

    Parameters
    ----------
    manifest : content of ``manifest.json``.
    read_preview : gives a scan's preview JPEG by series UID, or None where there is none.

    Returns
    -------
    str
        HTML with images embedded, about 30 kB per row of slabs for the first 1000 scans; every
        string of the data is escaped.
    """
    scans = worst_first(manifest["scans"])
    rows = [
        _row(rank, scan, read_preview(scan["seriesuid"]) if rank <= MAX_PICTURES else None)
        for rank, scan in enumerate(scans, 1)
    ]
    groups = [group_of(scan) for scan in scans]
    return render(
        "prep_report.html",
        title="Preparation report",
        style="prep_report.css",
        script="prep_report.js",
        data=manifest["data"],
        code=manifest["code"],
        versions=", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
        cards=_cards(manifest, groups),
        legend=(
            (OUTLINE_COLOUR, "outline of the lung mask"),
            (FILLED_COLOUR, "tissue filled in; the first row shows the slabs with most"),
            (COVERED_COLOUR, "nodule inside the mask"),
            (UNCOVERED_COLOUR, f"nodule covered under {WELL_COVERED:.0%}"),
        ),
        steps="\n".join(json.dumps(step) for step in manifest["pipeline"]),
        notes=_notes(manifest),
        groups=[(key, f"{label} ({groups.count(key)})") for key, label in GROUPS.items()],
        columns=COLUMNS,
        rows=rows,
        preview_width=TILES * TILE_PX,
        image_uri=image_uri,
    )


def _cards(manifest: dict[str, Any], groups: Sequence[str]) -> list[tuple[Any, str, str]]:
    """Return the figures at the top: value, what it is, and its colour where it is not zero."""
    poor, lost = manifest["nodules_poorly_covered"], manifest["nodules_lost"]
    before, after = manifest["mean_nonzero_before"], manifest["mean_nonzero_after"]
    reduction = f"of voxels kept: {before / 1e6:.1f} M to {after / 1e6:.1f} M per scan"
    return [
        (groups.count("fine") + groups.count("look"), "scans prepared", ""),
        (groups.count("failed") + len(manifest["misnamed"]), "failed or not prepared", "bad"),
        (groups.count("look"), "worth a look", "warn"),
        (manifest["nodules"], "nodules", ""),
        (len(poor), f"covered under {WELL_COVERED:.0%}", "warn"),
        (len(lost), "nodules lost", "bad"),
        (f"{manifest['nonzero_share']:.0%}", reduction, ""),
    ]


def _notes(manifest: dict[str, Any]) -> list[str]:
    notes = [f"{len(manifest['missing_series'])} series of the tables are not on disk."]
    notes += [f"{len(manifest[key])} scans {text}." for key, text in _ELSEWHERE if manifest[key]]
    if len(manifest["scans"]) > MAX_PICTURES:
        notes.append(
            f"Pictures of the {MAX_PICTURES} scans that are worst; the others are in "
            "slabs/SERIESUID/preview.jpg."
        )
    notes += [f"Not prepared: {reason}" for reason in manifest["misnamed"]]
    return notes + manifest["table_warnings"]


_ELSEWHERE = (
    ("not_in_input", "prepared earlier are not in the input folder and stay in the dataset"),
    ("outdated", "prepared earlier by another pipeline or code were moved to outdated/"),
)
