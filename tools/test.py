"""Test a detector: python tools/test.py CONFIG CHECKPOINT [--data PREPARED_DIR]."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import lungdet_mmdet  # noqa: F401
from lungdet_mmdet.errors import LungDetError


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="config file")
    parser.add_argument("checkpoint", type=Path, help="checkpoint file")
    parser.add_argument("--data", type=Path, help="prepared dataset (default: $LUNGDET_DATA)")
    parser.add_argument(
        "--split",
        choices=("test", "val"),
        default="test",
        help="which split to test on (default: %(default)s)",
    )
    parser.add_argument("--work-dir", type=Path, help="metrics.json and logs go here")
    parser.add_argument("--out", type=Path, help="write the detections of every slab as json")
    parser.add_argument("--show-dir", type=Path, help="write overlays of slabs as PNG")
    parser.add_argument(
        "--show-score",
        type=float,
        default=0.3,
        help="least score of a drawn detection (default: %(default)s)",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        metavar="KEY=VALUE",
        help="override config values",
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="job launcher",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> int:
    args = parse_args()
    from lungdet_mmdet.testing.show import write_overlays
    from lungdet_mmdet.testing.slab_test import print_table, run_slab_test, write_metrics
    from lungdet_mmdet.training.config_file import check_data, read_config

    config = read_config(
        args.config, data=args.data, work_dir=args.work_dir, cfg_options=args.cfg_options
    )
    check_data(config, (args.split,))
    config.launcher = args.launcher
    outcome = run_slab_test(config, args.checkpoint, split=args.split, predictions=args.out)
    print_table(outcome)
    print(f"metrics: {write_metrics(outcome, Path(config.work_dir))}")
    if args.show_dir:
        written = write_overlays(outcome, args.show_dir, min_score=args.show_score)
        print(f"{written} overlays: {args.show_dir} (annotated green, detected red)")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LungDetError as error:
        sys.exit(f"error: {error}")
