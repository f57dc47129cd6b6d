# SPDX-License-Identifier: Apache-2.0
"""A trained detector run over a split, scored."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner, load_state_dict

from lungdet_mmdet.engine.run_setup import (
    QuietRunner,
    bare_model,
    drop_pretrained,
    fall_back_from_amp,
    trained_checkpoint,
)
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation import FROCMetric, SizeBandMetric
from lungdet_mmdet.evaluation.trained_checkpoint import (
    applied_threshold,
    read_checkpoint,
    what_slabs_differ,
)
from lungdet_mmdet.runs.files import PREDICTIONS_NAME, SUBMISSION_NAME
from lungdet_mmdet.scoring.ceiling import ReadDepths
from lungdet_mmdet.scoring.froc import FrocMatches, cpm_difference, match_marks_of_split
from lungdet_mmdet.scoring.intervals import DEFAULT_RESAMPLES
from lungdet_mmdet.scoring.results import TestedRun, data_warnings, failed_scan_warnings
from lungdet_mmdet.scoring.slab_matching import MatchedSlabs
from lungdet_mmdet.scoring.slab_records import (
    SlabDetections,
    SlabSet,
    missing_depths_note,
    read_depths,
)
from lungdet_mmdet.scoring.split_scores import ScoringOptions, SplitScores, score_split
from lungdet_mmdet.splits.coco_checks import (
    label_text,
    learnt_series,
    series_digest,
    series_of,
    split_name,
    summarise,
)
from lungdet_mmdet.splits.coco_json import read_coco, read_slab_set

METRIC_PREFIX = "lung/"


@dataclass(frozen=True)
class NetworkRun:
    """What running the network gave.

    Parameters
    ----------
    metrics : figures of the evaluators, ours without prefix.
    detections, matched, matches : what the figures of our two metrics were computed from; nothing
        in all but the first process of a distributed run.
    parameters : number of values that the model learns.
    seconds_per_slab : mean time of the test loop per slab, loading included; None if not measured.
    froc : the metric that merged boxes into candidates, with its options.
    """

    metrics: dict[str, float]
    detections: list[SlabDetections]
    matched: MatchedSlabs | None
    matches: FrocMatches | None
    parameters: int
    seconds_per_slab: float | None
    froc: FROCMetric


def run_network(
    config: Config,
    checkpoint: Path,
    content: Mapping[str, Any],
    *,
    threshold: float | None,
    predictions: Path | None = None,
) -> NetworkRun:
    """Run the config's test loop with the weights of a checkpoint.

    Parameters
    ----------
    config : candidates are written into its work directory.
    checkpoint, content : the file, and what ``read_checkpoint`` read from it.
    threshold : of the figures that need one.
    predictions : where to write the detections; None means into the work directory.

    Raises
    ------
    LungDetError
        If the checkpoint does not hold the weights of the config's model.
    """
    work_dir = Path(config.work_dir)
    config.test_evaluator = evaluators_for_test(
        config.test_evaluator,
        ann_file=annotation_file(config),
        threshold=threshold,
        predictions=predictions or work_dir / PREDICTIONS_NAME,
        submission=work_dir / SUBMISSION_NAME,
    )
    fall_back_from_amp(config)
    drop_pretrained(config)
    config.load_from, config.resume = None, False
    runner = QuietRunner.from_cfg(config)
    model = bare_model(runner)
    _check_weights(model, checkpoint, content)
    runner.register_hook(_LoadedWeights(content))
    metrics = runner.test()
    evaluators = runner.test_loop.evaluator.metrics
    bands = next(item for item in evaluators if isinstance(item, SizeBandMetric))
    froc = next(item for item in evaluators if isinstance(item, FROCMetric))
    return NetworkRun(
        metrics={key.removeprefix(METRIC_PREFIX): value for key, value in metrics.items()},
        detections=bands.detections,
        matched=bands.matched,
        matches=froc.matches,
        parameters=sum(p.numel() for p in model.parameters()),
        seconds_per_slab=_seconds_per_slab(runner),
        froc=froc,
    )


class _LoadedWeights(Hook):
    """Gives the model the weights of a checkpoint that is read already.

    The runner would read the file again. Last in ``before_run``, as the runner's own loading comes
    after it: a hook with averaged weights has made room for them by then.
    """

    priority = "LOWEST"

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content

    def before_run(self, runner: Runner) -> None:
        """Load the weights, and let the other hooks take theirs."""
        runner.call_hook("after_load_checkpoint", checkpoint=self.content)
        weights = _weights(self.content)
        load_state_dict(bare_model(runner), weights, strict=False, logger=runner.logger)


def _weights(content: Mapping[str, Any]) -> Mapping[str, Any]:
    return content.get("state_dict", content)


def _check_weights(model: torch.nn.Module, checkpoint: Path, content: Mapping[str, Any]) -> None:
    """Refuse weights of another model: mmengine would only warn, and test random values."""
    given = _weights(content)
    wanted = model.state_dict()
    unfit = [key for key, value in wanted.items() if _shape(given.get(key)) != value.shape]
    if unfit:
        raise LungDetError(
            f"{checkpoint}: {len(unfit)} of the model's {len(wanted)} weights are not in it, or of "
            f"another shape (first: {unfit[0]}); give the config that it was trained with "
            "(training leaves a copy of it in its work folder, overrides included)"
        )


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, torch.Tensor) else None


def _seconds_per_slab(runner: Runner) -> float | None:
    timed = runner.message_hub.log_scalars.get("test/time")
    if timed is None or not len(timed.data[0]):
        return None
    share = len(runner.test_dataloader.dataset) / get_world_size()
    return float(timed.data[0].sum()) / max(share, 1.0)


def _what_was_seen(
    checkpoint: Path, content: Mapping[str, Any], coco: Mapping[str, Any]
) -> str | None:
    """Say so where a checkpoint has learnt from series that it is to be tested on."""
    learnt = learnt_series(content)
    tested = {uid: learnt.get(series_digest(uid)) for uid in series_of(coco)}
    # The paper's protocol parts slabs, not series: within one split of it no slab is shared.
    own = split_name(coco) if coco["info"].get("protocol") == "paper" else None
    seen = sorted(uid for uid, name in tested.items() if name not in (None, own))
    if not seen:
        return None
    return (
        f"{checkpoint}: has learnt from {len(seen)} of the {len(tested)} series of this split, "
        f"e.g. {seen[0]}; the splits were made again after the training: train again on them, or "
        "test all the same with --allow-leak"
    )


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
    """Return the config's evaluators, with our two among them, told where to write and to keep.

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
            metric.update(threshold=threshold, outfile=str(predictions), keep=True)
        elif metric["type"] == FROCMetric.__name__:
            metric.update(submission_file=str(submission), keep=True)
    return metrics


@dataclass(frozen=True)
class SlabTestOutcome:
    """What a test gave.

    Parameters
    ----------
    run : what was tested.
    metrics : figures of the config's evaluators without our prefix, see ``SizeBandMetric``.
    scores : the same figures with intervals, and what plots are drawn from.
    coco : the split's annotations, parsed.
    detections : boxes of every slab.
    submission_path : the file with the 3-D candidates.
    slab_folder : where the slab images lie.
    seconds : of the network and of the scoring.
    depth_gain : CPM with depth against mid-plane in a sentence, where it was asked for.
    """

    run: TestedRun
    metrics: dict[str, float]
    scores: SplitScores
    coco: dict[str, Any]
    detections: list[SlabDetections]
    submission_path: Path
    slab_folder: Path
    seconds: dict[str, float]
    depth_gain: str = ""


def run_slab_test(
    config: Config,
    checkpoint: Path,
    *,
    split: str,
    predictions: Path | None = None,
    threshold: float | None = None,
    n_resamples: int = DEFAULT_RESAMPLES,
    warnings: tuple[str, ...] = (),
    compare_midplane: bool = False,
    allow_leak: bool = False,
) -> SlabTestOutcome | None:
    """Test a checkpoint on a split.

    Parameters
    ----------
    config : as read by ``read_config``.
    checkpoint : weights to load, or the work directory of a training: its best, else its latest.
    split : "test" or "val".
    predictions : where to write the detections; None means ``<work_dir>/predictions.json``.
    threshold : overrides the checkpoint's operating point.
    n_resamples : resamples of the scans for the 95 % intervals; 0 for none.
    warnings : said before, to be kept with the figures.
    compare_midplane : also score the same boxes with their candidates on the mid-planes.
    allow_leak : only warn where the checkpoint has learnt from a series of the split.

    Returns
    -------
    SlabTestOutcome or None
        None in all but the first process of a distributed run.

    Raises
    ------
    LungDetError
        If the checkpoint is missing, is one of another model, or has learnt from a series of the
        split (the paper's protocol shares series by design).
    """
    began = time.perf_counter()
    checkpoint = trained_checkpoint(checkpoint)
    content = read_checkpoint(checkpoint)
    applied = applied_threshold(content, given=threshold)
    aim_test_at(config, split)
    ann_file = annotation_file(config)
    # Held here, so that data set and metrics share what is read once.
    coco, slab_set = read_coco(ann_file), read_slab_set(ann_file)
    if seen := _what_was_seen(checkpoint, content, coco):
        if not allow_leak:
            raise LungDetError(seen)
        warnings += (seen,)
    warnings += what_slabs_differ(checkpoint, content, config)
    options = ScoringOptions(threshold=applied.value, n_resamples=n_resamples)
    network = run_network(
        config, checkpoint, content, threshold=applied.value, predictions=predictions
    )
    if network.matched is None or network.matches is None:
        return None
    loaded = time.perf_counter()
    scores = score_split(
        slab_set,
        network.detections,
        network.matched,
        network.matches,
        options,
        marks=network.froc.marks,
        read_depths=_reader_of(slab_folder(config)),
    )
    run = TestedRun(
        data=coco["info"]["data"],
        protocol=coco["info"]["protocol"],
        split=split,
        checkpoint=checkpoint.name,
        config=Path(config.filename).name if config.filename else "",
        threshold=applied.value,
        threshold_source=applied.source,
        parameters=network.parameters,
        seconds_per_slab=network.seconds_per_slab,
        labels=label_text(summarise(coco)),
    )
    notes = data_warnings(coco["info"], scores, data=run.data)
    notes += failed_scan_warnings(slab_set)
    boxes = sum(not box.is_ignored for slab in slab_set.slabs.values() for box in slab.boxes)
    boxes_per_slab = boxes / max(1, len(slab_set.slabs))
    notes += applied.warnings(data=run.data, split=run.split, boxes_per_slab=boxes_per_slab)
    flat = sum(not slab.depth_file_name for slab in slab_set.slabs.values())
    note = missing_depths_note(flat, len(slab_set.slabs))
    notes += [f"{note}."] if note else []
    run = replace(run, warnings=(*notes, *warnings))
    return SlabTestOutcome(
        run=run,
        metrics=network.metrics,
        scores=scores,
        coco=coco,
        detections=network.detections,
        submission_path=Path(config.work_dir) / SUBMISSION_NAME,
        slab_folder=slab_folder(config),
        seconds={
            "network": round(loaded - began, 3),
            "scoring": round(time.perf_counter() - loaded, 3),
        },
        depth_gain=_depth_gain(network, slab_set, scores) if compare_midplane else "",
    )


def _reader_of(folder: Path) -> ReadDepths:
    """Return what reads the depths of a slab from the folder of the slab images."""
    return lambda slab: read_depths(folder / slab.depth_file_name) if slab.depth_file_name else None


def _depth_gain(
    network: NetworkRun,
    slab_set: SlabSet,
    scores: SplitScores,
) -> str:
    """Score the boxes, which carry no depth here, on the mid-planes, and say what depth gains."""
    seen = slab_set.seen_by(network.detections)
    marks = network.froc.merge(seen, network.detections)
    flat = match_marks_of_split(seen, marks, max_marks_per_scan=network.froc.max_candidates)
    n_resamples = scores.options.n_resamples or DEFAULT_RESAMPLES
    gain, interval = cpm_difference(
        scores.froc.matches, flat, n_resamples=n_resamples, seed=scores.options.seed
    )
    drawn = f"{n_resamples} resamples of {len(seen.series)} scans"
    told = f"95 % interval {interval.low:+.3f} to {interval.high:+.3f} from {drawn}"
    if interval.high - interval.low < 1e-9:  # of one scan, or of scans that are all alike
        told = f"no interval: {drawn} agree"
    return (
        f"CPM {scores.froc.cpm:.3f} with depth, {scores.froc.cpm - gain:.3f} on mid-planes, same "
        f"boxes: difference {gain:+.3f} ({told})"
    )
