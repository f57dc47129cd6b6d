# SPDX-License-Identifier: Apache-2.0
"""Prepare a folder of scans, LUNA16's or any other: slab PNGs, COCO annotations, manifest, report.

Running the same command again goes on where it was stopped and redoes only what has changed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.errors import LungDetError

DEFAULT_CONFIG = Path("lung_deform_detr.py")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "luna16_dir",
        type=Path,
        help="folder of scans: LUNA16's with annotations.csv, or any other with --annotations",
    )
    add("out_dir", type=Path, help="folder for the prepared dataset")
    add("--config", type=Path, default=DEFAULT_CONFIG, help="config whose prep_pipeline is run")
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="worker processes, 0 = in this process (default: %(default)s, one per core)",
    )
    add("--dask", metavar="ADDRESS", help="work on a Dask cluster, e.g. tcp://HOST:8786")
    add(
        "--mask",
        choices=("otsu", "luna16"),
        help="lung mask: computed, or LUNA16's own where present (default: the config's)",
    )
    add(
        "--nodule-masks",
        type=Path,
        metavar="DIR",
        help="label volumes UID.mha (.mhd, .nrrd, .nii.gz) or DICOM segmentations, or a folder of "
        "`lungdet lidc-labels`; LUNA16_DIR/nodule_masks is taken by itself",
    )
    add(
        "--labels",
        choices=("auto", "sphere", "mask"),
        default="auto",
        help="what the split's boxes come from; auto = the mask where there is one",
    )
    add(
        "--protocol",
        choices=("strict", "paper", "fold"),
        default="strict",
        help="how to split at the end (default: %(default)s)",
    )
    add("--fold", type=int, help="official subset that tests (0-9), with --protocol fold")
    add("--seed", type=int, default=0, help="seed of the split (default: %(default)s)")
    _add_annotation_options(parser)
    return parser.parse_args(argv)


def _add_annotation_options(parser: argparse.ArgumentParser) -> None:
    from lungdet_mmdet.annotations.nodule_sources import COORDS, ROLES

    add = parser.add_argument_group("annotations of other datasets").add_argument
    add(
        "--annotations",
        type=Path,
        metavar="PATH",
        help="in the place of annotations.csv: a table, 3D Slicer's markups (.mrk.json, .fcsv) or "
        "a folder of them, a folder of LIDC's XML files",
    )
    add(
        "--columns",
        nargs="+",
        default=[],
        metavar="ROLE=NAME",
        help=f"columns of the table where they are not found: {', '.join(ROLES)}",
    )
    add(
        "--coords",
        choices=COORDS,
        help="what places are given in: millimetres to the left, back and head (lps) or to the "
        "right, front and head (ras), or voxels of the file (default: what markups say, else lps)",
    )
    add(
        "--diameter-mm",
        type=float,
        metavar="MM",
        help="of all nodules, where the annotations have no sizes",
    )
    add(
        "--keep",
        nargs="+",
        default=[],
        metavar="COLUMN>=VALUE",
        help="rows that fail a condition are irrelevant findings, e.g. 'AgrLevel>=2'",
    )


def main(argv: Sequence[str] | None = None) -> int:
    return _prepare(parse_args(argv))


def _prepare(args: argparse.Namespace) -> int:
    from lungdet_mmdet.annotations.nodule_sources import annotation_source
    from lungdet_mmdet.apis.config_text import config_from_file
    from lungdet_mmdet.luna16.folder import read_luna16_folder
    from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort, summary_lines
    from lungdet_mmdet.preparation.prep_pipeline import (
        override_mask_method,
        prep_imports,
        prep_steps,
    )
    from lungdet_mmdet.preparation.scan_job import limit_threads
    from lungdet_mmdet.runs.workplace import find_workplace

    if args.protocol == "fold" and args.fold is None:
        raise LungDetError("--protocol fold needs the number of the fold: give --fold 0-9")
    place = find_workplace(
        args.workers,
        dask=args.dask,
        setup=limit_threads,
        read_from=[args.luna16_dir, *([args.nodule_masks] if args.nodule_masks else [])],
        write_to=args.out_dir,
    )
    config = config_from_file(args.config, import_custom_modules=False)
    steps = prep_steps(config, source=str(args.config))
    if args.mask:
        steps = override_mask_method(steps, args.mask)
    # Workers on other machines start in another folder.
    folder = read_luna16_folder(
        args.luna16_dir.resolve(),
        nodule_masks=args.nodule_masks.resolve() if args.nodule_masks else None,
        annotations=annotation_source(args),
    )
    print(
        f"{len(folder.scans)} scans on disk in {folder.root}; "
        f"{len(folder.missing_series)} series of its tables are not on disk"
    )
    for warning in folder.warnings:
        print(f"note: {warning}")
    summary = prepare_cohort(
        folder,
        args.out_dir.resolve(),
        steps,
        place.make_executor,
        workers=place.workers,
        imports=prep_imports(config),
    )
    print("\n".join(summary_lines(summary, args.out_dir)))
    if summary.finished and any(scan["status"] == "ok" for scan in summary.manifest["scans"]):
        _split(args)
    return summary.exit_code


def _split(args: argparse.Namespace) -> None:
    from lungdet_mmdet.splits.split_writer import report_lines, write_splits

    fold = args.fold if args.protocol == "fold" else None
    report = write_splits(
        args.out_dir,
        protocol=args.protocol,
        seed=args.seed,
        fold=fold,
        labels=args.labels,
    )
    print("\n".join(report_lines(report)))
