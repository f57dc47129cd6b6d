"""What both metrics do with a batch: keep each slab's boxes and scores as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lungdet_mmdet.scoring.slab_records import SlabDetections


def detections_of(data_samples: Sequence[Mapping[str, Any]]) -> list[SlabDetections]:
    """Return one record per data sample.

    Required keys of each sample: ``img_id`` and ``pred_instances`` with ``bboxes`` (N, 4) xyxy in
    slab pixels and ``scores`` (N,).
    """
    records = []
    for sample in data_samples:
        found = sample["pred_instances"]
        records.append(
            SlabDetections(
                img_id=int(sample["img_id"]),
                # double(): numpy does not know bfloat16, which mixed precision may leave behind.
                boxes_xyxy_px=found["bboxes"].detach().cpu().double().numpy(),
                scores=found["scores"].detach().cpu().double().numpy(),
            )
        )
    return records
