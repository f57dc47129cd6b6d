"""What was tested, in words: every table, plot and page names protocol, data and threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lungdet_mmdet.scoring.split_scores import SplitScores

LUNA16 = "LUNA16"
FEW_SCANS = 30


@dataclass(frozen=True)
class TestedRun:
    """One test of one checkpoint on one split.

    Parameters
    ----------
    data, protocol, split : what it was tested on.
    checkpoint, config : names of the files.
    threshold : the score threshold; None where none is known.
    threshold_source : one sentence: where it comes from, or why there is none.
    parameters : number of values that the model learns.
    seconds_per_slab : time of the test loop, loading included; None where not measured.
    warnings : what a reader of the figures has to know.
    """

    __test__ = False  # no test case, whatever its name says to pytest

    data: str
    protocol: str
    split: str
    checkpoint: str
    config: str
    threshold: float | None
    threshold_source: str
    parameters: int = 0
    seconds_per_slab: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def threshold_text(self) -> str:
        """The threshold in a few words, for titles."""
        return "no threshold" if self.threshold is None else f"threshold {self.threshold:.3f}"

    def title(self, scores: SplitScores) -> str:
        """Return protocol, data and size in one line."""
        counts = scores.counts
        return (
            f"{self.data} data, {self.protocol} protocol, {self.split} split: "
            f"{counts['n_slabs']} slabs of {counts['n_scans']} scans"
        )


def data_warnings(info: Mapping[str, Any], scores: SplitScores, *, data: str) -> list[str]:
    """Return what a reader has to know about the split before comparing its figures.

    Parameters
    ----------
    info : the "info" of the annotation file.
    """
    counts = scores.counts
    warnings = []
    if data != LUNA16:
        warnings.append(
            f"The data is {data}, not LUNA16: the paper's values stand beside ours to show the "
            "layout of Table 1, not to be compared with."
        )
    if info.get("complete_series") is False:
        warnings.append(
            "The split does not hold all slabs of its scans: false positives per scan, and with "
            "them CPM, are those of the slabs kept, and look better than on whole scans."
        )
    if info.get("protocol") == "paper":
        warnings.append(
            "Paper protocol: slabs of one scan may stand on both sides of the split, so the "
            "figures are those of partly known scans."
        )
    if counts["n_unseen"]:
        warnings.append(
            f"{counts['n_unseen']} annotated nodules lie in no slab of the split; they count as "
            "missed."
        )
    if counts["n_scans"] < FEW_SCANS:
        warnings.append(
            f"Only {counts['n_scans']} scans: resampling so few gives intervals that are rather "
            "too narrow than too wide."
        )
    return warnings
