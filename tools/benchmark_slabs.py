"""Measure what a split of many slabs costs: python tools/benchmark_slabs.py --slabs 1000000.

Synthetic entries, no images. Each stage runs in a process of its own, so that its peak of memory is
its own: writing the COCO json, reading it for the metrics, starting the dataset, computing both
metrics.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

SLABS_PER_SCAN = 40
# LUNA16: 1,186 nodules on 888 scans; each touches about two slabs of 7.5 mm.
NODULE_EVERY = 20
STAGES = ("write json", "read json for metrics", "start dataset", "size-band metric", "FROC metric")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--slabs", type=int, default=100_000, help="slabs of the split (default: %(default)s)")
    add("--boxes", type=int, default=100, help="detections on each slab (default: %(default)s)")
    add("--stages", nargs="+", choices=STAGES, default=STAGES, help="what to measure")
    add("--json", type=Path, help="write the figures there, too")
    return parser.parse_args(argv)


def synthetic_split(n_slabs: int) -> dict:
    """Return a split as make_splits.py writes it: one nodule box on every so many slabs."""
    images, annotations, nodules = [], [], []
    for index in range(n_slabs):
        scan, slab = divmod(index, SLABS_PER_SCAN)
        uid = f"1.3.6.1.4.1.14519.5.2.1.6279.6001.{scan:036d}"
        low = 7.5 * slab
        images.append(
            {
                "index": slab,
                "file_name": f"{uid}/{slab:03d}.png",
                "width": 512,
                "height": 400,
                "z_range_mm": [low, low + 7.5],
                "spacing": [0.7, 0.7, 7.5],
                "origin": [-180.0, -140.0, low + 3.75],
                "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                "id": index + 1,
                "seriesuid": uid,
                "slab_index": slab,
            }
        )
        if index % NODULE_EVERY == 0:
            nodule_id = f"{uid}/{slab}"
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": 1,
                    "bbox": [100.0, 100.0, 12.0, 12.0],
                    "area": 144.0,
                    "iscrowd": 0,
                    "kind": "nodule",
                    "nodule_id": nodule_id,
                    "diameter_mm": 8.4,
                    "overlap_mm": 7.5,
                }
            )
            centre = [-180.0 + 0.7 * 105.5, -140.0 + 0.7 * 105.5, low + 3.75]
            nodules.append(
                {
                    "nodule_id": nodule_id,
                    "seriesuid": uid,
                    "centre_xyz_mm": centre,
                    "diameter_mm": 8.4,
                    "coverage": 1.0,
                }
            )
    return {
        "info": {"protocol": "strict", "seed": 0, "data": "synthetic"},
        "categories": [{"id": 1, "name": "nodule"}],
        "images": images,
        "annotations": annotations,
        "series": sorted({image["seriesuid"] for image in images}),
        "patients": {},
        "nodules": nodules,
        "unseen_nodules": [],
        "discarded_nodules": [],
        "excluded": [],
    }


def write_split(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.execution.atomic_files import write_json

    write_json(path, synthetic_split(n_slabs))


def read_split(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.scoring.slab_records import read_slab_set

    read_slab_set(path)


def start_dataset(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.datasets import LUNA16SlabDataset

    dataset = LUNA16SlabDataset(ann_file=str(path), data_prefix={"img": ""}, pipeline=[])
    dataset.get_data_info(n_slabs - 1)


def _measure_metric(metric, n_slabs: int, boxes: int) -> None:  # noqa: ANN001
    """Feed a metric as mmengine does, a batch at a time: one sure hit a nodule, noise beside it."""
    import torch

    rng = np.random.default_rng(0)
    for index in range(n_slabs):
        corner = torch.from_numpy(rng.uniform(0, 380, (boxes, 2)).astype(np.float32))
        found = torch.cat([corner, corner + 12], dim=1)
        scores = torch.from_numpy(rng.beta(0.5, 20, boxes).astype(np.float32))
        if index % NODULE_EVERY == 0 and boxes:
            found[0], scores[0] = torch.tensor([100.0, 100.0, 112.0, 112.0]), 0.9
        sample = {"img_id": index + 1, "pred_instances": {"bboxes": found, "scores": scores}}
        metric.process(None, [sample])
    metric.evaluate(n_slabs)


def size_band_metric(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.metrics import SizeBandMetric

    _measure_metric(SizeBandMetric(str(path)), n_slabs, boxes)


def froc_metric(path: Path, n_slabs: int, boxes: int) -> None:
    from lungdet_mmdet.metrics import FROCMetric

    _measure_metric(FROCMetric(str(path)), n_slabs, boxes)


FUNCTIONS: dict[str, Callable[[Path, int, int], None]] = dict(
    zip(
        STAGES,
        (write_split, read_split, start_dataset, size_band_metric, froc_metric),
        strict=True,
    )
)


def _stage(connection, stage: str, path: Path, n_slabs: int, boxes: int) -> None:  # noqa: ANN001
    import lungdet_mmdet  # noqa: F401

    if stage != "write json" and "read" not in stage:
        import lungdet_mmdet.plugin  # noqa: F401 - importing mmdet is not what is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Processor time: other work on the machine does not count.
    began = time.process_time()
    FUNCTIONS[stage](path, n_slabs, boxes)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.send({"seconds": round(seconds, 2), "extra_mib": (peak - before) // 1024})


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    figures = {}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.json"
        for stage in dict.fromkeys(("write json", *args.stages)):
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=_stage, args=(there, stage, path, args.slabs, args.boxes)
            )
            process.start()
            there.close()
            try:
                figures[stage] = here.recv()
            except EOFError:
                print(f"{stage}: the process died (out of memory?)", file=sys.stderr)
                return 1
            process.join()
            figure = figures[stage]
            print(f"{stage:24s} {figure['seconds']:8.1f} s {figure['extra_mib']:8d} MiB")
        size = path.stat().st_size
        print(f"{'json file':24s} {size / 2**20:8.0f} MiB for {args.slabs} slabs")
    if args.json:
        args.json.write_text(json.dumps({"slabs": args.slabs, "boxes": args.boxes, **figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
