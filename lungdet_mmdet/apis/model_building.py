# SPDX-License-Identifier: Apache-2.0
"""From a model file to what can be asked: device, network, and the pipeline that feeds it slabs."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lungdet_mmdet.apis.model_file import ModelFile
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.ops.attention_choice import attention_replaced, mmcv_attention


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
        Takes what :func:`~lungdet_mmdet.apis.scan_detector.slab_input` returns.

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


POINTS = "get_encoder_reference_points"
"""Method of Deformable-DETR's and DINO's encoder; DETR's has none."""


class SlabNetwork(torch.nn.Module):
    """A DETR-like detector as a plain function of one slab.

    Parameters
    ----------
    detector : mmdet's detector, in evaluation mode on the CPU.
    size_yx : height and width of the slab in pixels.
    """

    def __init__(self, detector: Any, size_yx: tuple[int, int]) -> None:
        super().__init__()
        self.detector = detector
        self.size_yx = size_yx
        divisor = detector.data_preprocessor.pad_size_divisor
        self.padding_yx = (-size_yx[0] % divisor, -size_yx[1] % divisor)
        with torch.no_grad():
            features = detector.extract_feat(self._normalised(torch.zeros(1, 3, *size_yx)))
            self.encoder_inputs, self.decoder_inputs = detector.pre_transformer(
                features, [self._sample()]
            )
        self.encoder_inputs.pop("feat")
        self.level_shapes = [tuple(feature.shape[-2:]) for feature in features]

    def forward(self, slab: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes and scores of one slab.

        Parameters
        ----------
        slab : (1, 3, height, width) grey values 0 to 255 as prepared, grey in all channels.

        Returns
        -------
        boxes_xyxy_px : (queries, 4).
        scores : (queries,) probability of a nodule.
        """
        detector = self.detector
        features = detector.extract_feat(self._normalised(slab))
        flat = torch.cat([feature.flatten(2).permute(0, 2, 1) for feature in features], dim=1)
        memory = detector.forward_encoder(feat=flat, **self.encoder_inputs)
        queries, head_inputs = detector.pre_decoder(**memory)
        states = detector.forward_decoder(**{**self.decoder_inputs, **queries})
        logits, centres = detector.bbox_head(**head_inputs, **states)
        height, width = self.size_yx
        cx, cy, w, h = centres[-1][0].unbind(-1)
        boxes = torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        logits = logits[-1][0]
        sigmoid = detector.bbox_head.loss_cls.use_sigmoid
        scores = logits.sigmoid()[:, 0] if sigmoid else logits.softmax(-1)[:, 0]
        return boxes, scores

    def _normalised(self, slab: Tensor) -> Tensor:
        """Subtract the mean, divide by the deviation, pad below and to the right."""
        preprocessor = self.detector.data_preprocessor
        image = (slab - preprocessor.mean) / preprocessor.std
        down, right = self.padding_yx
        return torch.nn.functional.pad(image, (0, right, 0, down))

    def _sample(self) -> Any:
        from mmdet.structures import DetDataSample

        (height, width), (down, right) = self.size_yx, self.padding_yx
        shapes = {"img_shape": (height, width), "batch_input_shape": (height + down, width + right)}
        return DetDataSample(metainfo=shapes)


def slab_network(model: ModelFile, size_yx: tuple[int, int]) -> SlabNetwork:
    """Return a model file's network for slabs of one size.

    Raises
    ------
    LungDetError
        If the model is no DETR or the size makes no sense.
    """
    from mmdet.models.detectors.base_detr import DetectionTransformer

    if min(size_yx) < 1:
        raise LungDetError(f"slab size is {size_yx[0]} x {size_yx[1]}: both must be positive")
    detector = build_model(model, torch.device("cpu"))
    if not isinstance(detector, DetectionTransformer):
        raise LungDetError(
            f"{model.name}: its detector is {type(detector).__name__}; only DETR, Deformable-DETR "
            "and DINO can be exported"
        )
    window = getattr(detector, "window_px", None)
    if window is not None and tuple(size_yx) != (window, window):
        raise LungDetError(
            f"{model.name}: its network sees windows of {window} x {window} px, not slabs of "
            f"{size_yx[0]} x {size_yx[1]}; export it for --size {window} {window} and cut windows"
        )
    return SlabNetwork(detector, size_yx).eval()


def traced(network: SlabNetwork) -> torch.jit.ScriptModule:
    """Return the network as a graph of tensor operations."""
    example = random_slab(network.size_yx, seed=0)
    # Tracing warns of every Python number in mmdet; here all of them are meant to be constants.
    with torch.no_grad(), warnings.catch_warnings(), _constant_positions(network):
        warnings.simplefilter("ignore")
        return torch.jit.trace(network, example, check_trace=False)


@contextlib.contextmanager
def _constant_positions(network: SlabNetwork) -> Iterator[None]:
    """Let the trace see mmcv's own attention, and reference points as constants."""
    own, encoder = mmcv_attention(), network.detector.encoder

    # Sizes as Python numbers: a split by traced numbers has no counterpart in ONNX.
    def attention(value: Tensor, _: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return own(value, network.level_shapes, locations, weights)

    with attention_replaced(attention):
        if not hasattr(encoder, POINTS):
            yield
            return
        inputs = network.encoder_inputs
        points = getattr(encoder, POINTS)(
            inputs["spatial_shapes"], inputs["valid_ratios"], device="cpu"
        )
        setattr(encoder, POINTS, lambda *_, **__: points)
        try:
            yield
        finally:
            delattr(encoder, POINTS)


def random_slab(size_yx: tuple[int, int], *, seed: int) -> Tensor:
    """Return a (1, 3, height, width) slab of random grey, three equal channels."""
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(1, 1, *size_yx, generator=draw).mul(255.0).expand(-1, 3, -1, -1).contiguous()
