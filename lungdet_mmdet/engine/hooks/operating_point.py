"""Stores the threshold chosen on the validation set in the checkpoint of that very validation."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lungdet_mmdet.runs.atomic_files import write_bytes
from lungdet_mmdet.scoring.intervals import finite_or_none
from lungdet_mmdet.scoring.operating_point import META_KEY, OperatingPoint
from lungdet_mmdet.splits.coco_json import read_slab_set


@HOOKS.register_module()
class OperatingPointHook(Hook):
    """Keeps ``checkpoint["meta"]["operating_point"]`` in step with the weights.

    The threshold is the one that a ``SizeBandMetric(choose=...)`` of the validation reports. It is
    written into every checkpoint of the same iteration, and into no other: the best checkpoint is
    saved after the validation and gets it on saving; the regular one is saved before and is
    rewritten, whole or not at all. A checkpoint without a validation of its own carries none.
    """

    # Before CheckpointHook (VERY_LOW), which saves the best checkpoint after the validation.
    priority = "BELOW_NORMAL"

    def __init__(self) -> None:
        self._point: OperatingPoint | None = None
        self._told = False

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Read the chosen threshold, and add it to the checkpoint saved before this validation."""
        metric = _choosing_metric(runner)
        if metric is None:
            self._tell_once(runner, "no validation metric chooses a threshold: the checkpoints "
                            "carry no operating point")  # fmt: skip
            return
        self._point = _chosen_point(runner, metric, metrics or {})
        if self._point is None:
            runner.logger.warning(
                f"no threshold could be chosen by {metric.choose} on this validation: its "
                "checkpoints carry no operating point"
            )
            return
        runner.logger.info(f"operating point: {self._point.describe()}")
        last = runner.message_hub.runtime_info.get("last_ckpt")
        if last is not None and is_main_process():
            _add_to_file(Path(last), self._point)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the operating point to a checkpoint of the iteration it was chosen at."""
        meta = checkpoint["meta"]
        meta.pop(META_KEY, None)
        if self._point is not None and meta["iter"] == self._point.iteration:
            meta[META_KEY] = self._point.as_record()

    def _tell_once(self, runner: Runner, message: str) -> None:
        if not self._told:
            runner.logger.log(logging.WARNING, message)
        self._told = True


def _choosing_metric(runner: Runner) -> Any:
    """Return the ``SizeBandMetric`` that chooses a threshold, known by its option; else None."""
    metrics = runner.val_loop.evaluator.metrics
    return next((m for m in metrics if getattr(m, "choose", None) is not None), None)


def _chosen_point(
    runner: Runner, metric: Any, metrics: Mapping[str, float]
) -> OperatingPoint | None:
    def figure(name: str) -> float:
        return float(metrics[f"{metric.prefix}/{name}" if metric.prefix else name])

    threshold = figure("threshold")
    if math.isnan(threshold):
        return None
    info = read_slab_set(metric.ann_file).info
    return OperatingPoint(
        threshold=threshold,
        rule=str(metric.choose),
        data=str(info.get("data", "unknown")),
        protocol=str(info.get("protocol", "unknown")),
        split=str(info.get("split") or Path(metric.ann_file).stem),
        n_scans=int(figure("n_scans")),
        n_slabs=int(figure("n_slabs")),
        n_nodules=int(figure("n_nodules")),
        precision=finite_or_none(figure("precision")),
        recall=finite_or_none(figure("recall")),
        f1=finite_or_none(figure("F1")),
        epoch=runner.epoch,
        iteration=runner.iter,
    )


def _add_to_file(path: Path, point: OperatingPoint) -> None:
    """Add the point to a saved checkpoint of the same iteration; other files are left alone."""
    if not path.is_file():
        return
    # Our own file of a moment ago: its message buffers are not plain tensors.
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    if checkpoint["meta"].get("iter") != point.iteration:
        return
    checkpoint["meta"][META_KEY] = point.as_record()
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_bytes(path, buffer.getvalue())
