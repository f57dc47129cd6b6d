"""Metrics in the evaluation loop, and the evaluation of a trained run."""

from lungdet_mmdet.evaluation.mask_band_metric import MaskBandMetric
from lungdet_mmdet.evaluation.metrics import FROCMetric, SizeBandMetric

__all__ = ["FROCMetric", "MaskBandMetric", "SizeBandMetric"]
