"""The frame of the preparation report: style and the few lines of script it needs."""

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
