"""The whole job on phantoms from random weights: make a cohort, prepare, train, test, draw.

`make demo-scratch` runs this, `make demo-long` with the long training.

Everything here is phantom data: the figures say that the software works, not how well it would do
on patients.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lungdet_mmdet.runs.command_line import CommandStep, run_and_exit, run_command_steps

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "lung_deform_detr_phantom.py"
SCANS = 100
# Three times as many per diseased scan as in LUNA16: a short training needs enough to learn from.
MEAN_NODULES = 6
# Enough test scans for a figure that means something; rates as the scans have them.
SPLIT = "--ratios 0.75 0.1 0.15 --positive-rate train=natural val=natural test=natural"
DEMO_ITERS, LONG_ITERS = 700, 4000


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out_dir", type=Path, help="folder for everything the demo makes")
    parser.add_argument(
        "--long", action="store_true", help=f"train for {LONG_ITERS} iterations instead of minutes"
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
    out_dir, config = args.out_dir.resolve(), CONFIG.relative_to(ROOT)
    cohort, prepared = out_dir / "luna16_phantoms", out_dir / "prepared"
    work = out_dir / ("work_long" if args.long else "work")
    iters = LONG_ITERS if args.long else DEMO_ITERS
    last = work / f"iter_{iters}.pth"
    return [
        CommandStep(
            f"make {SCANS} phantom scans in the layout of LUNA16",
            f"data_prep/make_phantom.py {cohort} --scans {SCANS} --seed {args.seed} --size fine"
            f" --mean-nodules {MEAN_NODULES} --workers 2",
        ),
        CommandStep(
            "prepare them: resample, lung mask, CLAHE, 7.5 mm MIP slabs",
            f"data_prep/prepare_luna16.py {cohort} {prepared} --config {config} --workers 2",
        ),
        CommandStep(
            "split by scan into train, val and test",
            f"data_prep/make_splits.py {prepared} {SPLIT} --labels {args.labels}",
        ),
        CommandStep(
            "train a small Deformable-DETR",
            f"tools/train.py {config} --data {prepared} --work-dir {work} --resume --cfg-options"
            f" train_cfg.max_iters={iters} train_cfg.val_interval={iters}"
            f" param_scheduler.1.end={iters}",
        ),
        CommandStep(
            "test it on scans it never saw",
            f"tools/test.py {config} {last} --data {prepared} --work-dir {work}"
            f" --show-dir {work / 'overlays'}",
        ),
    ]


def main() -> int:
    args = parse_args()
    began = time.monotonic()
    steps = plan(args)
    code = run_command_steps(steps, root=ROOT)
    if code:
        return code
    print(
        f"\nDone in {(time.monotonic() - began) / 60:.1f} minutes, on phantom data. Look at\n"
        f"  {args.out_dir / 'prepared' / 'prep_report.html'}\n"
        f"  {steps[-1].command.split('--show-dir ')[1]}"
    )
    return 0


if __name__ == "__main__":
    run_and_exit(main)
