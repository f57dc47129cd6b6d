"""The slab-level metric of models that outline nodules: AP and AR of masks by size band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from pycocotools import mask as coco_mask

from lungdet_mmdet.evaluation.metrics import SplitMetric, detections_of
from lungdet_mmdet.scoring.average_precision import size_band_scores
from lungdet_mmdet.scoring.size_bands import PAPER_BANDS_MM, size_bands
from lungdet_mmdet.scoring.slab_matching import DEFAULT_MAX_DETECTIONS, match_slabs
from lungdet_mmdet.scoring.slab_records import SlabDetections, unique_by_slab


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
