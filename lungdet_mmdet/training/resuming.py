"""Going on with an interrupted run."""

from __future__ import annotations

import re
from pathlib import Path

from mmengine.config import Config

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
        latest = latest_checkpoint(Path(config.work_dir))
        if latest is None:
            return False
        source = str(latest)
    if not Path(source).is_file():
        raise LungDetError(
            f"cannot resume from {source!r}: no such checkpoint; name one with --resume CHECKPOINT"
        )
    config.resume = True
    config.load_from = str(source)
    drop_pretrained(config)
    return True


def latest_checkpoint(work_dir: Path) -> Path | None:
    """Return the checkpoint that a run in this folder goes on from, or None without any.

    It is the one that mmengine's note names. Where the note was cut off, or the folder has been
    moved since, it is the one of the highest epoch or iteration.
    """
    try:
        noted = Path((work_dir / "last_checkpoint").read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        noted = Path()
    if noted.is_file():
        return noted
    numbered = {
        int(match[1]): path
        for path in work_dir.glob("*.pth")
        if (match := re.fullmatch(r"(?:epoch|iter)_(\d+)\.pth", path.name))
    }
    return numbered[max(numbered)] if numbered else None
