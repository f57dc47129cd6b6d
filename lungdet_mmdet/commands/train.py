# SPDX-License-Identifier: Apache-2.0
"""Train a detector: lungdet train CONFIG [--data PREPARED_DIR]."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.commands import add_cfg_options


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("config", type=Path, help="config file")
    add("--data", type=Path, help="prepared dataset (default: $LUNGDET_DATA)")
    add("--work-dir", type=Path, help="logs and checkpoints go here")
    start = parser.add_argument_group("where to start")
    start.add_argument(
        "--pretrained",
        metavar="none|PATH|URL",
        help="initial weights of the backbone (default: the config's URL)",
    )
    start.add_argument(
        "--load-from",
        metavar="PATH|URL",
        help="initial weights of the whole detector; parts that do not fit are initialised anew",
    )
    start.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from this checkpoint, or from the latest in the work dir",
    )
    add(
        "--allow-leak",
        action="store_true",
        help="train although a series stands on two sides of the split (overfitting on purpose)",
    )
    add(
        "--allow-other-prep",
        action="store_true",
        help="train on slabs that another prep pipeline made than the config's",
    )
    add("--amp", action="store_true", help="mixed precision")
    add("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size")
    add_cfg_options(parser)
    add(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="what started this process as one of several (default: %(default)s)",
    )
    add("--local_rank", "--local-rank", type=int, default=0, help="set by old launchers")
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    from mmengine.logging import print_log

    from lungdet_mmdet.apis.config_file import (
        check_config_leaks,
        check_data,
        check_prep_pipeline,
        read_config,
    )
    from lungdet_mmdet.doctor import unused_gpu
    from lungdet_mmdet.engine.run_setup import (
        QuietRunner,
        choose_log_backends,
        choose_pretrained,
        fall_back_from_amp,
        join_processes,
        resume_from,
        start_from,
        use_amp,
    )
    from lungdet_mmdet.errors import LungDetError
    from lungdet_mmdet.runs.atomic_files import check_writable, only_run_in
    from lungdet_mmdet.runs.command_line import describe_cores

    config = read_config(
        args.config, data=args.data, work_dir=args.work_dir, cfg_options=args.cfg_options
    )
    check_data(config, ("train", "val"))
    check_writable(Path(config.work_dir))
    if fault := unused_gpu():
        raise LungDetError(
            f"{fault}. To train on the CPU all the same, set CUDA_VISIBLE_DEVICES= (to nothing)"
        )
    notes = [
        *check_config_leaks(config, allow=args.allow_leak),
        *check_prep_pipeline(config, allow=args.allow_other_prep),
    ]
    if args.amp:
        use_amp(config)
    notes += [fall_back_from_amp(config), join_processes(config, args.launcher)]
    choose_log_backends(config)
    if args.auto_scale_lr:
        config.auto_scale_lr.enable = True
    resumed = args.resume is not None and resume_from(config, args.resume)
    if args.resume is not None and not resumed:
        notes.append(f"{config.work_dir}: no checkpoint to resume from; the run starts anew")
    if not resumed:
        initial = args.load_from or config.get("load_from")
        if initial:
            start_from(config, initial)
        else:
            choose_pretrained(config, args.pretrained)

    # Of several processes on a machine the first one holds the folder for all.
    first = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0
    with only_run_in(Path(config.work_dir)) if first else contextlib.nullcontext():
        runner = QuietRunner.from_cfg(config)
        for note in filter(None, notes):
            print_log(note, logger="current", level=logging.WARNING)
        print_log(describe_cores(), logger="current")
        runner.train()
    return 0
