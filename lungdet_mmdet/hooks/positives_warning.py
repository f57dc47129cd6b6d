"""Say before the first iteration that a set holds no nodule."""

from __future__ import annotations

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


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
