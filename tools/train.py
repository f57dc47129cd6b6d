"""Train a detector: python tools/train.py CONFIG [--data PREPARED_DIR]."""

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
    parser.add_argument("--data", type=Path, help="prepared dataset (default: $LUNGDET_DATA)")
    parser.add_argument("--work-dir", type=Path, help="logs and checkpoints go here")
    parser.add_argument(
        "--pretrained",
        metavar="none|PATH|URL",
        help="initial weights of the backbone (default: the config's URL)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from this checkpoint, or from the latest in the work dir",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size"
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
    from mmengine.logging import print_log
    from mmengine.runner import Runner

    from lungdet_mmdet.training.config_file import check_data, read_config
    from lungdet_mmdet.training.precision import fall_back_from_amp, use_amp
    from lungdet_mmdet.training.pretrained import choose_pretrained, drop_pretrained

    config = read_config(
        args.config, data=args.data, work_dir=args.work_dir, cfg_options=args.cfg_options
    )
    check_data(config, ("train", "val"))
    config.launcher = args.launcher
    if args.amp:
        use_amp(config)
    amp_note = fall_back_from_amp(config)
    if args.auto_scale_lr:
        config.auto_scale_lr.enable = True
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == "auto" else args.resume
    if config.get("load_from"):
        drop_pretrained(config)
    else:
        choose_pretrained(config, args.pretrained)

    runner = Runner.from_cfg(config)
    if amp_note:
        print_log(amp_note, logger="current")
    runner.train()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LungDetError as error:
        sys.exit(f"error: {error}")
