"""From a scan to candidates: model files, the detector, inputs and outputs."""

from lungdet_mmdet.inference.scan_detector import ScanDetector
from lungdet_mmdet.inference.scan_findings import ScanFindings

__all__ = ["ScanDetector", "ScanFindings"]
