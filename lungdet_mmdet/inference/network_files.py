"""A traced network as an ONNX or OpenVINO file, and how such a file is run."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lungdet_mmdet.errors import LungDetError

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
