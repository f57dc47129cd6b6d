"""Export of a model's network to ONNX or OpenVINO, for other runtimes than PyTorch.

The exported network takes one slab of a fixed size; what depends on the size is part of the file.
Slabs of a scan are cut to its lungs, so each scan has its own slab size: put smaller slabs into the
top left corner of a black one of the exported size.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.atomic_files import output_error
from lungdet_mmdet.inference.model_file import ModelFile
from lungdet_mmdet.inference.network_files import (
    SlabFunction,
    run_onnx,
    run_openvino,
    write_onnx,
    write_openvino,
)
from lungdet_mmdet.inference.slab_network import SlabNetwork, random_slab, slab_network, traced

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
