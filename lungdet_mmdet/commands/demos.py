# SPDX-License-Identifier: Apache-2.0
"""The whole job on phantoms: the demo, and the paper's comparisons."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.engine.by_name import SHIPPED_MODEL
from lungdet_mmdet.runs.command_line import CommandStep, command_parser, quoted, run_command_steps
from lungdet_mmdet.runs.files import METRICS_NAME, phantom_uid

CONFIG = "lung_deform_detr_phantom.py"
SIZE = "fine"
# Three times as many per diseased scan as in LUNA16: a short training needs enough to learn from.
MEAN_NODULES = 6


@dataclass(frozen=True)
class Length:
    """How much is made and trained.

    Parameters
    ----------
    scans : phantoms.
    ratios : of train, val, test; about fifteen test scans, for a figure that means something.
    iters : training steps.
    start : where the weights come from, as options of ``lungdet train`` and config overrides.
    """

    scans: int
    ratios: str
    iters: int
    start: tuple[str, str] = ("", "")


LENGTHS = {
    "short": Length(
        36,
        "0.47 0.11 0.42",
        60,
        # Weights that are good already are moved gently.
        (f"--load-from {shlex.quote(str(SHIPPED_MODEL))}",
         "optim_wrapper.optimizer.lr=1e-4 param_scheduler.0.end=10 param_scheduler.1.begin=10"),
    ),
    "scratch": Length(100, "0.75 0.1 0.15", 700),
    "long": Length(100, "0.75 0.1 0.15", 4000),
}  # fmt: skip


def demo_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(demo)
    parser.add_argument("out_dir", type=Path, help="folder for everything the demo makes")
    parser.add_argument(
        "--length",
        choices=tuple(LENGTHS),
        default="short",
        help="short goes on from the model in the box, scratch and long start from random weights "
        "(default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the phantoms")
    parser.add_argument(
        "--labels",
        choices=("auto", "sphere", "mask"),
        default="auto",
        help="what boxes come from; phantoms have masks, which auto takes",
    )
    return parser.parse_args(argv)


def demo_plan(args: argparse.Namespace) -> list[CommandStep]:
    """Return every step."""
    length, config = LENGTHS[args.length], CONFIG
    out_dir = shlex.quote(str(args.out_dir.resolve() / args.length))
    cohort, prepared, work = f"{out_dir}/luna16_phantoms", f"{out_dir}/prepared", f"{out_dir}/work"
    options, overrides = length.start
    one = f"{cohort}/subset0/{phantom_uid(size=SIZE, seed=args.seed, index=0)}.mhd"
    return [
        CommandStep(
            f"make {length.scans} phantom scans in the layout of LUNA16",
            f"lungdet phantom {cohort} --scans {length.scans} --seed {args.seed}"
            f" --size {SIZE} --mean-nodules {MEAN_NODULES} --workers 2",
        ),
        CommandStep(
            "prepare them: resample, lung mask, CLAHE, 7.5 mm MIP slabs",
            f"lungdet prepare {cohort} {prepared} --config {config} --workers 2",
        ),
        CommandStep(
            "split by scan into train, val and test",
            f"lungdet split {prepared} --ratios {length.ratios} --labels {args.labels}"
            " --positive-rate train=natural val=natural test=natural",
        ),
        CommandStep(
            "train a small Deformable-DETR"
            + (", on from the model in the box" if options else " from random weights"),
            f"lungdet train {config} --data {prepared} --work-dir {work} --resume {options}"
            f" --cfg-options train_cfg.max_iters={length.iters}"
            f" train_cfg.val_interval={length.iters} param_scheduler.1.end={length.iters}"
            f" {overrides}",
        ),
        CommandStep(
            "test it on scans it never saw",
            f"lungdet test {config} {work}/iter_{length.iters}.pth --data {prepared}"
            f" --work-dir {work} --show-dir {work}/overlays",
        ),
        CommandStep(
            "look at one scan with the model in the box",
            f"lungdet infer {one} --out {out_dir}/results",
        ),
    ]


def demo(argv: Sequence[str] | None = None) -> int:
    """The whole job on phantoms: make a cohort, prepare, train, test, draw, and look at one scan.

    `make demo` goes on from the model in the box and takes minutes; `make demo-scratch` trains from
    random weights, `make demo-long` the same for longer. Everything here is phantom data: the
    figures say that the software works, not how well it would do on patients.
    """
    args = demo_options(argv)
    began = time.monotonic()
    code = run_command_steps(demo_plan(args))
    if code:
        return code
    made = args.out_dir / args.length
    print(
        f"\nDone in {(time.monotonic() - began) / 60:.1f} minutes, on phantom data. Look at\n"
        f"  {made / 'prepared' / 'prep_report.html'}\n"
        f"  {made / 'work' / 'report.html'} and {made / 'work' / 'overlays'}\n"
        f"  {made / 'results'}: a page for the one scan"
    )
    return 0


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
# Enough test scans for an interval.
SPLIT = "--ratios 0.7 0.1 0.2 --positive-rate train=natural val=natural test=natural"


def ablation_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(ablation)
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


def ablation_plan(args: argparse.Namespace) -> list[CommandStep]:
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


def ablation(argv: Sequence[str] | None = None) -> int:
    """The paper's comparisons on phantom data: detectors, slab thickness, loss.

        lungdet ablation OUT [--iters 500] [--scans 100] [--seed 1] [--only main detr ...]

    Makes one phantom cohort, prepares it once per slab thickness, trains and tests each variant on
    the same scans, and ends with one table (OUT/comparison.md, comparison.png). Interrupted, the
    same command goes on. Phantom data: the order of variants says nothing certain about patients.
    """
    args = ablation_options(argv)
    return run_command_steps(ablation_plan(args))
