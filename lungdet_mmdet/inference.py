# SPDX-License-Identifier: Apache-2.0
"""The detector by its short name: ``from lungdet_mmdet.inference import ScanDetector``."""

from lungdet_mmdet.apis.scan_detector import ScanDetector, ScanFindings

__all__ = ["ScanDetector", "ScanFindings"]
