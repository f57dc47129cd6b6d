"""Building blocks of a self-contained page; every text is escaped here, and only here."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

from lungdet_mmdet.scoring.results import PER_100, ResultRow

BAR_WIDTH, BAR_HEIGHT = 170, 18
STYLE = """
:root { --ink: #1c2430; --soft: #5c6773; --line: #dfe3e8; --ours: #1f5fa8; --paper: #b3560f; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 28px 60px; max-width: 1180px; color: var(--ink);
  background: #fff; font: 15px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 25px; margin: 0 0 2px; }
h2 { font-size: 19px; margin: 38px 0 6px; padding-top: 10px; border-top: 1px solid var(--line); }
p { margin: 6px 0; max-width: 900px; }
.soft, figcaption, th { color: var(--soft); }
.banner { margin: 14px 0; padding: 10px 14px; border-left: 6px solid #d48a00;
  background: #fff6e0; }
.banner ul { margin: 0; padding-left: 18px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.tile { flex: 1 1 200px; padding: 12px 16px; border: 1px solid var(--line); border-radius: 8px; }
.tile b { display: block; font-size: 27px; font-weight: 600; color: var(--ours); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { font-weight: 500; text-align: right; padding: 5px 10px; border-bottom: 2px solid var(--line);
  vertical-align: bottom; }
td { padding: 3px 10px; text-align: right; border-bottom: 1px solid #f0f2f4; white-space: nowrap; }
th:first-child, td:first-child, .left { text-align: left; }
tr.section td { padding-top: 20px; font-weight: 600; border-bottom: 1px solid var(--line); }
tr.few td { color: #6c5a2c; } tr.few td.n::after { content: " !"; color: #b37400;
  font-weight: 700; }
svg { display: block; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 18px; }
.plots img { width: 100%; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(540px, 1fr)); gap: 20px; }
figure { margin: 0; }
.cases figure { padding: 10px; border: 1px solid var(--line); border-radius: 8px; }
.cases img { max-width: 100%; border-radius: 3px; }
.cases strong { font-size: 15px; }
.mono { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 11.5px;
  overflow-wrap: anywhere; }
.chip { margin-left: 8px; padding: 1px 8px; border-radius: 9px; font-size: 12px;
  background: #eceff2; color: var(--soft); }
.chip.error { background: #fbe3e1; color: #a3231b; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; margin: 8px 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def page(title: str, body: str) -> str:
    """Return a page that needs nothing but itself; ``body`` is html, the title plain text."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing is loaded and nothing is run, whatever a text in the page may hold.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}\n"
        "</body></html>\n"
    )


def image(content: bytes, description: str) -> str:
    """Return a PNG or JPEG as an image inside the page."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(content).decode("ascii")
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(description)}">'


def definition_list(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and texts as a list."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f"<dl>{rows}</dl>"


def banner(sentences: Sequence[str]) -> str:
    """Return sentences in a box that cannot be overlooked; nothing without any."""
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="banner"><ul>{items}</ul></div>'


def tiles(rows: Sequence[tuple[str, ResultRow]]) -> str:
    """Return a few figures large, each with its interval and what it rests on."""
    cells = [
        f'<div class="tile">{escape(name)}<b>{escape(row.value_text(row.value))}</b>'
        f'<span class="soft">{escape(row.interval_text())}<br>{escape(row.counted)}</span></div>'
        for name, row in rows
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def result_table(sections: Sequence[tuple[str, Sequence[ResultRow]]], *, measured_on: str) -> str:
    """Return all rows under the headings of their sections."""
    head = (
        f"<tr><th>figure</th><th>paper<br>LUNA16</th><th>measured<br>{escape(measured_on)}</th>"
        '<th>95 % interval</th><th class="left">0 to 1</th><th class="left">n</th></tr>'
    )
    body = ""
    for heading, rows in sections:
        body += f'<tr class="section"><td colspan="6">{escape(heading)}</td></tr>'
        body += "".join(_table_row(row) for row in rows)
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _table_row(row: ResultRow) -> str:
    published = row.value_text(row.published) if row.published is not None else ""
    texts = (row.label, published, row.value_text(row.value), row.interval_text())
    cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
    few = ' class="few"' if row.is_few else ""
    counted = f'<td class="left n">{escape(row.counted)}</td>'
    return f'<tr{few}>{cells}<td class="left">{_bar(row)}</td>{counted}</tr>'


def _bar(row: ResultRow) -> str:
    """Return a drawing of interval, measured value (dot) and the paper's (diamond)."""
    if row.unit == PER_100:
        return ""
    middle, inner = BAR_HEIGHT / 2, BAR_WIDTH - 10

    def place(share: float) -> str:
        return f"{5 + inner * min(max(share, 0.0), 1.0):.1f}"

    parts = [f'<line x1="5" x2="{BAR_WIDTH - 5}" y1="{middle}" y2="{middle}" stroke="#e3e6ea"/>']
    if row.interval is not None:
        low, high = place(row.interval.low), place(row.interval.high)
        parts.append(
            f'<line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}" stroke="#7fa8d4" '
            'stroke-width="6" stroke-linecap="round"/>'
        )
    if row.published is not None:
        x = float(place(row.published))
        parts.append(
            f'<path d="M{x:.1f} 3 l5 6 l-5 6 l-5 -6 z" fill="none" stroke="#b3560f" '
            'stroke-width="1.6"/>'
        )
    if row.value == row.value:  # not NaN
        parts.append(f'<circle cx="{place(row.value)}" cy="{middle}" r="3.6" fill="#12406f"/>')
    return (
        f'<svg width="{BAR_WIDTH}" height="{BAR_HEIGHT}" role="img" '
        f'aria-label="{escape(row.interval_text())}">{"".join(parts)}</svg>'
    )
