# SPDX-License-Identifier: Apache-2.0
"""The whole job on phantoms: make a cohort, prepare, train, test, draw, and look at one scan.

`make demo` goes on from the model in the box and takes minutes; `make demo-scratch` trains from
random weights, `make demo-long` the same for longer. Everything here is phantom data: the figures
say that the software works, not how well it would do on patients.
"""

from __future__ import annotations

import argparse
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.engine.by_name import SHIPPED_MODEL
from lungdet_mmdet.runs.command_line import CommandStep, run_command_steps
from lungdet_mmdet.series_name import phantom_uid

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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    return parser.parse_args()


def plan(args: argparse.Namespace) -> list[CommandStep]:
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


def main() -> int:
    args = parse_args()
    began = time.monotonic()
    code = run_command_steps(plan(args))
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
