"""A model's config taken as data: what a file from a stranger may ask to be built.

Building an object from a config can run anything: mmengine imports a ``type`` with dots in it
("os.system"), mmcv evaluates the ``type`` of an NMS setting as Python, and weights or configs can
be fetched from paths and URLs named in it. So every ``type`` must be one of a list of parts that
do nothing but compute, and no other string may look like a path, a URL or an expression.
"""

from __future__ import annotations

import re
from typing import Any

from lungdet_mmdet.errors import LungDetError

MODEL_TYPES = frozenset(
    [
        "DETR",
        "DeformableDETR",
        "ConditionalDETR",
        "DABDETR",
        "DINO",
        "FasterRCNN",
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

TEST_PIPELINE_TYPES = frozenset(["LoadImageFromFile", "Resize", "Pad", "PackDetInputs"])
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
    import lungdet_mmdet.transforms

    own = frozenset(lungdet_mmdet.transforms.__all__)
    allowed = {
        "prep_pipeline": own,
        "test_pipeline": own | TEST_PIPELINE_TYPES,
        "model": MODEL_TYPES,
    }
    for part, types in allowed.items():
        if not isinstance(config.get(part), dict if part == "model" else list):
            raise LungDetError(
                f"{source}: its config has no {part}: not a model for scans; publish it again with "
                "tools/publish_model.py"
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
