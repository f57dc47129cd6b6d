"""A traced network as an ONNX or OpenVINO file, and how such a file is run."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lungdet_mmdet.apis.model_building import SlabNetwork, random_slab, slab_network, traced
from lungdet_mmdet.apis.model_file import ModelFile
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import output_error

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
            if agreement.score > TOLERANCE_SCORE or agreement.box_px > TOLERANCE_PX:
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
    box_px = score = 0.0
    for seed in (1, 2, 3):
        slab = random_slab(network.size_yx, seed=seed)
        with torch.no_grad():
            boxes, scores = (out.numpy() for out in network(slab))
        found_boxes, found_scores = run(slab.numpy())
        box_px = max(box_px, float(np.abs(found_boxes - boxes).max()))
        score = max(score, float(np.abs(found_scores - scores).max()))
    return Agreement(box_px, score)
