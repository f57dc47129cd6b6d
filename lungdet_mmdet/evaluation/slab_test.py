"""A trained detector run over a split, scored."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner

from lungdet_mmdet.engine.runtime import fall_back_from_amp
from lungdet_mmdet.engine.starting_point import drop_pretrained
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation import FROCMetric, SizeBandMetric
from lungdet_mmdet.evaluation.threshold_source import applied_threshold, read_checkpoint
from lungdet_mmdet.scoring.intervals import DEFAULT_RESAMPLES
from lungdet_mmdet.scoring.results import TestedRun, data_warnings, failed_scan_warnings
from lungdet_mmdet.scoring.slab_records import (
    SlabDetections,
    SlabSet,
    read_predictions,
    read_slab_set,
)
from lungdet_mmdet.scoring.split_scores import ScoringOptions, SplitScores, score_split
from lungdet_mmdet.scoring.submission import read_submission
from lungdet_mmdet.splits.coco_json import read_coco

METRIC_PREFIX = "lung/"


@dataclass(frozen=True)
class NetworkRun:
    """What running the network gave.

    Parameters
    ----------
    metrics : figures of the evaluators, ours without prefix.
    evaluators : the metric objects, with the options they were run with.
    parameters : number of values that the model learns.
    seconds_per_slab : mean time of the test loop per slab, loading included; None if not measured.
    """

    metrics: dict[str, float]
    evaluators: tuple[BaseMetric, ...]
    parameters: int
    seconds_per_slab: float | None


def run_network(config: Config, checkpoint: Path) -> NetworkRun:
    """Run the config's test loop with the weights of a checkpoint.

    Raises
    ------
    LungDetError
        If the checkpoint does not hold the weights of the config's model.
    """
    fall_back_from_amp(config)
    drop_pretrained(config)
    config.load_from = str(checkpoint)
    runner = Runner.from_cfg(config)
    model = getattr(runner.model, "module", runner.model)
    _check_weights(model, checkpoint)
    metrics = runner.test()
    return NetworkRun(
        metrics={key.removeprefix(METRIC_PREFIX): value for key, value in metrics.items()},
        evaluators=tuple(runner.test_loop.evaluator.metrics),
        parameters=sum(p.numel() for p in model.parameters()),
        seconds_per_slab=_seconds_per_slab(runner),
    )


def _check_weights(model: torch.nn.Module, checkpoint: Path) -> None:
    """Refuse weights of another model: mmengine would only warn, and test random values."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
    given = content.get("state_dict", content)
    wanted = model.state_dict()
    unfit = [key for key, value in wanted.items() if _shape(given.get(key)) != value.shape]
    if unfit:
        raise LungDetError(
            f"{checkpoint}: {len(unfit)} of the model's {len(wanted)} weights are not in it, or of "
            f"another shape (first: {unfit[0]}); give the config that it was trained with"
        )


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, torch.Tensor) else None


def _seconds_per_slab(runner: Runner) -> float | None:
    timed = runner.message_hub.log_scalars.get("test/time")
    if timed is None or not len(timed.data[0]):
        return None
    share = len(runner.test_dataloader.dataset) / get_world_size()
    return float(timed.data[0].sum()) / max(share, 1.0)


def aim_test_at(config: Config, split: str) -> None:
    """Let a config's test run on "test" or "val", whose data then take the test data's place."""
    if split == "val":
        config.test_dataloader = config.val_dataloader
        config.test_evaluator = config.val_evaluator


def annotation_file(config: Config) -> Path:
    """Return the annotation file of the test data."""
    dataset = config.test_dataloader.dataset
    if not dataset.get("ann_file"):
        raise LungDetError(
            f"{config.filename}: test_dataloader.dataset has no ann_file of its own (its type is "
            f"{dataset.type}); test on a plain LUNA16SlabDataset"
        )
    return Path(dataset.get("data_root") or "") / dataset.ann_file


def slab_folder(config: Config) -> Path:
    """Return the folder that the file names of the test data's slabs are relative to."""
    dataset = config.test_dataloader.dataset
    return Path(dataset.get("data_root") or "") / dataset.data_prefix["img"]


def evaluators_for_test(
    evaluators: Any,
    *,
    ann_file: Path,
    threshold: float | None,
    predictions: Path,
    submission: Path,
) -> list[dict]:
    """Return the config's evaluators, with our two among them, told where to write.

    No metric chooses a threshold here: that would be on the very slabs it is applied to.
    """
    metrics = [
        dict(item) for item in (evaluators if isinstance(evaluators, list) else [evaluators])
    ]
    for name in (SizeBandMetric.__name__, FROCMetric.__name__):
        if not any(metric["type"] == name for metric in metrics):
            metrics.append({"type": name, "ann_file": str(ann_file)})
    for metric in metrics:
        if metric["type"] == SizeBandMetric.__name__:
            metric.pop("choose", None)
            metric.update(threshold=threshold, outfile=str(predictions))
        elif metric["type"] == FROCMetric.__name__:
            metric.update(submission_file=str(submission))
    return metrics


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
    notes += failed_scan_warnings(slab_set)
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
