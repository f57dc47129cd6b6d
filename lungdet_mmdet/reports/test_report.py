# SPDX-License-Identifier: Apache-2.0
"""The page of a test: table, plots, cases to review."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungdet_mmdet.reports.page import encoded_jpeg, image_uri, render
from lungdet_mmdet.reports.slab_overlays import (
    DETECTION_COLOUR,
    FAINT_COLOUR,
    IGNORED_COLOUR,
    TRUTH_COLOUR,
    OverlayBox,
    case_picture,
    read_slab,
)
from lungdet_mmdet.scoring.results import (
    FEW,
    PER_100,
    SECTIONS,
    TestedRun,
    result_rows,
    section_title,
)
from lungdet_mmdet.scoring.slab_outcomes import (
    HIT,
    PAPER_IOU,
    FalsePositive,
    SlabOutcome,
    TruthScore,
    best_per_nodule,
    loudest_false_positives,
    overlaps,
    truth_scores,
    worst_misses,
)
from lungdet_mmdet.scoring.slab_records import Slab
from lungdet_mmdet.scoring.split_scores import SplitScores

Box = tuple[float, float, float, float]
MAX_DRAWN = 4
"""Detections drawn beside the one in question; more would hide what they frame."""


@dataclass(frozen=True)
class ReviewFigure:
    """One case: its picture as JPEG, what it is in a few words, and where it is.

    ``is_error`` tells a miss or false positive at the threshold from a case that is merely close.
    """

    jpeg: bytes
    heading: str
    lines: tuple[str, ...]
    is_error: bool


@dataclass(frozen=True)
class ReviewedSplit:
    """What the pictures are made from.

    ``files`` maps image ids to the slab images; ``threshold`` is None where none is known.
    """

    outcomes: Sequence[SlabOutcome]
    files: Mapping[int, Path]
    threshold: float | None

    def outcome_on(self, img_id: int) -> SlabOutcome:
        """Return what was found on one slab."""
        return next(item for item in self.outcomes if item.slab.img_id == img_id)


def miss_figures(split: ReviewedSplit, *, count: int) -> list[ReviewFigure]:
    """Return the nodules with the lowest best scores, the largest first among equals.

    Each is shown on the slab that cuts it widest.
    """
    nodules = best_per_nodule(truth_scores(split.outcomes))
    return [_miss(split, case) for case in worst_misses(nodules, count=count)]


def false_positive_figures(split: ReviewedSplit, *, count: int) -> list[ReviewFigure]:
    """Return the false positives with the highest scores."""
    cases = loudest_false_positives(split.outcomes, count=count)
    return [_false_positive(split, case) for case in cases]


def _miss(split: ReviewedSplit, case: TruthScore) -> ReviewFigure:
    found = split.outcome_on(case.img_id)
    focus = _corners(case.box.bbox_xywh_px)
    nearest = _most_overlapping(found, case)
    slabs = "its slab" if case.n_slabs == 1 else f"any of its {case.n_slabs} slabs"
    if case.score > 0:
        heading = f"{case.box.diameter_mm:.1f} mm, best score {case.score:.3f}"
    else:
        heading = f"{case.box.diameter_mm:.1f} mm, no matching box on {slabs}"
    drawn = _chosen(found, focus, split.threshold)
    return ReviewFigure(
        _picture(split, focus, drawn, found),
        heading,
        (nearest, *_place(found.slab, focus)),
        split.threshold is None or case.score < split.threshold,
    )


def _false_positive(split: ReviewedSplit, case: FalsePositive) -> ReviewFigure:
    found = split.outcome_on(case.img_id)
    x0, y0, x1, y1 = found.boxes_xyxy_px[case.row].tolist()
    focus = (x0, y0, x1, y1)
    drawn = [case.row] + [r for r in _chosen(found, None, split.threshold) if r != case.row]
    sx, sy, _ = found.slab.geometry.spacing_xyz_mm
    size = f"{(focus[2] - focus[0]) * sx:.0f} x {(focus[3] - focus[1]) * sy:.0f} mm"
    return ReviewFigure(
        _picture(split, focus, drawn[:MAX_DRAWN], found),
        f"score {case.score:.3f}, box {size}",
        (_what_is_there(found, case.row), *_place(found.slab, focus)),
        split.threshold is None or case.score >= split.threshold,
    )


def _most_overlapping(found: SlabOutcome, case: TruthScore) -> str:
    shares = overlaps(found.boxes_xyxy_px, [case.box])[:, 0]
    if not len(shares) or shares.max() <= 0:
        return "no box touches it"
    best = int(shares.argmax())
    text = f"closest box here: IoU {_floored(shares[best])}, score {found.scores[best]:.3f}"
    is_of_another = (
        found.verdicts[best] == HIT and found.slab.boxes[found.truth_rows[best]] != case.box
    )
    return f"{text}, counted for another nodule" if is_of_another else text


def _what_is_there(found: SlabOutcome, row: int) -> str:
    boxes = found.slab.boxes
    shares = overlaps(found.boxes_xyxy_px[[row]], boxes)[0]
    if not len(shares) or shares.max() <= 0:
        return "nothing annotated here"
    box = boxes[int(shares.argmax())]
    if box.is_ignored:
        return f"touches an ignore region ({box.kind})"
    kind = "second" if shares.max() >= PAPER_IOU else "loose"
    return f"{kind} box on a nodule of {box.diameter_mm:.1f} mm, IoU {_floored(shares.max())}"


def _chosen(found: SlabOutcome, focus: Box | None, threshold: float | None) -> list[int]:
    """Return the rows worth drawing: those that touch the focus, then those kept; best first."""
    kept = found.scores >= (np.inf if threshold is None else threshold)
    touching = np.zeros(len(found.scores), dtype=bool)
    if focus is not None:
        x0, y0, x1, y1 = found.boxes_xyxy_px.T
        touching = (x0 < focus[2]) & (x1 > focus[0]) & (y0 < focus[3]) & (y1 > focus[1])
    order = np.lexsort((-found.scores, ~touching))
    return [int(row) for row in order if kept[row] or touching[row]][:MAX_DRAWN]


def _picture(split: ReviewedSplit, focus: Box, rows: Sequence[int], found: SlabOutcome) -> bytes:
    slab = found.slab
    boxes = [
        OverlayBox(
            _corners(box.bbox_xywh_px),
            IGNORED_COLOUR if box.is_ignored else TRUTH_COLOUR,
            box.kind if box.is_ignored else f"{box.diameter_mm:.1f} mm",
            label_below=True,
        )
        for box in slab.boxes
    ]
    for row in reversed(rows):
        score = float(found.scores[row])
        is_kept = split.threshold is None or score >= split.threshold
        x0, y0, x1, y1 = found.boxes_xyxy_px[row].tolist()
        colour = DETECTION_COLOUR if is_kept else FAINT_COLOUR
        # Labels of weaker boxes would hide the first one's.
        label = f"{score:.2f}" if row == rows[0] else ""
        boxes.append(OverlayBox((x0, y0, x1, y1), colour, label))
    sx, sy, _ = slab.geometry.spacing_xyz_mm
    picture = case_picture(
        read_slab(split.files[slab.img_id]), focus, boxes, spacing_xy_mm=(sx, sy)
    )
    return encoded_jpeg(picture)


def _place(slab: Slab, focus: Box) -> tuple[str, str]:
    x, y, z = slab.geometry.boxes_to_world(np.array([focus]))[0].tolist()
    low, high = slab.geometry.z_range_mm
    return (
        f"x {x:.1f}  y {y:.1f}  z {z:.1f} mm (LPS); slab {slab.geometry.index}, "
        f"{low:.1f} to {high:.1f} mm",
        slab.seriesuid,
    )


def _floored(iou: float) -> str:
    # Rounding would turn 0.496, which does not match, into 0.50, which does.
    return f"{math.floor(100 * iou) / 100:.2f}"


def _corners(bbox_xywh_px: Box) -> Box:
    x, y, width, height = bbox_xywh_px
    return x, y, x + width, y + height


BAR_WIDTH_PX = 170
"""Width of the drawing of a row, as test_report.html draws it."""
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
    by_key = {row.key: row for row in rows}
    return render(
        "test_report.html",
        title=f"{run.checkpoint}: {run.data}, {run.split} split",
        style="test_report.css",
        script=None,
        run=run,
        run_title=run.title(scores),
        tiles=[(TILE_NAMES[key], by_key[key]) for key in TILE_KEYS if key in by_key],
        facts=_facts(run, scores),
        sections=[
            (section_title(section, run.threshold), [row for row in rows if row.section == section])
            for section in SECTIONS
        ],
        plots=plots,
        misses=misses,
        false_positives=false_positives,
        unseen=unseen,
        resamples=scores.options.n_resamples,
        few=FEW,
        per_100=PER_100,
        bar_width=BAR_WIDTH_PX,
        place=_place_on_bar,
        image_uri=image_uri,
    )


def _place_on_bar(share: float) -> str:
    return f"{5 + (BAR_WIDTH_PX - 10) * min(max(share, 0.0), 1.0):.1f}"


def _facts(run: TestedRun, scores: SplitScores) -> list[tuple[str, str]]:
    counts, matches = scores.counts, scores.froc.matches
    speed = "not measured" if run.seconds_per_slab is None else f"{run.seconds_per_slab:.3f} s"
    return [
        ("Data", run.title(scores)),
        ("Labels", run.labels),
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
