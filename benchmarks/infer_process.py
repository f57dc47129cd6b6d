# SPDX-License-Identifier: Apache-2.0
"""One way through a scan, or the comparison of two, in a process of its own.

Run as a module: takes an order as JSON, prints its figures as JSON. :mod:`.benchmark` gives them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.infer import InferRun
from benchmarks.measured_process import peak_rss_mb
from lungdet_mmdet.apis.scan_detector import ScanDetector
from lungdet_mmdet.apis.scan_results import write_findings
from lungdet_mmdet.ops.attention_choice import attention_replaced, mmcv_attention
from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline
from lungdet_mmdet.preparation.scan_job import set_threads


def _measured_process(order: dict[str, Any]) -> dict[str, Any]:
    """Do what an order says, in this process."""
    set_threads(order["threads"])
    detector = ScanDetector(
        order["checkpoint"],
        device="cpu",
        batch_size=order["batch_size"] if order["way"] == "ours" else None,
        trust_checkpoint=order["trust"],
    )
    if order["way"] == "compare":
        return _compare(detector, order["scan"])
    if not order["mmcv_attention"]:
        return _one_way(detector, order)
    with attention_replaced(mmcv_attention()):
        return _one_way(detector, order)


def _one_way(detector: ScanDetector, order: dict[str, Any]) -> dict[str, Any]:
    """Run a scan through the detector and write its results."""
    if not order["crop"]:
        # Not an option of the detector: a model is made for the slabs that it was trained on.
        uncropped = [s for s in detector.prep_steps if s["type"] != "CropToLungs"]
        detector.pipeline = build_prep_pipeline(uncropped)
    findings = detector.analyse(order["scan"])
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lungdet-benchmark-") as folder:
        write_findings(Path(folder), findings)
    writing = time.perf_counter() - began
    seconds = {**findings.seconds, "writing": round(writing, 3)}
    run = InferRun(
        way=order["way"],
        seconds=seconds,
        total_s=round(sum(seconds.values()), 3),
        slabs=len(findings.slabs),
        slab_px=findings.slabs.shape[1:3],
        peak_rss_mb=round(peak_rss_mb(), 1),
    )
    return {"run": asdict(run), "candidates": [c.centre_xyz_mm for c in findings.candidates]}


def _compare(detector: ScanDetector, scan: str) -> dict[str, float]:
    """Compare every query's box on every slab: no cut by rank, which rounding could move."""
    for _, model in detector._models:  # a box for every query and slab instead of the best ones
        model.bbox_head.test_cfg["max_per_img"] = model.num_queries
    ours = detector.analyse(scan).detections
    with attention_replaced(mmcv_attention()):
        theirs = detector.analyse(scan).detections
    found = [
        box_differences((a.boxes_xyxy_px, a.scores), (b.boxes_xyxy_px, b.scores))
        for a, b in zip(theirs, ours, strict=True)
    ]
    return {"box_px": max(f[0] for f in found), "score": max(f[1] for f in found)}


def box_differences(
    theirs: tuple[np.ndarray, np.ndarray], ours: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float]:
    """Return the largest corner distance in px and score difference of matching boxes.

    Parameters
    ----------
    theirs, ours : boxes (N, 4) xyxy in px and scores (N,) of one slab; each of their boxes is
        compared with the nearest of ours.
    """
    boxes, scores = theirs
    apart = np.abs(boxes[:, None] - ours[0][None]).max(axis=2)
    nearest = apart.argmin(axis=1)
    rows = np.arange(len(boxes))
    return float(apart[rows, nearest].max()), float(np.abs(scores - ours[1][nearest]).max())


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    print(json.dumps(_measured_process(json.load(sys.stdin))))
