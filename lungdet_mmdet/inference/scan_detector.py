"""The detector of whole scans: a model file in, nodule candidates in world mm out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.inference.model_building import build_model, build_slab_pipeline, choose_device
from lungdet_mmdet.inference.model_file import read_model_file
from lungdet_mmdet.inference.scan_findings import STAGES, ScanFindings
from lungdet_mmdet.inference.slab_input import slab_input, slab_of
from lungdet_mmdet.inference.slab_stride import with_stride
from lungdet_mmdet.metrics.collected import detections_of
from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline, code_version
from lungdet_mmdet.scoring.candidates import Candidate, merge_slab_detections
from lungdet_mmdet.scoring.mark_matching import MAX_MARKS_PER_SCAN
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections

DEFAULT_THRESHOLD = 0.5
"""Used where neither the caller nor the model file names one."""

DEFAULT_BATCH = {"cpu": 1, "cuda": 4}
"""Slabs at a time by device type; on a CPU more of them take memory and save no time."""


class ScanDetector:
    """Finds nodules in CT scans, prepared as the model's own config says.

    Parameters
    ----------
    checkpoint : a model file (``tools/publish_model.py``).
    device : "auto" takes a GPU where there is one; else a torch device such as "cpu" or "cuda:1".
    threshold : score from which a candidate is returned; None takes the model file's own, or 0.5.
    batch_size : slabs that go through the model at a time; None takes one on a CPU, four on a GPU.
    stride_mm : distance of neighbouring slabs; less than the slab thickness makes them overlap.
        None takes the model's own.
    trust_checkpoint : also accept files that can run code of whoever made them.

    Raises
    ------
    LungDetError
        If the checkpoint cannot be used or an option makes no sense.

    Examples
    --------
    >>> detector = ScanDetector("model.pth")                          # doctest: +SKIP
    >>> for nodule in detector.detect("scan.nii.gz"):                 # doctest: +SKIP
    ...     print(nodule.centre_xyz_mm, nodule.diameter_mm, nodule.score)
    """

    def __init__(
        self,
        checkpoint: Path | str,
        *,
        device: str = "auto",
        threshold: float | None = None,
        batch_size: int | None = None,
        stride_mm: float | None = None,
        trust_checkpoint: bool = False,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise LungDetError(f"batch size is {batch_size}: it must be at least 1")
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise LungDetError(f"threshold is {threshold}: it must lie within 0 and 1")
        self.model_file = read_model_file(checkpoint, trust=trust_checkpoint)
        self.device = choose_device(device)
        self.batch_size = batch_size or DEFAULT_BATCH.get(self.device.type, 1)
        self.threshold = next(
            t for t in (threshold, self.model_file.threshold, DEFAULT_THRESHOLD) if t is not None
        )
        self.use_prep_steps(with_stride(self.model_file.config["prep_pipeline"], stride_mm))
        self._feed = build_slab_pipeline(self.model_file)
        self._model = build_model(self.model_file, self.device)

    def use_prep_steps(self, steps: list[dict]) -> None:
        """Prepare scans by other steps than the model's own: for experiments, never for results."""
        self.prep_steps = steps
        self._prepare = build_prep_pipeline(steps)

    def keep_all_boxes(self) -> None:
        """Return a box for every query and slab instead of the best ones, to compare runs."""
        self._model.bbox_head.test_cfg["max_per_img"] = self._model.num_queries

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
        moments = [time.perf_counter()]
        if not isinstance(scan, CTScan):
            source = str(scan)
            scan = read_scan(scan)
        moments.append(time.perf_counter())
        results = self._prepare({"scan": scan, "scan_path": source})
        moments.append(time.perf_counter())
        geometries = tuple(results["slab_geometries"])
        slabs = [slab_of(geometry, seriesuid=scan.seriesuid) for geometry in geometries]
        detections = self._detect_slabs(results["slabs"], slabs)
        moments.append(time.perf_counter())
        candidates = merge_slab_detections(slabs, detections, max_candidates=MAX_MARKS_PER_SCAN)
        moments.append(time.perf_counter())
        geometry, summary = results["geometry"], results["lung_summary"]
        flags = [*results["scan_flags"], *summary["flags"], *self._model_flags()]
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
            model=self.model_file.about(),
            seconds=dict(zip(STAGES, np.diff(moments).round(3).tolist(), strict=True)),
        )

    @torch.inference_mode()
    def _detect_slabs(self, images: np.ndarray, slabs: list[Slab]) -> list[SlabDetections]:
        detections: list[SlabDetections] = []
        for first in range(0, len(slabs), self.batch_size):
            chosen = slice(first, first + self.batch_size)
            packed = [
                self._feed(slab_input(image, slab))
                for image, slab in zip(images[chosen], slabs[chosen], strict=True)
            ]
            samples = self._model.test_step(
                {
                    "inputs": [item["inputs"] for item in packed],
                    "data_samples": [item["data_samples"] for item in packed],
                }
            )
            detections += detections_of([sample.to_dict() for sample in samples])
        return detections

    def _model_flags(self) -> list[str]:
        trained_with = self.model_file.made_with.get("preparation_code")
        if trained_with in (None, code_version()):
            return []
        return [
            "the model was published with another version of the preparation "
            f"({trained_with}, this is {code_version()}): scores may differ"
        ]
