"""``metrics.json``: every figure of a test with its interval and what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lungdet_mmdet.execution.atomic_files import write_json
from lungdet_mmdet.scoring.bootstrap import Interval
from lungdet_mmdet.scoring.paper_table import PUBLISHED
from lungdet_mmdet.scoring.result_rows import result_rows
from lungdet_mmdet.testing.slab_test import SlabTestOutcome

METRICS_NAME = "metrics.json"


def write_metrics(outcome: SlabTestOutcome, folder: Path) -> Path:
    """Write ``metrics.json``; undefined figures (NaN) become null. Returns its path."""
    path = folder / METRICS_NAME
    write_json(path, metrics_content(outcome))
    return path


def metrics_content(outcome: SlabTestOutcome) -> dict[str, Any]:
    """Return the content of ``metrics.json``."""
    run, scores = outcome.run, outcome.scores
    shown = {row.key: row for row in result_rows(scores)}
    return {
        "data": run.data,
        "protocol": run.protocol,
        "split": run.split,
        "checkpoint": run.checkpoint,
        "config": run.config,
        "parameters": run.parameters,
        "threshold": run.threshold,
        "threshold_source": run.threshold_source,
        "metrics": _finite(outcome.metrics),
        "ci95": {key: _limits(row.interval) for key, row in sorted(shown.items())},
        "ci95_exact": sorted(key for key, row in shown.items() if row.is_exact),
        "counts": dict(sorted(scores.counts.items())),
        "bootstrap": {"resamples": scores.options.n_resamples, "seed": scores.options.seed},
        "published": PUBLISHED,
        "seconds": outcome.seconds,
        "seconds_per_slab": run.seconds_per_slab,
        "warnings": list(run.warnings),
    }


def _limits(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_number(interval.low), _number(interval.high)]


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: _number(float(value)) for key, value in sorted(values.items())}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
