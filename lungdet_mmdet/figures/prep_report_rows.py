"""Rows of the preparation report: one scan each, and in which order."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from lungdet_mmdet.figures.mask_preview import TILE_PX, TILES, WELL_COVERED

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


def scan_row(rank: int, scan: dict[str, Any], preview: bytes | None) -> str:
    """Return the table row of a scan of the manifest, with what the page sorts and filters by."""
    data = {
        "rank": rank,
        "uid": scan["seriesuid"],
        "group": group_of(scan),
        "text": " ".join([scan["seriesuid"], scan["status"], *scan["flags"]]).lower(),
        "verdict": _verdict(scan),
        "volume": _or_empty(scan["lung_volume_l"]),
        "coverage": least_coverage(scan) if scan["status"] == "ok" and scan["nodules"] else "",
        "kept": _or_empty(scan["nonzero_share"]),
        "slabs": scan["slabs"],
    }
    attributes = " ".join(f'data-{key}="{escape(str(value))}"' for key, value in data.items())
    subset = "" if scan["subset"] is None else f"subset {scan['subset']}"
    scan_cell = f'<div class="uid">{escape(scan["seriesuid"])}</div><div class="dim">{subset}</div>'
    cells = [
        f'<td class="num dim">{rank}</td>',
        f'<td class="scan">{scan_cell}</td>',
        f"<td>{_picture(scan, preview)}</td>",
        f"<td>{_chips(scan)}</td>",
        f'<td class="num">{_volumes(scan)}</td>',
        f"<td>{_nodules(scan)}</td>",
        f'<td class="num">{_shown(scan["nonzero_share"], ".0%")}</td>',
        f'<td class="num">{scan["slabs"] or ""}</td>',
    ]
    return f"<tr {attributes}>{''.join(cells)}</tr>"


def _percent(share: float) -> str:
    # Rounded down: 0.896 is not the 90 % that counts as well covered.
    return f"{math.floor(100 * share + 1e-9)}%"


def _or_empty(value: float | None) -> float | str:
    return "" if value is None else value


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _verdict(scan: dict[str, Any]) -> str:
    return scan["lung_mask"]["verdict"] if scan["status"] == "ok" else scan["status"]


def _picture(scan: dict[str, Any], preview: bytes | None) -> str:
    if scan["status"] != "ok":
        stage = f"{scan['stage']}: " if scan.get("stage") else ""
        return f'<div class="reason">{escape(stage + str(scan.get("reason")))}</div>'
    if preview is None:
        return '<span class="dim">no preview</span>'
    source = base64.b64encode(preview).decode("ascii")
    return (
        f'<img src="data:image/jpeg;base64,{source}" width="{TILES * TILE_PX}" height="{TILE_PX}" '
        'decoding="async" alt="three slabs with the outline of the lung mask">'
    )


def _chips(scan: dict[str, Any]) -> str:
    verdict = _verdict(scan)
    colour = {"ok": "ok", "suspect": "warn", "not prepared": "warn"}.get(verdict, "bad")
    chips = [f'<span class="chip {colour}">{escape(verdict)}</span>']
    if scan["status"] == "ok":
        chips.append(f'<span class="chip">{escape(scan["lung_mask"]["method"])}</span>')
    for flag in scan["flags"]:
        kind = " warn" if flag.startswith("fallback") else ""
        chips.append(f'<span class="chip{kind}">{escape(flag)}</span>')
    return " ".join(chips)


def _volumes(scan: dict[str, Any]) -> str:
    if scan["status"] != "ok":
        return ""
    parts = scan["lung_mask"]["lung_volumes_l"]
    each = " + ".join(f"{part:.2f}" for part in parts)
    return f'{scan["lung_volume_l"]:.2f}<div class="dim">{each}</div>'


def _nodules(scan: dict[str, Any]) -> str:
    if not scan["nodules"]:
        return '<span class="dim">none</span>'
    ordered = sorted(
        scan["nodules"], key=lambda n: (n["coverage"] is not None, n["coverage"] or 0.0)
    )
    lines = []
    for nodule in ordered[:_MAX_NODULES]:
        covered = "" if nodule["coverage"] is None else f" &nbsp;{_percent(nodule['coverage'])}"
        low = nodule["coverage"] is not None and nodule["coverage"] < WELL_COVERED
        low_class = ' class="low"' if low else ""
        lines.append(f"<div{low_class}>{nodule['diameter_mm']:.1f} mm{covered}</div>")
    more = len(ordered) - len(lines)
    lines += [f'<div class="dim">and {more} more</div>'] if more > 0 else []
    return "".join(lines)
