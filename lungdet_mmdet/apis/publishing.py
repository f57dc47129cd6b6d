# SPDX-License-Identifier: Apache-2.0
"""A model handed on: published as one file that cannot run code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

import lungdet_mmdet
from lungdet_mmdet.apis.model_building import build_model
from lungdet_mmdet.apis.model_file import ModelFile, read_model_file, write_model_file
from lungdet_mmdet.engine.by_name import config_from_file
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.trained_checkpoint import read_training_checkpoint
from lungdet_mmdet.runs.atomic_files import read_json_or
from lungdet_mmdet.runs.files import ANNOTATION_FOLDER, MANIFEST_NAME
from lungdet_mmdet.splits.coco_checks import SERIES_KEY, joined_series, series_digest
from lungdet_mmdet.versions import library_versions

# The folders of an absolute path; the name behind them stays.
_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^/\\\s'\"]+[/\\])+")


def publish_model(
    checkpoint: Path,
    out: Path,
    *,
    config_path: Path | None = None,
    metrics: dict[str, Any] | None = None,
    threshold: float | None = None,
    data_root: Path | None = None,
    note: str = "",
    average: Sequence[Path] = (),
) -> ModelFile:
    """Write a model file and read it back as a receiver would.

    Parameters
    ----------
    checkpoint : written by training; reading it can run code, so it must be trusted.
    out : the model file.
    config_path : its config; None takes the one in the checkpoint.
    metrics : content of ``metrics.json``: figures with data, protocol and split, of this checkpoint
        or of a model file named as ``out``.
    threshold : score from which a candidate counts as positive; None takes the operating point that
        the checkpoint carries, or else that of the metrics.
    data_root : prepared dataset that it was trained on; None takes the config's.
    note : a sentence about the model.
    average : more checkpoints or model files of the same network; the weights written are the mean
        of theirs and the checkpoint's, which find more on new scans than the last of a training.

    Raises
    ------
    LungDetError
        If there is no such checkpoint, it cannot be made a safe model file, one to average is of
        another network, or the metrics are of another checkpoint.
    """
    config = None if config_path is None else config_from_file(config_path)
    parts = read_training_checkpoint(checkpoint, config=config)
    metrics = metrics or {}
    tested = metrics.get("checkpoint") or checkpoint.name
    if tested not in (checkpoint.name, out.name):
        raise LungDetError(
            f"the metrics are of {tested}, not of {checkpoint.name}; test this checkpoint, or "
            "publish that one"
        )
    point = None if average else parts.operating_point  # chosen for other scores than the mean's
    if threshold is None and point is not None:
        threshold = point.threshold
    elif threshold is None:
        threshold = metrics.get("metrics", {}).get("threshold")
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise LungDetError(f"threshold is {threshold}: it must lie within 0 and 1")
    averaged = [read_model_file(path, trust=True) for path in average]
    learnt = joined_series(parts.learnt, *(m.data.get(SERIES_KEY, {}) for m in averaged))
    named = data_root or parts.data_root
    root = Path(named) if named else None
    model = ModelFile(
        name=out.name,
        sha256="",
        config=parts.config,
        state_dict=_mean_weights(parts.state_dict, averaged),
        threshold=None if threshold is None else float(threshold),
        metrics=without_places(_plain(metrics)),
        data=(data_provenance(root, learnt, required=data_root is not None) if root else {})
        | ({SERIES_KEY: learnt} if learnt else {})
        | {"training": _plain(parts.trained)}
        | ({"operating_point": _plain(point.as_record())} if point is not None else {})
        | ({"averaged": [path.name for path in average]} if average else {})
        | ({"note": note} if note else {}),
        made_with=versions(root),
    )
    build_model(model, torch.device("cpu"))
    write_model_file(out, model)
    return read_model_file(out)


def _mean_weights(
    weights: dict[str, torch.Tensor], models: Sequence[ModelFile]
) -> dict[str, torch.Tensor]:
    """Return the mean over a network's weights and those of others; counters stay."""
    if not models:
        return weights
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    others = []
    for model in models:
        if {name: tensor.shape for name, tensor in model.state_dict.items()} != shapes:
            raise LungDetError(
                f"{model.name}: weights of another network, of which no mean can be taken"
            )
        others.append(model.state_dict)
    return {
        name: torch.stack([tensor, *(other[name] for other in others)]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in weights.items()
    }


def data_provenance(
    data_root: Path, learnt: Mapping[str, str], *, required: bool
) -> dict[str, Any]:
    """Return what a prepared dataset's split files say of the data.

    Where they were made again since, or the run had a split of its own, as a fold has, they say
    nothing but the data's name.

    Parameters
    ----------
    data_root : folder of the prepared data.
    learnt : digests of the series that the network learnt from; empty where it does not tell.
    required : whether the data has to be there, and what was learnt from.

    Returns
    -------
    dict
        ``name`` (e.g. "phantom"), and per split the file's ``info`` and counts; empty where nothing
        is there.

    Raises
    ------
    LungDetError
        If it is required and there is none, or a split file is damaged.
    """
    provenance: dict[str, Any] = {}
    trains: set[str] = set()
    for split in ("train", "val"):
        path = data_root / ANNOTATION_FOLDER / f"{split}.json"
        if not path.is_file():
            continue
        content = _split_content(path)
        info, series = content.get("info", {}), content.get("series", ())
        if split == "train":
            trains = set(map(series_digest, series))
        provenance.setdefault("name", str(info.get("data", "")))
        provenance[split] = {
            "info": _plain(info),
            "series": len(series),
            "slabs": len(content.get("images", ())),
            "nodules": len(content.get("nodules", ())),
        }
    if required and not provenance:
        raise LungDetError(
            f"{data_root}: no annotations/train.json here; name the prepared dataset that the "
            "model was trained on"
        )
    if not learnt or "train" not in provenance or trains <= learnt.keys():
        return provenance
    if trains & learnt.keys():
        return {"name": provenance["name"]}
    if required:
        raise LungDetError(
            f"{data_root / ANNOTATION_FOLDER / 'train.json'}: lists no series that this checkpoint "
            "has learnt from; name the prepared dataset that it was trained on (--data), or leave "
            "--data out"
        )
    return {}


def _split_content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LungDetError(
            f"{path}: cannot be read as JSON ({error}); make the splits again"
        ) from error
    if not isinstance(content, dict):
        raise LungDetError(
            f"{path}: no split, but a {type(content).__name__}; make the splits again"
        )
    return content


def versions(data_root: Path | None) -> dict[str, str]:
    """Return the versions that a model file was made with; of pixels that of its prepared data.

    Where these are not at hand it is not stated.
    """
    prepared = read_json_or(data_root / MANIFEST_NAME, {}) if data_root else {}
    of_pixels = prepared.get("pixels_version")
    return {
        "lungdet_mmdet": lungdet_mmdet.__version__,
        **({"pixels_version": str(of_pixels)} if of_pixels is not None else {}),
        **library_versions(),
    }


def without_places(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the figures without what says whose scans they are of, or where they lie.

    Warnings of leaks name series and patients, and paths name users: how many warnings there were
    is kept. Files are named without their folders.
    """
    kept = {key: _without_folders(value) for key, value in metrics.items() if key != "warnings"}
    if metrics.get("warnings"):
        kept["n_warnings"] = len(metrics["warnings"])
    return kept


def _without_folders(value: Any) -> Any:
    if isinstance(value, str):
        place = PureWindowsPath(value)  # which also takes / between folders
        is_path = bool(place.root) and ": " not in value and "\n" not in value
        return place.name if is_path else _FOLDERS.sub("", value)
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """Return a value with nothing but JSON's types in it: all else cannot be read safely."""
    return json.loads(json.dumps(value, default=str))
