"""The page of one scan: its slabs to scroll through, candidates marked."""

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
from scipy.ndimage import map_coordinates

from lungdet_mmdet.ct.contrast import window_hu
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import AIR_HU
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError

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


SCRIPT = r"""
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId('slab'), pen = canvas.getContext('2d');
const overview = byId('overview');
const load = (src) => { const image = new Image(); image.src = src; return image; };
const seen = data.slabs.map((one) => load(one.seen));
const plain = data.slabs.map((one) => load(one.plain));
const scale = Math.max(1, Math.min(4, Math.round(1400 / data.slabs[0].width)));
let slab = 0, threshold = data.threshold, picked = 0;

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}
const shown = () => data.candidates.filter((c) => c.score >= threshold);

function drawOutline(lines) {
  pen.strokeStyle = '#2fd08a'; pen.lineWidth = 1.5;
  for (const line of lines) {
    pen.beginPath();
    for (let i = 0; i < line.length; i += 2)
      pen.lineTo((line[i] + 0.5) * scale, (line[i + 1] + 0.5) * scale);
    pen.closePath(); pen.stroke();
  }
}
function drawBoxes(boxes) {
  const rim = 3, isPicked = (box) => Boolean(box[5]) && box[5] === picked;
  const order = boxes.filter((box) => box[4] >= threshold)
    .sort((a, b) => isPicked(a) - isPicked(b) || a[4] - b[4]);
  const colour = (box) => isPicked(box) ? '#4cc9f0' : '#ffb02e';
  for (const box of order) {
    const [x0, y0, x1, y1] = box;
    pen.strokeStyle = colour(box); pen.lineWidth = isPicked(box) ? 3.5 : 2;
    pen.strokeRect(x0 * scale - rim, y0 * scale - rim,
      (x1 - x0) * scale + 2 * rim, (y1 - y0) * scale + 2 * rim);
  }
  pen.font = '600 20px system-ui, sans-serif';
  pen.textAlign = 'left'; pen.textBaseline = 'bottom';
  // The picked one and the best scores first; what would hide a label is left out.
  const taken = [];
  for (const box of order.reverse()) {
    const [x0, y0, , y1, score, rank] = box;
    const label = (rank ? '#' + rank + '  ' : '') + score.toFixed(2);
    const above = y0 * scale - rim - 2, base = above > 22 ? above : y1 * scale + 28;
    const width = pen.measureText(label).width;
    const left = Math.max(0, Math.min(x0 * scale - rim, canvas.width - width));
    const hides = ([l, r, b]) => left < r && l < left + width && Math.abs(b - base) < 22;
    if (taken.some(hides)) continue;
    taken.push([left, left + width, base]);
    pen.fillStyle = colour(box); write(label, left, base, 'left');
  }
}
function write(text, x, y, align) {
  pen.textAlign = align; pen.strokeStyle = '#000'; pen.lineWidth = 4;
  pen.strokeText(text, x, y); pen.fillText(text, x, y);
}
function drawFrame(width, height) {
  pen.fillStyle = '#c8d0d9'; pen.font = '600 22px system-ui, sans-serif';
  pen.textBaseline = 'middle';
  write('R', 8, height / 2, 'left'); write('L', width - 8, height / 2, 'right');
  write('A', width / 2, 18, 'center'); write('P', width / 2, height - 16, 'center');
  const bar = 20 / data.spacing[0] * scale;
  pen.font = '18px system-ui, sans-serif'; write('20 mm', 14, height - 36, 'left');
  pen.strokeRect(14, height - 21, bar, 4); pen.fillRect(14, height - 21, bar, 4);
}
function draw() {
  const now = data.slabs[slab], image = (byId('plain').checked ? plain : seen)[slab];
  if (!image.complete) { image.onload = draw; return; }
  canvas.width = now.width * scale; canvas.height = now.height * scale;
  pen.imageSmoothingQuality = 'high';
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (byId('outline').checked) drawOutline(now.outline);
  drawFrame(canvas.width, canvas.height);
  if (byId('boxes').checked) drawBoxes(now.boxes);
  byId('slider').value = slab;
  byId('where').textContent = 'slab ' + slab + ' (0 to ' + (data.slabs.length - 1) + '), z '
    + now.z[0].toFixed(1) + ' to ' + now.z[1].toFixed(1) + ' mm';
  drawOverview();
}
function drawOverview() {
  const ink = overview.getContext('2d'), height = overview.clientHeight || 400;
  overview.width = 30; overview.height = height;
  const step = height / data.slabs.length;
  data.slabs.forEach((one, index) => {
    const best = Math.max(0, ...one.boxes.map((b) => b[4]).filter((s) => s >= threshold));
    const top = height - (index + 1) * step;
    if (index === slab) { ink.fillStyle = '#3a4552'; ink.fillRect(0, top, 30, Math.max(step, 2)); }
    ink.fillStyle = '#ffb02e';
    ink.fillRect(3, top + step * 0.2, 24 * best, Math.max(step * 0.6, 1));
  });
}
function go(index) { slab = Math.max(0, Math.min(data.slabs.length - 1, index)); draw(); }

function fillTable() {
  const body = byId('candidates').tBodies[0];
  body.replaceChildren();
  for (const c of shown()) {
    const row = element('tr', null, body);
    row.tabIndex = 0; row.dataset.rank = c.rank;
    if (c.rank === picked) row.className = 'picked';
    const slabs = c.slabs.length > 1 ? c.slabs[0] + '-' + c.slabs[c.slabs.length - 1] : c.slabs[0];
    for (const text of [c.rank, c.score.toFixed(3), c.diameter.toFixed(1),
      c.centre.map((v) => v.toFixed(1)).join(', '), c.voxel[2].toFixed(0), slabs])
      element('td', text, row);
    row.onclick = () => pick(c.rank);
    row.onkeydown = (event) => { if (event.key === 'Enter') pick(c.rank); };
  }
  const hidden = data.candidates.length - shown().length;
  byId('count').textContent = shown().length + ' at or above the threshold'
    + (hidden ? ', ' + hidden + ' below it hidden' : '')
    + (data.candidates.length ? '. Click a row to go there.' : '');
}
function pick(rank) {
  const c = data.candidates.find((one) => one.rank === rank);
  if (!c) return;
  picked = rank;
  byId('detail').hidden = false;
  byId('detail-title').textContent = 'Candidate ' + c.rank;
  byId('crops').replaceChildren();
  for (const [name, src] of c.crops) {
    const figure = element('figure', null, byId('crops'));
    const crop = element('div', null, figure), image = element('img', null, crop);
    crop.className = 'crop'; image.src = src; image.alt = name;
    element('span', '20 mm', crop);
    element('figcaption', name, figure);
  }
  byId('detail-text').textContent = 'score ' + c.score.toFixed(3) + ', diameter '
    + c.diameter.toFixed(1) + ' mm; column, row, slice in the input: ' + c.voxel.join(', ')
    + (c.crops.length ? '. Plain CT without mask, 60 mm wide, lung window.' : '');
  fillTable(); go(c.slab);
  const row = document.querySelector('tr.picked');
  if (row) row.scrollIntoView({ block: 'nearest' });
}
function step(by) {
  const list = shown(), at = list.findIndex((c) => c.rank === picked);
  const from = at < 0 && by < 0 ? 0 : at;
  if (list.length) pick(list[(from + by + list.length) % list.length].rank);
}
function setThreshold(value) {
  threshold = value;
  byId('level').textContent = value.toFixed(2);
  fillTable(); draw();
}

byId('warning').textContent = data.warning; byId('warning').hidden = !data.warning;
byId('title').textContent = data.title;
byId('subtitle').textContent = data.slabs.length + ' slabs, ' + data.candidates.length
  + ' candidates';
for (const [name, value] of data.facts) {
  const row = element('tr', null, byId('facts'));
  element('th', name, row); element('td', value, row);
}
byId('remarks').hidden = !data.flags.length;
for (const flag of data.flags) element('li', flag, byId('flags'));
byId('slider').max = data.slabs.length - 1;
byId('slider').oninput = (event) => go(Number(event.target.value));
byId('threshold').value = threshold;
byId('threshold').oninput = (event) => setThreshold(Number(event.target.value));
for (const name of ['boxes', 'outline', 'plain']) byId(name).onchange = draw;
canvas.onwheel = (event) => { event.preventDefault(); go(slab + (event.deltaY < 0 ? 1 : -1)); };
overview.onclick = (event) => go(Math.floor(
  (1 - event.offsetY / overview.clientHeight) * data.slabs.length));
const keys = {
  ArrowUp: () => go(slab + 1), ArrowDown: () => go(slab - 1),
  PageUp: () => go(slab + 5), PageDown: () => go(slab - 5),
  n: () => step(1), p: () => step(-1),
  b: () => byId('boxes').click(), o: () => byId('outline').click(),
  c: () => byId('plain').click(),
};
document.onkeydown = (event) => {
  if (event.target.type === 'range' || event.ctrlKey || event.metaKey || event.altKey) return;
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
};
window.onresize = drawOverview;
setThreshold(threshold);
const first = shown()[0] || data.candidates[0];
if (first && first.score >= threshold) pick(first.rank);
else go(first ? first.slab : Math.floor(data.slabs.length / 2));
"""


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>%TITLE% - lung nodule candidates</title>
<style>
:root { --back: #15181c; --panel: #1e2228; --line: #353b44; --text: #dfe3e8; --faint: #98a2ae;
  --mark: #ffb02e; --pick: #4cc9f0; --lung: #3f8f6b; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 14px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
.notice { background: #6b1d1d; color: #fff; padding: 6px 16px; font-weight: 600; }
.warning { background: #8a5a00; color: #fff; padding: 6px 16px; font-weight: 600; }
header { padding: 10px 16px 2px; }
h1 { font-size: 16px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 13px; margin: 0 0 6px; color: var(--faint); text-transform: uppercase;
  letter-spacing: .06em; }
main { display: grid; grid-template-columns: minmax(420px, 3fr) minmax(380px, 2fr); gap: 14px;
  padding: 10px 16px 24px; align-items: start; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  padding: 10px 12px; margin-bottom: 14px; }
.viewer { display: flex; gap: 10px; }
#slab { background: #000; width: 100%; display: block; border-radius: 3px; cursor: crosshair; }
#picture { flex: 1; min-width: 0; }
#overview { width: 30px; flex: none; background: #0d0f12; border-radius: 3px; cursor: pointer; }
.row { display: flex; gap: 12px; align-items: center; margin-top: 8px; flex-wrap: wrap; }
.row label { display: flex; gap: 6px; align-items: center; }
.grow { flex: 1; min-width: 120px; }
input[type=range] { width: 100%; accent-color: var(--mark); }
#where { font-variant-numeric: tabular-nums; }
kbd { border: 1px solid var(--line); border-radius: 3px; padding: 0 4px; font-size: 12px;
  background: #0d0f12; }
.faint { color: var(--faint); font-size: 12.5px; }
.scroll { max-height: 380px; overflow: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; color: var(--faint); font-weight: 500; font-size: 12px; position: sticky;
  top: 0; background: var(--panel); padding: 3px 6px; }
td { text-align: right; padding: 4px 6px; border-top: 1px solid var(--line); white-space: nowrap; }
tbody tr { cursor: pointer; }
tbody tr:hover, tbody tr:focus { background: #2a3038; outline: none; }
tbody tr.picked { background: #17414f; }
.facts th, .facts td { text-align: left; position: static; white-space: normal;
  overflow-wrap: anywhere; vertical-align: top; }
.facts th { width: 34%; border-top: 1px solid var(--line); font-size: 13px; }
.flags { margin: 0; padding-left: 18px; }
.crops { display: flex; gap: 8px; flex-wrap: wrap; }
figure { margin: 0; flex: 1; min-width: 110px; max-width: 220px; }
figure img { width: 100%; display: block; background: #000; border-radius: 3px; }
.crop { position: relative; }
.crop::before, .crop::after { content: ""; position: absolute; background: var(--pick); }
.crop::before { left: 50%; top: 4%; width: 1px; height: 12%; }
.crop::after { top: 50%; left: 4%; height: 1px; width: 12%; }
.crop span { position: absolute; left: 6%; bottom: 5%; width: 33.33%; border-bottom: 2px solid #fff;
  font-size: 10px; line-height: 1.5; white-space: nowrap; background: #15181ccc; color: #fff; }
figcaption { font-size: 12px; color: var(--faint); text-align: center; }
.left { position: sticky; top: 10px; }
@media (max-width: 900px) { main { grid-template-columns: 1fr; } .left { position: static; } }
</style>
</head>
<body>
<div class="notice">%NOTICE%</div>
<div class="warning" id="warning" hidden></div>
<header><h1 id="title"></h1><div class="faint" id="subtitle"></div></header>
<main>
<div class="left">
<section>
<div class="viewer"><div id="picture"><canvas id="slab"></canvas></div>
<canvas id="overview" title="best score of each slab; click to go there"></canvas></div>
<div class="row"><span id="where"></span></div>
<div class="row"><label class="grow">feet<input type="range" id="slider" min="0" step="1"
 aria-label="slab">head</label></div>
<div class="row"><label class="grow"><span style="white-space:nowrap">score from
 <b id="level"></b></span>
<input type="range" id="threshold" min="0" max="1" step="0.01" aria-label="score threshold"></label>
<label><input type="checkbox" id="boxes" checked>boxes</label>
<label><input type="checkbox" id="outline" checked>lung outline</label>
<label><input type="checkbox" id="plain">plain CT</label></div>
<p class="faint">Scroll or <kbd>&uarr;</kbd> <kbd>&darr;</kbd>: next slab.
<kbd>n</kbd> <kbd>p</kbd>: next, previous candidate. <kbd>b</kbd> boxes, <kbd>o</kbd> outline,
<kbd>c</kbd> plain CT. Slabs are maximum projections as the detector sees them, black outside the
lungs; plain CT is the slice in the middle of the slab, lung window. Seen from the feet (R =
patient's right). Slices and slabs are counted from 0.</p>
</section>
</div>
<div>
<section><h2>Candidates</h2><div class="faint" id="count"></div>
<div class="scroll"><table id="candidates"><thead><tr><th>#</th><th>score</th><th>&empty; mm</th>
<th>x, y, z mm (LPS)</th><th>slice</th><th>slabs</th></tr></thead><tbody></tbody></table></div>
</section>
<section id="detail" hidden><h2 id="detail-title"></h2><div class="crops" id="crops"></div>
<p class="faint" id="detail-text"></p></section>
<section><h2>Scan</h2><table class="facts"><tbody id="facts"></tbody></table></section>
<section id="remarks" hidden><h2>Remarks</h2><ul class="flags" id="flags"></ul></section>
</div>
</main>
<noscript>This page needs JavaScript, which is part of the page; nothing is loaded.</noscript>
<script type="application/json" id="data">%DATA%</script>
<script>%SCRIPT%</script>
</body>
</html>
"""


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
                "crops": [[name, jpeg_uri(i, quality=85)] for name, i in c.crops.items()],
            }
            for c in scan.candidates
        ],
    }
