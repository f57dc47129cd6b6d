"""The page of a preparation: one row per scan, worst first, with its mask drawn."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from lungdet_mmdet.reports.mask_preview import (
    COVERED_COLOUR,
    OUTLINE_COLOUR,
    TILE_PX,
    TILES,
    UNCOVERED_COLOUR,
    WELL_COVERED,
)

STYLE = """
:root { color-scheme: dark; --bg: #15181d; --panel: #1d2128; --line: #2e343e; --text: #dfe3e8;
  --dim: #97a0ad; --ok: #5fd08a; --warn: #f0b94d; --bad: #ff7a6b; --info: #5cc8ff; }
* { box-sizing: border-box; }
body { margin: 0; padding: 20px 24px 60px; background: var(--bg); color: var(--text);
  font: 14px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 20px; margin: 0 0 2px; }
p { margin: 4px 0; max-width: 110ch; }
.dim { color: var(--dim); }
.cards { display: flex; flex-wrap: wrap; gap: 10px; margin: 14px 0; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: 8px 14px; min-width: 120px; }
.card b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.card.bad b { color: var(--bad); }
.card.warn b { color: var(--warn); }
.legend span { margin-right: 18px; }
.swatch { display: inline-block; width: 11px; height: 11px; border: 2px solid; border-radius: 50%;
  vertical-align: -1px; margin-right: 5px; }
.bar { margin: 12px 0 6px; display: flex; gap: 8px; align-items: center; flex-wrap: wrap; }
button, input { background: var(--panel); color: var(--text); border: 1px solid var(--line);
  border-radius: 5px; padding: 4px 10px; font: inherit; }
button { cursor: pointer; }
button[aria-pressed=true] { border-color: var(--info); color: var(--info); }
table { border-collapse: collapse; width: 100%; }
thead th { position: sticky; top: 0; background: var(--panel); text-align: left; padding: 7px 7px;
  border-bottom: 1px solid var(--line); white-space: nowrap; z-index: 1; }
thead th button { all: unset; cursor: pointer; font-weight: 600; }
thead th button:focus-visible { outline: 2px solid var(--info); }
thead th[aria-sort=ascending] button::after { content: " \\25B2"; }
thead th[aria-sort=descending] button::after { content: " \\25BC"; }
tbody td { padding: 8px 7px; border-bottom: 1px solid var(--line); vertical-align: top; }
tbody tr { content-visibility: auto; contain-intrinsic-size: auto 194px; }
td.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td img { display: block; border-radius: 4px; background: #000; max-width: none;
  width: clamp(396px, 34vw, 528px); height: auto; }
td.scan { min-width: 140px; max-width: 210px; }
.uid { font: 12px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.chip { display: inline-block; border: 1px solid var(--line); border-radius: 10px;
  padding: 0 8px; margin: 2px 3px 0 0; font-size: 12px; white-space: nowrap; }
.chip.ok { color: var(--ok); border-color: #2e5a41; }
.chip.warn { color: var(--warn); border-color: #6a5425; }
.chip.bad { color: var(--bad); border-color: #70362f; }
.reason { color: var(--bad); max-width: 560px; overflow-wrap: anywhere; }
.low { color: var(--bad); }
details { margin: 10px 0; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 10px;
  overflow: auto; }
"""

SCRIPT = """
const body = document.querySelector('tbody');
const heads = [...document.querySelectorAll('thead th[data-key]')];
const number = text => text === '' ? NaN : Number(text);
function sortBy(head) {
  const key = head.dataset.key, textual = head.dataset.kind === 'text';
  const down = head.getAttribute('aria-sort') === 'ascending';
  for (const other of heads) other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const sign = down ? -1 : 1;
  const rows = [...body.rows];
  rows.sort((a, b) => {
    const x = a.dataset[key], y = b.dataset[key];
    if (textual) return sign * x.localeCompare(y);
    const u = number(x), v = number(y);
    if (isNaN(u) || isNaN(v)) return isNaN(u) - isNaN(v);
    return sign * (u - v);
  });
  body.append(...rows);
}
for (const head of heads) head.querySelector('button').onclick = () => sortBy(head);
const search = document.querySelector('#search');
const choices = [...document.querySelectorAll('.bar button')];
let shown = 'all';
function filter() {
  const text = search.value.trim().toLowerCase();
  let count = 0;
  for (const row of body.rows) {
    const fits = (shown === 'all' || row.dataset.group === shown)
      && row.dataset.text.includes(text);
    row.hidden = !fits;
    count += fits;
  }
  document.querySelector('#count').textContent = `${count} of ${body.rows.length} scans`;
}
for (const choice of choices) choice.onclick = () => {
  shown = choice.dataset.group;
  for (const other of choices) other.setAttribute('aria-pressed', other === choice);
  filter();
};
search.oninput = filter;
filter();
"""


def page(title: str, body: str) -> str:
    """Return a whole HTML page; `title` and `body` are HTML already."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Nothing is loaded from anywhere: the page works from disk and tells no one.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


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
    subset = "" if scan["subset"] is None else escape(f"subset {scan['subset']}")
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
