"""The backbone's pretrained weights: found before anything is built, or one clear message."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import torch
from mmengine.config import Config

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.offline import OFFLINE_VARIABLE, is_offline

REACH_TIMEOUT_S = 10.0
_THREE_WAYS_OUT = (
    "There are three ways out:\n"
    "  --pretrained PATH   a local copy of the file\n"
    "  --pretrained none   start from random weights\n"
    "  --pretrained URL    another address of the same weights"
)


def cached_copy(url: str) -> Path:
    """Return where torch keeps its copy of a downloaded file (it need not be there)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def why_unreachable(url: str) -> str | None:
    """Return why a URL cannot be fetched, or None where it answers or is cached already."""
    if cached_copy(url).is_file():
        return None
    if is_offline():
        return f"{OFFLINE_VARIABLE} is set"
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=REACH_TIMEOUT_S):
            return None
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def choose_pretrained(config: Config, choice: str | None) -> None:
    """Set the backbone's weights: "none", a local path, a URL, or None for the config's own.

    Raises
    ------
    LungDetError
        If the weights are missing or unreachable; the message lists the three ways out.
    """
    backbone = config.model.get("backbone")
    if backbone is None:
        return
    if choice is not None:
        is_none = choice.lower() == "none"
        backbone.init_cfg = None if is_none else dict(type="Pretrained", checkpoint=choice)
    init_cfg = backbone.get("init_cfg")
    if not init_cfg or init_cfg.get("type") != "Pretrained":
        return
    source = init_cfg["checkpoint"]
    if source.startswith(("http://", "https://")):
        reason = why_unreachable(source)
    else:
        reason = None if Path(source).is_file() else "no such file"
    if reason:
        raise LungDetError(
            f"the backbone's pretrained weights cannot be had: {source} ({reason}).\n"
            f"{_THREE_WAYS_OUT}"
        )


def drop_pretrained(config: Config) -> None:
    """Forget the backbone's initial weights: a checkpoint is about to overwrite them."""
    if config.model.get("backbone"):
        config.model.backbone.init_cfg = None
