# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: saved whole or not at all, with their threshold, checked against the model."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from lungdet_mmdet.datasets.luna16_slabs import LUNA16SlabDataset
from lungdet_mmdet.engine.run_setup import bare_model
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import output_error, sweep_leftovers, write_bytes
from lungdet_mmdet.scoring.intervals import finite_or_none
from lungdet_mmdet.scoring.slab_scores import META_KEY, OperatingPoint
from lungdet_mmdet.splits.coco_checks import (
    SERIES_KEY,
    joined_series,
    learnt_series,
    series_digest,
    series_of,
    split_name,
)
from lungdet_mmdet.splits.coco_json import read_coco, read_slab_set

BACKEND = "lungdet_atomic"
# Kept in the checkpoint itself, among mmengine's own messages.
OUTDATED_KEY = "lungdet_outdated_checkpoints"
VALIDATED_KEY = "lungdet_validated_iter"


class AtomicLocalBackend(LocalBackend):
    """Writes files whole or not at all; errors name the file and the remedy."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write_bytes(Path(filepath), obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        """Write text."""
        write_bytes(Path(filepath), obj.encode(encoding))


register_backend(BACKEND, AtomicLocalBackend, force=True)


class _LateRemoval:
    """A backend that hands the paths it should remove to `note` instead."""

    def __init__(self, backend: Any, note: Callable[[str], None]) -> None:
        self.backend = backend
        self.remove = note

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, for runs that may be killed, or meet a full disk, at any moment.

    - A checkpoint is written whole or not at all. mmengine opens the latest one for writing again
      after each validation that was the best so far: a kill there leaves nothing to resume from.
    - An outdated checkpoint is removed when its successor is there, not before.
    - It names the series that it learnt from, in ``meta["training_series"]``, those of checkpoints
      that it was begun with included, so that a test after the splits were made again can refuse.
    - A run that was killed between a checkpoint and the end of its validation validates first
      when it is resumed. mmengine goes on with the next epoch, and the best checkpoint and the
      operating point of the lost validation are never written.

    Parameters are those of CheckpointHook.
    """

    def before_run(self, runner: Runner) -> None:
        """Take note of the config's own schedule: that of a checkpoint may take its place."""
        super().before_run(runner)
        self._learnt: dict[str, str] = {}
        self._schedule = _schedule_of(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take over what was learnt from before."""
        self._learnt = learnt_series(checkpoint)

    def _note_series(self, runner: Runner) -> None:
        """Add the series that the run learns from, as the splits are now."""
        for path in sorted(_annotation_files(runner.train_dataloader.dataset)):
            coco = read_coco(Path(path))
            series = dict.fromkeys(map(series_digest, series_of(coco)), split_name(coco))
            self._learnt = joined_series(self._learnt, series)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Name the series learnt from, each with the split that it was in."""
        checkpoint["meta"][SERIES_KEY] = self._learnt

    def _tell_schedule(self, runner: Runner) -> None:
        now = _schedule_of(runner)
        wanted = getattr(self, "_schedule", now)
        if now != wanted:
            runner.logger.warning(
                "resumed: the learning rate follows the schedule of the checkpoint, %s, not that "
                "of the config, %s. To train on with another schedule, start anew with --load-from",
                now,
                wanted,
            )

    def _check_save_best(self, runner: Runner) -> None:
        """Refuse a figure that no metric has before training, not after the first epoch."""
        wanted = [self.save_best] if isinstance(self.save_best, str) else self.save_best or []
        if runner.val_loop is None or wanted == ["auto"]:
            return
        known: set[str] = set()
        for metric in runner.val_loop.evaluator.metrics:
            if not hasattr(metric, "figure_names"):
                return  # another package's: nobody knows its figures before it is run
            known |= {f"{metric.prefix}/{name}" for name in metric.figure_names()}
        missing = [name for name in wanted if name not in known]
        if missing:
            raise LungDetError(
                f"save_best is {missing[0]!r}, which no metric of val_evaluator has; there are "
                f"{', '.join(sorted(known))}"
            )

    def before_train(self, runner: Runner) -> None:
        """Tidy up after the run that is gone on with, and make up for its lost validation."""
        self._note_series(runner)
        if self.out_dir is None and self.file_client_args is None and self.backend_args is None:
            self.backend_args = {"backend": BACKEND}
        self._check_save_best(runner)
        self._tell_schedule(runner)
        super().before_train(runner)
        self._runner = runner
        self.file_backend = _LateRemoval(self.file_backend, self._note_outdated)
        if is_main_process():
            sweep_leftovers(Path(self.out_dir))
        self._remove_outdated()
        if runner.iter > 0 and _validation_was_due(runner) and not self._is_validated():
            runner.logger.info("the run ended before its last validation did: validating now")
            # mmengine saves it again, with the best score, where it knows that it is there.
            self.last_ckpt = runner.message_hub.runtime_info.get("last_ckpt")
            runner.val_loop.run()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Save the best checkpoint, and in it that this validation is done."""
        if not hasattr(self, "_runner"):  # a validation without training: nothing to save
            return
        runner.message_hub.update_info(VALIDATED_KEY, runner.iter)
        super().after_val_epoch(runner, metrics)
        self._remove_outdated()

    def _is_validated(self) -> bool:
        info = self._runner.message_hub.runtime_info
        return info.get(VALIDATED_KEY) == self._runner.iter

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # Reached by way of a new best checkpoint: that is saved, and the one before may go.
        self._remove_outdated()
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        except OSError as error:  # from the note that names the latest checkpoint
            raise output_error(Path(runner.work_dir), error) from error
        self._remove_outdated()

    def _note_outdated(self, path: str) -> None:
        # By way of the messages into the checkpoint that is about to be saved: a run that is
        # resumed from it goes on with the removal.
        names = [*self._outdated_names(), Path(path).name]
        self._runner.message_hub.update_info(OUTDATED_KEY, names)

    def _outdated_names(self) -> list[str]:
        return self._runner.message_hub.runtime_info.get(OUTDATED_KEY, [])

    def _remove_outdated(self) -> None:
        if is_main_process():
            best = [getattr(self, "best_ckpt_path", None)]
            best += getattr(self, "best_ckpt_path_dict", {}).values()
            # A validation that was made up for may have written the same name again.
            kept = {Path(path).name for path in best if path}
            for name in set(self._outdated_names()) - kept:
                path = self.file_backend.join_path(self.out_dir, name)
                if self.file_backend.isfile(path):
                    self.file_backend.backend.remove(path)
        self._runner.message_hub.update_info(OUTDATED_KEY, [])


# What of a scheduler moves on with the steps; all else is the schedule.
_MOVING = frozenset({"last_step", "_global_step", "_last_value", "base_values", "verbose"})


def _schedule_of(runner: Runner) -> list[dict[str, Any]]:
    schedulers = runner.param_schedulers or []
    if not isinstance(schedulers, list):
        return []
    return [
        {"type": type(s).__name__}
        | {k: v for k, v in sorted(s.state_dict().items()) if k not in _MOVING}
        for s in schedulers
        if hasattr(s, "state_dict")
    ]


def _validation_was_due(runner: Runner) -> bool:
    """Whether a validation follows directly on the checkpoint that the run was resumed from."""
    loop = runner.train_loop
    if runner.val_loop is None:
        return False
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    done, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)


MIN_SHARE = 0.5


@HOOKS.register_module()
class FitCheckpointHook(Hook):
    """Takes from ``load_from`` what fits the model and leaves the rest as initialised.

    A detector of 80 classes has heads of 80 rows; a detector of nodules has one. Does nothing when
    a run is resumed.

    Parameters
    ----------
    min_share : least share of the model's values that the checkpoint has to give.

    Raises
    ------
    LungDetError
        If it gives less: the checkpoint is of another model.
    """

    def __init__(self, min_share: float = MIN_SHARE) -> None:
        self.min_share = min_share

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drop the tensors that do not fit and log what is initialised anew."""
        if runner._resume:
            return
        model = bare_model(runner)
        wanted = model.state_dict()
        given: dict[str, torch.Tensor] = checkpoint.get("state_dict", checkpoint)
        unfit = [k for k, v in given.items() if k in wanted and v.shape != wanted[k].shape]
        lines = [
            f"  {key}: {tuple(given[key].shape)} in the file, {tuple(wanted[key].shape)} here"
            for key in unfit
        ]
        for key in unfit:
            del given[key]
        absent = [key for key in wanted if key not in given and key not in unfit]
        lines += [f"  {key}: not in the file" for key in absent]
        taken = sum(value.numel() for key, value in wanted.items() if key in given)
        share = taken / max(1, sum(value.numel() for value in wanted.values()))
        source = runner.cfg.get("load_from")
        if share < self.min_share:
            raise LungDetError(
                f"{source}: gives only {share:.1%} of the model's values, so it is a checkpoint of "
                "another model; name one of the config's own architecture in load_from"
            )
        anew = "; initialised anew:" if lines else ""
        runner.logger.info(
            "\n".join([f"{source}: {share:.1%} of the model's values taken{anew}", *lines])
        )


def let_mmengine_read_its_checkpoints() -> None:
    """Make mmengine 0.10.7 load local checkpoints with torch 2.6 or newer.

    Since 2.6 ``torch.load`` reads plain weights only unless told otherwise, and a checkpoint of
    mmengine holds its logs, so this mmengine cannot read what it has just written. Its maintained
    continuation falls back by itself; this does the same for the original, through the registry
    that mmengine has for it. Loading a training checkpoint runs code that is in it either way.
    """
    if not hasattr(mmengine_checkpoint, "_safe_torch_load"):
        # The prefix of local files is empty.
        CheckpointLoader.register_scheme(prefixes="", loader=_load_local, force=True)


def _load_local(filename: str, map_location: Any = None) -> dict:
    try:
        return torch.load(filename, map_location=map_location, weights_only=False)
    except FileNotFoundError:
        raise LungDetError(f"{filename}: no such checkpoint") from None


def _annotation_files(dataset: Any) -> set[str]:
    """Return the files of ours behind wrappers; other datasets have no series."""
    if isinstance(dataset, LUNA16SlabDataset):
        return {str(dataset.ann_file)}
    wrapped = [dataset.dataset] if hasattr(dataset, "dataset") else []
    inner = getattr(dataset, "datasets", wrapped)
    return {path for one in inner for path in _annotation_files(one)}


@HOOKS.register_module()
class OperatingPointHook(Hook):
    """Keeps ``checkpoint["meta"]["operating_point"]`` in step with the weights.

    The threshold is the one that a ``SizeBandMetric(choose=...)`` of the validation reports. It is
    written into every checkpoint of the same iteration, and into no other: the best checkpoint is
    saved after the validation and gets it on saving; the regular one is saved before and is
    rewritten, whole or not at all. A checkpoint without a validation of its own carries none.
    """

    # Before CheckpointHook (VERY_LOW), which saves the best checkpoint after the validation.
    priority = "BELOW_NORMAL"

    def __init__(self) -> None:
        self._point: OperatingPoint | None = None
        self._told = False

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Read the chosen threshold, and add it to the checkpoint saved before this validation."""
        metric = _choosing_metric(runner)
        if metric is None:
            self._tell_once(runner, "no validation metric chooses a threshold: the checkpoints "
                            "carry no operating point")  # fmt: skip
            return
        self._point = _chosen_point(runner, metric, metrics or {})
        if self._point is None:
            runner.logger.warning(
                f"no threshold could be chosen by {metric.choose} on this validation: its "
                "checkpoints carry no operating point"
            )
            return
        runner.logger.info(f"operating point: {self._point.describe()}")
        last = runner.message_hub.runtime_info.get("last_ckpt")
        if last is not None and is_main_process():
            _add_to_file(Path(last), self._point)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the operating point to a checkpoint of the iteration it was chosen at."""
        meta = checkpoint["meta"]
        meta.pop(META_KEY, None)
        if self._point is not None and meta["iter"] == self._point.iteration:
            meta[META_KEY] = self._point.as_record()

    def _tell_once(self, runner: Runner, message: str) -> None:
        if not self._told:
            runner.logger.log(logging.WARNING, message)
        self._told = True


def _choosing_metric(runner: Runner) -> Any:
    """Return the ``SizeBandMetric`` that chooses a threshold, known by its option; else None."""
    metrics = runner.val_loop.evaluator.metrics
    return next((m for m in metrics if getattr(m, "choose", None) is not None), None)


def _chosen_point(
    runner: Runner, metric: Any, metrics: Mapping[str, float]
) -> OperatingPoint | None:
    def figure(name: str) -> float:
        return float(metrics[f"{metric.prefix}/{name}" if metric.prefix else name])

    threshold = figure("threshold")
    if math.isnan(threshold):
        return None
    info = read_slab_set(metric.ann_file).info
    return OperatingPoint(
        threshold=threshold,
        rule=str(metric.choose),
        data=str(info.get("data", "unknown")),
        protocol=str(info.get("protocol", "unknown")),
        split=str(info.get("split") or Path(metric.ann_file).stem),
        n_scans=int(figure("n_scans")),
        n_slabs=int(figure("n_slabs")),
        n_nodules=int(figure("n_nodules")),
        precision=finite_or_none(figure("precision")),
        recall=finite_or_none(figure("recall")),
        f1=finite_or_none(figure("F1")),
        epoch=runner.epoch,
        iteration=runner.iter,
    )


def _add_to_file(path: Path, point: OperatingPoint) -> None:
    """Add the point to a saved checkpoint of the same iteration; other files are left alone."""
    if not path.is_file():
        return
    # Our own file of a moment ago: its message buffers are not plain tensors.
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    if checkpoint["meta"].get("iter") != point.iteration:
        return
    checkpoint["meta"][META_KEY] = point.as_record()
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_bytes(path, buffer.getvalue())
