# SPDX-License-Identifier: Apache-2.0
"""Find nodules in CT scans: lungdet infer INPUT... [--checkpoint MODEL.pth] [--out DIR]."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Find nodules in CT scans. Research software, not for clinical use."
    )
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
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        help="scans at a time, each in a process with its own copy of the model; 0 = one scan at a "
        "time in this process, or with several GPUs one for each (default: %(default)s)",
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


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    # Of no use to whoever reads results: how mmdet and torch were built.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(mmdet|torch|highdicom)\b")
    from lungdet_mmdet.apis.infer import detect_scans

    run = detect_scans(
        args.inputs,
        args.out,
        checkpoint=args.checkpoint,
        device=args.device,
        threshold=args.threshold,
        batch_size=args.batch_size,
        workers=args.workers,
        dask=args.dask,
        stride_mm=args.stride_mm,
        looks=args.looks,
        series_uid=args.series,
        trust_checkpoint=args.trust_checkpoint,
        label_map=args.label_map,
        report=args.report,
        dicom=() if args.dicom == "none" else args.dicom.split(","),
        anonymous=args.anonymous,
        precision=args.precision,
        say=print,
    )
    for line in run.lines():
        print(line)
    for failure in run.failures:
        print(f"FAILED {failure.seriesuid}: {failure.reason}", file=sys.stderr)
    return run.exit_code
