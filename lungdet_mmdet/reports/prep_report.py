"""The page of a preparation: one row per scan, worst first, with its mask drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from lungdet_mmdet.reports.mask_preview import (
    COVERED_COLOUR,
    FILLED_COLOUR,
    OUTLINE_COLOUR,
    TILE_PX,
    TILES,
    UNCOVERED_COLOUR,
    WELL_COVERED,
)
from lungdet_mmdet.reports.page import image_uri, render

COLUMNS = (
    # heading, key of the row's data attribute, how it is sorted ("" = not at all)
    ("rank", "rank", "number"),
    ("scan", "uid", "text"),
    ("lung mask on three slabs", "", ""),
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
        if verdict == "implausible":
            level = 1
        elif coverage < WELL_COVERED:
            level = 2
        else:
            level = 4 if verdict == "ok" else 3
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
        "reason": None if is_prepared else _reason(scan),
        "preview": preview,
        "chips": _chips(scan),
        "volumes": " + ".join(f"{part:.2f}" for part in volumes),
        "nodules": [_nodule(nodule) for nodule in nodules[:_MAX_NODULES]],
        "more_nodules": len(nodules) - _MAX_NODULES,
    }


def _percent(share: float) -> str:
    # Rounded down: 0.896 is not the 90 % that counts as well covered.
    return f"{math.floor(100 * share + 1e-9)}%"


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def _verdict(scan: dict[str, Any]) -> str:
    return scan["lung_mask"]["verdict"] if scan["status"] == "ok" else scan["status"]


def _reason(scan: dict[str, Any]) -> str:
    stage = f"{scan['stage']}: " if scan.get("stage") else ""
    return f"{stage}{scan.get('reason')}"


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
    return f"{text}\u00a0{_percent(coverage)}", coverage < WELL_COVERED


# Groups of rows, worst first, and how the page calls them.
GROUPS = {"failed": "failed", "look": "worth a look", "fine": "fine"}
# At 30 kB a scan, 60 MB: what a browser still opens. The worst come first; the others are on disk.
MAX_PICTURES = 2000


def prep_report_html(manifest: dict[str, Any], read_preview: Callable[[str], bytes | None]) -> str:
    """Return the report as one self-contained page.

    Parameters
    ----------
    manifest : content of ``manifest.json``.
    read_preview : gives a scan's preview JPEG by series UID, or None where there is none.

    Returns
    -------
    str
        HTML with images embedded, about 30 kB per scan for the first 2000; every string of the
        data is escaped.
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
            (FILLED_COLOUR, "tissue filled in: slabs with most of it are shown"),
            (COVERED_COLOUR, "nodule inside the mask"),
            (UNCOVERED_COLOUR, f"nodule covered under {WELL_COVERED:.0%}"),
        ),
        steps="\n".join(json.dumps(step) for step in manifest["pipeline"]),
        notes=_notes(manifest),
        groups=[(key, f"{label} ({groups.count(key)})") for key, label in GROUPS.items()],
        columns=COLUMNS,
        rows=rows,
        preview_size=(TILES * TILE_PX, TILE_PX),
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
    notes += [f"Not a scan by its name: {reason}" for reason in manifest["misnamed"]]
    return notes + manifest["table_warnings"]


_ELSEWHERE = (
    ("not_in_input", "prepared earlier are not in the input folder and stay in the dataset"),
    ("outdated", "prepared earlier by another pipeline or code were moved to outdated/"),
)
