# SPDX-License-Identifier: Apache-2.0
"""Test a detector: lungdet test CONFIG CHECKPOINT [--data PREPARED_DIR ...].

Several prepared folders give one table; the report of each lies in WORK_DIR/NAME.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.commands import add_cfg_options


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="The distance of the slabs is that of the prepared folder (stride_mm of MIPSlabs in "
        "the prep_pipeline; prepare again for another), and boxes are merged by the options of "
        "FROCMetric in the config; its defaults are what `lungdet infer` does.",
    )
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
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm", "mpi"),
        default="none",
        help="job launcher",
    )
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help="set by old launchers"
    )
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.data is None or len(args.data) == 1:
        args.data = args.data[0] if args.data else None
        return _test(args)
    return _test_on_each(args)


def _test_on_each(args: argparse.Namespace) -> int:
    from lungdet_mmdet.errors import LungDetError
    from lungdet_mmdet.scoring.run_comparison import comparison_of_sets, read_run

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
    from lungdet_mmdet.apis.config_file import (
        check_config_leaks,
        check_data,
        check_prep_pipeline,
        read_config,
    )
    from lungdet_mmdet.engine.by_name import find_weights
    from lungdet_mmdet.engine.run_setup import join_processes
    from lungdet_mmdet.evaluation.outputs import (
        print_table,
        write_metrics,
        write_overlays,
        write_report,
    )
    from lungdet_mmdet.evaluation.slab_test import run_slab_test
    from lungdet_mmdet.runs.atomic_files import check_writable

    config = read_config(
        args.config, data=args.data, work_dir=args.work_dir, cfg_options=args.cfg_options
    )
    check_data(config, (args.split,))
    check_writable(Path(config.work_dir))
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
