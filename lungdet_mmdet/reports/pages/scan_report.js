'use strict';
// The candidates, what the reader says of them, and the keyboard.
let threshold = data.threshold, picked = null, isExported = true;
const KEY = ['lungdet', data.name, data.model, data.judged].join(' ');
const review = { reader: '', said: {}, missed: [] };
try { Object.assign(review, JSON.parse(localStorage.getItem(KEY) || '{}')); } catch { /* no store */ }

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}
// The slice that the axial view calls so; a file cut along another axis has no number for it.
const axialSlice = (c) => slices && !slices.fileSlices ? c.at[2] : c.voxel[2];
// At the result's own threshold its own verdict counts: the tables and the terminal have that.
const isShown = (c) => threshold === data.threshold ? c.positive : c.score >= threshold;
const saidOf = (c) => review.said[c.rank] || { verdict: '', comment: '' };
const shown = () => data.candidates.filter((c) => isShown(c)
  && ['', saidOf(c).verdict || 'open'].includes(byId('filter').value));
marks.shown = shown; marks.picked = () => picked;

function fillTable() {
  const body = byId('candidates').tBodies[0], list = shown();
  const hadFocus = body.contains(document.activeElement);
  body.replaceChildren();
  for (const c of list) {
    const row = element('tr', null, body), { verdict, comment } = saidOf(c);
    row.tabIndex = 0; row.dataset.rank = c.rank;
    if (c === picked) row.className = 'picked';
    for (const text of [c.rank, c.score.toFixed(3), c.diameter.toFixed(1),
      c.centre.map((v) => v.toFixed(1)).join(', '), axialSlice(c).toFixed(0)])
      element('td', text, row);
    row.children[3].className = 'wide';
    element('td', { accept: '\u2713', reject: '\u2717' }[verdict] || '', row).className = verdict;
    if (comment) { row.title = comment; row.lastChild.textContent += ' \u270e'; }
    row.onclick = () => pick(c);
    row.onkeydown = (event) => { if (event.key === 'Enter') pick(c); };
  }
  const row = body.querySelector('tr.picked') || body.rows[0];
  if (hadFocus && row) row.focus({ preventScroll: true });
  const n = data.candidates.length, above = data.candidates.filter(isShown).length;
  byId('count').textContent = above + ' of ' + n + ' candidates at or above ' + threshold.toFixed(3)
    + (above === n ? '' : ', the others are hidden: lower the score to see them')
    + (list.length === above ? '' : '; ' + list.length + ' pass the filter');
  byId('level').textContent = threshold.toFixed(3);
}
function fillMissed() {
  byId('missed').replaceChildren();
  review.missed.forEach((one, index) => {
    const item = element('li', one.diameter.toFixed(1) + ' mm at '
      + one.centre.map((v) => v.toFixed(1)).join(', ') + ' ', byId('missed'));
    const remove = element('button', 'remove', item);
    remove.onclick = () => { review.missed.splice(index, 1); keep(); };
  });
}
function fillDetail() {
  byId('detail').hidden = !picked;
  if (!picked) return;
  const c = picked, { verdict, comment } = saidOf(c);
  byId('detail-title').textContent = 'Candidate ' + c.rank;
  if (byId('crops').dataset.rank !== String(c.rank)) {
    byId('crops').dataset.rank = c.rank;
    byId('crops').replaceChildren();
    for (const [name, src] of c.crops) {
      const figure = element('figure', null, byId('crops'));
      const crop = element('div', null, figure), image = element('img', null, crop);
      crop.className = 'crop'; image.src = src; image.alt = name;
      element('span', '20 mm', crop);
      element('figcaption', name, figure);
    }
  }
  byId('detail-text').textContent = 'score ' + c.score.toFixed(3) + ', diameter '
    + c.diameter.toFixed(1) + ' mm; column, row, slice in the input: ' + c.voxel.join(', ')
    + (c.image === null ? '' : '; DICOM image ' + c.image) + '; slabs ' + c.slabs.join(', ')
    + '. ' + c.slabs.map(boxText).join(' ') + (c.crops.length ? ' Pictures: 60 mm, lung window.' : '');
  byId('accept').setAttribute('aria-pressed', verdict === 'accept');
  byId('reject').setAttribute('aria-pressed', verdict === 'reject');
  if (document.activeElement !== byId('comment')) byId('comment').value = comment;
}
// The candidate's score is that of its best box; those on its other slabs are lower.
function boxText(slab) {
  const box = (data.slabs[slab] || { boxes: [] }).boxes.find((one) => one[5] === picked.rank);
  return box ? 'Box on slab ' + slab + ': ' + box[4].toFixed(2) + '.' : '';
}
function refresh() {
  if (picked && !isShown(picked)) picked = null;
  fillTable(); fillDetail(); fillMissed(); draw();
}
function pick(candidate) {
  picked = candidate;
  focusOn(candidate);
  refresh();
  const row = document.querySelector('tr.picked'), box = byId('scroll');
  if (row) box.scrollTop = row.offsetTop - box.clientHeight / 2;
}
function step(by) {
  const list = shown(), at = list.indexOf(picked), from = at < 0 && by < 0 ? 0 : at;
  if (list.length) pick(list[(from + by + list.length) % list.length]);
}
function keep() {
  isExported = false;
  try { localStorage.setItem(KEY, JSON.stringify(review)); } catch { /* the export is what counts */ }
  refresh();
}
function say(change) {
  if (!picked) return;
  review.said[picked.rank] = { ...saidOf(picked), ...change };
  keep();
}
const judge = (verdict) => picked
  && say({ verdict: saidOf(picked).verdict === verdict ? '' : verdict });
function addMissed() {
  const line = measuresHere().pop();
  if (!line || view.plane === 'slab') {
    byId('hint').textContent = 'Measure the nodule on a slice of the CT first.';
    return;
  }
  const middle = [0, 1].map((i) => (line.from[i] + line.to[i]) / 2);
  const one = { centre: worldOf(voxelAt(middle)), diameter: lengthOf(line) };
  const known = review.missed.some((other) => String(other.centre) === String(one.centre));
  byId('hint').textContent = known ? 'This nodule was added before.' : '';
  if (known) return;
  review.missed.push(one);
  keep();
}
function correctionsCsv() {
  const cell = (value) => {
    // No cell is a formula to a spreadsheet.
    const text = (/^[=+\-@\t\r]/.test(value) && isNaN(value) ? "'" : '') + (value ?? '');
    return /[",;\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const rows = data.candidates.filter((c) => saidOf(c).verdict || saidOf(c).comment).map((c) =>
    [data.name, c.rank, saidOf(c).verdict, ...c.centre, c.diameter, c.score, saidOf(c).comment]);
  for (const one of review.missed)
    rows.push([data.name, '', 'missed', ...one.centre.map((v) => v.toFixed(4)),
      one.diameter.toFixed(3), '', '']);
  const head = ['seriesuid', 'rank', 'verdict', 'coordX', 'coordY', 'coordZ', 'diameter_mm',
    'probability', 'comment', 'reader', 'model_sha256'];
  return [head, ...rows.map((row) => [...row, review.reader, data.model])]
    .map((row) => row.map(cell).join(',')).join('\n') + '\n';
}
function exportCsv() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([correctionsCsv()], { type: 'text/csv' }));
  link.download = 'corrections_' + data.name + '.csv';
  link.click();
  URL.revokeObjectURL(link.href);
  isExported = true;
}
function drawOverview() {
  const strip = byId('overview'), ink = strip.getContext('2d');
  strip.width = 30; strip.height = strip.clientHeight || 400;
  const step = strip.height / data.slabs.length, ranks = new Set(shown().map((c) => c.rank));
  data.slabs.forEach(({ boxes }, index) => {
    const score = Math.max(0, ...boxes.filter((box) => ranks.has(box[5])).map((box) => box[4]));
    const top = strip.height - (index + 1) * step;
    if (index === view.at.slab) {
      ink.fillStyle = '#3a4552'; ink.fillRect(0, top, 30, Math.max(step, 2));
    }
    ink.fillStyle = picked && picked.slabs.includes(index) ? PICK : MARK;
    ink.fillRect(3, top + step * 0.2, 24 * score, Math.max(step * 0.6, 1));
  });
}

for (const text of data.warnings) element('div', text, byId('warnings')).className = 'warning';
byId('title').textContent = data.title;
byId('subtitle').textContent = (slices ? slices.size[2] + ' slices, ' : '') + data.slabs.length
  + ' slabs, ' + data.candidates.filter((c) => c.positive).length + ' of ' + data.candidates.length
  + ' candidates at or above the threshold ' + data.threshold.toFixed(3);
byId('quality').textContent = slices ? 'Slices are JPEGs of quality ' + slices.quality
  + ' with ' + slices.hu.length + ' steps of grey: HU are close, not exact.'
  : 'This page was made without the slices of the CT.';
for (const [name, value] of data.facts) {
  const row = element('tr', null, byId('facts'));
  element('th', name, row); element('td', value, row);
}
byId('remarks').hidden = !data.flags.length;
for (const flag of data.flags) element('li', flag, byId('flags'));
byId('threshold').value = threshold;
byId('threshold').oninput = (event) => { threshold = Number(event.target.value); refresh(); };
byId('threshold-reset').onclick = () => {
  threshold = data.threshold; byId('threshold').value = threshold; refresh();
};
byId('filter').onchange = refresh;
byId('accept').onclick = () => judge('accept');
byId('reject').onclick = () => judge('reject');
byId('comment').oninput = (event) => say({ comment: event.target.value });
byId('reader').value = review.reader;
byId('reader').oninput = (event) => { review.reader = event.target.value; keep(); };
byId('add-missed').onclick = addMissed;
byId('export').onclick = exportCsv;
byId('forget').onclick = () => {
  if (!confirm('Forget all that was said of this scan on this page?')) return;
  Object.assign(review, { reader: '', said: {}, missed: [] });
  byId('reader').value = ''; byId('comment').value = '';
  keep(); localStorage.removeItem(KEY); isExported = true;
};
byId('overview').onclick = (event) => {
  const slab = Math.floor((1 - event.offsetY / byId('overview').clientHeight) * data.slabs.length);
  const z = data.slabs[Math.max(0, Math.min(data.slabs.length - 1, slab))].z;
  if (view.plane !== 'slab' && slices) { if (view.plane !== 'axial') show('axial'); }
  go(view.plane === 'slab' ? slab : sliceAt((z[0] + z[1]) / 2));
};
document.addEventListener('drawn', drawOverview);
const by = (n) => () => go(view.at[view.plane] + n);
const keys = {
  ArrowUp: by(1), ArrowDown: by(-1), PageUp: by(10), PageDown: by(-10),
  Home: () => go(0), End: () => go(count() - 1),
  n: () => step(1), p: () => step(-1), a: () => judge('accept'), x: () => judge('reject'),
  c: () => byId('comment').focus(), e: exportCsv,
  l: () => setWindow(...WINDOWS.lung), m: () => setWindow(...WINDOWS.mediastinum),
  b: () => setWindow(...WINDOWS.bone),
  1: () => show('axial'), 2: () => show('coronal'), 3: () => show('sagittal'), 4: () => show('slab'),
  '+': () => zoomBy(1.25), '=': () => zoomBy(1.25), '-': () => zoomBy(0.8), 0: fit,
  s: () => useTool('scroll'), g: () => useTool('pan'), w: () => useTool('window'),
  d: () => useTool('measure'), Backspace: () => { view.measures.pop(); draw(); },
  o: () => byId('marks').click(), u: () => byId('outline').click(), f: addMissed,
};
document.onkeydown = (event) => {
  const { target } = event;
  if (target === byId('comment') || target === byId('reader')) {
    if (event.key === 'Escape') target.blur();
    return;
  }
  if (target.type === 'range' && /^(Arrow|Page|Home|End)/.test(event.key)) return;
  if (target.tagName === 'SELECT') return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
};
window.onbeforeunload = () => isExported ? undefined : 'not exported';
setWindow(...WINDOWS.lung); useTool('scroll'); show(view.plane);
const first = shown()[0];
if (first) pick(first);
else {
  for (const plane of Object.keys(PLANES))
    if (plane === 'slab' || slices) view.at[plane] = Math.floor(count(plane) / 2);
  refresh();
}
