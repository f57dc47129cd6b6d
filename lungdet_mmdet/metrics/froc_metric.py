"""The scan-level metric: FROC and CPM of 3-D candidates merged from the slabs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.metrics.collected import detections_of
from lungdet_mmdet.scoring.candidates import candidates_by_series
from lungdet_mmdet.scoring.froc import FP_RATES, FrocResult, evaluate_froc
from lungdet_mmdet.scoring.mark_matching import MAX_MARKS_PER_SCAN
from lungdet_mmdet.scoring.prediction_files import unique_by_slab
from lungdet_mmdet.scoring.slab_records import SlabDetections, SlabSet
from lungdet_mmdet.scoring.slab_set_file import read_slab_set
from lungdet_mmdet.scoring.split_scores import match_marks_of_split
from lungdet_mmdet.scoring.submission import marks_of_candidates, write_submission


@METRICS.register_module()
class FROCMetric(BaseMetric):
    """CPM and the seven sensitivities of LUNA16's evaluation, over all scans of the split.

    Required Keys of each data sample:

    - img_id (int)
    - pred_instances.bboxes (float tensor, (N, 4), xyxy in slab pixels)
    - pred_instances.scores (float tensor, (N,))

    Where the slabs lie in the world is read from the annotation file.

    Parameters
    ----------
    ann_file : COCO json of the split that the dataset reads.
    min_score : boxes under it are left out before merging.
    min_iou, max_gap_slabs : see ``merge_slab_detections``.
    max_candidates : candidates kept per scan.
    submission_file : where to write the candidates as a LUNA16 submission; None writes nothing.
    bootstrap : number of resamples for the 95 % interval of CPM (keys ``CPM_ci95_low`` and
        ``CPM_ci95_high``); 0 leaves it out.
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
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.ann_file = ann_file
        self.min_score = min_score
        self.min_iou = min_iou
        self.max_gap_slabs = max_gap_slabs
        self.max_candidates = max_candidates
        self.submission_file = submission_file
        self.bootstrap = bootstrap
        self._slab_set: SlabSet | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the boxes and scores of one batch."""
        self.results.extend(detections_of(data_samples))

    def compute_metrics(self, results: list[SlabDetections]) -> dict[str, float]:
        """Return CPM, the seven sensitivities and the counts of all scans seen."""
        if self._slab_set is None:
            self._slab_set = _with_scan_truth(read_slab_set(self.ann_file), self.ann_file)
        detections = unique_by_slab(results)
        seen = self._slab_set.restricted_to(item.img_id for item in detections)
        per_scan = candidates_by_series(
            seen.slabs,
            detections,
            min_score=self.min_score,
            min_iou=self.min_iou,
            max_gap_slabs=self.max_gap_slabs,
            max_candidates=self.max_candidates,
        )
        marks = marks_of_candidates(item for items in per_scan.values() for item in items)
        if self.submission_file is not None:
            write_submission(self.submission_file, marks)
        matches = match_marks_of_split(seen, marks, max_marks_per_scan=self.max_candidates)
        return _figures(evaluate_froc(matches, n_resamples=self.bootstrap))


def _with_scan_truth(slab_set: SlabSet, ann_file: str) -> SlabSet:
    """Refuse a file that knows boxes but not the nodules they come from."""
    if not slab_set.nodules and any(slab.has_nodule for slab in slab_set.slabs.values()):
        raise LungDetError(
            f"{ann_file}: has nodule boxes but no list 'nodules'; make the splits again with this "
            "version of the package"
        )
    return slab_set


def _figures(result: FrocResult) -> dict[str, float]:
    figures = {"CPM": result.cpm}
    if result.cpm_interval is not None:
        figures["CPM_ci95_low"] = result.cpm_interval.low
        figures["CPM_ci95_high"] = result.cpm_interval.high
    for rate, sensitivity in zip(FP_RATES, result.sensitivities, strict=True):
        figures[f"sensitivity_at_{rate:g}"] = sensitivity
    matches = result.matches
    return figures | {
        "froc_n_scans": float(len(matches.series)),
        "froc_n_nodules": float(matches.true_positives + matches.false_negatives),
        "froc_true_positives": float(matches.true_positives),
        "froc_false_positives": float(matches.false_positives),
        "froc_ignored": float(matches.ignored),
        "froc_duplicates": float(matches.duplicates),
    }
