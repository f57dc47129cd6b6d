"""Run a checkpoint over a split and print the paper's table."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.atomic_files import write_json
from lungdet_mmdet.scoring.paper_table import table_rows
from lungdet_mmdet.training.precision import fall_back_from_amp
from lungdet_mmdet.training.pretrained import drop_pretrained

PREDICTIONS_NAME = "predictions.json"
METRICS_NAME = "metrics.json"
METRIC_PREFIX = "lung/"


@dataclass(frozen=True)
class SlabTestOutcome:
    """What a test gave.

    Parameters
    ----------
    metrics : figures without prefix, see ``SizeBandMetric``.
    coco : the split's annotations.
    predictions_path : detections of every slab.
    slab_folder : where the slab images lie.
    split, data, protocol : what was tested on.
    checkpoint : the checkpoint.
    """

    metrics: dict[str, float]
    coco: dict[str, Any]
    predictions_path: Path
    slab_folder: Path
    split: str
    data: str
    protocol: str
    checkpoint: Path


def run_slab_test(
    config: Config, checkpoint: Path, *, split: str, predictions: Path | None = None
) -> SlabTestOutcome:
    """Test a checkpoint on a split.

    Parameters
    ----------
    config : as read by ``read_config``.
    checkpoint : weights to load.
    split : "test" or "val".
    predictions : where to write the detections; None means ``<work_dir>/predictions.json``.

    Raises
    ------
    LungDetError
        If the checkpoint is missing.
    """
    if not Path(checkpoint).is_file():
        raise LungDetError(f"{checkpoint}: no such checkpoint; train one with tools/train.py")
    predictions_path = predictions or Path(config.work_dir) / PREDICTIONS_NAME
    if split == "val":
        config.test_dataloader = config.val_dataloader
        config.test_evaluator = config.val_evaluator
    evaluator = config.test_evaluator
    for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
        if metric.type == "SizeBandMetric":
            metric.outfile = str(predictions_path)
    fall_back_from_amp(config)
    drop_pretrained(config)
    config.load_from = str(checkpoint)
    metrics = Runner.from_cfg(config).test()

    dataset = config.test_dataloader.dataset
    root = Path(dataset.get("data_root", ""))
    coco = json.loads((root / dataset.ann_file).read_text(encoding="utf-8"))
    return SlabTestOutcome(
        metrics={
            key.removeprefix(METRIC_PREFIX): value
            for key, value in metrics.items()
            if key.startswith(METRIC_PREFIX)
        },
        coco=coco,
        predictions_path=predictions_path,
        slab_folder=root / dataset.data_prefix["img"],
        split=split,
        data=coco["info"]["data"],
        protocol=coco["info"]["protocol"],
        checkpoint=Path(checkpoint),
    )


def print_table(outcome: SlabTestOutcome, console: Console | None = None) -> None:
    """Print Table 1: the paper's value beside the measured one, with the data named."""
    metrics = outcome.metrics
    table = Table(
        title=f"Table 1, measured on {outcome.data} data ({outcome.split} split, "
        f"{outcome.protocol} protocol, {metrics['n_scans']:.0f} scans, "
        f"{metrics['n_slabs']:.0f} slabs)",
        title_justify="left",
        caption="n = annotated nodule boxes. The paper's values are for LUNA16 and its own split.",
        caption_justify="left",
    )
    table.add_column("metric")
    table.add_column("paper (LUNA16)", justify="right")
    table.add_column(f"measured ({outcome.data})", justify="right")
    table.add_column("n", justify="right")
    for row in table_rows(metrics):
        table.add_row(*row)
    (console or Console()).print(table)


def write_metrics(outcome: SlabTestOutcome, folder: Path) -> Path:
    """Write ``metrics.json``; undefined figures (NaN) become null."""
    path = folder / METRICS_NAME
    write_json(
        path,
        {
            "data": outcome.data,
            "protocol": outcome.protocol,
            "split": outcome.split,
            "checkpoint": outcome.checkpoint.name,
            "metrics": {
                key: None if math.isnan(value) else value
                for key, value in sorted(outcome.metrics.items())
            },
        },
    )
    return path
