# SPDX-License-Identifier: Apache-2.0
"""What a split of many slabs costs to write, read, load and score.

Each stage runs in a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from mmengine.evaluator import BaseMetric

from benchmarks.large_split import NODULE_CORNERS_PX, NODULE_EVERY, large_split
from benchmarks.measured_process import peak_rss_mb
from lungdet_mmdet.errors import LungDetError


@dataclass(frozen=True)
class Cost:
    """Processor time in seconds, and the memory in MiB that a stage needed beyond its imports."""

    seconds: float
    extra_mib: int

    def as_dict(self) -> dict[str, float]:
        """Return the fields for JSON."""
        return asdict(self)


def measure(stage: str, path: Path, *, n_slabs: int, boxes: int) -> Cost:
    """Run one of ``STAGES`` on a split in a fresh process.

    Parameters
    ----------
    stage : "write json" makes `path`, the others read it.
    path : annotation file of the split.
    n_slabs : its number of slabs.
    boxes : detections on each slab, for the metrics.

    Raises
    ------
    LungDetError
        If the process died.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(there, stage, path, n_slabs, boxes))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise LungDetError(
            f"{stage}: the process died, out of memory perhaps; take fewer slabs than {n_slabs}"
        ) from None
    finally:
        process.join()


def _run(connection: Connection, stage: str, path: Path, n_slabs: int, boxes: int) -> None:
    import lungdet_mmdet.plugin  # noqa: F401 - importing mmdet is not what is measured

    before = peak_rss_mb()
    # Processor time: other work on the machine does not count.
    began = time.process_time()
    STAGES[stage](path, n_slabs, boxes)
    seconds = time.process_time() - began
    connection.send(Cost(round(seconds, 2), round(peak_rss_mb() - before)))


def _write_json(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.runs.atomic_files import write_json

    write_json(path, large_split(n_slabs))


def _read_json(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.splits.coco_json import read_slab_set

    read_slab_set(path)


def _start_dataset(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.datasets.luna16_slabs import LUNA16SlabDataset

    dataset = LUNA16SlabDataset(ann_file=str(path), data_prefix={"img": ""}, pipeline=[])
    dataset.get_data_info(n_slabs - 1)


def _size_band_metric(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.evaluation import SizeBandMetric

    _feed(SizeBandMetric(str(path)), n_slabs, boxes)


def _froc_metric(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.evaluation import FROCMetric

    _feed(FROCMetric(str(path)), n_slabs, boxes)


def _feed(metric: BaseMetric, n_slabs: int, boxes: int) -> None:
    """Feed a metric as mmengine does, a slab at a time: one sure hit a nodule, noise beside it."""
    import torch

    rng = np.random.default_rng(0)
    for index in range(n_slabs):
        corner = torch.from_numpy(rng.uniform(0, 380, (boxes, 2)).astype(np.float32))
        found = torch.cat([corner, corner + 12], dim=1)
        scores = torch.from_numpy(rng.beta(0.5, 20, boxes).astype(np.float32))
        if index % NODULE_EVERY == 0 and boxes:
            found[0], scores[0] = torch.tensor(NODULE_CORNERS_PX), 0.9
        sample = {"img_id": index + 1, "pred_instances": {"bboxes": found, "scores": scores}}
        metric.process(None, [sample])
    metric.evaluate(n_slabs)


STAGES: dict[str, Callable[[Path, int, int], None]] = {
    "write json": _write_json,
    "read json for metrics": _read_json,
    "start dataset": _start_dataset,
    "size-band metric": _size_band_metric,
    "FROC metric": _froc_metric,
}
