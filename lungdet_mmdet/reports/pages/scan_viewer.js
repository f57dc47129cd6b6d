'use strict';
// The picture: planes through the CT and the detector's slabs, with window, zoom, pan and measure.
// A plane has axes a (to the right) and b (downwards) of the voxel grid, c goes through it; points
// on it are in mm from its upper left corner.
const data = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);
const slices = data.slices;
const canvas = byId('picture'), pen = canvas.getContext('2d');
const PLANES = {
  axial: { a: 0, b: 1, c: 2, up: false, letters: 'RLAP', ends: ['feet', 'head'] },
  coronal: { a: 0, b: 2, c: 1, up: true, letters: 'RLHF', ends: ['front', 'back'] },
  sagittal: { a: 1, b: 2, c: 0, up: true, letters: 'APHF', ends: ['right', 'left'] },
  slab: { letters: 'RLAP', ends: ['feet', 'head'] },
};
const WINDOWS = { lung: [-600, 1500], mediastinum: [40, 400], bone: [400, 1800] };
const PICK = '#4cc9f0', MARK = '#ffb02e';
const view = {
  plane: slices ? 'axial' : 'slab', at: { axial: 0, coronal: 0, sagittal: 0, slab: 0 },
  level: -600, width: 1500, zoom: 1, pan: [0, 0], tool: 'scroll', measures: [], cursor: null,
};
// Set by the page: which candidates are shown, and which one is picked.
const marks = { shown: () => [], picked: () => null };

const seen = data.slabs.map((one) => { const i = new Image(); i.src = one.seen; return i; });
for (const image of seen) image.onload = () => view.plane === 'slab' && draw();

// Decoded slices: grey values as they are stored. The farthest go when there are too many.
const store = new Map(), LIMIT = slices ? Math.max(8, Math.floor(3e8 / (slices.size[0] * slices.size[1]))) : 0;
const decoder = document.createElement('canvas');
let loading = 0;
function slice(k) {
  const known = store.get(k);
  if (known) return known.length ? known : null;
  const image = new Image();
  store.set(k, image); loading += 1;
  image.onload = () => {
    [decoder.width, decoder.height] = slices.size;
    const ink = decoder.getContext('2d', { willReadFrequently: true });
    ink.drawImage(image, 0, 0);
    const rgba = ink.getImageData(0, 0, decoder.width, decoder.height).data;
    const grey = new Uint8Array(rgba.length / 4);
    for (let i = 0; i < grey.length; i++) grey[i] = rgba[4 * i];
    store.set(k, grey); loading -= 1;
    if (linesOf === view.plane + view.at[view.plane]) lines[k] = lineOf(grey);
    const here = view.at.axial, known = [...store.keys()].filter((p) => store.get(p).length);
    if (known.length > LIMIT) {
      known.sort((p, q) => Math.abs(p - here) - Math.abs(q - here));
      for (const far of known.slice(LIMIT)) store.delete(far);
    }
    if (view.plane === 'axial' ? k === view.at.axial : view.plane !== 'slab' && !loading) draw();
  };
  image.onerror = () => { store.delete(k); loading -= 1; };
  image.src = 'data:image/jpeg;base64,' + slices.jpegs[k];
  return null;
}

// What each slice gives to the coronal or sagittal plane that is shown; it is kept when the slice goes.
let lines = [], linesOf = '';
function lineOf(grey) {
  const [w, h] = slices.size, at = view.at[view.plane];
  return view.plane === 'coronal' ? grey.slice(at * w, at * w + w)
    : Uint8Array.from({ length: h }, (_, i) => grey[i * w + at]);
}

// Size in pixels and pixel size in mm of the plane that is shown.
function frame() {
  if (view.plane === 'slab') {
    const one = data.slabs[view.at.slab];
    return { size: [one.width, one.height], mm: data.spacing };
  }
  const { a, b } = PLANES[view.plane];
  return { size: [slices.size[a], slices.size[b]], mm: [slices.spacing[a], slices.spacing[b]] };
}
function count(plane = view.plane) {
  return plane === 'slab' ? data.slabs.length : slices.size[PLANES[plane].c];
}
// Grey values of the plane, or null while slices of it are still being decoded.
function greyValues() {
  const n = slices.size[2], at = view.at[view.plane];
  if (view.plane === 'axial') {
    const grey = slice(at);
    for (const k of [at + 1, at - 1, at + 2, at - 2]) if (k >= 0 && k < n) slice(k);
    return grey;
  }
  if (linesOf !== view.plane + at) [lines, linesOf] = [[], view.plane + at];
  let missing = 0;
  for (let k = 0; k < n; k++) {
    const one = lines[k] ? null : slice(k);
    if (one) lines[k] = lineOf(one);
    if (!lines[k]) missing += 1;
  }
  if (missing) return null;
  const across = lines[0].length, grey = new Uint8Array(across * n);
  lines.forEach((line, k) => grey.set(line, (n - 1 - k) * across));
  return grey;
}
const painted = document.createElement('canvas');
let paintedAs = '', greyNow = null;
function paint() {
  const key = [view.plane, view.at[view.plane], view.level, view.width].join();
  if (key === paintedAs) return true;
  greyNow = greyValues();
  if (!greyNow) return false;
  const low = view.level - view.width / 2;
  const shade = slices.hu.map((hu) => (hu - low) / view.width * 255);
  [painted.width, painted.height] = frame().size;
  const ink = painted.getContext('2d'), picture = ink.createImageData(painted.width, painted.height);
  for (let i = 0, j = 0; i < greyNow.length; i++, j += 4) {
    picture.data[j] = picture.data[j + 1] = picture.data[j + 2] = shade[greyNow[i]];
    picture.data[j + 3] = 255;
  }
  ink.putImageData(picture, 0, 0);
  paintedAs = key;
  return true;
}

// From mm on the plane to pixels of the canvas: x * scale + left.
function placing() {
  const { size, mm } = frame();
  const wide = size[0] * mm[0], high = size[1] * mm[1];
  const scale = Math.min(canvas.width / wide, canvas.height / high) * view.zoom;
  return { scale, left: canvas.width / 2 + view.pan[0] - wide / 2 * scale,
    top: canvas.height / 2 + view.pan[1] - high / 2 * scale, wide, high };
}
function toPlane(x, y) {
  const p = placing();
  return [(x - p.left) / p.scale, (y - p.top) / p.scale];
}
const pixelRatio = () => canvas.width / (canvas.clientWidth || 1);
const toCanvas = (event) => [event.offsetX * pixelRatio(), event.offsetY * pixelRatio()];
// Voxel x, y, z of a point on the plane, and its world point in mm (LPS).
function voxelAt([x, y]) {
  const { a, b, c, up } = PLANES[view.plane], voxel = [0, 0, 0];
  voxel[a] = x / slices.spacing[a] - 0.5;
  voxel[b] = y / slices.spacing[b] - 0.5;
  if (up) voxel[b] = slices.size[b] - 1 - voxel[b];
  voxel[c] = view.at[view.plane];
  return voxel;
}
function worldOf(voxel) {
  return [0, 1, 2].map((row) => slices.origin[row] + [0, 1, 2].reduce((sum, axis) =>
    sum + slices.direction[3 * row + axis] * slices.spacing[axis] * voxel[axis], 0));
}
// Where a candidate lies on the plane, in mm; null where it is elsewhere.
function onPlane(candidate) {
  const { a, b, c, up } = PLANES[view.plane], s = slices.spacing;
  const off = Math.abs(candidate.at[c] - view.at[view.plane]) * s[c];
  if (off > Math.max(candidate.diameter / 2, s[c] / 2 + 1e-6)) return null;
  const v = up ? slices.size[b] - 1 - candidate.at[b] : candidate.at[b];
  return [(candidate.at[a] + 0.5) * s[a], (v + 0.5) * s[b], candidate.diameter / 2];
}

function write(text, x, y, align, colour = '#c8d0d9') {
  pen.textAlign = align; pen.lineJoin = 'round'; pen.strokeStyle = '#000';
  pen.lineWidth = 3 * pixelRatio(); pen.strokeText(text, x, y);
  pen.fillStyle = colour; pen.fillText(text, x, y);
}
function labels(found) {
  const em = 13 * pixelRatio(), taken = [];
  pen.font = '600 ' + em + 'px system-ui, sans-serif'; pen.textBaseline = 'bottom';
  // The picked one and the best scores first; what would hide a label is left out.
  for (const { candidate, score, x, top, bottom } of found) {
    const text = '#' + candidate.rank + '  ' + score.toFixed(2);
    const width = pen.measureText(text).width;
    const left = Math.max(0, Math.min(x, canvas.width - width));
    const base = top - 3 > 3 * em ? top - 3 : bottom + em + 4;
    if (taken.some(([l, r, y]) => left < r && l < left + width && Math.abs(y - base) < em)) continue;
    taken.push([left, left + width, base]);
    write(text, left, base, 'left', candidate === marks.picked() ? PICK : MARK);
  }
}
function drawMarks(p) {
  const picked = marks.picked(), ratio = pixelRatio(), found = [];
  const order = [...marks.shown()].sort((c, d) => (d === picked) - (c === picked) || d.score - c.score);
  const boxes = view.plane === 'slab' ? data.slabs[view.at.slab].boxes : [];
  for (const candidate of order) {
    pen.strokeStyle = candidate === picked ? PICK : MARK;
    pen.lineWidth = (candidate === picked ? 2.2 : 1.4) * ratio;
    if (view.plane === 'slab') {
      const box = boxes.find((one) => one[5] === candidate.rank), rim = 2 * ratio;
      if (!box) continue;
      const [x0, y0, x1, y1] = box.slice(0, 4).map((v, i) =>
        v * data.spacing[i % 2] * p.scale + (i % 2 ? p.top + (i > 1 ? rim : -rim)
          : p.left + (i > 1 ? rim : -rim)));
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
      found.push({ candidate, score: box[4], x: x0, top: y0, bottom: y1 });
    } else {
      const place = onPlane(candidate);
      if (!place) continue;
      const x = place[0] * p.scale + p.left, y = place[1] * p.scale + p.top;
      const r = place[2] * p.scale + 4 * ratio;
      pen.beginPath(); pen.arc(x, y, r, 0, 2 * Math.PI); pen.stroke();
      found.push({ candidate, score: candidate.score, x: x - r, top: y - r, bottom: y + r });
    }
  }
  labels(found);
}
function drawOutline(p) {
  pen.strokeStyle = '#2fd08a'; pen.lineWidth = pixelRatio();
  for (const line of data.slabs[view.at.slab].outline) {
    pen.beginPath();
    for (let i = 0; i < line.length; i += 2)
      pen.lineTo((line[i] + 0.5) * data.spacing[0] * p.scale + p.left,
        (line[i + 1] + 0.5) * data.spacing[1] * p.scale + p.top);
    pen.closePath(); pen.stroke();
  }
}
const lengthOf = (m) => Math.hypot(m.to[0] - m.from[0], m.to[1] - m.from[1]);
const measuresHere = () => view.measures.filter((m) =>
  m.plane === view.plane && m.at === view.at[view.plane]);
function drawMeasures(p) {
  pen.font = '600 ' + 13 * pixelRatio() + 'px system-ui, sans-serif'; pen.textBaseline = 'bottom';
  for (const m of measuresHere()) {
    const [x0, y0, x1, y1] = [...m.from, ...m.to].map((v, i) => v * p.scale + (i % 2 ? p.top : p.left));
    pen.strokeStyle = '#f7e463'; pen.lineWidth = 1.5 * pixelRatio();
    pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke();
    write(lengthOf(m).toFixed(1) + ' mm', Math.max(x0, x1) + 6, (y0 + y1) / 2, 'left', '#f7e463');
  }
}
function drawFrame(p) {
  const em = 13 * pixelRatio(), { width, height } = canvas, [l, r, t, b] = PLANES[view.plane].letters;
  pen.font = '600 ' + em + 'px system-ui, sans-serif'; pen.textBaseline = 'middle';
  write(l, em / 2, height / 2, 'left'); write(r, width - em / 2, height / 2, 'right');
  // Below the line of text, which breaks on narrow pages.
  const below = byId('where').offsetHeight * pixelRatio() + 1.6 * em;
  write(t, width / 2, Math.max(3.2 * em, below), 'center'); write(b, width / 2, height - 2.6 * em, 'center');
  const long = p.scale > 12 ? 5 : p.scale > 3 ? 20 : 50, bar = long * p.scale;
  write(long + ' mm', em, height - 3.4 * em, 'left');
  pen.fillStyle = '#c8d0d9'; pen.fillRect(em, height - 2.6 * em, bar, 3 * pixelRatio());
  write(byId('notice').textContent.split('.')[0] + ', not for clinical use', width - em / 2,
    height - em, 'right', '#ff9d9d');
}
function where() {
  const at = view.at[view.plane];
  if (view.plane === 'slab') {
    const z = data.slabs[at].z;
    return 'slab ' + at + ' (0 to ' + (count() - 1) + '), z ' + z[0].toFixed(1) + ' to '
      + z[1].toFixed(1) + ' mm';
  }
  const number = view.plane === 'axial' && slices.fileSlices ? slices.fileSlices[at] : at;
  const point = worldOf(slices.size.map((n, axis) => axis === PLANES[view.plane].c ? at : (n - 1) / 2));
  const axis = PLANES[view.plane].c;
  return view.plane + ' slice ' + number + ' (0 to ' + (count() - 1) + '), '
    + 'xyz'[axis] + ' ' + point[axis].toFixed(1) + ' mm, window ' + Math.round(view.level) + ' / '
    + Math.round(view.width) + ' HU';
}
function probe() {
  if (view.plane === 'slab' || !view.cursor || !greyNow) return '';
  const { size, mm } = frame();
  const [x, y] = view.cursor.map((v, i) => Math.floor(v / mm[i]));
  if (x < 0 || y < 0 || x >= size[0] || y >= size[1]) return '';
  return ', about ' + Math.round(slices.hu[greyNow[y * size[0] + x]]) + ' HU';
}
let asked = 0;
function draw() { if (!asked) asked = requestAnimationFrame(() => { asked = 0; drawNow(); }); }
function drawNow() {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const p = placing(), at = view.at[view.plane];
  pen.imageSmoothingQuality = 'high';
  if (view.plane === 'slab') pen.drawImage(seen[at], p.left, p.top, p.wide * p.scale, p.high * p.scale);
  else if (paint()) pen.drawImage(painted, p.left, p.top, p.wide * p.scale, p.high * p.scale);
  else write('loading slices ...', canvas.width / 2, canvas.height / 2, 'center');
  if (view.plane === 'slab' && byId('outline').checked) drawOutline(p);
  byId('where').textContent = where() + ', zoom ' + view.zoom.toFixed(1) + probe();
  drawFrame(p);
  if (byId('marks').checked) drawMarks(p);
  drawMeasures(p);
  byId('slider').max = count() - 1; byId('slider').value = at;
  [byId('first').textContent, byId('last').textContent] = PLANES[view.plane].ends;
  document.dispatchEvent(new Event('drawn'));
}

function go(index) {
  view.at[view.plane] = Math.max(0, Math.min(count() - 1, Math.round(index)));
  // Slab and slice stay beside each other.
  if (slices && view.plane === 'axial') view.at.slab = slabAt(worldHeight(view.at.axial));
  if (slices && view.plane === 'slab') {
    const z = data.slabs[view.at.slab].z;
    view.at.axial = sliceAt((z[0] + z[1]) / 2);
  }
  draw();
}
// Heights are along the normal of the slices, as the faces of slabs are.
const normal = slices && [0, 1, 2].map((row) => slices.direction[3 * row + 2]);
const height0 = slices && normal.reduce((sum, v, i) => sum + v * slices.origin[i], 0);
const worldHeight = (k) => height0 + k * slices.spacing[2];
const sliceAt = (z) => Math.max(0, Math.min(slices.size[2] - 1,
  Math.round((z - height0) / slices.spacing[2])));
function slabAt(z) {
  const off = data.slabs.map((one) => Math.abs((one.z[0] + one.z[1]) / 2 - z));
  return off.indexOf(Math.min(...off));
}
function show(plane) {
  if (plane !== 'slab' && !slices) return;
  view.plane = plane; view.pan = [0, 0]; view.zoom = 1;
  for (const button of document.querySelectorAll('[data-plane]'))
    button.setAttribute('aria-pressed', button.dataset.plane === plane);
  for (const button of document.querySelectorAll('[data-window]')) button.disabled = plane === 'slab';
  draw();
}
function setWindow(level, width) {
  view.level = level; view.width = Math.max(2, width);
  for (const button of document.querySelectorAll('[data-window]')) {
    const [l, w] = WINDOWS[button.dataset.window];
    button.setAttribute('aria-pressed', l === view.level && w === view.width);
  }
  draw();
}
function useTool(tool) {
  view.tool = tool;
  for (const button of document.querySelectorAll('[data-tool]'))
    button.setAttribute('aria-pressed', button.dataset.tool === tool);
}
// Zoom so that the point under the cursor stays where it is.
function zoomBy(factor, x = canvas.width / 2, y = canvas.height / 2) {
  const [px, py] = toPlane(x, y);
  view.zoom = Math.max(0.5, Math.min(30, view.zoom * factor));
  const p = placing();
  view.pan = [view.pan[0] + x - (px * p.scale + p.left), view.pan[1] + y - (py * p.scale + p.top)];
  draw();
}
function fit() { view.zoom = 1; view.pan = [0, 0]; draw(); }
function focusOn(candidate) {
  for (const plane of ['axial', 'coronal', 'sagittal'])
    if (slices) view.at[plane] = Math.max(0, Math.min(slices.size[PLANES[plane].c] - 1,
      Math.round(candidate.at[PLANES[plane].c])));
  view.at.slab = candidate.slab;
  if (view.zoom > 1 && view.plane !== 'slab') {
    const place = onPlane(candidate), p = placing();
    view.pan = [view.pan[0] + canvas.width / 2 - (place[0] * p.scale + p.left),
      view.pan[1] + canvas.height / 2 - (place[1] * p.scale + p.top)];
  }
  draw();
}

// One finger or button does what the tool says, two fingers pan and zoom.
const fingers = new Map();
let began = null;
canvas.onpointerdown = (event) => {
  if (event.button > 1) return;
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, toCanvas(event));
  began = { at: view.at[view.plane], x: event.offsetX, y: event.offsetY, pan: [...view.pan],
    level: view.level, width: view.width, line: null, button: event.button };
  if (view.tool === 'measure' && fingers.size === 1 && event.button === 0) {
    const point = toPlane(...toCanvas(event));
    began.line = { plane: view.plane, at: view.at[view.plane], from: point, to: point };
    view.measures.push(began.line);
  }
};
canvas.onpointermove = (event) => {
  const now = toCanvas(event), before = fingers.get(event.pointerId);
  view.cursor = toPlane(...now);
  if (!before || !began) { draw(); return; }
  const dx = event.offsetX - began.x, dy = event.offsetY - began.y;
  if (fingers.size === 2) {
    const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
    const far = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
    view.pan = [view.pan[0] + (now[0] - before[0]) / 2, view.pan[1] + (now[1] - before[1]) / 2];
    zoomBy(far(now) / far(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  } else if (view.tool === 'pan' || began.button === 1) {
    view.pan = [began.pan[0] + dx * pixelRatio(), began.pan[1] + dy * pixelRatio()]; draw();
  } else if (view.tool === 'window') setWindow(began.level + 2 * dy, began.width + 4 * dx);
  else if (view.tool === 'measure') { if (began.line) began.line.to = view.cursor; draw(); }
  else go(began.at - dy * count() / Math.max(300, canvas.clientHeight));
  fingers.set(event.pointerId, now);
};
canvas.onpointerup = canvas.onpointercancel = (event) => {
  fingers.delete(event.pointerId); began = null;
  view.measures = view.measures.filter((m) => lengthOf(m) > 0.5);
  draw();
};
canvas.onpointerleave = () => { view.cursor = null; draw(); };
canvas.onwheel = (event) => {
  event.preventDefault();
  if (event.ctrlKey || event.metaKey) zoomBy(Math.exp(-event.deltaY / 300), ...toCanvas(event));
  else if (event.deltaY) go(view.at[view.plane] + (event.deltaY < 0 ? 1 : -1));
};
for (const button of document.querySelectorAll('[data-plane]')) {
  button.onclick = () => show(button.dataset.plane);
  button.disabled = button.dataset.plane !== 'slab' && !slices;
}
for (const button of document.querySelectorAll('[data-window]'))
  button.onclick = () => setWindow(...WINDOWS[button.dataset.window]);
for (const button of document.querySelectorAll('[data-tool]'))
  button.onclick = () => useTool(button.dataset.tool);
byId('zoom-in').onclick = () => zoomBy(1.4);
byId('zoom-out').onclick = () => zoomBy(1 / 1.4);
byId('fit').onclick = fit;
byId('slider').oninput = (event) => go(Number(event.target.value));
for (const name of ['marks', 'outline']) byId(name).onchange = draw;
new ResizeObserver(draw).observe(canvas);
