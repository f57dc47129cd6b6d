"""Registered metrics: thin adapters between the evaluation loop and the scoring functions."""

from lungdet_mmdet.metrics.froc_metric import FROCMetric
from lungdet_mmdet.metrics.size_band_metric import SizeBandMetric

__all__ = ["FROCMetric", "SizeBandMetric"]
