# SPDX-License-Identifier: Apache-2.0
"""Train the model in the box anew: lungdet make-model OUT --scans LUNGS... --crops CROPS.

Real nodules are set into real lungs (lungdet insert), phantoms are added, and the
small detector is trained on both. Lungs and nodules of the patients named by --test-patients, and
the nodules of one fold in four, are kept for the test; every training lung trains, phantoms choose
the threshold. The same seeds, data and versions give the same weights on the same kind of
processor. Goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from lungdet_mmdet.runs.command_line import CommandStep, run_command_steps

CONFIG = "lung_deform_detr_phantom.py"
PHANTOMS, PHANTOM_SEED = 60, 2


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    add("--workers", type=int, default=2, help="processes for the data (default: %(default)s)")
    return parser.parse_args()


def _quoted(*paths: Path | str) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)


def plan(args: argparse.Namespace) -> list[CommandStep]:
    """Return every step."""
    out = args.out_dir.resolve()
    train, test, phantoms = out / "semireal_train", out / "semireal_test", out / "phantoms"
    prepared, prepared_test, work = out / "prepared", out / "prepared_test", out / "work"
    last, model = work / f"iter_{args.iters}.pth", out / "slab_dino_small.pth"
    shared = f"--patients {_quoted(args.patients)} --workers {args.workers}"
    prepare = f"--config {CONFIG} --workers {args.workers}"
    start = f" --load-from {_quoted(args.load_from.resolve())}" if args.load_from else ""
    rate = f" optim_wrapper.optimizer.lr={args.lr}" if args.lr else ""
    natural = "--positive-rate train=natural val=natural test=natural"
    return [
        CommandStep(
            "set nodules into the training lungs",
            f"lungdet insert {_quoted(*args.scans, args.crops, train)} --seed 19"
            " --scans-per-lung 12 --nodules-per-scan 12 --nodule-folds 0,1,2/4"
            f" --exclude-patients {_quoted(*args.test_patients)} {shared}",
        ),
        CommandStep(
            "prepare them",
            f"lungdet prepare {_quoted(train, prepared)} {prepare}"
            f" --nodule-masks {_quoted(f'{train}-nodule-masks')}",
        ),
        CommandStep(
            f"make {PHANTOMS} phantoms",
            f"lungdet phantom {_quoted(phantoms)} --scans {PHANTOMS}"
            f" --seed {PHANTOM_SEED} --size fine --mean-nodules 6 --workers {args.workers}",
        ),
        CommandStep(
            "prepare them beside the others",
            f"lungdet prepare {_quoted(phantoms, prepared)} {prepare}",
        ),
        CommandStep(
            "split",
            f"lungdet split {_quoted(prepared)} --seed 1 --ratios 0.83 0.14 0.03 {natural}"
            f" --patients {_quoted(train / 'patients.csv')}",
        ),
        CommandStep(
            "train",
            f"lungdet train {CONFIG} --data {_quoted(prepared)} --work-dir {_quoted(work)}"
            f"{start} --resume --cfg-options train_cfg.max_iters={args.iters}"
            f" train_cfg.val_interval={args.iters} param_scheduler.1.end={args.iters}"
            f" randomness.seed=1{rate}",
        ),
        CommandStep(
            "publish",
            f"lungdet publish {_quoted(last, model)} --config {CONFIG} --data {_quoted(prepared)}",
        ),
        CommandStep(
            "set nodules into the test lungs",
            f"lungdet insert {_quoted(*args.test_scans, args.crops, test)} --seed 20"
            " --scans-per-lung 6 --nodules-per-scan 8 --no-variants --nodule-folds 3/4"
            f" --exclude-patients {_quoted(*args.train_patients)} {shared}",
        ),
        CommandStep(
            "prepare them",
            f"lungdet prepare {_quoted(test, prepared_test)} {prepare}"
            f" --nodule-masks {_quoted(f'{test}-nodule-masks')}",
        ),
        CommandStep(
            "every one of them is a test scan",
            f"lungdet split {_quoted(prepared_test)} --protocol test",
        ),
        CommandStep(
            "test",
            f"lungdet test {CONFIG} {_quoted(last)} --data {_quoted(prepared_test)}"
            f" --work-dir {_quoted(out / 'tested')}",
        ),
    ]


def main() -> int:
    return run_command_steps(plan(parse_args()))
