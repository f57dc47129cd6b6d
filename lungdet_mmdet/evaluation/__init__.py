# SPDX-License-Identifier: Apache-2.0
"""Metrics in the evaluation loop, and the evaluation of a trained run."""

from lungdet_mmdet.evaluation.metrics import FROCMetric, MaskBandMetric, SizeBandMetric

__all__ = ["FROCMetric", "MaskBandMetric", "SizeBandMetric"]
