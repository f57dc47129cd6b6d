# SPDX-License-Identifier: Apache-2.0
"""Which score threshold a test applies, and where it comes from."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_scores import OperatingPoint, operating_point_of

NOTABLE_SHIFT = 0.05
"""A precision that sparser slabs change by less is not worth a warning."""


@dataclass(frozen=True)
class AppliedThreshold:
    """A threshold (None: there is none) and one sentence that says where it comes from.

    ``point`` is the checkpoint's operating point where that is the source.
    """

    value: float | None
    source: str
    point: OperatingPoint | None = None

    def warnings(self, *, data: str, split: str, boxes_per_slab: float) -> list[str]:
        """Return what has to be said about using it on this data and split.

        Parameters
        ----------
        data, split : what it is applied to.
        boxes_per_slab : how many nodule boxes come on a slab there.
        """
        if self.value is None:
            return [f"Threshold: {self.source}."]
        if self.point is None:
            return []
        warnings = []
        if self.point.data != data:
            warnings.append(
                f"The threshold was chosen on {self.point.data} data and is applied to {data} data."
            )
        if (self.point.data, self.point.split) == (data, split):
            warnings.append(
                f"The threshold was chosen on the {split} split, which it is applied to here: "
                "precision, recall and F1 flatter the model."
            )
        expected = self.point.expected_precision(boxes_per_slab)
        if expected is not None and self.point.precision is not None:
            shift = expected - self.point.precision
            if abs(shift) >= NOTABLE_SHIFT:
                before = 100 * self.point.n_nodules / self.point.n_slabs
                warnings.append(
                    f"The threshold was chosen where 100 slabs show {before:.1f} nodule boxes; "
                    f"here they show {100 * boxes_per_slab:.1f}. With as many false alarms per "
                    f"slab, precision goes from {100 * self.point.precision:.0f} % to about "
                    f"{100 * expected:.0f} %."
                )
        return warnings


def applied_threshold(
    checkpoint: Mapping[str, Any], *, given: float | None = None
) -> AppliedThreshold:
    """Choose between the threshold given on the command line and the checkpoint's own.

    Parameters
    ----------
    checkpoint : as ``read_checkpoint`` returns it.
    given : overrides what the checkpoint holds.

    Raises
    ------
    LungDetError
        When the given threshold is no score, or the stored one cannot be used.
    """
    if given is not None:
        if not 0.0 <= given <= 1.0:
            raise LungDetError(f"--threshold {given}: a score lies within 0 and 1")
        return AppliedThreshold(given, f"{given:.4g}, given by --threshold")
    point = operating_point_of(checkpoint)
    if point is not None:
        return AppliedThreshold(point.threshold, point.describe(), point)
    published = checkpoint.get("threshold")
    if isinstance(published, float):
        return AppliedThreshold(published, f"{published:.4g}, the published model's own")
    return AppliedThreshold(
        None,
        "none, since the checkpoint carries no operating point; nothing is said of precision, "
        "recall and false alarms at a threshold. Validate in training, or give --threshold",
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint for what it says about itself; its tensors stay on disk.

    A training checkpoint is trusted, as the runner that loads it for the test does.

    Raises
    ------
    LungDetError
        When it is missing or cannot be read.
    """
    if not path.is_file():
        raise LungDetError(f"{path}: no such checkpoint; train one with `lungdet train`")
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise LungDetError(
            f"{path}: cannot be read as a checkpoint ({error}); copy it again, or train anew"
        ) from error
    if not isinstance(content, dict):
        raise LungDetError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content
