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
