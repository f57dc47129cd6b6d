'use strict';
const byId = (id) => document.getElementById(id);
const rows = [...document.querySelectorAll('article')];
function filter() {
  const state = byId('state').value, text = byId('search').value.toLowerCase();
  for (const row of rows)
    row.hidden = (state && row.dataset.state !== state)
      || !row.textContent.toLowerCase().includes(text);
  const left = rows.filter((row) => !row.hidden).length;
  byId('count').textContent = left === rows.length ? '' : left + ' of ' + rows.length + ' scans';
}
byId('state').onchange = filter;
byId('search').oninput = filter;
