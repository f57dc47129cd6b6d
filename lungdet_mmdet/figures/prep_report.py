"""``prep_report.html``: one row per scan, worst first, to see at a glance what preparation did."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from lungdet_mmdet.figures.mask_preview import (
    COVERED_COLOUR,
    OUTLINE_COLOUR,
    UNCOVERED_COLOUR,
    WELL_COVERED,
)
from lungdet_mmdet.figures.prep_report_page import page
from lungdet_mmdet.figures.prep_report_rows import COLUMNS, group_of, scan_row, worst_first

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
        scan_row(rank, scan, read_preview(scan["seriesuid"]) if rank <= MAX_PICTURES else None)
        for rank, scan in enumerate(scans, 1)
    ]
    heads = "".join(_head(*column) for column in COLUMNS)
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


def _head(heading: str, key: str, kind: str) -> str:
    if not key:
        return f"<th>{escape(heading)}</th>"
    sort = ' aria-sort="ascending"' if key == "rank" else ""
    return (
        f'<th data-key="{key}" data-kind="{kind}"{sort}>'
        f'<button type="button">{escape(heading)}</button></th>'
    )


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
