# SPDX-License-Identifier: Apache-2.0
"""From a scan to candidates: the detector, its slabs, its findings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from lungdet_mmdet.apis.model_building import (
    LOOKS,
    build_model,
    build_slab_pipeline,
    check_precision,
    choose_device,
    detection_change,
    in_precision,
    mirrored_back,
    slab_input,
)
from lungdet_mmdet.apis.model_file import ModelFile, read_model_file
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.engine.by_name import SHIPPED_MODEL
from lungdet_mmdet.engine.run_setup import quicken_on_cpu
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.evaluation.metrics import detections_of
from lungdet_mmdet.ops.detr_heads import run_heads_in_full_precision
from lungdet_mmdet.preparation.prep_pipeline import (
    build_prep_pipeline,
    pixels_difference,
    with_stride,
)
from lungdet_mmdet.scoring.candidates import Candidate, fuse_looks, merge_slab_detections
from lungdet_mmdet.scoring.froc import MAX_MARKS_PER_SCAN
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections, with_depths
from lungdet_mmdet.splits.prepared import training_flag

STAGES = ("reading", "preparation", "network", "merging")
"""The parts of looking at a scan that are timed, in order."""


@dataclass(frozen=True)
class ScanFindings:
    """The result of one scan.

    Parameters
    ----------
    scan : the scan as it was read.
    source : the file or folder it was read from, "" if it was given in memory.
    slabs : uint8 array (n, y, x), or (n, y, x, 3), what the detector saw.
    slab_geometries : where each slab lies.
    lung_mask, lung_mask_z : uint8 (z, y, x) in slab pixels, and for each of its slices the position
        along the slab normal in mm.
    lung_summary : method, verdict and volumes of the lung mask.
    detections : boxes of every slab, ``img_id`` is the slab's index.
    candidates : all candidates from the lowest score on, best first.
    joined : for each candidate its boxes, (n, 2): the slab's index, the row in its detections.
    threshold : score from which a candidate counts as positive.
    flags : remarks about the scan and its lungs.
    model : what is known of the model.
    seconds : time of each of `STAGES`.
    """

    scan: CTScan
    source: str
    slabs: np.ndarray
    slab_geometries: tuple[SlabGeometry, ...]
    lung_mask: np.ndarray
    lung_mask_z: np.ndarray
    lung_summary: dict[str, Any]
    detections: tuple[SlabDetections, ...]
    candidates: tuple[Candidate, ...]
    threshold: float
    flags: tuple[str, ...]
    model: dict[str, Any]
    seconds: dict[str, float]
    joined: tuple[np.ndarray, ...] = ()

    @property
    def positives(self) -> list[Candidate]:
        """Candidates at or above the threshold."""
        return [c for c in self.candidates if c.score >= self.threshold]


@dataclass(frozen=True)
class PreparedScan:
    """A scan, where it was read from, what preparation made of it, and the seconds of both."""

    scan: CTScan
    source: str
    results: dict[str, Any]
    seconds: dict[str, float]


def prepared_scan(read: Callable[[], CTScan], pipeline: Any, *, source: str) -> PreparedScan:
    """Read and prepare a scan, by a pipeline of :func:`build_prep_pipeline`.

    Raises
    ------
    LungDetError
        If the scan cannot be used.
    """
    moments = [time.perf_counter()]
    scan = read()
    moments.append(time.perf_counter())
    results = pipeline({"scan": scan, "scan_path": source})
    moments.append(time.perf_counter())
    seconds = dict(zip(STAGES, np.diff(moments).round(3).tolist(), strict=False))
    return PreparedScan(scan, source, results, seconds)


DEFAULT_THRESHOLD = 0.5
"""Used where neither the caller nor the model file names one."""

MAX_SCORE_CHANGE, MAX_BOX_CHANGE_PX = 0.02, 1.0
"""What a lower precision may change; a scan in which it does more is looked at in 32 bits."""

DEFAULT_BATCH = {"cpu": 1, "cuda": 4}
"""Slabs in a batch by device type; on a CPU more of them take memory and save no time."""

MAX_AT_ONCE = 4
"""Batches that threads of a CPU look at beside each other; each holds its own layers in memory."""


class ScanDetector:
    """Finds nodules in CT scans, prepared as the model's own config says.

    Parameters
    ----------
    checkpoint : a model file (``lungdet publish``); None takes the model in the box, trained
        on made-up and semi-real scans (``lungdet_mmdet/weights/README.md``). Several make an
        ensemble: all look at the same slabs, and their boxes are joined (``fuse_looks``).
    device : "auto" takes a GPU where there is one; else a torch device such as "cpu" or "cuda:1".
    threshold : score from which a candidate is returned; None takes the model file's own (the mean
        of several), or 0.5.
    batch_size : slabs that go through the model at a time; None takes one on a CPU, four on a GPU.
    stride_mm : distance of neighbouring slabs; less than the slab thickness makes them overlap.
        None takes the model's own.
    looks : how often each model looks at a slab: 1, 2 (also mirrored left to right) or 4 (also
        front to back). Takes as many times the time.
    trust_checkpoint : also accept files that can run code of whoever made them.
    precision : of the network: "fp32", "tf32", "fp16" or "bf16", with everything that makes boxes
        and scores in 32 bits. Below fp32 the slab with the best score is looked at again in fp32;
        where boxes or scores differ by more than ``MAX_BOX_CHANGE_PX`` or ``MAX_SCORE_CHANGE``,
        the whole scan is, and a flag says so.

    Raises
    ------
    LungDetError
        If the checkpoint cannot be used or an option makes no sense.

    Examples
    --------
    >>> detector = ScanDetector()                                     # doctest: +SKIP
    >>> for nodule in detector.detect("scan.nii.gz"):                 # doctest: +SKIP
    ...     print(nodule.centre_xyz_mm, nodule.diameter_mm, nodule.score)
    """

    def __init__(
        self,
        checkpoint: Path | str | Sequence[Path | str] | None = None,
        *,
        device: str = "auto",
        threshold: float | None = None,
        batch_size: int | None = None,
        stride_mm: float | None = None,
        looks: int = 1,
        trust_checkpoint: bool = False,
        precision: str = "fp32",
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise LungDetError(f"batch size is {batch_size}: it must be at least 1")
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise LungDetError(f"threshold is {threshold}: it must lie within 0 and 1")
        if looks not in (1, 2, 4):
            raise LungDetError(f"looks is {looks}: a slab is looked at 1, 2 or 4 times")
        self.looks, self.stride_mm = LOOKS[:looks], stride_mm
        paths = [checkpoint] if isinstance(checkpoint, (Path, str)) else checkpoint
        self.model_files = [
            read_model_file(path, trust=trust_checkpoint) for path in paths or [SHIPPED_MODEL]
        ]
        self.model_file = self.model_files[0]
        check_same_slabs(self.model_files)
        self.device = choose_device(device)
        check_precision(precision, self.device)
        self.precision = precision
        self.batch_size = batch_size or DEFAULT_BATCH.get(self.device.type, 1)
        own = _mean_threshold(self.model_files)
        self.threshold = own if threshold is None else threshold
        self.prep_steps = with_stride(self.model_file.config["prep_pipeline"], stride_mm)
        self.pipeline = build_prep_pipeline(self.prep_steps)
        self._models = [
            (build_slab_pipeline(file), build_model(file, self.device)) for file in self.model_files
        ]
        for _, model in self._models:
            if precision != "fp32":
                run_heads_in_full_precision(model)
            quicken_on_cpu(model)

    def detect(self, scan: CTScan | Path | str) -> list[Candidate]:
        """Return the candidates of one scan at or above the threshold, best first.

        Parameters
        ----------
        scan : a scan file, a DICOM folder, or a scan in memory.

        Raises
        ------
        LungDetError
            If the scan cannot be used.
        """
        return self.analyse(scan).positives

    def __call__(
        self, inputs: CTScan | Path | str | Sequence[CTScan | Path | str]
    ) -> dict[str, list[list[Candidate]]]:
        """Return ``{"predictions": [...]}`` for one scan or many, as mmdet's DetInferencer does."""
        scans = [inputs] if isinstance(inputs, (CTScan, Path, str)) else list(inputs)
        return {"predictions": [self.detect(scan) for scan in scans]}

    def analyse(self, scan: CTScan | Path | str, *, source: str = "") -> ScanFindings:
        """Return everything about one scan: slabs, boxes, lung mask, all candidates.

        Parameters
        ----------
        scan : a scan file, a DICOM folder, or a scan in memory.
        source : where a scan in memory came from, for messages and reports.

        Raises
        ------
        LungDetError
            If the scan cannot be used.
        """
        in_memory = isinstance(scan, CTScan)
        read = (lambda: scan) if in_memory else partial(read_scan, scan)
        place = source if in_memory else str(scan)
        return self.look_at(prepared_scan(read, self.pipeline, source=place))

    def look_at(self, prepared: PreparedScan) -> ScanFindings:
        """Return everything about a scan that was prepared by this detector's ``pipeline``."""
        moments = [time.perf_counter()]
        scan, source, results = prepared.scan, prepared.source, prepared.results
        geometries = tuple(results["slab_geometries"])
        slabs = [Slab(geometry.index, scan.seriesuid, geometry) for geometry in geometries]
        detections, about_precision, remarks = self._detect_precisely(results["slabs"], slabs)
        depths = results.get("slab_depths")
        if depths is not None:
            detections = [
                with_depths(found, slab, depth)
                for found, slab, depth in zip(detections, slabs, depths, strict=True)
            ]
        moments.append(time.perf_counter())
        joined: list[np.ndarray] = []
        candidates = merge_slab_detections(
            slabs, detections, max_candidates=MAX_MARKS_PER_SCAN + 1, joined=joined
        )
        if len(candidates) > MAX_MARKS_PER_SCAN:
            joined.pop()
            if candidates.pop().score >= self.threshold:
                told = f"more candidates than {MAX_MARKS_PER_SCAN} reach the threshold; the others"
                remarks = [*remarks, f"{told} are left out"]
        moments.append(time.perf_counter())
        geometry, summary = results["geometry"], results["lung_summary"]
        of_model = self._model_flags(scan.seriesuid)
        flags = [*results["scan_flags"], *summary["flags"], *remarks, *of_model]
        return ScanFindings(
            scan=scan,
            source=source,
            slabs=results["slabs"],
            slab_geometries=geometries,
            lung_mask=results["lung_mask"],
            lung_mask_z=geometry.normal_xyz @ np.asarray(geometry.origin_xyz_mm)
            + geometry.spacing_zyx_mm[0] * np.arange(geometry.size_zyx[0]),
            lung_summary=summary,
            detections=tuple(detections),
            candidates=tuple(candidates),
            threshold=self.threshold,
            flags=tuple(dict.fromkeys(flags)),
            model=self._about() | about_precision,
            joined=tuple(joined),
            seconds={
                **prepared.seconds,
                **dict(zip(STAGES[2:], np.diff(moments).round(3).tolist(), strict=True)),
            },
        )

    def _about(self) -> dict[str, Any]:
        """Return what is known of the model, or of the first of several, and how it looked."""
        about = self.model_file.about() | {"looks": len(self.looks), "stride_mm": self.stride_mm}
        if len(self.model_files) > 1:
            about["ensemble"] = [file.about() for file in self.model_files]
        return about

    def _detect_precisely(
        self, images: np.ndarray, slabs: list[Slab]
    ) -> tuple[list[SlabDetections], dict[str, Any], list[str]]:
        """Detect in the precision asked for, as far as it changes next to nothing.

        Also returns what is told of the precision, and what of it is worth a flag.
        """
        found = self._detect_slabs(images, slabs, self.precision)
        if self.precision == "fp32" or not slabs:
            return found, {}, []
        best = max(range(len(found)), key=lambda i: found[i].top_score)
        one = slice(best, best + 1)
        (exact,) = self._detect_slabs(images[one], slabs[one], "fp32")
        score, box_px = detection_change(exact, found[best])
        about = {"precision": self.precision, "score_change": score, "box_change_px": box_px}
        if score <= MAX_SCORE_CHANGE and box_px <= MAX_BOX_CHANGE_PX:
            return found, about, []
        flag = (
            f"{self.precision} changed a score by {score:.3f} or a box by {box_px:.1f} px on slab "
            f"{slabs[best].geometry.index}: the network looked at this scan in fp32 instead"
        )
        found = self._detect_slabs(images, slabs, "fp32")
        return found, about | {"precision": "fp32"}, [flag]

    def _detect_slabs(
        self, images: np.ndarray, slabs: list[Slab], precision: str
    ) -> list[SlabDetections]:
        """Detect on all slabs; on a CPU every thread has slabs of its own.

        Threads that share one small slab wait for each other more than they work, and on a busy
        machine stand still. A slab that one thread looks at is also the same to the last digit for
        any number of threads.
        """
        batches = [
            slice(first, first + self.batch_size) for first in range(0, len(slabs), self.batch_size)
        ]
        detect = partial(self._detect_batch, images, slabs, precision)
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        at_once = min(threads, len(batches), MAX_AT_ONCE)
        if at_once < 2:
            return list(chain.from_iterable(map(detect, batches)))
        try:
            with ThreadPoolExecutor(
                at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,)
            ) as pool:
                return list(chain.from_iterable(pool.map(detect, batches)))
        finally:
            torch.set_num_threads(threads)

    @torch.inference_mode()
    def _detect_batch(
        self, images: np.ndarray, slabs: list[Slab], precision: str, chosen: slice
    ) -> list[SlabDetections]:
        with in_precision(precision, self.device):
            found = [
                self._look(feed, model, images[chosen], slabs[chosen], look)
                for feed, model in self._models
                for look in self.looks
            ]
        return [fuse_looks(of_slab) for of_slab in zip(*found, strict=True)]

    def _look(
        self, feed: Any, model: Any, images: np.ndarray, slabs: list[Slab], look: tuple
    ) -> list[SlabDetections]:
        """Detect on some slabs, mirrored as ``look`` says; boxes in pixels of the slabs."""
        packed = [
            feed(slab_input(np.ascontiguousarray(image[look]), slab))
            for image, slab in zip(images, slabs, strict=True)
        ]
        samples = model.test_step(pseudo_collate(packed))
        found = detections_of([sample.to_dict() for sample in samples])
        return [mirrored_back(of_slab, images.shape[1:3], look) for of_slab in found]

    def _model_flags(self, seriesuid: str) -> list[str]:
        names = dict.fromkeys(str(file.data.get("name") or "unnamed") for file in self.model_files)
        flag = training_flag(" and ".join(names), seriesuid)
        flags = [flag] if flag else []
        for file in self.model_files:
            if told := pixels_difference(file.made_with.get("pixels_version")):
                flags.append(told)
        return flags


def _mean_threshold(model_files: Sequence[ModelFile]) -> float:
    known = [file.threshold for file in model_files if file.threshold is not None]
    return float(np.mean(known)) if known else DEFAULT_THRESHOLD


def check_same_slabs(model_files: Sequence[ModelFile]) -> None:
    """Raise a LungDetError unless all models look at slabs prepared in the same way."""
    first = model_files[0]
    for other in model_files[1:]:
        if other.config["prep_pipeline"] != first.config["prep_pipeline"]:
            raise LungDetError(
                f"{other.name} looks at slabs prepared in another way than those of {first.name}: "
                "an ensemble needs models of one prep_pipeline"
            )
