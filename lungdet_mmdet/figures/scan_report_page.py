"""The scan report's page: structure and style. The script is in its own module."""

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
