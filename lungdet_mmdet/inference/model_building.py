"""From a model file to what can be asked: device, network, and the pipeline that feeds it slabs."""

from __future__ import annotations

import copy
from typing import Any

import torch

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.inference.model_file import ModelFile


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
    if device.type == "cuda" and not torch.cuda.is_available():
        raise LungDetError(f"device {name!r}: torch sees no GPU here; use --device cpu")
    return device


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
        Takes what :func:`~lungdet_mmdet.inference.slab_input.slab_input` returns.

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
