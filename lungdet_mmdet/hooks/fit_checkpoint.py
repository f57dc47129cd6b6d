"""Start from a checkpoint of another set of classes."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lungdet_mmdet.errors import LungDetError

MIN_SHARE = 0.5


@HOOKS.register_module()
class FitCheckpointHook(Hook):
    """Takes from ``load_from`` what fits the model and leaves the rest as initialised.

    A detector of 80 classes has heads of 80 rows; a detector of nodules has one. Does nothing when
    a run is resumed.

    Parameters
    ----------
    min_share : least share of the model's values that the checkpoint has to give.

    Raises
    ------
    LungDetError
        If it gives less: the checkpoint is of another model.
    """

    def __init__(self, min_share: float = MIN_SHARE) -> None:
        self.min_share = min_share

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drop the tensors that do not fit and log what is initialised anew."""
        if runner._resume:
            return
        model = getattr(runner.model, "module", runner.model)
        wanted = model.state_dict()
        given: dict[str, torch.Tensor] = checkpoint.get("state_dict", checkpoint)
        unfit = [k for k, v in given.items() if k in wanted and v.shape != wanted[k].shape]
        lines = [
            f"  {key}: {tuple(given[key].shape)} in the file, {tuple(wanted[key].shape)} here"
            for key in unfit
        ]
        for key in unfit:
            del given[key]
        absent = [key for key in wanted if key not in given and key not in unfit]
        lines += [f"  {key}: not in the file" for key in absent]
        taken = sum(value.numel() for key, value in wanted.items() if key in given)
        share = taken / max(1, sum(value.numel() for value in wanted.values()))
        source = runner.cfg.get("load_from")
        if share < self.min_share:
            raise LungDetError(
                f"{source}: gives only {share:.1%} of the model's values, so it is a checkpoint of "
                "another model; name one of the config's own architecture in load_from"
            )
        anew = "; initialised anew:" if lines else ""
        runner.logger.info(
            "\n".join([f"{source}: {share:.1%} of the model's values taken{anew}", *lines])
        )
