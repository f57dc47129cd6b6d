"""The rows of the result table: each figure with its interval and the number it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lungdet_mmdet.scoring.average_precision import key_suffix
from lungdet_mmdet.scoring.bootstrap import Interval
from lungdet_mmdet.scoring.exact_interval import binomial_interval, poisson_interval
from lungdet_mmdet.scoring.froc import FP_RATES
from lungdet_mmdet.scoring.paper_table import band_label, percent, published_value
from lungdet_mmdet.scoring.split_scores import SplitScores

FEW = 30
"""Under this number of nodules, slabs or boxes a figure is marked: read its interval."""
TABLE_1, AT_THRESHOLD, MEAN_IOU = "table_1", "at_threshold", "mean_iou"
PERCENT, NUMBER, PER_100 = "percent", "number", "per_100"
SLAB_VIEW, SCAN_VIEW, FROC = "slab_view", "scan_view", "froc"
SECTIONS = (TABLE_1, AT_THRESHOLD, MEAN_IOU, SLAB_VIEW, SCAN_VIEW, FROC)
_TITLES = {
    TABLE_1: "Table 1 of the paper: boxes on slabs, IoU 0.5",
    AT_THRESHOLD: "Boxes on slabs at {threshold}, IoU 0.5",
    MEAN_IOU: "Boxes on slabs, mean over IoU 0.5 to 0.95",
    SLAB_VIEW: "Anomaly view, {threshold}: does the slab hold a nodule?",
    SCAN_VIEW: "Anomaly view, {threshold}: does the scan hold a nodule?",
    FROC: "FROC by LUNA16's rules: nodules found in the scans",
}


def section_title(section: str, threshold: float | None) -> str:
    """Return the heading of a section; it names the threshold that its figures depend on."""
    text = "no threshold" if threshold is None else f"threshold {threshold:.3f}"
    return _TITLES[section].format(threshold=text)


@dataclass(frozen=True)
class ResultRow:
    """One figure of the table.

    Parameters
    ----------
    section : one of ``SECTIONS``.
    label, key : what it is, and its name in ``metrics.json``.
    value : 0 to 1, except for a rate; NaN where undefined.
    interval : 95 % limits; None where none was asked for or the figure is undefined.
    is_exact : whether the limits are exact ones, because resampling shows no spread.
    counted : what it rests on, in words; ``n`` the number of independent ones.
    published : the paper's value; None where it has none.
    unit : ``PERCENT``, ``NUMBER`` (0 to 1, as AUROC and CPM are written), or ``PER_100``.
    """

    section: str
    label: str
    key: str
    value: float
    interval: Interval | None
    is_exact: bool
    counted: str
    n: int
    published: float | None = None
    unit: str = PERCENT

    @property
    def is_few(self) -> bool:
        """Whether the figure rests on so little that only its interval says something."""
        return self.n < FEW

    def value_text(self, value: float | None) -> str:
        """Return a value of this row as text; "-" where it is undefined."""
        if self.unit == PERCENT:
            return percent(value)
        digits = 3 if self.unit == NUMBER else 1
        return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"

    def interval_text(self) -> str:
        """Return the limits, such as "71.2 - 93.4 %"; exact ones end in an asterisk."""
        if self.interval is None:
            return "-"
        low, high = (self.value_text(limit) for limit in (self.interval.low, self.interval.high))
        return f"{low.removesuffix(' %')} - {high}{' *' if self.is_exact else ''}"


def result_rows(scores: SplitScores) -> list[ResultRow]:
    """Return all rows of the table, section by section.

    Without a threshold the figures that need one are left out.
    """
    rows = [*_size_band_rows(scores), *_anomaly_rows(scores), *_froc_rows(scores)]
    return sorted(rows, key=lambda row: SECTIONS.index(row.section))


def _size_band_rows(scores: SplitScores) -> Iterator[ResultRow]:
    counts = scores.counts
    names = [
        (TABLE_1, "AP50", "AP"),
        (TABLE_1, "AR50", "AR"),
        (MEAN_IOU, "AP", "AP"),
        (MEAN_IOU, "AR", "AR"),
    ]
    if scores.options.threshold is not None:
        names += [(AT_THRESHOLD, name, name) for name in ("precision", "recall", "F1")]
    every = scores.matched.bands[0].band
    yield _row(
        scores,
        TABLE_1,
        "F1 of AP and AR",
        "paper_F1",
        _boxes_text(counts["n_distinct"], counts["n_nodules"]),
        counts["n_distinct"],
        published=published_value("paper_F1", every),
    )
    for section, name, label in names:
        for matches in scores.matched.bands:
            suffix = key_suffix(matches.band.name)
            n = counts[f"n_distinct{suffix}"]
            counted = _boxes_text(n, counts[f"n_nodules{suffix}"])
            if name == "precision":
                n = counts[f"n_kept{suffix}"]
                counted = f"{_many(n, 'box', 'boxes')} found"
            yield _row(
                scores,
                section,
                f"{label}, {band_label(matches.band)}",
                f"{name}{suffix}",
                counted,
                n,
                published=published_value(f"{name}{suffix}", matches.band),
            )


def _boxes_text(n_nodules: int, n_boxes: int) -> str:
    return f"{_many(n_nodules, 'nodule')} ({_many(n_boxes, 'box', 'boxes')})"


def _many(n: int, one: str, many: str = "") -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"


def _anomaly_rows(scores: SplitScores) -> Iterator[ResultRow]:
    for section, unit in ((SLAB_VIEW, "slab"), (SCAN_VIEW, "scan")):
        positive = scores.counts[f"n_positive_{unit}s"]
        healthy = scores.counts[f"n_healthy_{unit}s"]
        both = f"{positive} with, {healthy} without"
        fewer = min(positive, healthy)
        yield _row(scores, section, "AUROC", f"{unit}_AUROC", both, fewer, unit=NUMBER)
        yield _row(scores, section, "average precision", f"{unit}_AP", both, positive)
        if scores.options.threshold is None:
            continue
        with_nodule, without = f"{positive} with a nodule", f"{healthy} without"
        key = f"{unit}_sensitivity"
        yield _row(scores, section, "sensitivity", key, with_nodule, positive)
        yield _row(scores, section, "specificity", f"{unit}_specificity", without, healthy)
        label, key = f"false alarms per 100 {unit}s", f"{unit}_false_alarms_per_100"
        yield _row(scores, section, label, key, without, healthy, unit=PER_100)


def _froc_rows(scores: SplitScores) -> Iterator[ResultRow]:
    n = scores.counts["n_froc_nodules"]
    counted = _many(n, "nodule")
    for rate in FP_RATES:
        shown = f"1/{1 / rate:g}" if rate < 1 else f"{rate:g}"
        label = f"sensitivity at {shown} FP per scan"
        yield _row(scores, FROC, label, f"sensitivity_at_{rate:g}", counted, n, unit=NUMBER)
    yield _row(scores, FROC, "CPM, mean of the seven", "CPM", counted, n, unit=NUMBER)


def _row(
    scores: SplitScores,
    section: str,
    label: str,
    key: str,
    counted: str,
    n: int,
    *,
    published: float | None = None,
    unit: str = PERCENT,
) -> ResultRow:
    value = scores.figures[key]
    interval, is_exact = _limits(value, scores.intervals.get(key), n, unit)
    return ResultRow(section, label, key, value, interval, is_exact, counted, n, published, unit)


def _limits(
    value: float, interval: Interval | None, n: int, unit: str
) -> tuple[Interval | None, bool]:
    """Return the limits to show, and whether they are exact ones instead of resampled ones."""
    if interval is None or math.isnan(value) or n < 1:
        return None, False
    if interval.share_defined > 0 and interval.high - interval.low > 1e-9:
        return interval, False
    # Every resample gives the same figure: all found, none found, or one scan only.
    if unit == PER_100:
        return poisson_interval(round(value * n / 100), n / 100), True
    return binomial_interval(value, n), True
