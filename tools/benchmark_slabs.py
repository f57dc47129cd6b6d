# SPDX-License-Identifier: Apache-2.0
"""Measure what a split of many slabs costs: python tools/benchmark_slabs.py --slabs 1000000.

Synthetic entries, no images. Each stage runs in a process of its own, so that its peak of memory is
its own: writing the COCO json, reading it for the metrics, starting the dataset, computing both
metrics.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import lungdet_mmdet  # noqa: F401
from lungdet_mmdet.runs.command_line import run_and_exit

# What is measured stands beside this folder, outside the package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.split_costs import STAGES, measure  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--slabs", type=int, default=100_000, help="slabs of the split (default: %(default)s)")
    add("--boxes", type=int, default=100, help="detections on each slab (default: %(default)s)")
    add("--stages", nargs="+", choices=tuple(STAGES), default=tuple(STAGES), help="what to measure")
    add("--json", type=Path, help="write the figures there, too")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    from lungdet_mmdet.runs.atomic_files import write_json

    args = parse_args(argv)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.json"
        for stage in dict.fromkeys(("write json", *args.stages)):
            cost = measure(stage, path, n_slabs=args.slabs, boxes=args.boxes)
            figures[stage] = cost.as_dict()
            print(f"{stage:24s} {cost.seconds:8.1f} s {cost.extra_mib:8d} MiB", flush=True)
        size = path.stat().st_size
        print(f"{'json file':24s} {size / 2**20:8.0f} MiB for {args.slabs} slabs")
    if args.json:
        write_json(args.json, {"slabs": args.slabs, "boxes": args.boxes, **figures})
    return 0


if __name__ == "__main__":
    run_and_exit(main)
