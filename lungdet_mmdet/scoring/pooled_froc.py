"""One FROC over the folds of a cross-validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.bootstrap import DEFAULT_RESAMPLES
from lungdet_mmdet.scoring.froc import FrocResult, evaluate_froc
from lungdet_mmdet.scoring.slab_records import SlabSet
from lungdet_mmdet.scoring.split_scores import match_marks_of_split
from lungdet_mmdet.scoring.submission import Marks


def pooled_marks(parts: Sequence[Marks]) -> Marks:
    """Put the marks of several files one after the other."""
    return Marks(
        seriesuids=tuple(uid for marks in parts for uid in marks.seriesuids),
        centres_xyz_mm=np.concatenate([marks.centres_xyz_mm for marks in parts]),
        scores=np.concatenate([marks.scores for marks in parts]),
        warnings=tuple(warning for marks in parts for warning in marks.warnings),
    )


def pooled_froc(
    folds: Sequence[tuple[SlabSet, Marks]],
    *,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> FrocResult:
    """Evaluate the marks of all folds as LUNA16 does: one list, one threshold for all of them.

    The scores come from one model per fold, so the pooled curve also charges for models that are
    not calibrated alike.

    Parameters
    ----------
    folds : what each fold tested on, and the marks it made there.
    n_resamples, seed : of the bootstrap over scans; 0 resamples for no intervals.

    Raises
    ------
    LungDetError
        If there is no fold, or a series was tested in two of them.
    """
    sets = [slab_set for slab_set, _ in folds]
    tested = Counter(uid for slab_set in sets for uid in slab_set.series)
    twice = sorted(uid for uid, count in tested.items() if count > 1)
    if not folds or twice:
        raise LungDetError(
            f"{len(folds)} folds, {len(twice)} series in several of them {twice[:3]}: a "
            "cross-validation tests each series once; make the splits with --protocol fold"
        )
    together = SlabSet(
        slabs={},
        series=tuple(tested),
        nodules=tuple(item for slab_set in sets for item in slab_set.nodules),
        excluded=tuple(item for slab_set in sets for item in slab_set.excluded),
        discarded=tuple(item for slab_set in sets for item in slab_set.discarded),
    )
    matches = match_marks_of_split(together, pooled_marks([marks for _, marks in folds]))
    return evaluate_froc(matches, n_resamples=n_resamples, seed=seed)
