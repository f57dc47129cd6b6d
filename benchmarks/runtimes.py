# SPDX-License-Identifier: Apache-2.0
"""Time per slab of one network in several runtimes, and how far their boxes lie from PyTorch's.

This is how the way that :class:`ScanDetector` works was chosen (docs/benchmarks.md).
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measured_process import measure_in_process
from lungdet_mmdet.apis.exporting import (
    SlabFunction,
    SlabNetwork,
    random_slab,
    run_onnx,
    run_openvino,
    slab_network,
    traced,
    write_onnx,
    write_openvino,
)
from lungdet_mmdet.apis.model_building import three_channels
from lungdet_mmdet.ops.attention_choice import attention_replaced, mmcv_attention

PYTORCH = "PyTorch"


@dataclass(frozen=True)
class RuntimeFigures:
    """One runtime.

    Parameters
    ----------
    name : the runtime.
    seconds : for one slab; the median of all slabs.
    ready_s : to build it for one slab size, which every scan would need.
    box_px, score : largest difference to PyTorch over all queries and slabs, query by query.
    """

    name: str
    seconds: float
    ready_s: float
    box_px: float
    score: float


def benchmark_runtimes(
    scan: Path, checkpoint: Path, *, threads: int, slabs: int, trust_checkpoint: bool = False
) -> list[RuntimeFigures]:
    """Measure every runtime on evenly spaced slabs of a scan, each in a fresh process.

    Raises
    ------
    LungDetError
        If scan or checkpoint cannot be used, or a runtime is not installed.
    """
    order = {
        "scan": str(scan),
        "checkpoint": str(checkpoint),
        "threads": threads,
        "slabs": slabs,
        "trust": trust_checkpoint,
    }
    return [
        RuntimeFigures(**measure_in_process(__name__, {**order, "name": name}, about=name))
        for name in RUNTIMES
    ]


@contextmanager
def _pytorch(network: SlabNetwork) -> Iterator[SlabFunction]:
    def run(slab: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            boxes, scores = network(torch.from_numpy(slab))
        return boxes.float().numpy(), scores.float().numpy()

    yield run


@contextmanager
def _mmcv_attention(network: SlabNetwork) -> Iterator[SlabFunction]:
    with attention_replaced(mmcv_attention()), _pytorch(network) as run:
        yield run


@contextmanager
def _bfloat16(network: SlabNetwork) -> Iterator[SlabFunction]:
    with torch.autocast("cpu", torch.bfloat16), _pytorch(network) as run:
        yield run


@contextmanager
def _fused_channels_last(network: SlabNetwork) -> Iterator[SlabFunction]:
    from mmcv.cnn import fuse_conv_bn

    network = copy.deepcopy(network)
    backbone = fuse_conv_bn(network.detector.backbone)
    network.detector.backbone = backbone.to(memory_format=torch.channels_last)
    with _pytorch(network) as run:
        yield run


@contextmanager
def _onnx(network: SlabNetwork) -> Iterator[SlabFunction]:
    with tempfile.TemporaryDirectory(prefix="lungdet-benchmark-") as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(traced(network), random_slab(network.size_yx, seed=0), path)
        yield run_onnx(path, threads=torch.get_num_threads())


def _openvino(precision: str) -> Callable[[SlabNetwork], Any]:
    @contextmanager
    def prepared(network: SlabNetwork) -> Iterator[SlabFunction]:
        with tempfile.TemporaryDirectory(prefix="lungdet-benchmark-") as folder:
            path = Path(folder) / "network.xml"
            write_openvino(traced(network), random_slab(network.size_yx, seed=0), path)
            yield run_openvino(path, precision=precision, threads=torch.get_num_threads())

    return prepared


RUNTIMES: dict[str, Callable[[SlabNetwork], Any]] = {
    f"{PYTORCH}, mmcv's attention": _mmcv_attention,
    PYTORCH: _pytorch,
    f"{PYTORCH}, fused batch norm, channels_last": _fused_channels_last,
    f"{PYTORCH}, bfloat16": _bfloat16,
    "ONNX Runtime": _onnx,
    "OpenVINO": _openvino("f32"),
    "OpenVINO, bfloat16": _openvino("bf16"),
}


def _measured_process(order: dict[str, Any]) -> dict[str, Any]:
    """Do what an order says, in this process."""
    from lungdet_mmdet.apis.model_file import read_model_file
    from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline
    from lungdet_mmdet.preparation.scan_job import set_threads

    set_threads(order["threads"])
    model = read_model_file(order["checkpoint"], trust=order["trust"])
    steps = model.config["prep_pipeline"]
    images = build_prep_pipeline(steps)({"scan_path": order["scan"]})["slabs"]
    chosen = images[np.linspace(0, len(images) - 1, order["slabs"]).round().astype(int)]
    network = slab_network(model, images.shape[1:3])
    began = time.perf_counter()
    with RUNTIMES[order["name"]](network) as run:
        slabs = [_as_input(image) for image in chosen]
        run(slabs[0])
        ready = time.perf_counter() - began
        seconds, found = [], []
        for slab in slabs:
            began = time.perf_counter()
            found.append(run(slab))
            seconds.append(time.perf_counter() - began)
    with _pytorch(network) as reference:
        expected = [reference(slab) for slab in slabs]
    apart = [
        (np.abs(boxes - b).max(), np.abs(scores - s).max())
        for (boxes, scores), (b, s) in zip(found, expected, strict=True)
    ]
    figures = RuntimeFigures(
        name=order["name"],
        seconds=round(float(np.median(seconds)), 4),
        ready_s=round(ready - float(np.median(seconds)), 2),
        box_px=float(max(box for box, _ in apart)),
        score=float(max(score for _, score in apart)),
    )
    return asdict(figures)


def _as_input(image: np.ndarray) -> np.ndarray:
    """Return a slab (y, x) or (y, x, 3) as (1, 3, y, x) floats."""
    colour = three_channels(image).transpose(2, 0, 1)
    return np.ascontiguousarray(colour[None], dtype=np.float32)


def report_lines(found: list[RuntimeFigures]) -> list[str]:
    """Return the figures as lines of text."""
    lines = [f"{'runtime':<44}{'s/slab':>8}{'ready s':>9}{'boxes px':>10}{'scores':>10}"]
    lines += [
        f"{f.name:<44}{f.seconds:>8.3f}{max(f.ready_s, 0.0):>9.1f}{f.box_px:>10.1g}{f.score:>10.1g}"
        for f in found
    ]
    return lines


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    print(json.dumps(_measured_process(json.load(sys.stdin))))
