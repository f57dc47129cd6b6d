"""Checks of a training that runs: positives drawn, losses finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lungdet_mmdet.errors import LungDetError


@HOOKS.register_module()
class PositivesWarningHook(Hook):
    """Warns where the training or the validation set has no slab with a nodule."""

    def before_train(self, runner: Runner) -> None:
        """Look at both sets once."""
        if not _has_positive(runner.train_dataloader.dataset):
            runner.logger.warning(
                "the training set has no slab with a nodule: the model can only learn to find "
                "nothing. Make the splits again with data_prep/make_splits.py"
            )
        if runner.val_loop is not None and not _has_positive(runner.val_dataloader.dataset):
            runner.logger.warning(
                "the validation set has no slab with a nodule: its scores are undefined and no "
                "best checkpoint can be chosen. Make the splits again with more scans or another "
                "--seed (data_prep/make_splits.py)"
            )


def _has_positive(dataset: Any) -> bool:
    return any(
        not instance["ignore_flag"]
        for index in range(len(dataset))
        for instance in dataset.get_data_info(index)["instances"]
    )


@HOOKS.register_module()
class StopOnBadLossHook(Hook):
    """Ends training when a loss is NaN or infinite, before a checkpoint of it is saved.

    Parameters
    ----------
    interval : look at every so manieth iteration; looking waits for the GPU.

    Raises
    ------
    LungDetError
        Naming the losses, the iteration and every slab of the batch.
    """

    priority = "VERY_HIGH"

    def __init__(self, interval: int = 1) -> None:
        self.interval = interval

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Look at the losses of the iteration that has just ended."""
        if not outputs or not self.every_n_train_iters(runner, self.interval):
            return
        losses = {name: torch.as_tensor(value) for name, value in outputs.items()}
        bad = {n: v.mean().item() for n, v in losses.items() if not torch.isfinite(v).all()}
        if not bad:
            return
        named = ", ".join(f"{name} = {value}" for name, value in bad.items())
        slabs = "; ".join(_slab_names(data_batch or {}))
        raise LungDetError(
            f"iteration {runner.iter + 1} (epoch {runner.epoch + 1}): {named}. "
            f"Slabs of the batch: {slabs}. Look at them with tools/browse_dataset.py; if they are "
            "sound, lower optim_wrapper.optimizer.lr or train without AMP, and go on from the last "
            "checkpoint with --resume"
        )


def _slab_names(data_batch: dict) -> Sequence[str]:
    names = []
    for sample in data_batch.get("data_samples", ()):
        info = sample.metainfo
        if "seriesuid" in info:
            names.append(f"{info['seriesuid']} slab {info['slab_index']}")
        else:
            names.append(str(info.get("img_path", info.get("img_id", "?"))))
    return names
