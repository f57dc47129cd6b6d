"""Run a checkpoint over a split, and compute every figure of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process

from lungdet_mmdet.cohort.coco_json import read_coco
from lungdet_mmdet.metrics.froc_metric import FROCMetric
from lungdet_mmdet.metrics.size_band_metric import SizeBandMetric
from lungdet_mmdet.scoring.bootstrap import DEFAULT_RESAMPLES
from lungdet_mmdet.scoring.prediction_files import read_predictions
from lungdet_mmdet.scoring.slab_records import SlabDetections, SlabSet
from lungdet_mmdet.scoring.slab_set_file import read_slab_set
from lungdet_mmdet.scoring.split_scores import ScoringOptions, SplitScores, score_split
from lungdet_mmdet.scoring.submission import read_submission
from lungdet_mmdet.scoring.tested_run import TestedRun, data_warnings
from lungdet_mmdet.testing.network_run import NetworkRun, run_network
from lungdet_mmdet.testing.tested_split import (
    aim_test_at,
    annotation_file,
    evaluators_for_test,
    slab_folder,
)
from lungdet_mmdet.testing.threshold_source import applied_threshold, read_checkpoint

PREDICTIONS_NAME = "predictions.json"
SUBMISSION_NAME = "submission.csv"


@dataclass(frozen=True)
class SlabTestOutcome:
    """What a test gave.

    Parameters
    ----------
    run : what was tested.
    metrics : figures of the config's evaluators without our prefix, see ``SizeBandMetric``.
    scores : the same figures with intervals, and what plots are drawn from.
    coco : the split's annotations, parsed; ``slab_set`` the same as records.
    detections : boxes of every slab.
    predictions_path, submission_path : files with boxes, and with 3-D candidates.
    slab_folder : where the slab images lie.
    seconds : of the network and of the scoring.
    """

    run: TestedRun
    metrics: dict[str, float]
    scores: SplitScores
    coco: dict[str, Any]
    slab_set: SlabSet
    detections: list[SlabDetections]
    predictions_path: Path
    submission_path: Path
    slab_folder: Path
    seconds: dict[str, float]


def run_slab_test(
    config: Config,
    checkpoint: Path,
    *,
    split: str,
    predictions: Path | None = None,
    threshold: float | None = None,
    n_resamples: int = DEFAULT_RESAMPLES,
    warnings: tuple[str, ...] = (),
) -> SlabTestOutcome | None:
    """Test a checkpoint on a split.

    Parameters
    ----------
    config : as read by ``read_config``.
    checkpoint : weights to load.
    split : "test" or "val".
    predictions : where to write the detections; None means ``<work_dir>/predictions.json``.
    threshold : overrides the checkpoint's operating point.
    n_resamples : resamples of the scans for the 95 % intervals; 0 for none.
    warnings : said before, to be kept with the figures.

    Returns
    -------
    SlabTestOutcome or None
        None in all but the first process of a distributed run.

    Raises
    ------
    LungDetError
        If the checkpoint is missing, or is one of another model.
    """
    began = time.perf_counter()
    content = read_checkpoint(Path(checkpoint))
    applied = applied_threshold(content, given=threshold)
    work_dir = Path(config.work_dir)
    predictions_path = predictions or work_dir / PREDICTIONS_NAME
    submission_path = work_dir / SUBMISSION_NAME
    aim_test_at(config, split)
    ann_file = annotation_file(config)
    config.test_evaluator = evaluators_for_test(
        config.test_evaluator,
        ann_file=ann_file,
        threshold=applied.value,
        predictions=predictions_path,
        submission=submission_path,
    )
    network = run_network(config, Path(checkpoint))
    if not is_main_process():
        return None
    loaded = time.perf_counter()
    coco = read_coco(ann_file)
    slab_set = read_slab_set(ann_file)
    detections = read_predictions(predictions_path)
    marks = read_submission(submission_path, series=slab_set.series)
    options = scoring_options(network, applied.value, n_resamples)
    scores = score_split(slab_set, detections, marks, options)
    run = TestedRun(
        data=coco["info"]["data"],
        protocol=coco["info"]["protocol"],
        split=split,
        checkpoint=Path(checkpoint).name,
        config=Path(config.filename).name if config.filename else "",
        threshold=applied.value,
        threshold_source=applied.source,
        parameters=network.parameters,
        seconds_per_slab=network.seconds_per_slab,
    )
    notes = data_warnings(coco["info"], scores, data=run.data)
    notes += applied.warnings(data=run.data, split=run.split)
    run = replace(run, warnings=(*notes, *warnings))
    return SlabTestOutcome(
        run=run,
        metrics=network.metrics,
        scores=scores,
        coco=coco,
        slab_set=slab_set,
        detections=detections,
        predictions_path=predictions_path,
        submission_path=submission_path,
        slab_folder=slab_folder(config),
        seconds={
            "network": round(loaded - began, 3),
            "scoring": round(time.perf_counter() - loaded, 3),
        },
    )


def scoring_options(
    network: NetworkRun, threshold: float | None, n_resamples: int
) -> ScoringOptions:
    """Return the options that the config's own metrics were run with."""
    bands = next(item for item in network.evaluators if isinstance(item, SizeBandMetric))
    froc = next(item for item in network.evaluators if isinstance(item, FROCMetric))
    return ScoringOptions(
        bands_mm=bands.bands_mm,
        max_dets=bands.max_dets,
        count_unseen=bands.count_unseen,
        max_marks_per_scan=froc.max_candidates,
        threshold=threshold,
        n_resamples=n_resamples,
    )
