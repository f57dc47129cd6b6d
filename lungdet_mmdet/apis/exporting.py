# SPDX-License-Identifier: Apache-2.0
"""A model's network as ONNX or OpenVINO: its trace, its file, and that both give the same."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lungdet_mmdet.apis.model_building import build_model
from lungdet_mmdet.apis.model_file import ModelFile
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.ops.attention_choice import attention_replaced, mmcv_attention
from lungdet_mmdet.runs.atomic_files import output_error

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
        slab : (1, 3, height, width) grey values 0 to 255, with the channels of a prepared slab.

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
    resized = [step for step in model.config["test_pipeline"] if step["type"] == "Resize"]
    if any(step.get("scale_factor", None) != 1.0 for step in resized):
        raise LungDetError(
            f"{model.name}: its test_pipeline resizes slabs before the network sees them "
            f"({resized[0].get('scale_factor') or resized[0].get('scale')}); only a network that "
            "takes slabs as they are prepared can be exported"
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
    """Return a (1, 3, height, width) slab of random grey."""
    return torch.rand(1, 3, *size_yx, generator=torch.Generator().manual_seed(seed)).mul(255.0)


OPSET = 17
"""First ONNX operator set with everything used here, GridSample and LayerNormalization included."""

SlabFunction = Callable[[np.ndarray], "tuple[np.ndarray, np.ndarray]"]
"""From a (1, 3, y, x) float32 slab to boxes xyxy in px (queries, 4) and scores (queries,)."""


def _missing(package: str, error: ImportError) -> LungDetError:
    return LungDetError(
        f"the package {package} is not installed ({error}): pip install 'lungdet-mmdet[export]'"
    )


def write_onnx(graph: torch.jit.ScriptModule, example: Tensor, path: Path) -> None:
    """Write a traced network as ONNX."""
    try:
        import onnx  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise _missing("onnx", error) from error
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter for traced graphs is called deprecated
        torch.onnx.export(
            graph,
            (example,),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=["slab"],
            output_names=["boxes_xyxy_px", "scores"],
        )
    path.write_bytes(buffer.getvalue())


def run_onnx(path: Path, *, threads: int = 0) -> SlabFunction:
    """Return a function that runs a written network; 0 threads leave their number to it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("onnxruntime", error) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda slab: session.run(["boxes_xyxy_px", "scores"], {"slab": slab})


def write_openvino(graph: torch.jit.ScriptModule, example: Tensor, path: Path) -> None:
    """Write a traced network as OpenVINO's ``.xml`` and ``.bin``."""
    try:
        import openvino
    except ImportError as error:
        raise _missing("openvino", error) from error
    converted = openvino.convert_model(graph, example_input=example, input=[tuple(example.shape)])
    openvino.save_model(converted, str(path), compress_to_fp16=False)


def run_openvino(path: Path, *, precision: str = "f32", threads: int = 0) -> SlabFunction:
    """Return a function that runs a written network; 0 threads leave their number to it."""
    import openvino

    # OpenVINO's own choice is bf16 on CPUs that have it.
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(slab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = compiled(slab)
        return found[0], found[1]

    return run


TOLERANCE_SCORE, TOLERANCE_PX = 1e-3, 0.05
"""How far exported and PyTorch outputs may lie apart; 0.05 px are 0.035 mm on a default slab."""

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True)
class Agreement:
    """Largest differences between the exported network and PyTorch on random slabs."""

    box_px: float
    score: float


def export_model(
    model: ModelFile, path: Path, *, file_format: str, size_yx: tuple[int, int]
) -> Agreement:
    """Write a network file, after its outputs were found to agree with PyTorch's.

    Parameters
    ----------
    model : the model.
    path : file to write; OpenVINO's weights go beside it, as ``.bin``.
    file_format : "onnx" or "openvino".
    size_yx : height and width of the slabs in pixels.

    Raises
    ------
    LungDetError
        If the format's package is not installed, the model cannot be exported, outputs differ, or
        the file cannot be written.
    """
    suffix = SUFFIXES[file_format]
    if path.suffix != suffix:
        raise LungDetError(f"{path}: a file for {file_format} has to end in {suffix}")
    write, run = {"onnx": (write_onnx, run_onnx), "openvino": (write_openvino, run_openvino)}[
        file_format
    ]
    network = slab_network(model, size_yx)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export.") as folder:
            written = Path(folder) / path.name
            write(traced(network), random_slab(size_yx, seed=0), written)
            agreement = _compare(network, run(written))
            if not (agreement.score <= TOLERANCE_SCORE and agreement.box_px <= TOLERANCE_PX):
                raise LungDetError(
                    f"{model.name}: the exported network differs from PyTorch by "
                    f"{agreement.box_px:.2g} px and {agreement.score:.2g} in score; "
                    "nothing was written"
                )
            for part in Path(folder).iterdir():
                os.replace(part, path.parent / part.name)
    except OSError as error:
        raise output_error(path, error) from error
    return agreement


def _compare(network: SlabNetwork, run: SlabFunction) -> Agreement:
    """Run both on slabs that the export did not see."""
    box_px, score = [], []
    for seed in (1, 2, 3):
        slab = random_slab(network.size_yx, seed=seed)
        with torch.no_grad():
            boxes, scores = (out.numpy() for out in network(slab))
        found_boxes, found_scores = run(slab.numpy())
        box_px.append(np.abs(found_boxes - boxes).max())
        score.append(np.abs(found_scores - scores).max())
    return Agreement(float(np.max(box_px)), float(np.max(score)))  # what is no number stays so
