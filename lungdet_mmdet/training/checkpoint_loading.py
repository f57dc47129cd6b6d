"""Checkpoints of OpenMMLab's own mmengine under a new torch."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from lungdet_mmdet.errors import LungDetError


def let_mmengine_read_its_checkpoints() -> bool:
    """Make mmengine 0.10.7 load local checkpoints with torch 2.6 or newer.

    Since 2.6 ``torch.load`` reads plain weights only unless told otherwise, and a checkpoint of
    mmengine holds its logs, so this mmengine cannot read what it has just written. Its maintained
    continuation falls back by itself; this does the same for the original, through the registry
    that mmengine has for it. Loading a training checkpoint runs code that is in it either way.

    Returns
    -------
    bool
        Whether there was something to do.
    """
    if hasattr(mmengine_checkpoint, "_safe_torch_load"):
        return False
    # The prefix of local files is empty.
    CheckpointLoader.register_scheme(prefixes="", loader=_load_local, force=True)
    return True


def _load_local(filename: str, map_location: Any = None) -> dict:
    try:
        return torch.load(filename, map_location=map_location, weights_only=False)
    except FileNotFoundError:
        raise LungDetError(f"{filename}: no such checkpoint") from None
