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
