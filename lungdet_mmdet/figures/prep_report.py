"""``prep_report.html``: one row per scan, worst first, to see at a glance what preparation did."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from lungdet_mmdet.figures.mask_preview import (
    COVERED_COLOUR,
    OUTLINE_COLOUR,
    TILE_PX,
    TILES,
    UNCOVERED_COLOUR,
    WELL_COVERED,
)
from lungdet_mmdet.figures.prep_report_page import page

# Groups of rows, worst first, and how the page calls them.
GROUPS = {"failed": "failed", "look": "worth a look", "fine": "fine"}
_COLUMNS = (
    # heading, key of the row's data attribute, how it is sorted ("" = not at all)
    ("rank", "rank", "number"),
    ("scan", "uid", "text"),
    ("lung mask on three slabs", "", ""),
    ("verdict", "verdict", "text"),
    ("lungs (l)", "volume", "number"),
    ("nodules (covered)", "coverage", "number"),
    ("kept", "kept", "number"),
    ("slabs", "slabs", "number"),
    ("s", "seconds", "number"),
)
_MAX_NODULES = 6
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
    heads = "".join(_head(*column) for column in _COLUMNS)
    body = "\n".join(
        [
            f"<h1>Preparation report: {escape(manifest['data'])}</h1>",
            f'<p class="dim">lungdet_mmdet {escape(manifest["code"])}; '
            f"{escape(_pairs(manifest['versions']))}. Not for clinical use.</p>",
            _cards(manifest, scans),
            _legend(),
            _details(manifest),
            _filters(scans),
            f"<table><thead><tr>{heads}</tr></thead><tbody>",
            *rows,
            "</tbody></table>",
        ]
    )
    return page("Preparation report", body)


def group_of(scan: dict[str, Any]) -> str:
    """Return "failed", "look" or "fine" for a scan of the manifest."""
    if scan["status"] != "ok":
        return "failed"
    verdict = scan["lung_mask"]["verdict"]
    return "fine" if verdict == "ok" and _least_coverage(scan) >= WELL_COVERED else "look"


def worst_first(scans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order scans: failed, implausible masks, lost and poorly covered nodules, suspect, the rest.

    Within each, the least covered nodule and the number of flags decide.
    """

    def badness(scan: dict[str, Any]) -> tuple:
        uid = scan["seriesuid"]
        if scan["status"] != "ok":
            return (0, 0.0, 0, uid)
        coverage = _least_coverage(scan)
        verdict = scan["lung_mask"]["verdict"]
        if verdict == "implausible":
            level = 1
        elif coverage < WELL_COVERED:
            level = 2
        else:
            level = 4 if verdict == "ok" else 3
        return (level, coverage, -len(scan["flags"]), uid)

    return sorted(scans, key=badness)


def _least_coverage(scan: dict[str, Any]) -> float:
    return min((nodule["coverage"] for nodule in scan["nodules"]), default=1.0)


def _head(heading: str, key: str, kind: str) -> str:
    if not key:
        return f"<th>{escape(heading)}</th>"
    sort = ' aria-sort="ascending"' if key == "rank" else ""
    return (
        f'<th data-key="{key}" data-kind="{kind}"{sort}>'
        f'<button type="button">{escape(heading)}</button></th>'
    )


def _row(rank: int, scan: dict[str, Any], preview: bytes | None) -> str:
    data = {
        "rank": rank,
        "uid": scan["seriesuid"],
        "group": group_of(scan),
        "text": " ".join([scan["seriesuid"], scan["status"], *scan["flags"]]).lower(),
        "verdict": _verdict(scan),
        "volume": _or_empty(scan["lung_volume_l"]),
        "coverage": _least_coverage(scan) if scan["status"] == "ok" and scan["nodules"] else "",
        "kept": _or_empty(scan["nonzero_share"]),
        "slabs": scan["slabs"],
        "seconds": _or_empty(scan["seconds"]),
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
        f'<td class="num">{_shown(scan["seconds"], ".1f")}</td>',
    ]
    return f"<tr {attributes}>{''.join(cells)}</tr>"


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
        covered = "" if nodule["coverage"] is None else f" &nbsp;{nodule['coverage']:.0%}"
        low = nodule["coverage"] is not None and nodule["coverage"] < WELL_COVERED
        low_class = ' class="low"' if low else ""
        lines.append(f"<div{low_class}>{nodule['diameter_mm']:.1f} mm{covered}</div>")
    more = len(ordered) - len(lines)
    lines += [f'<div class="dim">and {more} more</div>'] if more > 0 else []
    return "".join(lines)


def _cards(manifest: dict[str, Any], scans: Sequence[dict[str, Any]]) -> str:
    groups = [group_of(scan) for scan in scans]
    poor, lost = manifest["nodules_poorly_covered"], manifest["nodules_lost"]
    cards = [
        (groups.count("fine") + groups.count("look"), "scans prepared", ""),
        (groups.count("failed"), "failed or not prepared", "bad"),
        (groups.count("look"), "worth a look", "warn"),
        (manifest["nodules"], "nodules", ""),
        (len(poor), f"covered under {WELL_COVERED:.0%}", "warn"),
        (len(lost), "nodules lost", "bad"),
        (f"{manifest['nonzero_share']:.0%}", _reduction(manifest), ""),
    ]
    return '<div class="cards">{}</div>'.format(
        "".join(
            f'<div class="card {colour if value else ""}"><b>{value}</b>'
            f'<span class="dim">{escape(label)}</span></div>'
            for value, label, colour in cards
        )
    )


def _reduction(manifest: dict[str, Any]) -> str:
    before, after = manifest["mean_nonzero_before"], manifest["mean_nonzero_after"]
    return f"of voxels kept: {before / 1e6:.1f} M to {after / 1e6:.1f} M per scan"


def _legend() -> str:
    entries = (
        (OUTLINE_COLOUR, "outline of the lung mask"),
        (COVERED_COLOUR, "nodule inside the mask"),
        (UNCOVERED_COLOUR, f"nodule covered under {WELL_COVERED:.0%}"),
    )
    spans = "".join(
        f'<span><i class="swatch" style="border-color:rgb{colour}"></i>{escape(text)}</span>'
        for colour, text in entries
    )
    return f'<p class="legend dim">{spans}</p>'


def _details(manifest: dict[str, Any]) -> str:
    steps = "\n".join(json.dumps(step) for step in manifest["pipeline"])
    notes = [f"{len(manifest['missing_series'])} series of the tables are not on disk."]
    notes += [f"{len(manifest[key])} scans {text}." for key, text in _ELSEWHERE if manifest[key]]
    if len(manifest["scans"]) > MAX_PICTURES:
        notes.append(
            f"Pictures of the {MAX_PICTURES} scans that are worst; the others are in "
            "slabs/SERIESUID/preview.jpg."
        )
    notes += manifest["table_warnings"]
    listed = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return (
        "<details><summary>pipeline and notes</summary>"
        f"<pre>{escape(steps)}</pre>{listed}</details>"
    )


_ELSEWHERE = (
    ("not_in_input", "prepared earlier are not in the input folder and stay in the dataset"),
    ("outdated", "prepared earlier by another pipeline or code were moved to outdated/"),
)


def _filters(scans: Sequence[dict[str, Any]]) -> str:
    groups = [group_of(scan) for scan in scans]
    buttons = '<button type="button" data-group="all" aria-pressed="true">all</button>'
    for group, label in GROUPS.items():
        buttons += (
            f'<button type="button" data-group="{group}" aria-pressed="false">'
            f"{escape(label)} ({groups.count(group)})</button>"
        )
    search = '<input id="search" type="search" placeholder="series UID or flag">'
    return f'<div class="bar">{buttons}{search}<span id="count" class="dim"></span></div>'


def _pairs(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
