# SPDX-License-Identifier: Apache-2.0
"""Registered metrics: thin adapters between the evaluation loop and the scoring functions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from pycocotools import mask as coco_mask

from lungdet_mmdet.annotations.tables import PAPER_BANDS_MM
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.candidates import candidates_by_series
from lungdet_mmdet.scoring.froc import (
    FP_RATES,
    MAX_MARKS_PER_SCAN,
    FrocMatches,
    FrocResult,
    evaluate_froc,
    match_marks_of_split,
)
from lungdet_mmdet.scoring.run_files import (
    Marks,
    marks_of_candidates,
    write_predictions,
    write_submission,
)
from lungdet_mmdet.scoring.slab_matching import DEFAULT_MAX_DETECTIONS, MatchedSlabs, match_slabs
from lungdet_mmdet.scoring.slab_outcomes import scan_units, slab_units
from lungdet_mmdet.scoring.slab_records import (
    SlabDetections,
    SlabSet,
    missing_depths_note,
    read_depths,
    size_bands,
    unique_by_slab,
    with_depths,
)
from lungdet_mmdet.scoring.slab_scores import (
    check_threshold_rule,
    choose_threshold,
    size_band_counts,
    size_band_scores,
)
from lungdet_mmdet.scoring.split_scores import split_figures
from lungdet_mmdet.splits.coco_json import read_slab_set


def detections_of(data_samples: Sequence[Mapping[str, Any]]) -> list[SlabDetections]:
    """Return one record per data sample.

    Required keys of each sample: ``img_id`` and ``pred_instances`` with ``bboxes`` (N, 4) xyxy in
    slab pixels and ``scores`` (N,). ``seriesuid`` and ``slab_index``, where it has them, say which
    slab it is.
    """
    records = []
    for sample in data_samples:
        found = sample["pred_instances"]
        records.append(
            SlabDetections(
                img_id=int(sample["img_id"]),
                # double(): numpy does not know bfloat16, which mixed precision may leave behind.
                boxes_xyxy_px=found["bboxes"].detach().cpu().double().numpy(),
                scores=found["scores"].detach().cpu().double().numpy(),
                seriesuid=sample.get("seriesuid"),
                slab_index=sample.get("slab_index"),
            )
        )
    return records


class SplitMetric(BaseMetric):
    """What the metrics of a split share: its annotation file, read once, and its boxes.

    Parameters
    ----------
    ann_file : COCO json of the split that the dataset reads.
    collect_device : "gpu" gathers by messages over any backend; "cpu" writes files that all
        machines of a run would have to share.
    prefix, collect_dir : see mmengine's BaseMetric.
    """

    def __init__(
        self,
        ann_file: str,
        *,
        collect_device: str = "gpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.ann_file = ann_file

    @cached_property
    def slab_set(self) -> SlabSet:
        """The annotations."""
        return self._checked(read_slab_set(self.ann_file))

    def _checked(self, slab_set: SlabSet) -> SlabSet:
        return slab_set

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the boxes and scores of one batch."""
        self.results.extend(detections_of(data_samples))


@METRICS.register_module()
class SizeBandMetric(SplitMetric):
    """AP and AR at IoU 0.5 and 0.5:0.95, over all nodules and per size band, with counts.

    Beside them the anomaly view: how well slabs and scans with a nodule are told from healthy ones.

    Required Keys of each data sample:

    - img_id (int)
    - pred_instances.bboxes (float tensor, (N, 4), xyxy in slab pixels)
    - pred_instances.scores (float tensor, (N,))

    Parameters
    ----------
    ann_file : COCO json of the split that the dataset reads.
    bands_mm : limits of the size bands in mm; a diameter of exactly a limit is in the lower band.
    max_dets : best-scoring detections of each slab that are looked at.
    count_unseen : whether annotated nodules that lie in no slab count as missed.
    threshold : score threshold chosen earlier; adds precision, recall and F1 at it, and the
        anomaly view's sensitivity, specificity and false alarms.
    choose : rule by which to choose the threshold on these very slabs, "max_f1" or
        "sensitivity>=0.9": for the validation set only. Excludes ``threshold``.
    outfile : where to write the detections of every slab as json; None writes nothing.
    keep : whether ``detections`` and ``matched`` hold what was scored, for who goes on with it.

    Raises
    ------
    LungDetError
        At construction for bad options; at the end of a run for an unusable annotation file.
    """

    default_prefix = "lung"

    def __init__(
        self,
        ann_file: str,
        bands_mm: Sequence[float] = PAPER_BANDS_MM,
        *,
        max_dets: int = DEFAULT_MAX_DETECTIONS,
        count_unseen: bool = True,
        threshold: float | None = None,
        choose: str | None = None,
        outfile: str | None = None,
        keep: bool = False,
        **gathering: Any,
    ) -> None:
        super().__init__(ann_file, **gathering)
        if threshold is not None and choose is not None:
            raise LungDetError(
                f"SizeBandMetric: threshold={threshold} and choose={choose!r} exclude each other; "
                "choose on the validation set, give the threshold on the test set"
            )
        if choose is not None:
            check_threshold_rule(choose)
        size_bands(bands_mm)
        self.bands_mm = tuple(bands_mm)
        self.max_dets = max_dets
        self.count_unseen = count_unseen
        self.threshold = threshold
        self.choose = choose
        self.outfile = outfile
        self.keep = keep
        self.detections: list[SlabDetections] = []
        self.matched: MatchedSlabs | None = None

    def figure_names(self) -> list[str]:
        """Return the names of the figures: those of a split on which nothing was found."""
        nothing = [SlabDetections(n, np.zeros((0, 4)), np.zeros(0)) for n in self.slab_set.slabs]
        return list(self._figures(nothing))

    def compute_metrics(self, results: list[SlabDetections]) -> dict[str, float]:
        """Return the figures of all slabs seen; the keys depend on the options alone."""
        detections = unique_by_slab(results)
        self.slab_set.seen_by(detections)
        if self.outfile is not None:
            write_predictions(self.outfile, self.slab_set, detections)
        return self._figures(detections)

    def _figures(self, detections: list[SlabDetections]) -> dict[str, float]:
        matched = match_slabs(
            self.slab_set,
            detections,
            edges_mm=self.bands_mm,
            max_detections=self.max_dets,
            count_unseen=self.count_unseen,
        )
        if self.keep:
            self.detections, self.matched = detections, matched
        threshold = self.threshold
        if self.choose is not None:
            threshold = choose_threshold(matched, self.choose)
        units = [make(self.slab_set, detections) for make in (slab_units, scan_units)]
        figures = split_figures(matched, units, threshold)
        metrics = {key: float(values[0]) for key, values in figures.items()}
        if threshold is not None:
            metrics["threshold"] = threshold
        return metrics | {key: float(n) for key, n in size_band_counts(matched).items()}


FROC_COUNTS = (
    "n_scans", "n_nodules", "true_positives", "false_positives", "ignored", "duplicates",
)  # fmt: skip
"""What of ``FrocMatches.counts`` stands beside the figures."""


@METRICS.register_module()
class FROCMetric(SplitMetric):
    """CPM and the seven sensitivities of LUNA16's evaluation, over all scans of the split.

    Required Keys of each data sample:

    - img_id (int)
    - pred_instances.bboxes (float tensor, (N, 4), xyxy in slab pixels)
    - pred_instances.scores (float tensor, (N,))

    - img_path (str), for the depth of the maximum, which lies beside the slab

    Where the slabs lie in the world is read from the annotation file. Slabs without a depth give
    candidates on their mid-planes, and a warning says how many.

    Parameters
    ----------
    ann_file : COCO json of the split that the dataset reads.
    min_score : boxes under it are left out before merging.
    min_iou, max_gap_slabs : see ``merge_slab_detections``.
    max_candidates : candidates kept per scan.
    submission_file : where to write the candidates as a LUNA16 submission; None writes nothing.
    bootstrap : number of resamples for the 95 % interval of CPM (keys ``CPM_ci95_low`` and
        ``CPM_ci95_high``); 0 leaves it out.
    keep : whether ``matches`` holds what was scored, for who goes on with it.
    """

    default_prefix = "lung"

    def __init__(
        self,
        ann_file: str,
        *,
        min_score: float = 0.0,
        min_iou: float = 0.2,
        max_gap_slabs: float = 1.0,
        max_candidates: int = MAX_MARKS_PER_SCAN,
        submission_file: str | None = None,
        bootstrap: int = 0,
        keep: bool = False,
        **gathering: Any,
    ) -> None:
        super().__init__(ann_file, **gathering)
        self.min_score = min_score
        self.min_iou = min_iou
        self.max_gap_slabs = max_gap_slabs
        self.max_candidates = max_candidates
        self.submission_file = submission_file
        self.bootstrap = bootstrap
        self.keep = keep
        self.matches: FrocMatches | None = None
        self.marks: Marks | None = None

    def figure_names(self) -> list[str]:
        """Return the names of the figures, without computing any."""
        intervals = ("CPM_ci95_low", "CPM_ci95_high") if self.bootstrap else ()
        return [
            *("CPM", *intervals),
            *(f"sensitivity_at_{rate:g}" for rate in FP_RATES),
            *(f"froc_{name}" for name in FROC_COUNTS),
        ]

    def _checked(self, slab_set: SlabSet) -> SlabSet:
        """Refuse a file that knows boxes but not the nodules they come from."""
        if not slab_set.nodules and any(slab.has_nodule for slab in slab_set.slabs.values()):
            raise LungDetError(
                f"{self.ann_file}: has nodule boxes but no list 'nodules'; make the splits again "
                "with this version of the package"
            )
        return slab_set

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the boxes of one batch, their scores and their positions along z."""
        for sample, found in zip(data_samples, detections_of(data_samples), strict=True):
            self.results.append(self._placed(sample, found))

    def _placed(self, sample: Mapping[str, Any], found: SlabDetections) -> SlabDetections:
        slab = self.slab_set.slabs.get(found.img_id)
        if slab is None or not slab.depth_file_name or not sample.get("img_path"):
            return found
        beside = Path(sample["img_path"]).with_name(Path(slab.depth_file_name).name)
        return with_depths(found, slab, read_depths(beside))

    def merge(self, seen: SlabSet, detections: Sequence[SlabDetections]) -> Marks:
        """Merge boxes into candidates by this metric's options."""
        per_scan = candidates_by_series(
            seen.slabs,
            detections,
            min_score=self.min_score,
            min_iou=self.min_iou,
            max_gap_slabs=self.max_gap_slabs,
            max_candidates=self.max_candidates,
        )
        return marks_of_candidates(item for items in per_scan.values() for item in items)

    def compute_metrics(self, results: list[SlabDetections]) -> dict[str, float]:
        """Return CPM, the seven sensitivities and the counts of all scans seen."""
        detections = unique_by_slab(results)
        note = missing_depths_note(sum(d.z_mm is None for d in detections), len(detections))
        if note is not None:
            print_log(f"{self.ann_file}: {note}.", logger="current", level=logging.WARNING)
        seen = self.slab_set.seen_by(detections)
        marks = self.merge(seen, detections)
        if self.submission_file is not None:
            write_submission(self.submission_file, marks)
        matches = match_marks_of_split(seen, marks, max_marks_per_scan=self.max_candidates)
        if self.keep:
            self.matches, self.marks = matches, marks
        return _figures(evaluate_froc(matches, n_resamples=self.bootstrap))


def _figures(result: FrocResult) -> dict[str, float]:
    figures = {"CPM": result.cpm}
    if result.cpm_interval is not None:
        figures["CPM_ci95_low"] = result.cpm_interval.low
        figures["CPM_ci95_high"] = result.cpm_interval.high
    for rate, sensitivity in zip(FP_RATES, result.sensitivities, strict=True):
        figures[f"sensitivity_at_{rate:g}"] = sensitivity
    counts = result.matches.counts()
    return figures | {f"froc_{name}": float(counts[name]) for name in FROC_COUNTS}


@METRICS.register_module()
class MaskBandMetric(SplitMetric):
    """AP and AR of masks at IoU 0.5 and 0.5:0.95, over all nodules and per size band.

    The keys are those of SizeBandMetric, with the prefix ``mask``.

    Required Keys of each data sample:

    - img_id (int)
    - pred_instances.masks (bool tensor, (N, y, x))
    - pred_instances.bboxes (float tensor, (N, 4)), pred_instances.scores (float tensor, (N,))

    Parameters
    ----------
    ann_file : COCO json of the split, with segmentations.
    bands_mm : limits of the size bands in mm.
    max_dets : best-scoring detections of each slab that are looked at.

    Raises
    ------
    LungDetError
        At the end of a run for an annotation file without segmentations.
    """

    default_prefix = "mask"

    def __init__(
        self,
        ann_file: str,
        bands_mm: Sequence[float] = PAPER_BANDS_MM,
        *,
        max_dets: int = DEFAULT_MAX_DETECTIONS,
        **gathering: Any,
    ) -> None:
        super().__init__(ann_file, **gathering)
        size_bands(bands_mm)
        self.bands_mm = tuple(bands_mm)
        self.max_dets = max_dets

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the boxes, scores and outlines of one batch."""
        for sample, found in zip(data_samples, detections_of(data_samples), strict=True):
            masks = sample["pred_instances"]["masks"].detach().cpu().numpy().astype(np.uint8)
            rles = tuple(coco_mask.encode(np.asfortranarray(mask)) for mask in masks)
            self.results.append(replace(found, rles=rles))

    def compute_metrics(self, results: list[SlabDetections]) -> dict[str, float]:
        """Return the figures of all slabs seen; the keys do not depend on what was found."""
        matched = match_slabs(
            self.slab_set,
            unique_by_slab(results),
            edges_mm=self.bands_mm,
            max_detections=self.max_dets,
            by_mask=True,
        )
        return {key: float(values[0]) for key, values in size_band_scores(matched).items()}
