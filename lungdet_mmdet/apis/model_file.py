# SPDX-License-Identifier: Apache-2.0
"""A model's config taken as data: what a file from a stranger may ask to be built.

Building an object from a config can run anything: mmengine imports a ``type`` with dots in it
("os.system"), mmcv evaluates the ``type`` of an NMS setting as Python, and weights or configs can
be fetched from paths and URLs named in it. So every ``type`` must be one of a list of parts that
do nothing but compute, and no other string may look like a path, a URL or an expression.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.trained_checkpoint import read_training_checkpoint
from lungdet_mmdet.runs.atomic_files import write_bytes
from lungdet_mmdet.runs.files import check_input_file
from lungdet_mmdet.splits.coco_checks import SERIES_KEY
from lungdet_mmdet.versions import unsafe_torch

MODEL_TYPES = frozenset(
    [
        "DETR",
        "DeformableDETR",
        "ConditionalDETR",
        "DABDETR",
        "DINO",
        "SlabDINO",
        "FasterRCNN",
        "MaskRCNN",
        "CascadeRCNN",
        "RetinaNet",
        "FCOS",
        "ATSS",
        "DetDataPreprocessor",
        "ResNet",
        "ResNetV1d",
        "ResNeXt",
        "FPN",
        "ChannelMapper",
        "DETRHead",
        "DeformableDETRHead",
        "ConditionalDETRHead",
        "DABDETRHead",
        "DINOHead",
        "RPNHead",
        "RetinaHead",
        "RetinaSepBNHead",
        "FCOSHead",
        "ATSSHead",
        "StandardRoIHead",
        "CascadeRoIHead",
        "Shared2FCBBoxHead",
        "FCNMaskHead",
        "SingleRoIExtractor",
        "RoIAlign",
        "AnchorGenerator",
        "MlvlPointGenerator",
        "DeltaXYWHBBoxCoder",
        "DistancePointBBoxCoder",
        "FocalLoss",
        "CrossEntropyLoss",
        "QualityFocalLoss",
        "L1Loss",
        "SmoothL1Loss",
        "IoULoss",
        "GIoULoss",
        "BN",
        "BN2d",
        "SyncBN",
        "GN",
        "LN",
        "ReLU",
        "GELU",
        "PReLU",
        "Swish",
        "Conv",
        "Conv2d",
        "Dropout",
        "DropPath",
        "nms",
        "soft_nms",
    ]
)
"""Parts of detectors that read no file and import nothing."""

TEST_PIPELINE_TYPES = frozenset(["LoadImageFromFile", "Resize", "Pad", "PackDetInputs", "PackSlab"])
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_.,+-]{0,80}")
_REMEDY = (
    "the file is refused. If you trust whoever made it, load it with --trust-checkpoint "
    "(ScanDetector(..., trust_checkpoint=True))"
)
MAX_DEPTH = 40


def check_config(config: dict[str, Any], *, source: str) -> None:
    """Check the config of a model file: known types and plain values only.

    Parameters
    ----------
    config : ``{"prep_pipeline": [...], "test_pipeline": [...], "model": {...}}``.
    source : the file, for the message.

    Raises
    ------
    LungDetError
        Naming the first type or value that is not allowed.
    """
    import lungdet_mmdet.datasets.transforms

    own = frozenset(lungdet_mmdet.datasets.transforms.__all__)
    allowed = {
        "prep_pipeline": own,
        "test_pipeline": own | TEST_PIPELINE_TYPES,
        "model": MODEL_TYPES,
    }
    for part, types in allowed.items():
        if not isinstance(config.get(part), dict if part == "model" else list):
            raise LungDetError(
                f"{source}: its config has no {part}: not a model for scans; publish it again with "
                "`lungdet publish`"
            )
        _check(config[part], types, f"{source}: config.{part}", depth=0)


def _check(value: Any, types: frozenset[str], place: str, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise LungDetError(f"{place}: nested more than {MAX_DEPTH} deep; {_REMEDY}")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or key.startswith("_"):
                raise LungDetError(f"{place}: the key {key!r} is not allowed; {_REMEDY}")
            if key == "type" and (not isinstance(item, str) or item not in types):
                raise LungDetError(
                    f"{place}: type {item!r} is not among the parts that may be built from a model "
                    f"file; {_REMEDY}"
                )
            _check(item, types, f"{place}.{key}", depth=depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check(item, types, f"{place}[{index}]", depth=depth + 1)
    elif isinstance(value, str):
        if not _PLAIN_TEXT.fullmatch(value):
            raise LungDetError(f"{place}: the text {value[:80]!r} is not allowed; {_REMEDY}")
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise LungDetError(f"{place}: a {type(value).__name__} is not allowed; {_REMEDY}")


FORMAT = "lungdet_mmdet model"
FORMAT_VERSION = 1
_ZIP_MAGIC = b"PK\x03\x04"
_NOT_OF_TORCH = "its parts are compressed, which torch never does; publish the model again"
_FIELDS = {
    "config": Mapping,
    "state_dict": Mapping,
    "threshold": (float, int, type(None)),
    "metrics": Mapping,
    "data": Mapping,
    "made_with": Mapping,
}


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Parameters
    ----------
    name : the file's name.
    sha256 : digest of the file; "" for a model that was not read from one.
    config : ``prep_pipeline``, ``test_pipeline`` and ``model``, plain containers.
    state_dict : weights.
    threshold : score from which a candidate is shown as positive; None where none was chosen.
    metrics : measured figures, with the data they were measured on.
    data : what the model was trained on.
    made_with : versions of the packages, and of the preparation's code.
    """

    name: str
    sha256: str
    config: dict[str, Any]
    state_dict: Mapping[str, torch.Tensor]
    threshold: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    made_with: dict[str, Any] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """Return all but weights, config and the series learnt from, for reports."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "threshold": self.threshold,
            "data": {key: value for key, value in self.data.items() if key != SERIES_KEY},
            "made_with": self.made_with,
        }


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_model_file(path: Path, model: ModelFile) -> None:
    """Write a model file as a whole; its config is checked as on reading.

    Raises
    ------
    LungDetError
        If the config asks for something that a model file may not ask for.
    """
    check_config(model.config, source=str(path))
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": model.config,
        "threshold": model.threshold,
        "metrics": model.metrics,
        "data": model.data,
        "made_with": model.made_with,
        "state_dict": {key: value.cpu().clone() for key, value in model.state_dict.items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(Path(path), buffer.getvalue())


def read_model_file(path: Path | str, *, trust: bool = False) -> ModelFile:
    """Read a model file.

    Parameters
    ----------
    path : the file.
    trust : also accept what can run code: a training checkpoint, or a config with other parts.

    Raises
    ------
    LungDetError
        If there is no such file, it is damaged, or it is not safe and `trust` is not given.
    """
    path = Path(path)
    if not path.is_file():
        raise LungDetError(f"{path}: no such checkpoint")
    check_input_file(path)
    _check_archive(path)
    if not trust and (caution := unsafe_torch(str(torch.__version__))):
        raise LungDetError(f"{path}: {caution}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            raise LungDetError(_not_safe(path, "it cannot be read without running code")) from error
        content = None
    except Exception as error:  # whatever torch makes of damage: it has no error of its own for it
        raise LungDetError(_damaged(path, error)) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        if not trust:
            raise LungDetError(_not_safe(path, "it is not a published model"))
        return _of_training_checkpoint(path)
    if content.get("format_version") != FORMAT_VERSION:
        raise LungDetError(
            f"{path}: model file version {content.get('format_version')!r}, this package reads "
            f"{FORMAT_VERSION}; use the matching version of the package"
        )
    _check_fields(content, path)
    if not trust:
        check_config(content["config"], source=str(path))
    return ModelFile(
        name=path.name,
        sha256=file_sha256(path),
        config=content["config"],
        state_dict=content["state_dict"],
        threshold=content["threshold"],
        metrics=content["metrics"],
        data=content["data"],
        made_with=content["made_with"],
    )


def _check_archive(path: Path) -> None:
    """Refuse what is no archive of torch's from its first byte on, or has other bytes than written.

    Torch's older format is no zip, and its restricted reader was once broken out of; a zip may
    stand behind it in one file. Torch does not compare the checksums that it writes.
    """
    try:
        with path.open("rb") as file:
            begins_as_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        if not begins_as_zip or not zipfile.is_zipfile(path):
            raise LungDetError(
                f"{path}: not a checkpoint of torch >= 1.6, or a truncated one; copy it again"
            )
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise LungDetError(f"{path}: {_NOT_OF_TORCH}")
            damaged = archive.testzip()
    except LungDetError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds at damaged headers
        raise LungDetError(_damaged(path, error)) from error
    if damaged is not None:
        raise LungDetError(_damaged(path, f"the checksum of {damaged} is wrong"))


def _damaged(path: Path, reason: object) -> str:
    return f"{path}: the file is damaged ({reason}); copy or download it again"


def _check_fields(content: Mapping[str, Any], path: Path) -> None:
    missing = sorted(set(_FIELDS) - set(content))
    if missing:
        raise LungDetError(f"{path}: lacks {', '.join(missing)}; publish the model again")
    for name, kinds in _FIELDS.items():
        if not isinstance(content[name], kinds):
            raise LungDetError(
                f"{path}: its {name} is a {type(content[name]).__name__}, which no model file has; "
                "publish the model again"
            )
    threshold = content["threshold"]
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise LungDetError(
            f"{path}: its threshold is {threshold}, which must lie within 0 and 1; publish the "
            "model again"
        )


def _of_training_checkpoint(path: Path) -> ModelFile:
    parts = read_training_checkpoint(path)
    return ModelFile(
        name=path.name,
        sha256=file_sha256(path),
        config=parts.config,
        threshold=None if parts.operating_point is None else parts.operating_point.threshold,
        state_dict=parts.state_dict,
        data=parts.trained | ({SERIES_KEY: parts.learnt} if parts.learnt else {}),
    )


def _not_safe(path: Path, reason: str) -> str:
    return (
        f"{path}: {reason}. Loading such a file can run code of whoever made it. If it is your own "
        "training checkpoint, publish it: lungdet publish CHECKPOINT MODEL.pth. "
        "If you trust its source, use --trust-checkpoint"
    )
