"""The score threshold that travels with a checkpoint, and what it was chosen on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lungdet_mmdet.errors import LungDetError

META_KEY = "operating_point"
"""Its place in a checkpoint: ``checkpoint["meta"]["operating_point"]``."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on box scores and the slabs that it was chosen on.

    Parameters
    ----------
    threshold : boxes scoring this or more are kept, within 0 and 1.
    rule : how it was chosen, see ``choose_threshold``.
    data, protocol, split : what it was chosen on.
    n_scans, n_slabs, n_nodules : how much that was; nodules are counted per slab that shows them.
    precision, recall, f1 : what it gave there; a little better than on new data, for it was chosen
        there. None where undefined.
    epoch, iteration : of the training, when it was chosen.
    """

    threshold: float
    rule: str
    data: str = ""
    protocol: str = ""
    split: str = ""
    n_scans: int = 0
    n_slabs: int = 0
    n_nodules: int = 0
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    epoch: int | None = None
    iteration: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and 0.0 <= self.threshold <= 1.0):
            raise LungDetError(
                f"operating point with threshold {self.threshold}: a score threshold lies within 0 "
                "and 1"
            )

    def as_record(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint or json."""
        return asdict(self)

    def describe(self) -> str:
        """Return one line: the threshold and where it comes from."""
        chosen_on = f"{self.data} data, {self.protocol} protocol, {self.split} split"
        counts = f"{self.n_nodules} nodule boxes on {self.n_slabs} slabs of {self.n_scans} scans"
        return f"{self.threshold:.4g}, chosen by {self.rule} on {chosen_on} ({counts})"


def operating_point_of(checkpoint: Mapping[str, Any]) -> OperatingPoint | None:
    """Return the operating point stored in a checkpoint, None where there is none.

    Parameters
    ----------
    checkpoint : as ``torch.load`` returns it.

    Raises
    ------
    LungDetError
        When one is stored that cannot be used.
    """
    meta = checkpoint.get("meta")
    record = meta.get(META_KEY) if isinstance(meta, Mapping) else None
    if record is None:
        return None
    known = {field.name for field in fields(OperatingPoint)}
    try:
        return OperatingPoint(**{key: value for key, value in record.items() if key in known})
    except (AttributeError, TypeError) as error:
        raise LungDetError(
            f"the checkpoint's operating point cannot be read ({error}): {record!r}; give the "
            "threshold yourself, or validate the model again"
        ) from error
