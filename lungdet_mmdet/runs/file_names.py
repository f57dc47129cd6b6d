# SPDX-License-Identifier: Apache-2.0
"""Names of the files and folders that commands leave for one another."""

from __future__ import annotations

# A folder in the layout of LUNA16.
ANNOTATION_TABLE = "annotations.csv"
EXCLUDED_TABLE = "annotations_excluded.csv"
SERIES_TABLE = "seriesuids.csv"
SUBSET_TABLE = "subset_of_series.csv"
PATIENT_TABLE = "patients.csv"
LUNG_MASK_FOLDER = "seg-lungs-LUNA16"
NODULE_MASK_FOLDER = "nodule_masks"

# A folder of nodule masks: label volumes in a folder, the readers' ratings in a table beside it.
MASK_FOLDER = "masks"
RATING_TABLE = "nodules.csv"

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
INDEX_NAME = "index.html"

# Of any run over many scans.
FAILURES_NAME = "failures.json"
