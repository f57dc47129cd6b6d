"""Going on with an interrupted run."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.training.pretrained import drop_pretrained

AUTO = "auto"


def resume_from(config: Config, choice: str) -> bool:
    """Let a run go on from a checkpoint.

    Parameters
    ----------
    config : its ``resume`` and ``load_from`` are set where there is something to resume.
    choice : a checkpoint, or "auto" for the latest in the work directory.

    Returns
    -------
    bool
        False where "auto" found nothing, as when a run ended before its first checkpoint; the run
        then starts anew and needs its initial weights.

    Raises
    ------
    LungDetError
        If the checkpoint is not there.
    """
    source = choice
    if choice == AUTO:
        if not (Path(config.work_dir) / "last_checkpoint").is_file():
            return False
        source = find_latest_checkpoint(config.work_dir)
    if not Path(source).is_file():
        raise LungDetError(
            f"cannot resume from {source!r}: no such checkpoint; name one with --resume CHECKPOINT"
        )
    config.resume = True
    config.load_from = str(source)
    drop_pretrained(config)
    return True
