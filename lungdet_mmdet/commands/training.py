# SPDX-License-Identifier: Apache-2.0
"""Train a detector and test it; run mmdet's own tools."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import inspect
import logging
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lungdet_mmdet.commands import add_cfg_options
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.command_line import command_parser

if TYPE_CHECKING:
    from mmengine.config import Config

LOADERS_LEAVE_S = 10.0
"""PyTorch's loaders ask every five seconds whether their run is still there."""


def _parsed_with_launcher(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Parse, with the options of a process that is one of several."""
    add = parser.add_argument
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


def _usable_config(args: argparse.Namespace, *splits: str) -> Config:
    """Read the config; its data has these splits, and its results can be written."""
    from lungdet_mmdet.apis.config_file import check_data, read_config
    from lungdet_mmdet.runs.atomic_files import check_writable

    config = read_config(
        args.config, data=args.data, work_dir=args.work_dir, cfg_options=args.cfg_options
    )
    check_data(config, splits)
    check_writable(Path(config.work_dir))
    return config


def train_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(train)
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
    return _parsed_with_launcher(parser, argv)


def train(argv: Sequence[str] | None = None) -> int:
    """Train a detector: lungdet train CONFIG [--data PREPARED_DIR]."""
    args = train_options(argv)
    from mmengine.logging import print_log

    from lungdet_mmdet.apis.config_file import check_config_leaks, check_prep_pipeline
    from lungdet_mmdet.doctor import unused_gpu
    from lungdet_mmdet.engine.run_setup import (
        QuietRunner,
        choose_log_backends,
        choose_pretrained,
        choose_start,
        fall_back_from_amp,
        join_processes,
        resume_from,
        set_aside,
        use_amp,
    )
    from lungdet_mmdet.runs.atomic_files import DiskFullError, only_run_in
    from lungdet_mmdet.runs.command_line import describe_cores

    config = _usable_config(args, "train", "val")
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
    if args.pretrained and args.pretrained.lower() == "none":
        choose_pretrained(config, args.pretrained)  # also of a run that goes on: as much learns
    resumed = args.resume is not None and resume_from(config, args.resume)
    if args.resume is not None and not resumed:
        notes.append(f"{config.work_dir}: no checkpoint to resume from; the run starts anew")
    if not resumed:
        choose_start(config, load_from=args.load_from, pretrained=args.pretrained)

    # Of several processes on a machine the first one holds the folder for all. The loaders of a run
    # that was killed hold it on, until they notice.
    first = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0
    work_dir = Path(config.work_dir)
    with only_run_in(work_dir, wait_s=LOADERS_LEAVE_S) if first else contextlib.nullcontext():
        start = config.get("load_from") or args.pretrained
        if first and not resumed and (told := set_aside(work_dir, keep=start)):
            print(told)
        runner = QuietRunner.from_cfg(config)
        for note in filter(None, notes):
            print_log(note, logger="current", level=logging.WARNING)
        print_log(describe_cores(), logger="current")
        try:
            runner.train()
        # Without the option it would begin anew, over what is there.
        except KeyboardInterrupt as error:
            raise type(error)(
                "the same command with --resume goes on from the latest checkpoint"
            ) from error
        except DiskFullError as error:
            raise DiskFullError(f"{error}, with --resume") from error
    return 0


def run_test_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(run_test)
    parser.add_argument("config", type=Path, help="config file")
    parser.add_argument(
        "checkpoint",
        help="checkpoint file, work dir of a training, or lungdet://FILE of the package",
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        help="prepared dataset, or several (default: $LUNGDET_DATA)",
    )
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
        "--threshold",
        type=float,
        metavar="SCORE",
        help="score threshold (default: the operating point stored in the checkpoint)",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamples of the scans for the 95 %% intervals, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--compare-midplane",
        action="store_true",
        help="also score the same boxes with their candidates on the mid-planes of their slabs",
    )
    parser.add_argument(
        "--no-report", action="store_true", help="only the table and metrics.json, no plots or page"
    )
    parser.add_argument(
        "--allow-leak",
        action="store_true",
        help="test although a series stands on two sides of the split (overfitting on purpose)",
    )
    add_cfg_options(parser)
    return _parsed_with_launcher(parser, argv)


def run_test(argv: Sequence[str] | None = None) -> int:
    """Test a detector: lungdet test CONFIG CHECKPOINT [--data PREPARED_DIR ...].

    Several prepared folders give one table; the report of each lies in WORK_DIR/NAME.

    The distance of the slabs is that of the prepared folder (stride_mm of MIPSlabs in the
    prep_pipeline; prepare again for another), and boxes are merged by the options of FROCMetric
    in the config; its defaults are what `lungdet infer` does.
    """
    args = run_test_options(argv)
    if args.data is None or len(args.data) == 1:
        args.data = args.data[0] if args.data else None
        return _test(args)
    return _test_on_each(args)


def _test_on_each(args: argparse.Namespace) -> int:
    from lungdet_mmdet.scoring.run_files import comparison_of_sets, read_run

    names = [path.resolve().name for path in args.data]
    if args.launcher != "none" or len(set(names)) < len(names):
        raise LungDetError(
            f"--data {' '.join(map(str, args.data))}: several sets need folders of different "
            "names, and are tested by one process: leave out --launcher"
        )
    work_dir = args.work_dir or Path("work_dirs") / args.config.stem
    tested, failed = [], []
    for name, data in zip(names, args.data, strict=True):
        print(f"\n=== {name}", flush=True)
        own = {"data": data, "work_dir": work_dir / name}
        own |= {"show_dir": args.show_dir / name} if args.show_dir else {}
        own |= {"out": args.out.parent / name / args.out.name} if args.out else {}
        try:
            _test(argparse.Namespace(**{**vars(args), **own}))
            tested.append(read_run(work_dir / name))
        except LungDetError as error:
            failed.append(f"FAILED {name}: {error}")
    if tested:
        print(f"\n{comparison_of_sets(tested)}")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def _test(args: argparse.Namespace) -> int:
    from lungdet_mmdet.apis.config_file import check_config_leaks, check_prep_pipeline
    from lungdet_mmdet.engine.by_name import find_weights
    from lungdet_mmdet.engine.run_setup import join_processes
    from lungdet_mmdet.evaluation.outputs import (
        print_table,
        write_metrics,
        write_overlays,
        write_report,
    )
    from lungdet_mmdet.evaluation.slab_test import run_slab_test

    config = _usable_config(args, args.split)
    warnings = check_config_leaks(config, allow=args.allow_leak)
    warnings += check_prep_pipeline(config, allow=True)
    join_processes(config, args.launcher)
    outcome = run_slab_test(
        config,
        Path(find_weights(args.checkpoint)),
        split=args.split,
        predictions=args.out,
        threshold=args.threshold,
        n_resamples=args.bootstrap,
        warnings=warnings,
        compare_midplane=args.compare_midplane,
        allow_leak=args.allow_leak,
    )
    if outcome is None:  # only the first process of a distributed run writes
        return 0
    print_table(outcome.run, outcome.scores)
    work_dir = Path(config.work_dir)
    if outcome.depth_gain:
        print(f"depth:      {outcome.depth_gain}")
    print(f"candidates: {outcome.submission_path}")
    if not args.no_report:
        print(f"report:     {write_report(outcome, work_dir)}")
    print(f"metrics:    {write_metrics(outcome, work_dir)}")
    if args.show_dir:
        written = write_overlays(outcome, args.show_dir, min_score=args.show_score)
        print(f"{written} overlays: {args.show_dir} (annotated green, detected red)")
    return 0


def stock_tools() -> dict[str, Path]:
    """Return mmdet's tools by name."""
    spec = importlib.util.find_spec("mmdet")
    if spec is None or not spec.submodule_search_locations:
        raise LungDetError("mmdet is not installed: pip install onedl-mmdetection")
    root = Path(next(iter(spec.submodule_search_locations)))
    # An installed mmdet keeps its tools in .mim; a checkout has them beside the package.
    for folder in (root / ".mim" / "tools", root.parent / "tools"):
        if (folder / "train.py").is_file():
            return {path.stem: path for path in sorted(folder.rglob("*.py"), reverse=True)}
    raise LungDetError(f"{root}: this mmdet came without its tools; install it with pip")


def stock(argv: Sequence[str] | None = None) -> int:
    """Run one of mmdet's own tools on this package's configs.

        lungdet stock train configs/lung_deform_detr_fp32.py
        lungdet stock browse_dataset CONFIG --output-dir DIR --not-show
        lungdet stock --list

    The tools run as they are. All this adds is to import the package before them, which makes mmdet
    importable where mmcv came without compiled ops. With a compiled mmcv they run without it.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(inspect.getdoc(stock))
        return 0 if argv else 1
    tools = stock_tools()
    if argv[0] == "--list":
        print("\n".join(sorted(tools)))
        return 0
    if argv[0] not in tools:
        raise LungDetError(f"mmdet has no tool {argv[0]!r}; --list shows what it has")
    path = tools[argv[0]]
    sys.argv = [str(path), *argv[1:]]
    # Some of them import files that lie beside them.
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
    return 0
