# SPDX-License-Identifier: Apache-2.0
"""What every run does to its detector before the first batch, and checks while it trains."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lungdet_mmdet.datasets.luna16_slabs import slab_kind
from lungdet_mmdet.engine.run_setup import bare_model
from lungdet_mmdet.ops.attention_choice import describe_attention
from lungdet_mmdet.ops.detr_heads import not_finite, run_heads_in_full_precision


@HOOKS.register_module()
class DetectorSetupHook(Hook):
    """Keeps heads in single precision under mixed precision, and logs which attention runs.

    See :func:`~lungdet_mmdet.ops.detr_heads.run_heads_in_full_precision`. Runs before hooks that
    copy the model, as averages of its weights do.
    """

    priority = "HIGHEST"

    def before_run(self, runner: Runner) -> None:
        """Prepare the detector and say what it runs on."""
        model = bare_model(runner)
        run_heads_in_full_precision(model)
        device = next(model.parameters()).device
        runner.logger.info(describe_attention(device))


@HOOKS.register_module()
class PositivesWarningHook(Hook):
    """Warns where the training or the validation set has no slab with a nodule."""

    def before_train(self, runner: Runner) -> None:
        """Look at both sets once."""
        if not _has_positive(runner.train_dataloader.dataset):
            runner.logger.warning(
                "the training set has no slab with a nodule: the model can only learn to find "
                "nothing. Make the splits again with `lungdet split`"
            )
        if runner.val_loop is not None and not _has_positive(runner.val_dataloader.dataset):
            runner.logger.warning(
                "the validation set has no slab with a nodule: its scores are undefined and no "
                "best checkpoint can be chosen. Make the splits again with more scans or another "
                "--seed (`lungdet split`)"
            )


def _has_positive(dataset: Any) -> bool:
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    return any(slab_kind(info) == "positive" for info in infos)


@HOOKS.register_module()
class StopOnBadLossHook(Hook):
    """Ends training when a loss is NaN or infinite, before a checkpoint of it is saved.

    All losses leave the GPU together: one wait for an iteration.

    Parameters
    ----------
    interval : stop at every so manieth iteration only.

    Raises
    ------
    LungDetError
        Naming the losses, the iteration and every slab of the batch.
    """

    # Before mmengine's RuntimeInfoHook, which would wait for the GPU once for each loss.
    priority = "HIGHEST"

    def __init__(self, interval: int = 1) -> None:
        self.interval = interval

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Look at the losses of the iteration that has just ended, and leave them on the CPU."""
        if not outputs:
            return
        values = [torch.as_tensor(value).detach().float().mean() for value in outputs.values()]
        on_cpu = torch.stack([value.to(values[0].device) for value in values]).cpu()
        outputs.update(zip(outputs, on_cpu, strict=True))
        if torch.isfinite(on_cpu).all() or not self.every_n_train_iters(runner, self.interval):
            return
        bad = {n: v.item() for n, v in outputs.items() if not torch.isfinite(v)}
        named = ", ".join(f"{name} = {value}" for name, value in bad.items())
        metas = [sample.metainfo for sample in (data_batch or {}).get("data_samples", ())]
        raise not_finite(f"iteration {runner.iter + 1} (epoch {runner.epoch + 1}): {named}", metas)
