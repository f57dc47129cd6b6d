"""The page about one tested split: tables, plots, worst misses and loudest false positives."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lungdet_mmdet.figures import report_html as html
from lungdet_mmdet.figures.review_figures import ReviewFigure
from lungdet_mmdet.scoring.result_rows import FEW, SECTIONS, result_rows, section_title
from lungdet_mmdet.scoring.split_scores import SplitScores
from lungdet_mmdet.scoring.tested_run import TestedRun

TILE_KEYS = ("AP50", "AR50", "F1", "slab_AUROC", "CPM")
TILE_NAMES = {
    "AP50": "AP, IoU 0.5",
    "AR50": "AR, IoU 0.5",
    "F1": "F1 at the threshold",
    "slab_AUROC": "AUROC, slabs",
    "CPM": "CPM",
}


def report_page(
    run: TestedRun,
    scores: SplitScores,
    *,
    plots: Sequence[tuple[str, bytes]],
    misses: Sequence[ReviewFigure],
    false_positives: Sequence[ReviewFigure],
    unseen: Sequence[str] = (),
) -> str:
    """Return the page as html text; it needs no other file.

    Parameters
    ----------
    run, scores : what was tested, and its figures.
    plots : what each shows, and its PNG.
    misses, false_positives : pictures, worst first.
    unseen : one sentence per annotated nodule that lies in no slab.
    """
    rows = result_rows(scores)
    sections = [
        (section_title(section, run.threshold), [row for row in rows if row.section == section])
        for section in SECTIONS
    ]
    body = [
        f"<h1>{escape(run.checkpoint)}</h1>",
        f'<p class="soft">{escape(run.title(scores))}. For research; not for clinical use.</p>',
        html.banner(run.warnings),
        _tiles(scores),
        html.definition_list(_facts(run, scores)),
        "<h2>Figures</h2>",
        html.result_table(sections, measured_on=run.data),
        _reading(scores),
        "<h2>Plots</h2>",
        '<div class="plots">',
        *(f"<figure>{html.image(png, title)}</figure>" for title, png in plots),
        "</div>",
        *_cases("Nodules with the lowest scores", misses, errors="missed", others="found"),
        *_unseen(unseen),
        *_cases(
            "False positives with the highest scores",
            false_positives,
            errors="false positive",
            others="below the threshold",
        ),
    ]
    return html.page(f"{run.checkpoint}: {run.data}, {run.split} split", "\n".join(body))


def _tiles(scores: SplitScores) -> str:
    by_key = {row.key: row for row in result_rows(scores)}
    return html.tiles([(TILE_NAMES[key], by_key[key]) for key in TILE_KEYS if key in by_key])


def _facts(run: TestedRun, scores: SplitScores) -> list[tuple[str, str]]:
    counts, matches = scores.counts, scores.froc.matches
    speed = "not measured" if run.seconds_per_slab is None else f"{run.seconds_per_slab:.3f} s"
    return [
        ("Data", run.title(scores)),
        ("Threshold", run.threshold_source),
        (
            "Slabs",
            f"{counts['n_positive_slabs']} with a nodule, {counts['n_healthy_slabs']} healthy, "
            f"the others hold only ignore regions ({counts['n_ignore_regions']} in all)",
        ),
        (
            "Nodules",
            f"{counts['n_distinct']} in {counts['n_nodules']} boxes; "
            f"{counts['n_unseen']} in no slab, counted as missed",
        ),
        (
            "Candidates",
            f"{matches.true_positives} nodules hit at any score, {matches.false_negatives} not; "
            f"{matches.false_positives} false positives, {matches.ignored} on excluded findings, "
            f"{matches.duplicates} second hits",
        ),
        ("Model", f"{run.config}, {run.parameters / 1e6:.1f} M parameters, {speed} per slab"),
    ]


def _reading(scores: SplitScores) -> str:
    n = scores.options.n_resamples
    intervals = (
        f"Intervals are the central 95 % of {n} resamples of the scans. An asterisk marks exact "
        "binomial or Poisson limits, where every resample gives the same figure."
        if n
        else "No intervals were asked for."
    )
    return (
        f'<p class="soft">Dot: measured, bar: 95 % interval, diamond: the paper on LUNA16 with its '
        f"own split. {escape(intervals)} An exclamation mark: n under {FEW}; the interval says "
        "more than the figure. AP, AR, precision and recall are of boxes on slabs; FROC and CPM "
        "of nodules in space. A nodule belongs to the band of its annotated diameter, a false "
        "positive to the band of its own size.</p>"
    )


def _cases(heading: str, figures: Sequence[ReviewFigure], *, errors: str, others: str) -> list[str]:
    intro = (
        "Annotated boxes green with their diameter, ignore regions grey, detections red with "
        "their score (pale below the threshold). Beside each: the whole slab, the field framed. "
        "A box matches a nodule at IoU 0.5."
    )
    parts = [f"<h2>{escape(heading)}</h2>"]
    if not figures:
        return [*parts, "<p>None.</p>"]
    parts.append(f'<p class="soft">{intro}</p><div class="cases">')
    for item in figures:
        kind, text = ("chip error", errors) if item.is_error else ("chip", others)
        chip = f'<span class="{kind}">{escape(text)}</span>'
        *lines, uid = item.lines
        parts.append(
            f"<figure>{html.image(item.jpeg, item.heading)}<figcaption><strong>"
            f"{escape(item.heading)}</strong>{chip}<br>{'<br>'.join(map(escape, lines))}"
            f'<br><span class="mono">{escape(uid)}</span></figcaption></figure>'
        )
    return [*parts, "</div>"]


def _unseen(unseen: Sequence[str]) -> list[str]:
    if not unseen:
        return []
    items = "".join(f"<li>{escape(line)}</li>" for line in unseen)
    return [f"<p>Annotated nodules that lie in no slab, counted as missed:</p><ul>{items}</ul>"]
