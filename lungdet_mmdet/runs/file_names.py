"""Names of the files and folders that commands leave for one another."""

from __future__ import annotations

# A prepared folder: slabs/SERIESUID/ with images, record and preview; splits beside it.
SLAB_FOLDER = "slabs"
ANNOTATION_FOLDER = "annotations"
RECORD_NAME = "scan.json"
PREVIEW_NAME = "preview.jpg"
MANIFEST_NAME = "manifest.json"
PREP_REPORT_NAME = "prep_report.html"

# A tested model.
METRICS_NAME = "metrics.json"
PREDICTIONS_NAME = "predictions.json"
SUBMISSION_NAME = "submission.csv"

# Of a test, or of a scan that was looked at.
REPORT_NAME = "report.html"

# Of any run over many scans.
FAILURES_NAME = "failures.json"
