# SPDX-License-Identifier: Apache-2.0
"""Make a semi-real cohort: real nodules (HU and masks) set into real lungs of other patients.

The result has LUNA16's layout. Two cohorts share no patient, neither by lungs nor by nodules, when
the second is made with --exclude-patients FIRST/inserted.csv FIRST/patients.csv.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from lungdet_mmdet.errors import LungDetError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "scans",
        type=Path,
        nargs="+",
        metavar="SCANS",
        help="scan files, or folders of them, with annotations.csv, annotations_excluded.csv, "
        "lesions.csv and patients.csv beside them where there are some",
    )
    parser.add_argument(
        "crops", type=Path, metavar="CROPS", help="folder of nodules: crops.csv, image/, mask/"
    )
    parser.add_argument("out_dir", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    parser.add_argument(
        "--scans-per-lung", type=int, default=1, metavar="N", help="scans made of each lung"
    )
    parser.add_argument(
        "--nodules-per-scan",
        type=float,
        default=6.0,
        metavar="MEAN",
        help="nodules inserted into a scan, on average (default %(default)g)",
    )
    parser.add_argument(
        "--no-variants",
        action="store_true",
        help="leave the lungs as they are; else all but a lung's first scan are mirrored, "
        "smoothed, made noisier or thicker in slices at random",
    )
    parser.add_argument(
        "--patients", type=Path, metavar="CSV", help="seriesuid,patient_id of the scans"
    )
    parser.add_argument(
        "--exclude-patients",
        nargs="+",
        default=[],
        metavar="ID_OR_CSV",
        help="patients whose nodules and lungs are not used: names, or tables with a patient_id",
    )
    parser.add_argument(
        "--nodule-folds",
        metavar="K[,K]/N",
        help="take nodules only of patients in these of N folds, e.g. 0,1,2/4 for training and 3/4 "
        "for testing",
    )
    parser.add_argument(
        "--share-nodules",
        action="store_true",
        help="let one patient's nodules go to lungs of several patients",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="DIR",
        help="folder for the nodule masks (default: OUT with -nodule-masks appended)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (0 = this one)"
    )
    return parser.parse_args()


def folds_of(text: str | None) -> tuple[frozenset[int], int]:
    """Read ``0,1,2/4``; without it, everything."""
    if text is None:
        return frozenset({0}), 1
    found = re.fullmatch(r"(\d+(?:,\d+)*)/(\d+)", text)
    folds = frozenset(int(k) for k in found[1].split(",")) if found else frozenset()
    if not found or max(folds) >= int(found[2]):
        raise LungDetError(f"--nodule-folds is {text!r}: write e.g. 0,1,2/4, counted from 0")
    return folds, int(found[2])


def main() -> int:
    args = parse_args()
    from lungdet_mmdet.runs.workplace import find_workplace
    from lungdet_mmdet.semireal import cohort as semireal
    from lungdet_mmdet.semireal.crops import list_crops
    from lungdet_mmdet.semireal.job import find_lungs
    from lungdet_mmdet.semireal.scan import Candidate

    options = semireal.CohortOptions(
        seed=args.seed,
        scans_per_lung=args.scans_per_lung,
        mean_nodules=args.nodules_per_scan,
        vary=not args.no_variants,
        share_nodules=args.share_nodules,
    )
    folds, n_folds = folds_of(args.nodule_folds)
    place = find_workplace(args.workers)
    excluded = semireal.read_excluded_patients(args.exclude_patients)
    sources = find_lungs(args.scans, patients=args.patients)
    lungs = [lung for lung in sources.lungs if lung.patient_id not in excluded]
    for lung in sources.lungs:
        if lung.patient_id in excluded:
            print(f"left out: {lung.seriesuid} (patient {lung.patient_id} is excluded)")
    crops = list_crops(args.crops)
    files = [
        crop
        for crop in crops
        if crop.patient_id not in excluded and semireal.in_folds(crop.patient_id, folds, n_folds)
    ]
    print(f"nodules: {len(files)} of {len(crops)} are of patients to be used")
    screened = semireal.screen_crops(files)
    lines = [*sources.remarks, *semireal.screening_lines(screened)]
    print("\n".join(lines))
    pool = [
        Candidate(crop.file, crop.measures, crop.slice_mm)
        for crop in screened
        if crop.measures is not None and not crop.faults
    ]
    out_dir = args.out_dir.resolve()
    jobs = semireal.plan_semireal_cohort(
        lungs,
        pool,
        options,
        out_dir=out_dir,
        mask_dir=args.masks or out_dir.with_name(f"{out_dir.name}-nodule-masks"),
    )
    summary = semireal.write_semireal_cohort(
        jobs, place.make_executor, workers=place.workers, screened=screened, remarks=lines
    )
    print("\n".join([f"{out_dir}: semi-real, seed {args.seed}", *semireal.cohort_lines(summary)]))
    return summary.run.exit_code
