# SPDX-License-Identifier: Apache-2.0
"""The results of a test as rows: the paper's table beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lungdet_mmdet.scoring.froc import FP_RATES
from lungdet_mmdet.scoring.intervals import (
    Interval,
    interval_text,
    limits_to_show,
)
from lungdet_mmdet.scoring.slab_records import SizeBand, SlabSet, size_bands
from lungdet_mmdet.scoring.slab_scores import key_suffix
from lungdet_mmdet.scoring.split_scores import LOCATION, SplitScores, group_names

PUBLISHED = {
    "paper_F1": 0.942,  # the harmonic mean of AP50 and AR50
    "AP50": 0.933,
    "AP50_small": 0.784,
    "AP50_medium": 0.967,
    "AP50_large": 0.978,
    "AR50": 0.952,
    "AR50_small": 0.833,
    "AR50_medium": 0.970,
    "AR50_large": 0.992,
}
"""On LUNA16, with the paper's own split."""


def published_value(key: str, band: SizeBand) -> float | None:
    """Return the paper's value of a figure, None where the paper has none for this band of sizes.

    A band of the same name but other limits is another band.
    """
    return PUBLISHED.get(key) if band in size_bands() else None


def band_label(band: SizeBand) -> str:
    """Return a band's name with its limits in mm, such as "medium (7-15 mm)"."""
    if band.name == "all":
        return "all sizes"
    limits, is_named = band.limits_text, band.name in ("small", "medium", "large")
    return f"{band.name} ({limits})" if is_named else limits


def percent(value: float | None) -> str:
    """Return a share as per cent with one digit, or "-" where it is not defined (None, NaN)."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f} %"


FEW = 30
"""Under this number of nodules, slabs or boxes a figure is marked: read its interval."""
TABLE_1, AT_THRESHOLD, MEAN_IOU = "table_1", "at_threshold", "mean_iou"
LOCATED = "located"
PERCENT, NUMBER, PER_100 = "percent", "number", "per_100"
SLAB_VIEW, SCAN_VIEW, FROC, RATED = "slab_view", "scan_view", "froc", "rated"
SECTIONS = (TABLE_1, AT_THRESHOLD, MEAN_IOU, SLAB_VIEW, SCAN_VIEW, FROC, LOCATED, RATED)
_TITLES = {
    TABLE_1: "Table 1 of the paper: boxes on slabs, IoU 0.5",
    AT_THRESHOLD: "Boxes on slabs at {threshold}, IoU 0.5",
    MEAN_IOU: "Boxes on slabs, mean over IoU 0.5 to 0.95",
    SLAB_VIEW: "Anomaly view, {threshold}: does the slab hold a nodule?",
    SCAN_VIEW: "Anomaly view, {threshold}: does the scan hold a nodule?",
    RATED: "By the readers' ratings: AP at IoU 0.5 on slabs, sensitivity at 1 FP per scan",
    LOCATED: "By where a nodule sits: AP at IoU 0.5 on slabs, sensitivity at 1 FP per scan",
    FROC: "FROC by LUNA16's rules: nodules found in the scans",
}


def section_title(section: str, threshold: float | None) -> str:
    """Return the heading of a section; it names the threshold that its figures depend on."""
    return _TITLES[section].format(threshold=threshold_text(threshold))


def threshold_text(threshold: float | None) -> str:
    """Return a threshold in a few words, for titles."""
    return "no threshold" if threshold is None else f"threshold {threshold:.3f}"


@dataclass(frozen=True)
class ResultRow:
    """One figure of the table.

    Parameters
    ----------
    section : one of ``SECTIONS``.
    label, key : what it is, and its name in ``metrics.json``.
    value : 0 to 1, except for a rate; NaN where undefined.
    interval : 95 % limits; None where none was asked for or the figure is undefined.
    counted : what it rests on, in words; ``n`` the number of independent ones.
    published : the paper's value; None where it has none.
    unit : ``PERCENT``, ``NUMBER`` (0 to 1, as AUROC and CPM are written), or ``PER_100``.
    """

    section: str
    label: str
    key: str
    value: float
    interval: Interval | None
    counted: str
    n: int
    published: float | None = None
    unit: str = PERCENT

    @property
    def is_exact(self) -> bool:
        """Whether the limits are exact ones, because resampling shows no spread."""
        return self.interval is not None and self.interval.is_exact

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
        return interval_text(self.interval, self.value_text)


def result_rows(scores: SplitScores) -> list[ResultRow]:
    """Return all rows of the table, section by section.

    Without a threshold the figures that need one are left out.
    """
    rows = [
        *_size_band_rows(scores),
        *_anomaly_rows(scores),
        *_froc_rows(scores),
        *_rated_rows(scores),
    ]
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
    yield from _ceiling_rows(scores)


def _ceiling_rows(scores: SplitScores) -> Iterator[ResultRow]:
    """What geometry allows: no model, so no interval; without it a cap passes for a weak model."""
    ceiling = scores.ceiling
    for z_from, values in (("depth", ceiling.depth), ("mid-plane", ceiling.midplane)):
        if values is None:
            continue
        for band in (matches.band for matches in scores.matched.bands):
            label = f"ceiling ({z_from}), {band_label(band)}"
            key = f"ceiling_{z_from.replace('-', '')}{key_suffix(band.name)}"
            n, value = ceiling.n_nodules[band.name], values[band.name]
            counted = _many(n, "nodule")
            yield ResultRow(FROC, label, key, value, None, counted, n, unit=NUMBER)


def _rated_rows(scores: SplitScores) -> Iterator[ResultRow]:
    for rating, group, suffix in group_names(scores.counts):
        n, section = scores.counts[f"n{suffix}"], LOCATED if rating == LOCATION else RATED
        for name, label in (("AP50", "AP"), ("sensitivity", "sensitivity")):
            shown = f"{label}, {group if section == LOCATED else f'{rating} {group}'}"
            yield _row(scores, section, shown, f"{name}{suffix}", _many(n, "nodule"), n)


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
    per = 100.0 if unit == PER_100 else None
    interval = limits_to_show(value, scores.intervals.get(key), n, per=per)
    return ResultRow(section, label, key, value, interval, counted, n, published, unit)


LUNA16 = "LUNA16"
FEW_SCANS = 30


@dataclass(frozen=True)
class TestedRun:
    """One test of one checkpoint on one split.

    Parameters
    ----------
    data, protocol, split : what it was tested on.
    checkpoint, config : names of the files.
    threshold : the score threshold; None where none is known.
    threshold_source : one sentence: where it comes from, or why there is none.
    parameters : number of values that the model learns.
    seconds_per_slab : time of the test loop, loading included; None where not measured.
    warnings : what a reader of the figures has to know.
    labels : which labels the split has, and how many of each.
    """

    __test__ = False  # no test case, whatever its name says to pytest

    data: str
    protocol: str
    split: str
    checkpoint: str
    config: str
    threshold: float | None
    threshold_source: str
    parameters: int = 0
    seconds_per_slab: float | None = None
    warnings: tuple[str, ...] = ()
    labels: str = "not known"

    def title(self, scores: SplitScores) -> str:
        """Return protocol, data and size in one line."""
        counts = scores.counts
        return (
            f"{self.data} data, {self.protocol} protocol, {self.split} split: "
            f"{counts['n_slabs']} slabs of {counts['n_scans']} scans"
        )


def data_warnings(info: Mapping[str, Any], scores: SplitScores, *, data: str) -> list[str]:
    """Return what a reader has to know about the split before comparing its figures.

    Parameters
    ----------
    info : the "info" of the annotation file.
    """
    counts = scores.counts
    warnings = []
    if data != LUNA16:
        warnings.append(
            f"The data is {data}, not LUNA16: the paper's values stand beside ours to show the "
            "layout of Table 1, not to be compared with."
        )
    if info.get("complete_series") is False:
        warnings.append(
            "The split does not hold all slabs of its scans: false positives per scan, and with "
            "them CPM, are those of the slabs kept, and look better than on whole scans."
        )
    if info.get("protocol") == "paper":
        warnings.append(
            "Paper protocol: slabs of one scan may stand on both sides of the split, so the "
            "figures are those of partly known scans."
        )
    if counts["n_unseen"]:
        warnings.append(
            f"{counts['n_unseen']} annotated nodules lie in no slab of the split; they count as "
            "missed."
        )
    if counts["n_scans"] < FEW_SCANS:
        warnings.append(
            f"Only {counts['n_scans']} scans: resampling so few gives intervals that are rather "
            "too narrow than too wide."
        )
    return warnings


def failed_scan_warnings(slab_set: SlabSet) -> list[str]:
    """Return what scans that nobody could look at mean for the figures."""
    if not slab_set.failed:
        return []
    rule = (
        "they are not among the scans that false positives are counted over"
        if slab_set.not_looked_at
        else "by LUNA16's rules they count as scans without false positives"
    )
    return [
        f"{len(slab_set.failed)} scans could not be prepared, so nobody looked at them (e.g. "
        f"{slab_set.failed[0]}): their nodules count as missed, and {rule}."
    ]
