"""A whole detector to start from, possibly trained on other classes."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.training.pretrained import drop_pretrained, why_unreachable

FIT_HOOK = "FitCheckpointHook"


def start_from(config: Config, source: str) -> None:
    """Let a run start from a checkpoint's weights; what does not fit is initialised anew.

    Parameters
    ----------
    config : its ``load_from`` is set, and the hook added that logs what does not fit.
    source : path or URL of the checkpoint. Loading a checkpoint can run code that is hidden in it:
        name only files whose makers you trust.

    Raises
    ------
    LungDetError
        If the file is missing or the URL does not answer.
    """
    if source.startswith(("http://", "https://")):
        reason = why_unreachable(source)
        remedy = "download it elsewhere and give its path with --load-from"
    else:
        reason = None if Path(source).is_file() else "no such file"
        remedy = "give the path or URL of a checkpoint with --load-from"
    if reason:
        raise LungDetError(f"the initial checkpoint cannot be had: {source} ({reason}); {remedy}")
    config.load_from = source
    hooks = config.get("custom_hooks") or []
    if all(hook["type"] != FIT_HOOK for hook in hooks):
        config.custom_hooks = [*hooks, dict(type=FIT_HOOK)]
    # Its own weights would be overwritten at once.
    drop_pretrained(config)
