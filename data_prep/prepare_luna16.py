"""Prepare a LUNA16-shaped folder: slab PNGs, COCO annotations, manifest."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import lungdet_mmdet  # noqa: F401
from lungdet_mmdet.errors import LungDetError

DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "lung_deform_detr.py"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("luna16_dir", type=Path, help="folder with subset*/ and annotations.csv")
    parser.add_argument("out_dir", type=Path, help="folder for the prepared dataset")
    parser.add_argument(
        "--config",
        type=Path,
        default=DEFAULT_CONFIG,
        help="config whose prep_pipeline is run (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="worker processes, 0 = in this process (default: %(default)s)",
    )
    parser.add_argument(
        "--mask",
        choices=("otsu", "luna16"),
        help="lung mask: computed, or LUNA16's own (default: the config's)",
    )
    parser.add_argument(
        "--protocol",
        choices=("strict", "paper", "fold"),
        default="strict",
        help="how to split at the end (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from mmengine.config import Config

    from lungdet_mmdet.cohort.split_text import report_lines
    from lungdet_mmdet.cohort.split_writer import write_splits
    from lungdet_mmdet.execution.scan_runs import process_pool
    from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
    from lungdet_mmdet.preparation.luna16_folder import read_luna16_folder
    from lungdet_mmdet.preparation.prep_pipeline import override_mask_method, prep_steps
    from lungdet_mmdet.preparation.scan_job import limit_threads
    from lungdet_mmdet.preparation.summary_text import summary_lines

    steps = prep_steps(Config.fromfile(args.config), source=str(args.config))
    if args.mask:
        steps = override_mask_method(steps, args.mask)
    folder = read_luna16_folder(args.luna16_dir)
    print(
        f"{len(folder.scans)} scans on disk in {folder.root}; "
        f"{len(folder.missing_series)} series of its tables are not on disk"
    )
    for warning in folder.warnings:
        print(f"note: {warning}")
    summary = prepare_cohort(
        folder,
        args.out_dir,
        steps,
        process_pool(args.workers, limit_threads if args.workers > 1 else None),
        workers=args.workers,
    )
    print("\n".join(summary_lines(summary, args.out_dir)))
    if summary.manifest["scans"] and not summary.interrupted:
        report = write_splits(args.out_dir, protocol=args.protocol, seed=args.seed)
        print("\n".join(report_lines(report)))
    return summary.exit_code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LungDetError as error:
        sys.exit(f"error: {error}")
