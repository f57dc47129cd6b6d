# SPDX-License-Identifier: Apache-2.0
"""What a training checkpoint says: weights, config, and the score threshold that a test applies.

Only for files whose maker is trusted: both its pickle and its config, which is Python text, can run
code.
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.preparation.prep_pipeline import (
    pipeline_difference,
    pixels_difference,
    prep_steps,
)
from lungdet_mmdet.scoring.slab_scores import OperatingPoint, operating_point_of
from lungdet_mmdet.splits.coco_checks import learnt_series


def read_checkpoint(path: Path, *, with_weights: bool = False) -> dict[str, Any]:
    """Read a checkpoint, with its tensors left on disk or not; runs whatever code is in it.

    Raises
    ------
    LungDetError
        When it is missing or cannot be read.
    """
    if not path.is_file():
        raise LungDetError(f"{path}: no such checkpoint; train one with `lungdet train`")
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, mmap=not with_weights)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise LungDetError(
            f"{path}: cannot be read as a checkpoint ({error}); copy it again, or train anew"
        ) from error
    if not isinstance(content, dict):
        raise LungDetError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


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


# Weights are in the file: initial ones must be neither fetched nor drawn.
_DROPPED_MODEL_KEYS = frozenset({"init_cfg", "pretrained", "_scope_"})
_DROPPED_STEPS = frozenset({"LoadAnnotations"})


@dataclass(frozen=True)
class TrainingCheckpoint:
    """What inference needs of a training checkpoint.

    Parameters
    ----------
    config : ``prep_pipeline``, ``test_pipeline`` and ``model`` as plain containers.
    state_dict : weights.
    trained : epoch, iteration, time and seed of the training, as far as known.
    data_root : folder of the prepared dataset it was trained on, "" if unknown.
    operating_point : threshold chosen at its validation, None if it had none.
    learnt : see ``learnt_series``.
    """

    config: dict[str, Any]
    state_dict: Mapping[str, torch.Tensor]
    trained: dict[str, Any]
    data_root: str
    operating_point: OperatingPoint | None
    learnt: dict[str, str]


def read_training_checkpoint(path: Path, *, config: Config | None = None) -> TrainingCheckpoint:
    """Read a checkpoint written by training. Runs whatever code is in it.

    Parameters
    ----------
    path : the checkpoint.
    config : its config; None takes the one stored in the checkpoint.

    Raises
    ------
    LungDetError
        If it is missing or damaged, holds no weights, or no config is known.
    """
    content = read_checkpoint(path, with_weights=True)
    if not isinstance(content.get("state_dict"), Mapping):
        raise LungDetError(f"{path}: holds no state_dict: not a checkpoint of a detector")
    meta = content.get("meta") or {}
    stored = _stored_config(meta, path) if config is None else _readable_config(meta)
    config = config or stored
    return TrainingCheckpoint(
        config=config_as_data(config, source=str(path)),
        state_dict=content["state_dict"],
        trained={
            key: meta[key] for key in ("epoch", "iter", "time", "seed") if meta.get(key) is not None
        },
        # A config that is named says how the network looks, not what this one was trained on.
        data_root=str((stored or {}).get("data_root") or ""),
        operating_point=operating_point_of(content),
        learnt=learnt_series(content),
    )


def what_slabs_differ(path: Path, content: Mapping[str, Any], config: Config) -> tuple[str, ...]:
    """Say so where a network learnt from slabs of another kind than a config's.

    Parameters
    ----------
    path, content : the checkpoint or model file.
    config : of the slabs that it is to look at.
    """
    meta, published = content.get("meta") or {}, content.get("config") or {}
    stored = published or _readable_config(meta) or {}
    if not stored.get("prep_pipeline") or not config.get("prep_pipeline"):
        return ()
    steps = (prep_steps(of, source=str(path)) for of in (stored, config))
    told = pipeline_difference(*steps, names=("the checkpoint's", "the config's"))
    version = (content.get("made_with") or {}).get("pixels_version")
    return tuple(
        f"{path.name}: learnt from other slabs than these. {text}"
        for text in (told, pixels_difference(version))
        if text
    )


def _readable_config(meta: Mapping[str, Any]) -> Config | None:
    """Return a checkpoint's own config where it has one; what it would import need not be here."""
    text = meta.get("cfg")
    if not isinstance(text, str):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.py"
        path.write_text(text, encoding="utf-8")
        try:
            return Config.fromfile(path, import_custom_modules=False)
        except (NameError, SyntaxError):  # what a dump has left of a config with classes in it
            return None


def _stored_config(meta: Mapping[str, Any], path: Path) -> Config:
    text = meta.get("cfg")
    if not isinstance(text, str):
        raise LungDetError(
            f"{path}: holds no config; publish it with its config: "
            "lungdet publish CHECKPOINT MODEL.pth --config CONFIG"
        )
    return Config.fromstring(text, ".py")


def config_as_data(config: Config, *, source: str) -> dict[str, Any]:
    """Return what inference needs of a config as plain dicts, lists, tuples and values.

    Raises
    ------
    LungDetError
        If it has no prep_pipeline, no model or no test pipeline.
    """
    if not config.get("model"):
        raise LungDetError(f"{source}: the config has no model")
    dataset = (config.get("test_dataloader") or {}).get("dataset") or {}
    test_pipeline = dataset.get("pipeline") or config.get("test_pipeline")
    if not test_pipeline:
        raise LungDetError(f"{source}: the config has no test_dataloader.dataset.pipeline")
    model = _plain(config.model, drop=_DROPPED_MODEL_KEYS)
    # Assigners and samplers are of no use without annotations.
    model["train_cfg"] = None
    return {
        "prep_pipeline": prep_steps(config, source=source),
        "test_pipeline": [
            _plain(step, drop=frozenset({"backend_args"}))
            for step in test_pipeline
            if step["type"] not in _DROPPED_STEPS
        ],
        "model": model,
    }


def _plain(value: Any, *, drop: frozenset[str]) -> Any:
    if isinstance(value, (dict, ConfigDict)):
        return {key: _plain(item, drop=drop) for key, item in value.items() if key not in drop}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item, drop=drop) for item in value)
    return copy.deepcopy(value)
