"""The slab-level metric: AP and AR in size bands given in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.metrics.collected import detections_of
from lungdet_mmdet.scoring.anomaly import anomaly_scores, scan_units, slab_units
from lungdet_mmdet.scoring.average_precision import size_band_counts, size_band_scores
from lungdet_mmdet.scoring.operating_point import (
    check_threshold_rule,
    choose_threshold,
    operating_point_scores,
)
from lungdet_mmdet.scoring.prediction_files import unique_by_slab, write_predictions
from lungdet_mmdet.scoring.size_bands import PAPER_BANDS_MM, size_bands
from lungdet_mmdet.scoring.slab_matching import DEFAULT_MAX_DETECTIONS, match_slabs
from lungdet_mmdet.scoring.slab_records import SlabDetections, SlabSet
from lungdet_mmdet.scoring.slab_set_file import read_slab_set


@METRICS.register_module()
class SizeBandMetric(BaseMetric):
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
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if threshold is not None and choose is not None:
            raise LungDetError(
                f"SizeBandMetric: threshold={threshold} and choose={choose!r} exclude each other; "
                "choose on the validation set, give the threshold on the test set"
            )
        if choose is not None:
            check_threshold_rule(choose)
        size_bands(bands_mm)
        self.ann_file = ann_file
        self.bands_mm = tuple(bands_mm)
        self.max_dets = max_dets
        self.count_unseen = count_unseen
        self.threshold = threshold
        self.choose = choose
        self.outfile = outfile
        self._slab_set: SlabSet | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the boxes and scores of one batch."""
        self.results.extend(detections_of(data_samples))

    def compute_metrics(self, results: list[SlabDetections]) -> dict[str, float]:
        """Return the figures of all slabs seen; the keys depend on the options alone."""
        if self._slab_set is None:
            self._slab_set = read_slab_set(self.ann_file)
        detections = unique_by_slab(results)
        if self.outfile is not None:
            write_predictions(self.outfile, self._slab_set, detections)
        matched = match_slabs(
            self._slab_set,
            detections,
            edges_mm=self.bands_mm,
            max_detections=self.max_dets,
            count_unseen=self.count_unseen,
        )
        figures = size_band_scores(matched)
        metrics = {key: float(values[0]) for key, values in figures.items()}
        threshold = self.threshold
        if self.choose is not None:
            threshold = choose_threshold(matched, self.choose)
        if threshold is not None:
            metrics["threshold"] = threshold
            at_threshold = operating_point_scores(matched, threshold)
            metrics.update({key: float(values[0]) for key, values in at_threshold.items()})
        for units in (slab_units, scan_units):
            view = anomaly_scores(units(self._slab_set, detections), threshold=threshold)
            metrics.update({key: float(values[0]) for key, values in view.items()})
        metrics.update({key: float(n) for key, n in size_band_counts(matched).items()})
        return metrics
