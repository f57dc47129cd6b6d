# SPDX-License-Identifier: Apache-2.0
"""Write a LUNA16-shaped folder of phantom chest CT scans with known nodules."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tqdm import tqdm

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.phantom.cohort import plan_cohort, write_cohort
from lungdet_mmdet.phantom.scan import DEFAULT_MEAN_NODULES
from lungdet_mmdet.runs.executors import WorkerPool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out_dir", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--scans", type=int, required=True, help="number of scans")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    parser.add_argument(
        "--size",
        choices=("small", "fine", "full"),
        default="small",
        help="small: about 210 x 210 x 85 voxels, 1.5 s a scan; fine: the same chests at 0.7 mm, "
        "380 x 380 x 85; full: 512 x 512, as LUNA16",
    )
    parser.add_argument(
        "--mean-nodules",
        type=float,
        default=DEFAULT_MEAN_NODULES,
        help="nodules per scan that has any, on average (default %(default)s, as in LUNA16)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.workers < 1:
        raise LungDetError(f"--workers is {args.workers}: use at least 1")
    plan = plan_cohort(
        n_scans=args.scans, seed=args.seed, size=args.size, mean_nodules=args.mean_nodules
    )
    with tqdm(total=len(plan), desc="phantoms", unit="scan") as bar:
        if args.workers == 1:
            scans = write_cohort(args.out_dir, plan, on_scan=lambda _: bar.update())
        else:
            pool = WorkerPool(args.workers)
            try:
                scans = write_cohort(
                    args.out_dir, plan, executor=pool, on_scan=lambda _: bar.update()
                )
            finally:
                pool.stop()
    nodules = sum(len(scan.nodules) for scan in scans)
    healthy = sum(not scan.nodules for scan in scans)
    excluded = sum(len(scan.excluded) for scan in scans)
    print(
        f"{args.out_dir}: {len(scans)} phantom scans ({healthy} healthy), {nodules} nodules, "
        f"{excluded} excluded findings, seed {args.seed}, size {args.size}"
    )
    unplaced = sum(scan.n_unplaced for scan in scans)
    if unplaced:
        print(f"{unplaced} planned findings found no room in their lungs and were left out")
    return 0
