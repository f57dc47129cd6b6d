# SPDX-License-Identifier: Apache-2.0
"""The paper's comparisons on phantom data: detectors, slab thickness, loss.

    lungdet ablation OUT [--iters 500] [--scans 100] [--seed 1] [--only main detr ...]

Makes one phantom cohort, prepares it once per slab thickness, trains and tests each variant on the
same scans, and ends with one table (OUT/comparison.md, comparison.png). Interrupted, the same
command goes on. Phantom data: the order of variants says nothing certain about patients.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.runs.command_line import CommandStep, quoted, run_command_steps
from lungdet_mmdet.runs.file_names import METRICS_NAME

MAIN = "main"
# Variant: whether its slabs are prepared apart, and how deep (mm) a nodule must reach into one.
VARIANTS = {
    MAIN: (False, 2.0),
    "detr": (False, 2.0),
    "ce": (False, 2.0),
    "mip0": (True, 0.6),
    "mip5": (True, 2.0),
    "mip10": (True, 2.0),
    "mip15": (True, 2.0),
}
# As in the demo: enough nodules to learn from, and enough test scans for an interval.
MEAN_NODULES = 6
SPLIT = "--ratios 0.7 0.1 0.2 --positive-rate train=natural val=natural test=natural"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("out_dir", type=Path, metavar="OUT", help="folder for everything that is made")
    add("--iters", type=int, default=500, help="training iterations (default: %(default)s)")
    add("--scans", type=int, default=100, help="phantom scans (default: %(default)s)")
    add("--seed", type=int, default=1, help="seed of phantoms and training (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        choices=list(VARIANTS),
        default=list(VARIANTS),
        metavar="VARIANT",
        help=f"which of {', '.join(VARIANTS)} (default: all)",
    )
    return parser.parse_args(argv)


def config_of(variant: str) -> str:
    """Return the name of a variant's config."""
    return f"phantom/{variant}.py"


def plan(args: argparse.Namespace) -> list[CommandStep]:
    """Return every step of the study."""
    out_dir = args.out_dir.resolve()
    cohort = out_dir / "luna16_phantoms"
    steps = [
        CommandStep(
            f"make {args.scans} phantom scans",
            f"lungdet phantom {quoted(cohort)} --scans {args.scans} --seed {args.seed}"
            f" --size small --mean-nodules {MEAN_NODULES} --workers 2",
            cohort / "annotations.csv",
        )
    ]
    for variant in args.only:
        own_slabs, overlap_mm = VARIANTS[variant]
        prepared = out_dir / f"prepared_{variant if own_slabs else MAIN}"
        config, work = config_of(variant), out_dir / f"work_{variant}"
        last = work / f"iter_{args.iters}.pth"
        steps += [
            CommandStep(
                f"{variant}: prepare slabs",
                f"lungdet prepare {quoted(cohort, prepared)} --config {config} --workers 2",
            ),
            CommandStep(
                f"{variant}: split by scan",
                f"lungdet split {quoted(prepared)} --min-overlap-mm {overlap_mm} {SPLIT}",
            ),
            CommandStep(
                f"{variant}: train",
                f"lungdet train {config} --data {quoted(prepared)} --work-dir {quoted(work)}"
                f" --resume --cfg-options randomness.seed={args.seed}"
                f" train_cfg.max_iters={args.iters}"
                f" train_cfg.val_interval={args.iters} param_scheduler.1.end={args.iters}",
                last,
            ),
            CommandStep(
                f"{variant}: test on scans it never saw",
                f"lungdet test {config} {quoted(last)} --data {quoted(prepared)}"
                f" --work-dir {quoted(work)} --no-report",
                work / METRICS_NAME,
            ),
        ]
    runs = [out_dir / f"work_{variant}" for variant in args.only]
    compare = f"lungdet compare {quoted(*runs)} --sort CPM --out {quoted(out_dir)}"
    steps.append(CommandStep("compare", compare))
    return steps


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    return run_command_steps(plan(args))
