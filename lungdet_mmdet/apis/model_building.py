# SPDX-License-Identifier: Apache-2.0
"""From a model file to what can be asked: device, network, slabs in, boxes out."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lungdet_mmdet.apis.model_file import ModelFile
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections


def choose_device(name: str) -> torch.device:
    """Return the torch device of a name; "auto" takes a GPU where there is one.

    Raises
    ------
    LungDetError
        If there is no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise LungDetError(f"device {name!r} is unknown: use auto, cpu or cuda") from error
    if device.type == "cuda":
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= seen:
            raise LungDetError(
                f"device {name!r}: torch sees {seen or 'no'} GPU here; use --device cpu"
            )
        return device
    try:
        torch.ones(1, device=device).item()
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise LungDetError(f"device {name!r} is not to be had here ({reason}); use cpu") from error
    return device


PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


def check_precision(name: str, device: torch.device) -> None:
    """Refuse a precision that there is not, or not on this device.

    Raises
    ------
    LungDetError
        Naming those that there are.
    """
    if name not in PRECISIONS:
        raise LungDetError(f"precision {name!r} is unknown: use {', '.join(PRECISIONS)}")
    if name == "tf32" and device.type != "cuda":
        raise LungDetError(f"precision 'tf32' is one of GPUs; use fp32 on the device {device}")


@contextlib.contextmanager
def in_precision(name: str, device: torch.device) -> Iterator[None]:
    """Let a network compute in one of ``PRECISIONS``.

    "fp32" is exact: torch by itself would let convolutions round to TF32 on a GPU.
    """
    on_gpu = device.type == "cuda"
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn) if on_gpu else ()
    before = [backend.allow_tf32 for backend in backends]
    half = _HALF.get(name)
    try:
        for backend in backends:
            backend.allow_tf32 = name == "tf32"
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def shared_gpus(name: str) -> int:
    """Return how many GPUs a run on a device of this name may share out; 0 unless several."""
    count = torch.cuda.device_count() if name in ("auto", "cuda") else 0
    return count if count > 1 else 0


def device_of_worker(name: str) -> str:
    """Return which of several GPUs this process takes: the workers of a pool share them out.

    A GPU that is named, a CPU, and the main process stay as they are.
    """
    process = multiprocessing.current_process().name
    number = re.fullmatch(r"\w*Process-(?:\d+:)*(\d+)", process)
    gpus = shared_gpus(name)
    if number is None or not gpus:
        return name
    return f"cuda:{(int(number[1]) - 1) % gpus}"


def build_model(model_file: ModelFile, device: torch.device) -> Any:
    """Build the detector of a model file, with its weights, ready to be asked.

    Raises
    ------
    LungDetError
        If config and weights do not make a detector.
    """
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.registry import DefaultScope

    import lungdet_mmdet.plugin  # noqa: F401  (this package's parts, and its attention on a CPU)

    register_all_modules(init_default_scope=False)
    try:
        # Some parts are looked up from mmengine's registry, which has to be told where mmdet's are.
        with DefaultScope.overwrite_default_scope("mmdet"):
            # A copy: mmdet's detectors change the config that they are built from.
            model = MODELS.build(copy.deepcopy(model_file.config["model"]))
        model.load_state_dict(model_file.state_dict)
    except (RuntimeError, TypeError, KeyError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise LungDetError(
            f"{model_file.name}: its model cannot be built from its config and weights "
            f"({' '.join(reason[:2])}); publish it again with the config it was trained with"
        ) from error
    return model.to(device).eval()


def build_slab_pipeline(model_file: ModelFile) -> Any:
    """Build the model's test pipeline with the slab handed over instead of read from a file.

    Returns
    -------
    Compose
        Takes what :func:`slab_input` returns.

    Raises
    ------
    LungDetError
        If the pipeline does not begin by reading a colour image.
    """
    from mmcv.transforms import Compose
    from mmdet.registry import TRANSFORMS

    import lungdet_mmdet.plugin  # noqa: F401  (registers the transforms)

    steps = model_file.config["test_pipeline"]
    first, *others = steps
    if first["type"] != "LoadImageFromFile" or first.get("color_type", "color") != "color":
        raise LungDetError(
            f"{model_file.name}: its test pipeline begins with {first}; scans are fed to pipelines "
            "that begin with LoadImageFromFile(color_type='color')"
        )
    loading = {"type": "LoadImageFromNDArray", "to_float32": bool(first.get("to_float32", False))}
    return Compose([TRANSFORMS.build(step) for step in (loading, *others)])


def three_channels(image: np.ndarray) -> np.ndarray:
    """Return a slab (y, x) as (y, x, 3), three equal channels, as OpenCV reads a grey PNG."""
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def slab_input(image: np.ndarray, slab: Slab) -> dict[str, Any]:
    """Return what the model's own pipeline expects, under the names of the prepared dataset.

    Parameters
    ----------
    image : uint8 array (y, x) or (y, x, 3).
    slab : where it lies.
    """
    record = slab.geometry.as_record()
    return {
        "img": three_channels(image),
        "img_id": slab.img_id,
        "seriesuid": slab.seriesuid,
        "slab_index": slab.geometry.index,
        **{key: record[key] for key in ("z_range_mm", "spacing", "origin", "direction")},
    }


LOOKS = (np.s_[:, :], np.s_[:, ::-1], np.s_[::-1, :], np.s_[::-1, ::-1])
"""A slab as it is, mirrored left to right, front to back, and both ways."""

CHECKED_FROM = 0.05
"""Boxes of this score and more are compared, on the slab with the best score of the scan."""


def detection_change(exact: SlabDetections, other: SlabDetections) -> tuple[float, float]:
    """Return the largest change of a score, and of a box's side in pixels, on one slab.

    Boxes from ``CHECKED_FROM`` on are compared with the nearest one of the other result, both ways.
    """
    score = box_px = 0.0
    for one, two in ((exact, other), (other, exact)):
        kept = one.scores >= CHECKED_FROM
        for box, value in zip(one.boxes_xyxy_px[kept], one.scores[kept], strict=True):
            if not len(two.scores):
                return float(value), 0.0
            sides = np.abs(two.boxes_xyxy_px - box).max(axis=1)
            # Of several boxes on one nodule the nearest in place and score is the same one.
            nearest = int(np.argmin(sides + np.abs(two.scores - value)))
            score = max(score, abs(float(two.scores[nearest] - value)))
            box_px = max(box_px, float(sides[nearest]))
    return round(score, 6), round(box_px, 4)


def mirrored_back(found: SlabDetections, size_yx: Sequence[int], look: tuple) -> SlabDetections:
    """Return boxes found on a mirrored slab as boxes on the slab itself.

    Parameters
    ----------
    found : boxes in pixels of the mirrored slab.
    size_yx : height and width of the slab.
    look : how it was mirrored, one of ``LOOKS``.
    """
    boxes = found.boxes_xyxy_px.copy()
    for axis, size in ((0, size_yx[1]), (1, size_yx[0])):
        if look[1 - axis].step == -1:
            boxes[:, axis::2] = size - boxes[:, axis::2][:, ::-1]
    return replace(found, boxes_xyxy_px=boxes)
