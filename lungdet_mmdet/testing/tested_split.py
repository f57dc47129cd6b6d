"""Which split a config's test runs on, where its files are, and which metrics score it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.metrics import FROCMetric, SizeBandMetric


def aim_test_at(config: Config, split: str) -> None:
    """Let a config's test run on "test" or "val", whose data then take the test data's place."""
    if split == "val":
        config.test_dataloader = config.val_dataloader
        config.test_evaluator = config.val_evaluator


def annotation_file(config: Config) -> Path:
    """Return the annotation file of the test data."""
    dataset = config.test_dataloader.dataset
    if not dataset.get("ann_file"):
        raise LungDetError(
            f"{config.filename}: test_dataloader.dataset has no ann_file of its own (its type is "
            f"{dataset.type}); test on a plain LUNA16SlabDataset"
        )
    return Path(dataset.get("data_root") or "") / dataset.ann_file


def slab_folder(config: Config) -> Path:
    """Return the folder that the file names of the test data's slabs are relative to."""
    dataset = config.test_dataloader.dataset
    return Path(dataset.get("data_root") or "") / dataset.data_prefix["img"]


def evaluators_for_test(
    evaluators: Any,
    *,
    ann_file: Path,
    threshold: float | None,
    predictions: Path,
    submission: Path,
) -> list[dict]:
    """Return the config's evaluators, with our two among them, told where to write.

    No metric chooses a threshold here: that would be on the very slabs it is applied to.
    """
    metrics = [
        dict(item) for item in (evaluators if isinstance(evaluators, list) else [evaluators])
    ]
    for name in (SizeBandMetric.__name__, FROCMetric.__name__):
        if not any(metric["type"] == name for metric in metrics):
            metrics.append({"type": name, "ann_file": str(ann_file)})
    for metric in metrics:
        if metric["type"] == SizeBandMetric.__name__:
            metric.pop("choose", None)
            metric.update(threshold=threshold, outfile=str(predictions))
        elif metric["type"] == FROCMetric.__name__:
            metric.update(submission_file=str(submission))
    return metrics
