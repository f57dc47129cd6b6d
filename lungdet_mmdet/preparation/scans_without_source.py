"""Prepared scans whose source is no longer in the input folder.

Whoever lacks the space for all of LUNA16 prepares it subset by subset into one output folder, so
such scans are kept and counted as long as the pipeline and the code are those they were made with.
Once these change, the scans cannot be prepared again; left in place they would mix two kinds of
images in one dataset. They are moved aside, never deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.execution.atomic_files import output_error
from lungdet_mmdet.preparation.prep_pipeline import code_version
from lungdet_mmdet.preparation.resume import SLAB_FOLDER, pipeline_digest, read_record

OUTDATED_FOLDER = "outdated"


@dataclass(frozen=True)
class ScansWithoutSource:
    """Series UIDs of scans that are still right (kept), and of those moved aside (outdated)."""

    kept: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()


def sort_out(out_dir: Path, present: Collection[str], steps: list[dict]) -> ScansWithoutSource:
    """Find prepared scans without a source and move aside those that are out of date.

    Parameters
    ----------
    out_dir : the prepared dataset's folder.
    present : series UIDs in the input folder.
    steps : the prep pipeline.

    Raises
    ------
    OutputError
        If a folder cannot be moved.
    """
    slabs = out_dir / SLAB_FOLDER
    if not slabs.is_dir():
        return ScansWithoutSource()
    kept, outdated = [], []
    now = {"pipeline": pipeline_digest(steps), "code": code_version()}
    for folder in sorted(slabs.iterdir()):
        if folder.name in present or folder.name.startswith(".") or not folder.is_dir():
            continue
        record = read_record(folder)
        before = (record or {}).get("fingerprint", {})
        if all(before.get(key) == value for key, value in now.items()):
            kept.append(folder.name)
        else:
            _move_aside(folder, out_dir / OUTDATED_FOLDER / folder.name)
            outdated.append(folder.name)
    return ScansWithoutSource(tuple(kept), tuple(outdated))


def _move_aside(folder: Path, target: Path) -> None:
    try:
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        os.rename(folder, target)
    except OSError as error:
        raise output_error(target, error) from error
