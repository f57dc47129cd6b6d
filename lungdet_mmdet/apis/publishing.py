# SPDX-License-Identifier: Apache-2.0
"""A model handed on: published as one file, or exported to ONNX or OpenVINO and run there."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lungdet_mmdet
from lungdet_mmdet.apis.config_text import config_from_file
from lungdet_mmdet.apis.model_building import (
    SlabNetwork,
    build_model,
    random_slab,
    slab_network,
    traced,
)
from lungdet_mmdet.apis.model_file import ModelFile, read_model_file, write_model_file
from lungdet_mmdet.apis.training_checkpoint import read_training_checkpoint
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.preparation.prep_pipeline import PIXELS_VERSION
from lungdet_mmdet.runs.atomic_files import output_error
from lungdet_mmdet.runs.file_names import ANNOTATION_FOLDER
from lungdet_mmdet.versions import library_versions

# The folders of an absolute path; the name behind them stays.
_FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^/\\\s'\"]+[/\\])+")


def publish_model(
    checkpoint: Path,
    out: Path,
    *,
    config_path: Path | None = None,
    metrics: dict[str, Any] | None = None,
    threshold: float | None = None,
    data_root: Path | None = None,
    note: str = "",
) -> ModelFile:
    """Write a model file and read it back as a receiver would.

    Parameters
    ----------
    checkpoint : written by training; reading it can run code, so it must be trusted.
    out : the model file.
    config_path : its config; None takes the one in the checkpoint.
    metrics : content of ``metrics.json``: figures with data, protocol and split.
    threshold : score from which a candidate counts as positive; None takes the operating point that
        the checkpoint carries, or else that of the metrics.
    data_root : prepared dataset that it was trained on; None takes the config's.
    note : a sentence about the model.

    Raises
    ------
    LungDetError
        If there is no such checkpoint, or it cannot be made a safe model file.
    """
    if not checkpoint.is_file():
        raise LungDetError(f"{checkpoint}: no such checkpoint; train one with `lungdet train`")
    config = None if config_path is None else config_from_file(config_path)
    parts = read_training_checkpoint(checkpoint, config=config)
    metrics = metrics or {}
    point = parts.operating_point
    if threshold is None and point is not None:
        threshold = point.threshold
    elif threshold is None:
        threshold = metrics.get("metrics", {}).get("threshold")
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise LungDetError(f"threshold is {threshold}: it must lie within 0 and 1")
    root = data_root if data_root is not None else Path(parts.data_root or ".")
    model = ModelFile(
        name=out.name,
        sha256="",
        config=parts.config,
        state_dict=parts.state_dict,
        threshold=None if threshold is None else float(threshold),
        metrics=without_places(_plain(metrics)),
        data=data_provenance(root, required=data_root is not None)
        | {"training": _plain(parts.trained)}
        | ({"operating_point": _plain(point.as_record())} if point is not None else {})
        | ({"note": note} if note else {}),
        made_with=versions(),
    )
    build_model(model, torch.device("cpu"))
    write_model_file(out, model)
    return read_model_file(out)


def data_provenance(data_root: Path, *, required: bool) -> dict[str, Any]:
    """Return what a prepared dataset's split files say of the data.

    Returns
    -------
    dict
        ``name`` (e.g. "phantom"), and per split the file's ``info`` and counts; empty where nothing
        is there.

    Raises
    ------
    LungDetError
        If it is required and there is none, or a split file is damaged.
    """
    provenance: dict[str, Any] = {}
    for split in ("train", "val"):
        path = data_root / ANNOTATION_FOLDER / f"{split}.json"
        if not path.is_file():
            continue
        content = _split_content(path)
        info = content.get("info", {})
        provenance.setdefault("name", str(info.get("data", "")))
        provenance[split] = {
            "info": _plain(info),
            "series": len(content.get("series", ())),
            "slabs": len(content.get("images", ())),
            "nodules": len(content.get("nodules", ())),
        }
    if required and not provenance:
        raise LungDetError(
            f"{data_root}: no annotations/train.json here; name the prepared dataset that the "
            "model was trained on"
        )
    return provenance


def _split_content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LungDetError(
            f"{path}: cannot be read as JSON ({error}); make the splits again"
        ) from error
    if not isinstance(content, dict):
        raise LungDetError(
            f"{path}: no split, but a {type(content).__name__}; make the splits again"
        )
    return content


def versions() -> dict[str, str]:
    """Return the versions that a model file was made with."""
    return {
        "lungdet_mmdet": lungdet_mmdet.__version__,
        "pixels_version": str(PIXELS_VERSION),
        **library_versions(),
    }


def without_places(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the figures without what says whose scans they are of, or where they lie.

    Warnings of leaks name series and patients, and paths name users: how many warnings there were
    is kept. Files are named without their folders.
    """
    kept = {key: _without_folders(value) for key, value in metrics.items() if key != "warnings"}
    if metrics.get("warnings"):
        kept["n_warnings"] = len(metrics["warnings"])
    return kept


def _without_folders(value: Any) -> Any:
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """Return a value with nothing but JSON's types in it: all else cannot be read safely."""
    return json.loads(json.dumps(value, default=str))


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
