"""What every run does to its detector before the first batch."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lungdet_mmdet.engine.runtime import bare_model
from lungdet_mmdet.ops.attention_choice import describe_attention
from lungdet_mmdet.ops.detr_heads import run_heads_in_full_precision


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
