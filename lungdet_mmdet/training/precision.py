"""Mixed precision where there is a GPU, plain precision where there is none."""

from __future__ import annotations

import torch
from mmengine.config import Config

AMP_WRAPPER = "AmpOptimWrapper"
_AMP_ONLY_KEYS = ("dtype", "loss_scale", "use_fsdp")


def use_amp(config: Config) -> None:
    """Ask for mixed precision, as ``--amp`` does."""
    config.optim_wrapper.type = AMP_WRAPPER
    config.optim_wrapper.setdefault("loss_scale", "dynamic")


def fall_back_from_amp(config: Config) -> str | None:
    """Turn AMP into plain precision where no GPU is there; mmengine would refuse to build it.

    Returns
    -------
    str or None
        One line for the log, None where nothing had to change.
    """
    wrapper = config.get("optim_wrapper")
    if not wrapper or wrapper.get("type") != AMP_WRAPPER or torch.cuda.is_available():
        return None
    wrapper.type = "OptimWrapper"
    for key in _AMP_ONLY_KEYS:
        wrapper.pop(key, None)
    return "no GPU here: mixed precision (AMP) is off, training in 32-bit floats"
