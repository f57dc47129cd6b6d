# SPDX-License-Identifier: Apache-2.0
"""Use a model on scans, give it away, and train the one in the box anew."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.command_line import (
    CommandStep,
    add_workers_option,
    command_parser,
    quoted,
    run_command_steps,
)
from lungdet_mmdet.runs.files import SERIES_TABLE


def infer_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(infer)
    parser.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        metavar="INPUT",
        help=".mhd, .mha, .nrrd, .nii, .nii.gz; a folder with scans or DICOM series; a .txt file "
        "with one of these a line",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        nargs="+",
        help="model file (`lungdet publish`), or several, whose boxes are joined; default: the "
        "model in the box, trained on made-up and semi-real scans",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results"),
        help="one folder per scan is made here (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--threshold",
        type=float,
        help="score from which a candidate counts as positive (default: the model's own, or 0.5); "
        "weaker ones stay in the tables, marked",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help="slabs at a time (default: 1 on a CPU, 4 on a GPU)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "tf32", "fp16", "bf16"),
        default="fp32",
        help="of the network (default: %(default)s); below fp32 the best slab of each scan is "
        "looked at again in fp32, and the whole scan where it differs",
    )
    add_workers_option(
        parser,
        default=0,
        what="scans at a time, each in a process with its own copy of the model",
        at_0="one scan at a time in this process, or with several GPUs a process for each",
    )
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="work on a Dask cluster, e.g. tcp://HOST:8786; all its machines must see INPUT and "
        "DIR under the same paths",
    )
    parser.add_argument(
        "--stride-mm",
        type=float,
        help="distance of neighbouring slabs; less than their thickness makes them overlap: better "
        "recall and position along z, more time (default: the model's own)",
    )
    parser.add_argument(
        "--looks",
        type=int,
        choices=(1, 2, 4),
        default=1,
        help="times that each slab is looked at, also mirrored, with the boxes joined: as many "
        "times the time (default: %(default)s)",
    )
    parser.add_argument(
        "--label-map",
        action="store_true",
        help="also write candidates_boxes.nii.gz: the boxes on the input's own grid, labelled by "
        "rank",
    )
    parser.add_argument(
        "--report",
        choices=("full", "slabs", "none"),
        default="full",
        help="page of each scan: with all slices of the CT (about 16 MB), with the slabs alone "
        "(2 MB), or none (default: %(default)s)",
    )
    parser.add_argument(
        "--dicom",
        metavar="KINDS",
        default="sr",
        help="files for DICOM viewers, for DICOM input: sr (structured report), sc (picture), seg "
        "(segmentation), e.g. sr,sc,seg; none writes none (default: %(default)s)",
    )
    parser.add_argument("--series", metavar="UID", help="DICOM series to read")
    parser.add_argument(
        "--anonymous",
        action="store_true",
        help="results hold no path, no name and no patient data; scans are named by their content",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="also load checkpoints that can run code of whoever made them",
    )
    args = parser.parse_args(argv)
    if not args.inputs and args.checkpoint:
        # "--checkpoint MODEL.pth SCAN": the scan was taken for one more model.
        args.inputs = [path for path in args.checkpoint if path.suffix != ".pth"]
        args.checkpoint = [path for path in args.checkpoint if path.suffix == ".pth"]
    if not args.inputs:
        parser.error("INPUT is missing: name a scan, a folder of scans or a list of them")
    return args


def infer(argv: Sequence[str] | None = None) -> int:
    """Find nodules in CT scans. Research software, not for clinical use."""
    args = infer_options(argv)
    # Of no use to whoever reads results: how mmdet and torch were built.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(mmdet|torch|highdicom)\b")
    from lungdet_mmdet.apis.infer import DetectorOptions, detect_scans

    options = DetectorOptions(
        tuple(args.checkpoint or ()),
        device=args.device,
        threshold=args.threshold,
        batch_size=args.batch_size,
        stride_mm=args.stride_mm,
        looks=args.looks,
        trust_checkpoint=args.trust_checkpoint,
        label_map=args.label_map,
        report=args.report,
        dicom=() if args.dicom == "none" else tuple(args.dicom.split(",")),
        anonymous=args.anonymous,
        precision=args.precision,
    )
    run = detect_scans(
        args.inputs,
        args.out,
        options,
        workers=args.workers,
        dask=args.dask,
        series_uid=args.series,
        say=print,
    )
    for line in run.lines():
        print(line)
    for failure in run.failures:
        print(f"FAILED {failure.seriesuid}: {failure.reason}", file=sys.stderr)
    return run.exit_code


def publish_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(publish)
    parser.add_argument("checkpoint", type=Path, help="checkpoint written by `lungdet train`")
    parser.add_argument("out", type=Path, help="model file to write, .pth")
    parser.add_argument(
        "--config", type=Path, help="its config (default: the one stored in the checkpoint)"
    )
    parser.add_argument(
        "--metrics", type=Path, help="metrics.json of `lungdet test`: figures and threshold"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="score from which a candidate is shown as positive (default: what validation chose "
        "and the checkpoint carries, or else that of the metrics)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="prepared dataset it was trained on (default: that of the checkpoint's own config)",
    )
    parser.add_argument(
        "--average",
        type=Path,
        nargs="+",
        default=[],
        metavar="CHECKPOINT",
        help="write the mean of its weights and of these checkpoints' or model files'",
    )
    parser.add_argument("--note", default="", help="a sentence about the model")
    return parser.parse_args(argv)


def read_metrics(path: Path | None) -> dict:
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise LungDetError(f"{path}: cannot be read ({error}); run `lungdet test` again") from error
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict):
        raise LungDetError(f"{path}: not a metrics.json of `lungdet test`")
    return content


def publish(argv: Sequence[str] | None = None) -> int:
    """Make a model file that is safe to give away: lungdet publish CHECKPOINT MODEL.pth.

    It holds weights, the config as data, metrics, what the model was trained on, and the score
    threshold; nothing in it can run code. The training checkpoint itself must be your own or from
    someone you trust: reading it can run code.
    """
    args = publish_options(argv)
    from lungdet_mmdet.apis.publishing import publish_model

    model = publish_model(
        args.checkpoint,
        args.out,
        config_path=args.config,
        metrics=read_metrics(args.metrics),
        threshold=args.threshold,
        data_root=args.data,
        note=args.note,
        average=args.average,
    )
    weights = sum(t.numel() for t in model.state_dict.values())
    print(f"{args.out}: {weights / 1e6:.1f} million weights, sha256 {model.sha256}")
    print(f"trained on: {model.data.get('name', 'not stated (--data PREPARED_DIR states it)')}")
    if model.threshold is None:
        print("no threshold: `lungdet infer` will take 0.5 (--threshold or --metrics states one)")
    else:
        print(f"threshold: {model.threshold:g}")
    return 0


def export_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(export)
    add = parser.add_argument
    add("checkpoint", type=Path, help="a model file")
    add("--format", choices=("onnx", "openvino"), required=True, help="what to write")
    add(
        "--size",
        type=int,
        nargs=2,
        default=(352, 512),
        metavar=("HEIGHT", "WIDTH"),
        help="size of the slabs in pixels (default: 352 512, room for most lungs at 0.7 mm)",
    )
    add("--out", type=Path, help="file to write (default: beside the model file)")
    add("--trust-checkpoint", action="store_true", help="also load files that can run code")
    return parser.parse_args(argv)


def export(argv: Sequence[str] | None = None) -> int:
    """Export a model's network to ONNX or OpenVINO.

        lungdet export MODEL.pth --format onnx|openvino --size HEIGHT WIDTH [--out FILE]

    Before anything is written, the exported network runs on random slabs beside PyTorch; where
    outputs differ, nothing is written. docs/inference.md says what goes in and what comes out.
    """
    args = export_options(argv)
    from lungdet_mmdet.apis.exporting import SUFFIXES, export_model
    from lungdet_mmdet.apis.model_file import read_model_file

    out = args.out or args.checkpoint.with_suffix(SUFFIXES[args.format])
    model = read_model_file(args.checkpoint, trust=args.trust_checkpoint)
    agreement = export_model(
        model, out, file_format=args.format, size_yx=(args.size[0], args.size[1])
    )
    print(
        f"{out}: outputs agree with PyTorch to {agreement.box_px:.1e} px and "
        f"{agreement.score:.1e} in score"
    )
    return 0


# It learns from slabs side by side, and looks at slabs that overlap.
TRAINING_CONFIG, MODEL_CONFIG = "lung_deform_detr_phantom.py", "lung_deform_detr_semireal.py"
# By convention: validation knows phantoms alone, and would choose 0.8.
MODEL_THRESHOLD = 0.6
PHANTOMS, PHANTOM_SEED = 60, 2
# From random weights, and on from them on other data at a lower rate.
MODEL_ITERS, GOING_ON_LR = [6000, 5000], 6e-4


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
    add(
        "--iters",
        type=int,
        nargs="+",
        default=MODEL_ITERS,
        help="steps of each training in a row (default: %(default)s)",
    )
    add("--load-from", type=Path, help="weights to start from (default: random ones)")
    add(
        "--scans-per-lung",
        type=int,
        default=24,
        help="semi-real scans made of each lung for each training (default: %(default)s)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="other phantoms, nodules and places, and another order in training; the test stays as "
        "it is (default: %(default)s)",
    )
    add_workers_option(parser, default=2, what="processes for the data")
    return parser.parse_args(argv)


def make_model_plan(args: argparse.Namespace) -> list[CommandStep]:
    """Return every step."""
    out = args.out_dir.resolve()
    prepared_test, model = out / "prepared_test", out / "slab_dino_small.pth"
    steps: list[CommandStep] = []
    before, last = None, args.load_from and args.load_from.resolve()
    for number, iters in enumerate(args.iters):
        folder = out / f"training_{number + 1}"
        steps += [
            replace(step, what=f"training {number + 1}: {step.what}")
            for step in _training_steps(args, folder, args.seed + number, iters, last)
        ]
        before, last = last, folder / "work" / f"iter_{iters}.pth"
    average = f" --average {quoted(before)}" if before else ""
    return [
        *steps,
        CommandStep(
            "publish",
            f"lungdet publish {quoted(last, model)} --config {MODEL_CONFIG}"
            f" --data {quoted(folder / 'prepared')} --threshold {MODEL_THRESHOLD}{average}",
        ),
        *_semireal_steps(
            args,
            "test",
            out / "semireal_test",
            prepared_test,
            "--seed 20 --scans-per-lung 6 --nodules-per-scan 8 --no-variants --nodule-folds 3/4",
        ),
        CommandStep(
            "every one of them is a test scan",
            f"lungdet split {quoted(prepared_test)} --protocol test",
        ),
        CommandStep(
            "test",
            f"lungdet test {MODEL_CONFIG} {quoted(model)} --data {quoted(prepared_test)}"
            f" --work-dir {quoted(out / 'tested')}",
        ),
    ]


def _training_steps(
    args: argparse.Namespace, folder: Path, seed: int, iters: int, load_from: Path | None
) -> list[CommandStep]:
    """Return the steps of one training on nodules, places and phantoms of its own seed."""
    semireal, phantoms, prepared = folder / "semireal", folder / "phantoms", folder / "prepared"
    start = f" --load-from {quoted(load_from)}" if load_from else ""
    rate = f" optim_wrapper.optimizer.lr={GOING_ON_LR}" if load_from else ""
    natural = "--positive-rate train=natural val=natural test=natural"
    return [
        *_semireal_steps(
            args,
            "training",
            semireal,
            prepared,
            f"--seed {19 + seed} --scans-per-lung {args.scans_per_lung} --nodules-per-scan 12"
            " --nodule-folds 0,1,2/4",
        ),
        CommandStep(
            f"make {PHANTOMS} phantoms",
            f"lungdet phantom {quoted(phantoms)} --scans {PHANTOMS}"
            f" --seed {PHANTOM_SEED + seed} --size fine --mean-nodules 6"
            f" --workers {args.workers}",
            phantoms / SERIES_TABLE,
        ),
        CommandStep(
            "prepare them beside the others",
            f"lungdet prepare {quoted(phantoms, prepared)} --config {TRAINING_CONFIG}"
            f" --workers {args.workers}",
        ),
        CommandStep(
            "split",
            f"lungdet split {quoted(prepared)} --seed 1 --ratios 0.83 0.14 0.03 {natural}"
            f" --patients {quoted(semireal / 'patients.csv')}",
        ),
        CommandStep(
            f"train for {iters} steps",
            f"lungdet train {TRAINING_CONFIG} --data {quoted(prepared)}"
            f" --work-dir {quoted(folder / 'work')}"
            f"{start} --resume --cfg-options train_cfg.max_iters={iters}"
            f" train_cfg.val_interval={iters} param_scheduler.1.end={iters}"
            f" randomness.seed={1 + seed}{rate}",
        ),
    ]


def _semireal_steps(
    args: argparse.Namespace, part: str, scans: Path, prepared: Path, options: str
) -> list[CommandStep]:
    """Return the steps that set nodules into the lungs of one part, training or test."""
    lungs, other_patients, config = {
        "training": (args.scans, args.test_patients, TRAINING_CONFIG),
        "test": (args.test_scans, args.train_patients, MODEL_CONFIG),
    }[part]
    return [
        CommandStep(
            f"set nodules into the {part} lungs",
            f"lungdet insert {quoted(*lungs, args.crops, scans)} {options}"
            f" --exclude-patients {quoted(*other_patients)} --patients {quoted(args.patients)}"
            f" --workers {args.workers}",
        ),
        CommandStep(
            f"prepare the {part} scans",
            f"lungdet prepare {quoted(scans, prepared)} --config {config}"
            f" --workers {args.workers} --nodule-masks {quoted(f'{scans}-nodule-masks')}",
        ),
    ]


def make_model(argv: Sequence[str] | None = None) -> int:
    """Train the model in the box anew: lungdet make-model OUT --scans LUNGS... --crops CROPS.

    Real nodules are set into real lungs (lungdet insert), phantoms are added, and the small
    detector is trained on both; then again, from those weights at a lower rate, on other nodules,
    places and phantoms, as often as --iters has numbers. What is published and tested is the mean
    of the weights that the last training began from (unless they were random) and ended with, with
    a threshold of 0.6. Lungs and nodules of the patients named by --test-patients, and the nodules
    of one fold in four, are kept for the test. Lungs of up to fifteen patients all train. The same
    seeds, data and versions give the same weights on the same kind of processor. Goes on where it
    was interrupted.
    """
    args = make_model_options(argv)
    return run_command_steps(make_model_plan(args), args.out_dir)
