# SPDX-License-Identifier: Apache-2.0
"""Reading a training checkpoint of mmengine: only for files whose maker is trusted.

Both its pickle and its config, which is Python text, can run code.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.preparation.prep_pipeline import prep_steps
from lungdet_mmdet.scoring.slab_scores import OperatingPoint, operating_point_of

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
    """

    config: dict[str, Any]
    state_dict: Mapping[str, torch.Tensor]
    trained: dict[str, Any]
    data_root: str
    operating_point: OperatingPoint | None


def read_training_checkpoint(path: Path, *, config: Config | None = None) -> TrainingCheckpoint:
    """Read a checkpoint written by training. Runs whatever code is in it.

    Parameters
    ----------
    path : the checkpoint.
    config : its config; None takes the one stored in the checkpoint.

    Raises
    ------
    LungDetError
        If it is damaged, holds no weights, or no config is known.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise LungDetError(f"{path}: cannot be read ({error}); copy the file again") from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        raise LungDetError(f"{path}: holds no state_dict: not a checkpoint of a detector")
    meta = content.get("meta") or {}
    if config is None:
        config = _stored_config(meta, path)
    return TrainingCheckpoint(
        config=config_as_data(config, source=str(path)),
        state_dict=content["state_dict"],
        trained={
            key: meta[key] for key in ("epoch", "iter", "time", "seed") if meta.get(key) is not None
        },
        data_root=str(config.get("data_root") or ""),
        operating_point=operating_point_of(content),
    )


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
