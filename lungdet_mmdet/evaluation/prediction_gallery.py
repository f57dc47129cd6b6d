"""The figure of slabs with what a detector found: choose them from a split, and draw them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.slab_test import (
    aim_test_at,
    annotation_file,
    run_network,
    slab_folder,
)
from lungdet_mmdet.evaluation.threshold_source import applied_threshold, read_checkpoint
from lungdet_mmdet.reports.prediction_figure import prediction_figure
from lungdet_mmdet.scoring.review_cases import representative_slabs
from lungdet_mmdet.scoring.slab_matching import MatchedSlabs, SlabOutcome, match_slabs
from lungdet_mmdet.scoring.slab_records import read_predictions
from lungdet_mmdet.splits.coco_json import read_coco, read_slab_set


def draw_gallery(
    config: Config,
    checkpoint: Path,
    *,
    split: str = "test",
    count: int = 6,
    threshold: float | None = None,
    predictions: Path | None = None,
) -> bytes:
    """Draw Figure 3 for a checkpoint as PNG.

    Parameters
    ----------
    config : as read by ``read_config``.
    checkpoint : weights to load, and the threshold they carry.
    split : "test" or "val".
    count : number of slabs.
    threshold : overrides the checkpoint's operating point.
    predictions : detections of an earlier test of this split; None runs the model.

    Raises
    ------
    LungDetError
        If there is no threshold, nothing to show, or the model cannot be run.
    """
    if count < 1:
        raise LungDetError(f"--count {count}: ask for at least one slab")
    content = read_checkpoint(checkpoint)
    applied = applied_threshold(content, given=threshold)
    if applied.value is None:
        raise LungDetError(
            f"{checkpoint}: no operating point in it, so hits and misses cannot be told apart; "
            "give --threshold"
        )
    aim_test_at(config, split)
    coco, slab_set = read_coco(annotation_file(config)), read_slab_set(annotation_file(config))
    if not slab_set.slabs:
        raise LungDetError(
            f"{annotation_file(config)}: no slab in this split; prepare more scans, or make the "
            "splits again with data_prep/make_splits.py"
        )
    matched = (
        _detected(config, checkpoint, content, applied.value)
        if predictions is None
        else match_slabs(slab_set, read_predictions(predictions))
    )
    chosen = representative_slabs(matched.outcomes, threshold=applied.value, count=count)
    if not chosen:
        raise LungDetError(
            f"{annotation_file(config)}: no slab with a nodule or a false positive at threshold "
            f"{applied.value:.3f}; lower it with --threshold"
        )
    return prediction_figure(
        chosen,
        _slab_files(coco, slab_folder(config), chosen),
        notes=[
            f"{slab_set.info['data']} data, {slab_set.info['protocol']} protocol, {split} split; "
            f"{checkpoint.name}, threshold {applied.value:.2f}",
            _selection_note(matched.outcomes, chosen),
        ],
    )


def _detected(
    config: Config, checkpoint: Path, content: Mapping[str, Any], threshold: float
) -> MatchedSlabs:
    with tempfile.TemporaryDirectory() as folder:
        config.work_dir = folder
        matched = run_network(config, checkpoint, content, threshold=threshold).matched
    if matched is None:
        raise LungDetError("figures are drawn by a run of one process; start it without a launcher")
    return matched


def _slab_files(
    coco: Mapping[str, Any], folder: Path, outcomes: Sequence[SlabOutcome]
) -> list[Path]:
    names = {item["id"]: item["file_name"] for item in coco["images"]}
    return [folder / names[outcome.slab.img_id] for outcome in outcomes]


def _selection_note(outcomes: Sequence[SlabOutcome], chosen: Sequence[SlabOutcome]) -> str:
    positives = sum(outcome.slab.has_nodule for outcome in outcomes)
    shown = sum(outcome.slab.has_nodule for outcome in chosen)
    note = f"{shown} of {positives} slabs with a nodule, from best to worst score"
    alarms = len(chosen) - shown
    return f"{note}; {alarms} loudest false alarms" if alarms else note
